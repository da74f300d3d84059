"""From a document to the shards that hold it and the models that saw it, and back from a token to its document.

a.jsonl:12, its text, or its hash ─ find ─> Place(shard, tokens 8,120 to 8,391, repeat 0) …
position in the tokens            ─ at   ─> Place
hash of the shards ─ learned ─> every folder below a path whose hanlin.json names it
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hanlin.data import manifest, shards
from hanlin.data.duplicates import copies
from hanlin.data.shards import Origin, Shards

CARD = "hanlin.json"


class Place(NamedTuple):
    """Where one showing of a document stands."""

    split: str
    shard: str  # a file
    document: int  # its number in the split
    start: int  # tokens of the split before it
    stop: int
    origin: Origin


def find(folder: Path, wanted: str) -> Iterator[Place]:
    """Yield the places of a document: a source (`a.jsonl:12`), all rows of a file (`a.jsonl`), or a text's hash."""
    for split in manifest.read(folder).splits:
        data = shards.open(folder, split, verify=False)
        for number, origin in enumerate(data.origins()):
            if wanted in (origin.source, origin.digest) or origin.source.rpartition(":")[0] == wanted:
                yield _place(data, number, origin)


def digest(text: str) -> str:
    """Return the hash of a text as it is read: line ends are LF, and white space at its ends makes no difference."""
    return copies.digest(text.removeprefix("\ufeff").replace("\r\n", "\n")).hex()


def at(data: Shards, position: int) -> Place:
    """Return the document that a token of a split belongs to; IndexError past the last."""
    position = range(data.total)[position]
    number = int(data.spans(np.array(position)))
    return _place(data, number, data.origins()[number])


def learned(root: Path, data: str) -> list[Path]:
    """Return the model folders at or below a path that were trained on the shards of a hash, sorted."""
    found = []
    for card in sorted(root.rglob(CARD)):
        try:
            named = json.loads(card.read_text(encoding="utf-8"))["lineage"]["data"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # not a card of ours: it names nothing
        if named == data:
            found.append(card.parent)
    return found


def _place(data: Shards, number: int, origin: Origin) -> Place:
    """Return where a document stands."""
    ends = np.cumsum([shard.documents for shard in data.manifest.splits[data.split].shards])
    shard = data.manifest.splits[data.split].shards[int(np.searchsorted(ends, number, side="right"))]
    start, stop = data.starts[number : number + 2].tolist()
    return Place(data.split, shard.file, number, start, stop, origin)
