"""Repeated lines: counted by document, removed after the first, the same however documents are divided."""

from __future__ import annotations

import numpy as np
import pytest

from hanlin.data.duplicates.lines import Cleaner, Counts, hashes
from hanlin.data.tally import Document, Tally

MENU = "Home | News | Sport | Weather"
LEGAL = "版权所有，未经许可不得转载。"


def _pages(count: int) -> list[Document]:
    """Return pages that share a menu, every third a notice."""
    texts = [f"{MENU}\nPage {at} says what no other page says.\n}}\n" for at in range(count)]
    return [
        Document(text=text + (f"  {LEGAL}\t\n" if at % 3 == 0 else ""), source=f"{at}.txt")
        for at, text in enumerate(texts)
    ]


def _counts(documents: list[Document], part: int = 0, parts: int = 1) -> Counts:
    """Return the counts of documents."""
    counts = Counts(part, parts)
    for document in documents:
        counts.add(hashes(document.text))
    return counts


def _read(documents: list[Document], tally: Tally) -> list[Document]:
    return [tally.keep(document) for document in documents]


def test_repeated_lines_go_after_their_first_documents() -> None:
    """Guards against lines removed everywhere or nowhere, short lines removed, and a tally that is not told."""
    pages = _pages(9)
    cleaner, tally = Cleaner(_counts(pages).repeated(2), keep=2), Tally()
    clean = list(cleaner.clean(_read(pages, tally), tally))
    assert [MENU in page.text for page in clean] == [True] * 2 + [False] * 7
    assert [LEGAL in page.text for page in clean] == [True, False, False, True] + [False] * 5
    assert all(f"Page {at} says" in page.text and "}" in page.text for at, page in enumerate(clean))
    assert cleaner.lines == 7 + 1
    assert cleaner.examples[:2] == [f"2.txt: {MENU}", f"3.txt: {MENU}"]
    assert tally.bytes == sum(len(page.text.encode()) for page in clean)


def test_only_lines_of_more_than_so_many_documents_are_repeated() -> None:
    """Guards against an off-by-one, and against a line counted twice in one document."""
    pages = [Document(text=f"{MENU}\n{MENU}\n{MENU}", source=f"{at}") for at in range(3)]
    counts = _counts(pages)
    assert counts.of(hashes(MENU)).tolist() == [3]
    assert len(counts.repeated(3)) == 0
    assert counts.repeated(2).tolist() == hashes(MENU).tolist()
    assert counts.of(hashes("a line that nobody has ever seen")).tolist() == [0]


def test_a_refrain_in_one_document_stays() -> None:
    """Guards against verses taken for boiler-plate inside the document that may keep them."""
    song = Document(text=f"{MENU}\na verse\n{MENU}", source="song")
    cleaner = Cleaner(hashes(MENU), keep=1)
    tally = Tally()
    assert [page.text for page in cleaner.clean(_read([song, song], tally), tally)] == [song.text, "a verse"]


def test_a_document_of_repeated_lines_alone_is_dropped() -> None:
    """Guards against empty documents, and against one that vanishes without a count."""
    pages = [Document(text=f"{MENU}\n\n  {LEGAL}\n", source=f"{at}") for at in range(4)]
    cleaner, tally = Cleaner(_counts(pages).repeated(3)), Tally()
    assert [page.source for page in cleaner.clean(_read(pages, tally), tally)] == ["0"]
    assert (tally.kept, tally.dropped) == (1, {"only repeated lines": 3})


@pytest.mark.parametrize("size", [1, 4, 7])
def test_chunks_make_no_difference(size: int) -> None:
    """Guards against what is removed depending on how documents are divided among processes."""
    pages = _pages(20)
    whole = _counts(pages)
    repeated = whole.repeated(3)
    tally = Tally()
    wanted = list(Cleaner(repeated, keep=5).clean(_read(pages, tally), tally))
    before, found = Counts(), []
    for at in range(0, len(pages), size):
        chunk = pages[at : at + size]
        seen = dict(zip(repeated.tolist(), before.of(repeated).tolist()))
        tally = Tally()
        found += Cleaner(repeated, keep=5, seen=seen).clean(_read(chunk, tally), tally)
        before.merge(_counts(chunk))
    assert found == wanted
    assert before.repeated(3).tolist() == repeated.tolist()


def test_parts_together_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a line lost between two ranges of hashes, and against counts lost when they are settled."""
    draw = np.random.Generator(np.random.PCG64(0))
    documents = [np.unique(draw.integers(0, 300, 40).astype(np.uint64) * np.uint64(2**64 // 299)) for _ in range(50)]
    monkeypatch.setattr("hanlin.data.duplicates.lines.PENDING", 100)
    whole = Counts()
    parts = [Counts(part, 3) for part in range(3)]
    for document in documents:
        for counts in (whole, *parts):
            counts.add(document)
    found, times = np.unique(np.concatenate(documents), return_counts=True)
    assert whole.of(found).tolist() == times.tolist()
    joined = np.concatenate([counts.repeated(5) for counts in parts])
    assert joined.tolist() == whole.repeated(5).tolist() == found[times > 5].tolist()
