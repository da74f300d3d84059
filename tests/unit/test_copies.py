"""Exact duplicates."""

from hanlin.data.documents import Document, Tally
from hanlin.data.duplicates import copies


def test_the_first_of_each_is_kept() -> None:
    """Guards against keeping a copy, dropping what only looks alike, and a tally that still counts the copy."""
    tally = Tally()
    texts = ["one", "two", " one\n", "One", "two", "二"]
    read = (tally.keep(Document(text=text, source=str(index))) for index, text in enumerate(texts))
    kept = list(copies.exact(read, tally))
    assert [document.source for document in kept] == ["0", "1", "3", "5"]
    assert (tally.read, tally.kept, tally.dropped) == (6, 4, {"duplicate": 2})
    assert tally.bytes == sum(len(document.text.encode()) for document in kept)
    assert tally.examples["duplicate"] == ["2", "4"]


def test_near_duplicates_are_dropped_with_what_was_kept() -> None:
    """Guards against the last being kept in place of the first, and a copy nobody can trace."""
    words = [f"word{number * 7919 % 1000}" for number in range(200)]
    texts = [" ".join(words), "another text altogether, with nothing in common", " ".join(words[3:]).upper(), "", "!"]
    tally = Tally()
    read = (tally.keep(Document(text=text, source=f"{at}.txt")) for at, text in enumerate(texts))
    assert [document.source for document in copies.near(read, tally)] == ["0.txt", "1.txt", "3.txt", "4.txt"]
    assert tally.dropped == {"near duplicate": 1}
    assert tally.examples["near duplicate"] == ["2.txt of 0.txt"]
    assert (tally.read, tally.kept) == (5, 4)
    assert tally.bytes == sum(len(texts[at].encode()) for at in (0, 1, 3, 4))
