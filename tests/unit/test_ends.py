"""The end of each document is held out, and nothing is lost or stands on both sides."""

from __future__ import annotations

import json

from hanlin.data import ends


def test_beginnings_and_ends_make_the_documents(tmp_path):
    """A cut that drops or repeats a character, or holds the beginning out."""
    texts = ["To be, or not to be", "床前明月光，疑是地上霜。", "x" * 101]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    sides = ends.hold_out(str(path), tmp_path, fraction=0.1, field="body")
    learned, held = (
        [json.loads(line)["text"] for line in sides[name].read_text().splitlines()] for name in ("source", "valid")
    )
    assert [a + b for a, b in zip(learned, held)] == texts
    assert [len(a) for a in learned] == [int(0.9 * len(text)) for text in texts]
