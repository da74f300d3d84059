"""The end of each document held out, where a corpus is one long text and no document can be spared.

document  ──────────────────────────────────────────┬─────────
                                      to learn from │ held out      (characters; the cut may fall inside a word)
"""

from __future__ import annotations

import json
from pathlib import Path

from hanlin.data import localdocs
from hanlin.data.tally import Tally


def hold_out(
    corpus: str, folder: Path, *, fraction: float, field: str = "text", limit_bytes: int | None = None
) -> dict[str, Path]:
    """Write `source` and `valid`, corpora of their own, into a folder: the beginnings and the last `fraction` of each.

    Returns their paths. DataError when nothing can be read.
    """
    sides = {name: folder / f"{name}.jsonl" for name in ("source", "valid")}
    with sides["source"].open("w") as learned, sides["valid"].open("w") as held:
        for each in localdocs.corpus(corpus, Tally(), field=field, limit_bytes=limit_bytes):
            place = int(len(each.text) * (1 - fraction))
            learned.write(json.dumps({"text": each.text[:place]}) + "\n")
            held.write(json.dumps({"text": each.text[place:]}) + "\n")
    return sides
