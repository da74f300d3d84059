"""Exact duplicates."""

from hanlin.data import dedup
from hanlin.data.documents import Document, Tally


def test_the_first_of_each_is_kept() -> None:
    """Guards against keeping a copy, dropping what only looks alike, and a tally that still counts the copy."""
    tally = Tally()
    texts = ["one", "two", " one\n", "One", "two", "二"]
    read = (tally.keep(Document(text=text, source=str(index))) for index, text in enumerate(texts))
    kept = list(dedup.exact(read, tally))
    assert [document.source for document in kept] == ["0", "1", "3", "5"]
    assert (tally.read, tally.kept, tally.dropped) == (6, 4, {"duplicate": 2})
    assert tally.bytes == sum(len(document.text.encode()) for document in kept)
    assert tally.examples["duplicate"] == ["2", "4"]
