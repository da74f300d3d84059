"""Lines that many documents share (menus, licence heads, cookie notices), removed after their first documents.

    documents ─ hashes ─> Counts: in how many documents a line stands ─ repeated ─> a few hashes
    documents ───────────────────────────── Cleaner ──────────────────────────────> documents without those lines

Two passes, so that what is removed does not depend on how the documents are divided among processes: counts of chunks
are merged, and each chunk's cleaner is told what the chunks before it have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from hanlin.data.duplicates.shingles import Hashes
from hanlin.data.tally import EXAMPLES, Document, Tally

SHORTEST = 20  # UTF-8 bytes of a line that is looked at: 20 letters or 7 Chinese characters; `}` and `"Yes."` are safe
PENDING = 1 << 20  # hashes collected before they are sorted into the counts
REPEATED, NOTHING_LEFT = "repeated lines", "only repeated lines"


def hashes(text: str) -> Hashes:
    """Return one hash of each different line of a text, in rising order; white space makes no difference to a line."""
    found = {digest for line in text.split("\n") if (digest := _digest(line)) is not None}
    return np.array(sorted(found), np.uint64)


class Counts:
    """In how many documents each line stands: 12 bytes a different line.

    Too many lines for memory are counted in parts: of `parts` counts over the same documents, each takes the hashes
    of one range, and their `repeated` together are what one count of all would say.
    """

    def __init__(self, part: int = 0, parts: int = 1) -> None:
        """Count the hashes of one of `parts` equal ranges."""
        self._low, self._high = (2**64 * part // parts, 2**64 * (part + 1) // parts - 1)
        self._hashes: Hashes = np.empty(0, np.uint64)
        self._counts: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._pending: list[Hashes] = []
        self._waiting = 0

    def add(self, hashes: Hashes) -> None:
        """Count one document's lines."""
        first, end = np.searchsorted(hashes, np.array([self._low, self._high], np.uint64))
        end += end < len(hashes) and int(hashes[end]) == self._high
        self._pending.append(hashes[first:end])
        self._waiting += int(end - first)
        if self._waiting >= PENDING:
            self._settle()

    def merge(self, other: Counts) -> None:
        """Count the documents that another has counted as well."""
        self._settle()
        other._settle()
        self._put([self._hashes, other._hashes], [self._counts, other._counts])

    def of(self, hashes: Hashes) -> NDArray[np.uint32]:
        """Return in how many documents each line stood."""
        self._settle()
        if not len(self._hashes):
            return np.zeros(len(hashes), np.uint32)
        at = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        return np.where(self._hashes[at] == hashes, self._counts[at], np.uint32(0))

    def repeated(self, documents: int) -> Hashes:
        """Return the lines that stood in more than so many documents, in rising order."""
        self._settle()
        return self._hashes[self._counts > documents]

    def _settle(self) -> None:
        """Sort what is pending into the counts."""
        if self._waiting:
            new = np.concatenate(self._pending)
            self._put([self._hashes, new], [self._counts, np.ones(len(new), np.uint32)])
        self._pending, self._waiting = [], 0

    def _put(self, hashes: list[Hashes], counts: list[NDArray[np.uint32]]) -> None:
        """Replace the counts by the sum of some."""
        joined = np.concatenate(hashes)
        order = joined.argsort(kind="stable")
        joined = joined[order]
        first = np.flatnonzero(np.insert(joined[1:] != joined[:-1], 0, True)) if len(joined) else order
        self._hashes = joined[first]
        self._counts = np.add.reduceat(np.concatenate(counts)[order], first) if len(joined) else np.empty(0, np.uint32)


@dataclass
class Cleaner:
    """Removes repeated lines from documents in reading order, all but their first `keep` documents', and counts them.

    `seen` says in how many documents before these each line stood: empty for the first chunk; for a later one
    `dict(zip(repeated.tolist(), counts_before.of(repeated).tolist()))`.
    """

    repeated: Hashes
    keep: int = 1
    seen: dict[int, int] = field(default_factory=dict)
    lines: int = 0  # removed
    bytes: int = 0  # removed, in UTF-8
    examples: list[str] = field(default_factory=list)  # the first few removed: `source: line`

    def __post_init__(self) -> None:
        """Hold the lines as a set."""
        self._wanted = frozenset(self.repeated.tolist())

    def clean(self, documents: Iterable[Document], tally: Tally) -> Iterator[Document]:
        """Yield the documents without their repeated lines; one of which nothing is left is dropped and counted."""
        for document in documents:
            text = self._without(document)
            if text is document.text:
                yield document
            elif not text or text.isspace():
                tally.remove(NOTHING_LEFT, document)
            else:
                after = replace(document, text=text)
                tally.change(REPEATED, document, after)
                yield after

    def _without(self, document: Document) -> str:
        """Return the text of a document without the lines that enough documents before it have had."""
        if not self._wanted:
            return document.text
        rows = document.text.split("\n")
        digests = [_digest(row) for row in rows]
        here = self._wanted.intersection(digests)
        gone = {digest for digest in here if self.seen.get(digest, 0) >= self.keep}
        for digest in here:
            self.seen[digest] = self.seen.get(digest, 0) + 1
        if not gone:
            return document.text
        for row, digest in zip(rows, digests):
            if digest in gone:
                self._count(row, document.source)
        return "\n".join(row for row, digest in zip(rows, digests) if digest not in gone)

    def _count(self, line: str, source: str) -> None:
        """Count a removed line."""
        self.lines += 1
        self.bytes += len(line.encode()) + 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{source}: {line.strip()[:80]}")


def _digest(line: str) -> int | None:
    """Return the hash of a line, None of one that is too short."""
    plain = " ".join(line.split()).encode(errors="surrogatepass")
    if len(plain) < SHORTEST:
        return None
    return int.from_bytes(blake2b(plain, digest_size=8).digest(), "little")
