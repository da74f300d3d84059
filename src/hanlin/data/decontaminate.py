"""Which rows of an evaluation file stand in the training text, and taking them out.

    evaluation rows ─> each n words in a row, hashed ─> Index
                                                          │ found
    training document ─> each n words in a row, hashed ───┴─────> Overlap: which rows, how much of each, where

13 words, as for GPT-3 (arXiv:2005.14165, appendix C), or 18 signs where most of a text is Chinese, Japanese or Korean:
13 English words become 17 Chinese characters (1.33 a word over the 29,514 pairs of Tatoeba). Case, width, accents,
punctuation, white space and line breaks do not count. A shorter text is looked for whole, down to 8 words or 11 signs
(GPT-3's least is 8); one shorter still only as a whole document, for "Thank you very much" in a novel is no leak.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hanlin.data.duplicates.examined import Row
from hanlin.data.duplicates.shingles import Hashes, dense, folded, places, rolled, words
from hanlin.data.tally import Document, Tally

WORDS, SIGNS = 13, 18
FEWEST_WORDS, FEWEST_SIGNS = 8, 11  # a head has FEWEST_WORDS words or signs
PIECE, SHARED = 1 << 20, 1 << 12  # characters of a document looked at together; how many two pieces have in common
MANY = 20  # texts with the same n words in a row: those belong to the frame of the evaluation set, not to a row
LEFT = 200  # characters: when a cut leaves fewer, the document is dropped, as for GPT-3
CONTAMINATED = "in an evaluation file"

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a training document has in common with evaluation rows; false when that is nothing."""

    source: str  # of the training document
    rows: tuple[tuple[str, float], ...]  # (source of a row, share of the n in a row of its text), most shared first
    spans: tuple[tuple[int, int], ...]  # where in the document, in characters; apart, in order

    def __bool__(self) -> bool:
        """Return whether any row was found."""
        return bool(self.rows)


class _Size(NamedTuple):
    """How many words in a row are looked at; `whole`: only where they are the whole document."""

    n: int
    whole: bool

    @property
    def short(self) -> bool:
        """Return whether it is that of texts too short for WORDS or SIGNS, which stand anywhere."""
        return not self.whole and self.n not in (WORDS, SIGNS)


class _Hit(NamedTuple):
    """What one piece of a document holds of one size: hashes that the index knows, and where each begins and ends."""

    size: _Size
    hashes: Hashes
    begins: Ints
    ends: Ints


class _Text(NamedTuple):
    """One text of a row: its hashes, each once, and that of its first FEWEST_WORDS words."""

    size: _Size
    hashes: Hashes
    head: Hashes


class _Grams:
    """Hashes of one size, in order, each with the text it comes from; without those of more than MANY texts."""

    def __init__(self, hashes: Sequence[Hashes], texts: Sequence[int]) -> None:
        joined = np.concatenate(hashes)
        order = joined.argsort(kind="stable")
        self.hashes = joined[order]
        self.texts = np.array(texts, np.int64).repeat([len(each) for each in hashes])[order]
        told = self._count(self.hashes) <= MANY
        self.hashes, self.texts = self.hashes[told], self.texts[told]
        bits = min(28, max(12, 4 + len(joined).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, np.bool_)  # spares most hashes of a document the search
        self._maybe[(self.hashes >> self._shift).astype(np.intp)] = True

    def places(self, hashes: Hashes) -> Ints:
        """Return where in `hashes` a known one stands."""
        maybe = np.flatnonzero(self._maybe[(hashes >> self._shift).astype(np.intp)])
        return maybe[self._count(hashes[maybe]) > 0]

    def holders(self, hashes: Hashes) -> tuple[Ints, Ints]:
        """Return every text that holds a hash, and which of `hashes` that is."""
        count = self._count(hashes)
        which = np.arange(len(hashes)).repeat(count)
        within = np.arange(len(which)) - (count.cumsum() - count).repeat(count)
        return self.texts[np.searchsorted(self.hashes, hashes).repeat(count) + within], which

    def _count(self, hashes: Hashes) -> Ints:
        """Return how many texts hold each hash."""
        return np.searchsorted(self.hashes, hashes, side="right") - np.searchsorted(self.hashes, hashes)


class Index:
    """The evaluation rows, ready to be found in documents: some 16 bytes a word, and a table as large."""

    unseen: tuple[str, ...]  # sources of rows of which nothing can be looked for

    def __init__(self, rows: Iterable[Row]) -> None:
        """Hash every text of every row; of a row with short texts alone (a label, an id) the longest."""
        sources, owners, texts = list[str](), list[int](), list[_Text]()
        for row in rows:
            found = _texts(row)
            texts += found
            owners += [len(sources)] * len(found)
            sources.append(row.source)
        self._sources, self._owners = sources, np.array(owners, np.int64)
        self._grams = {size: _of(texts, size) for size in sorted({text.size for text in texts})}
        self._totals = np.zeros(len(texts), np.int64)
        for grams in self._grams.values():
            self._totals += np.bincount(grams.texts, minlength=len(texts))
        short = [text.head for text in texts if text.size.short]
        self._heads = _Grams(short, range(len(short))) if short else None
        seen = set(self._owners[self._totals > 0].tolist())
        self.unseen = tuple(source for number, source in enumerate(sources) if number not in seen)

    def found(self, document: Document, share: float = 0.0) -> Overlap:
        """Return the rows of which a document holds something, `share` of a text at least, and where."""
        hits = list(self._hits(document.text))
        if not hits:
            return Overlap(source=document.source, rows=(), spans=())
        counts = np.zeros(len(self._totals), np.int64)
        for size in {hit.size for hit in hits}:
            known = np.unique(np.concatenate([hit.hashes for hit in hits if hit.size == size]))
            np.add.at(counts, self._grams[size].holders(known)[0], 1)
        shares = counts / np.maximum(self._totals, 1)
        guilty = (counts > 0) & (shares >= share)
        rows: dict[int, float] = {}
        for text in np.flatnonzero(guilty).tolist():
            row = int(self._owners[text])
            rows[row] = max(rows.get(row, 0.0), float(shares[text]))
        most = sorted(rows.items(), key=lambda each: (-each[1], each[0]))
        named = tuple((self._sources[row], value) for row, value in most)
        return Overlap(source=document.source, rows=named, spans=self._spans(hits, guilty))

    def _hits(self, text: str) -> Iterator[_Hit]:
        """Yield what each piece of a text holds of each size."""
        for start in range(0, max(1, len(text) - SHARED), PIECE - SHARED):
            piece = text[start : start + PIECE]
            hashes, begins, ends = words(folded(piece))
            for size in self._sizes(hashes, whole=len(piece) == len(text)):
                windows = rolled(hashes, size.n)
                at = self._grams[size].places(windows)
                if len(at):
                    stands = places(piece) + start
                    yield _Hit(size, windows[at], stands[begins[at]], stands[ends[at + size.n - 1] - 1] + 1)

    def _sizes(self, hashes: Hashes, *, whole: bool) -> Iterator[_Size]:
        """Yield the sizes worth a look; those of short texts only where the beginning of one stands."""
        short = self._heads is not None and len(self._heads.places(rolled(hashes, FEWEST_WORDS))) > 0
        for size in self._grams:
            if (whole and len(hashes) == size.n) if size.whole else (short or not size.short):
                yield size

    def _spans(self, hits: Sequence[_Hit], guilty: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
        """Return where guilty texts stand, what overlaps or touches made one."""
        found: list[tuple[int, int]] = []
        for hit in hits:
            texts, which = self._grams[hit.size].holders(hit.hashes)
            mine = np.unique(which[guilty[texts]])
            found += zip(hit.begins[mine].tolist(), hit.ends[mine].tolist())
        spans: list[tuple[int, int]] = []
        for begin, end in sorted(found):
            if spans and begin <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((begin, end))
        return tuple(spans)


def remove(
    documents: Iterable[Document], index: Index, tally: Tally, *, share: float = 0.5, cut: bool = False
) -> Iterator[Document]:
    """Yield the documents that hold less than `share` of every evaluation text; the others are dropped and counted.

    With `cut`, only the passages go, and a document of which LEFT characters stay is kept.
    """
    for document in documents:
        left = without(document, index.found(document, share), tally, cut=cut)
        if left is not None:
            yield left


def without(document: Document, overlap: Overlap, tally: Tally, *, cut: bool) -> Document | None:
    """Return what stays of one document, counted: itself, itself without some passages, or None."""
    if not overlap:
        return document
    rest = _without(document.text, overlap.spans) if cut else ""
    if len(rest) < LEFT:
        tally.remove(CONTAMINATED, replace(document, source=f"{document.source} of {overlap.rows[0][0]}"))
        return None
    after = replace(document, text=rest)
    tally.change(CONTAMINATED, document, after)
    return after


def _texts(row: Row) -> list[_Text]:
    """Return the texts of a row that are long enough to be looked for, or the longest when none is."""
    found: list[_Text] = []
    for text in row.texts:
        codes = folded(text)
        hashes, begins, _ = words(codes)
        if len(hashes):
            signs = 2 * np.count_nonzero(dense(codes[begins])) > len(hashes)
            n = min(len(hashes), SIGNS if signs else WORDS)
            size = _Size(n, n < (FEWEST_SIGNS if signs else FEWEST_WORDS))
            windows = rolled(hashes, n)
            head = rolled(hashes[:FEWEST_WORDS], FEWEST_WORDS)
            found.append(_Text(size, np.unique(windows if size.whole else windows[_telling(hashes, n)]), head))
    long = [text for text in found if not text.size.whole]
    return long or sorted(found, key=lambda text: -text.size.n)[:1]


def _telling(hashes: Hashes, n: int) -> NDArray[np.bool_]:
    """Return which n words in a row say something: a third of them at least differ, unlike in `no no no` or tags."""
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(hashes, n), axis=1)
    return 3 * (1 + np.count_nonzero(np.diff(windows, axis=1), axis=1)) > n


def _of(texts: Sequence[_Text], size: _Size) -> _Grams:
    """Return the hashes of the texts of one size."""
    numbers = [number for number, text in enumerate(texts) if text.size == size]
    return _Grams([texts[number].hashes for number in numbers], numbers)


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return a text without some passages, a blank line in the place of each."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    pieces = (text[begin:end].strip() for begin, end in zip(edges[::2], edges[1::2]))
    return "\n\n".join(piece for piece in pieces if any(map(str.isalnum, piece)))
