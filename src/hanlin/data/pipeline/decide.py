"""What is kept of a corpus and which split it goes to: decided once, over the facts of all parts in their order.

    facts ─ exact duplicates ─ near duplicates ─ split ─ repeated lines ─┬─> decision-00007.safetensors  for each part
            a text's first     a cluster's first  by share                └─> a Tally of what was dropped and why

The texts themselves are not read, but for the names in a few examples. Memory: some 40 bytes a document, 60 more for
near duplicates, whose signatures stay on the disk, and 12 for each different line where lines are counted.

Letters: n documents of all parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from hanlin import files
from hanlin.data.duplicates import lines, minhash
from hanlin.data.duplicates.copies import NEAR
from hanlin.data.duplicates.stored import Stored
from hanlin.data.pipeline import stage
from hanlin.data.pipeline.parts import Part
from hanlin.data.pipeline.stage import DROPPED, TRAIN, VALID
from hanlin.data.tally import EXAMPLES, Document, Tally

Numbers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How to decide."""

    valid_fraction: float
    near: float | None  # likeness from which documents count as the same; None: only equal ones do
    lines: int | None  # documents that a line may stand in before it counts as repeated; None: any number


def decide(folder: str, parts: Sequence[Part], rules: Rules, tally: Tally) -> list[Path]:
    """Write what to keep of each part and return the files, in order; what is dropped is counted in `tally`."""
    corpus = Corpus(folder, parts)
    split = np.where(corpus.shares < rules.valid_fraction, VALID, TRAIN)
    split[corpus.held] = VALID
    first = _first_of_equals(corpus.digests)
    corpus.drop(split, np.arange(len(first)) != first, first, "duplicate", tally)
    if rules.near is not None:
        kept = np.flatnonzero(split != DROPPED)
        found = np.arange(len(split))
        with files.scratch(Path(folder)) as file:
            signatures = Stored(file, minhash.SIZE, corpus.signatures(kept))
            found[kept] = kept[minhash.clusters(signatures, rules.near)]
        corpus.drop(split, found != np.arange(len(found)), found, NEAR, tally)
    return list(_write(corpus, split, rules))


class Corpus:
    """The facts of all parts, put together where they are small."""

    def __init__(self, folder: str, parts: Sequence[Part]) -> None:
        """Read what is small."""
        self.folder, self.parts = folder, parts
        sizes = [stage.facts(folder, part.number, "sizes") for part in parts]
        self.counts = [len(each) for each in sizes]
        self.starts = np.cumsum([0, *self.counts])
        self.sizes: Numbers = np.concatenate(sizes)
        self.digests = np.concatenate([stage.facts(folder, part.number, "digests") for part in parts])
        self.shares = np.concatenate([stage.facts(folder, part.number, "shares") for part in parts])
        self.held = np.repeat([part.role == "valid" for part in parts], self.counts)

    def signatures(self, rows: Numbers) -> Iterator[NDArray[np.uint16]]:
        """Yield the signatures of some documents, a part at a time."""
        for part, start, stop in zip(self.parts, self.starts, self.starts[1:]):
            wanted = rows[(rows >= start) & (rows < stop)] - start
            yield stage.facts(self.folder, part.number, "signatures")[wanted]

    def drop(self, split: Numbers, gone: NDArray[np.bool_], twins: Numbers, reason: str, tally: Tally) -> None:
        """Mark documents as dropped, in place, and count them, the first few by name."""
        rows = np.flatnonzero(gone & (split != DROPPED))
        split[rows] = DROPPED
        told = [(self.document(int(row)), self.document(int(twins[row]))) for row in rows[:EXAMPLES]]
        sources = [f"{each.source} of {twin.source}" for each, twin in told]
        texts = [each.text for each, _ in told]
        tally.take(reason, sources, len(rows), int(self.sizes[rows].sum()), texts)

    def document(self, row: int) -> Document:
        """Return a document."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        place = row - int(self.starts[number])
        found = stage.texts(self.folder, self.parts[number].number)
        return next(islice(found, place, None))


def _first_of_equals(digests: NDArray[np.uint64]) -> Numbers:
    """Return for each document the first with the same digest."""
    if not len(digests):
        return np.empty(0, np.int64)
    _, first, which = np.unique(digests.view("V16")[:, 0], return_index=True, return_inverse=True)
    found: Numbers = first[which]
    return found


def _write(corpus: Corpus, split: Numbers, rules: Rules) -> Iterator[Path]:
    """Write each part's decision: its documents' splits, the repeated lines, and how often they stood before it."""
    repeated = np.empty(0, np.uint64)
    if rules.lines is not None:
        counts = lines.Counts()
        for number in range(len(corpus.parts)):
            for each in _kept_lines(corpus, split, number):
                counts.add(each)
        repeated = counts.repeated(rules.lines)
    seen = np.zeros(len(repeated), np.int64)
    for number, part in enumerate(corpus.parts):
        path = Path(corpus.folder) / f"decision-{part.number:05d}.safetensors"
        start, stop = corpus.starts[number : number + 2]
        files.write(path, save({"split": split[start:stop].copy(), "repeated": repeated, "seen": seen.copy()}))
        yield path
        if len(repeated):
            for each in _kept_lines(corpus, split, number):
                at = np.searchsorted(repeated, each).clip(max=len(repeated) - 1)
                seen[at[repeated[at] == each]] += 1


def _kept_lines(corpus: Corpus, split: Numbers, number: int) -> Iterator[NDArray[np.uint64]]:
    """Yield the hashes of the lines of each document of a part that is kept."""
    hashes, ends = (stage.facts(corpus.folder, corpus.parts[number].number, name) for name in ("lines", "ends"))
    start = corpus.starts[number]
    begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    for place in np.flatnonzero(split[start : start + corpus.counts[number]] != DROPPED):
        yield hashes[begins[place] : ends[place]]
