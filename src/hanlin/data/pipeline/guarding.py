"""What is looked for in each document after cleaning: rows of evaluation files, and personal data.

document ─ Leaks.without ─> document, without the passages if so asked, or None    listed: which rows, how much
         ─ Personal.covered ─> document with marks, or as it is and where pseudonyms will stand
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hanlin.data import anonymize, decontaminate
from hanlin.data.duplicates import examined
from hanlin.data.pipeline.stage import Work
from hanlin.data.tally import Document, Tally
from hanlin.errors import ConfigError, DataError, problem

PSEUDONYMS = "pseudonyms"
SHARE = 0.5  # of an evaluation text that a document must hold to count as containing it

Found = tuple[tuple[int, int, str], ...]


class Leaks:
    """Finds rows of evaluation files in documents; false where there are no such files."""

    def __init__(self, work: Work) -> None:
        """Read the files, once a process."""
        self.index = index(work.against) if work.against else None
        self.remove = work.against_remove
        self.found: list[dict[str, Any]] = []

    def __bool__(self) -> bool:
        """Return whether anything is looked for."""
        return self.index is not None

    def without(self, document: Document, tally: Tally) -> Document | None:
        """Return the document, or what removing leaves of it; what it holds is added to `found`."""
        overlap = self.index.found(document, SHARE) if self.index else None
        if not overlap:
            return document
        characters = sum(end - begin for begin, end in overlap.spans)
        rows = [[source, round(share, 4)] for source, share in overlap.rows]
        self.found.append({"document": document.source, "characters": characters, "rows": rows})
        return decontaminate.without(document, overlap, tally, cut=True) if self.remove else document


class Personal:
    """Finds personal data in documents and replaces it, or says where it stands; counts what was found."""

    def __init__(self, work: Work) -> None:
        """Store how."""
        self.how = work.anonymize
        self.replacing = _how(work)
        self.counts = anonymize.Counts()
        self.values: list[tuple[str, str]] = []  # (kind, value) that need a pseudonym, each once, in order
        self._seen: set[tuple[str, str]] = set()

    def covered(self, document: Document, tally: Tally) -> tuple[Document, Found]:
        """Return the document without its personal data, or itself and where pseudonyms will stand."""
        if not self.how:
            return document, ()
        spans = anonymize.find(document.text)
        self.counts.add(spans)
        if self.replacing is None:
            for span in spans:
                if (span.kind, span.text) not in self._seen:
                    self._seen.add((span.kind, span.text))
                    self.values.append((span.kind, span.text))
            return document, tuple((span.start, span.end, span.kind) for span in spans)
        return anonymize.covered(document, spans, self.replacing, tally), ()

    def hide(self, tally: Tally) -> None:
        """Mask personal data in the examples of what was dropped before it came here."""
        if self.how:
            hidden = anonymize.Mask()
            for texts in tally.excerpts.values():
                texts[:] = [anonymize.replace(text, anonymize.find(text), hidden) for text in texts]


def index(paths: Sequence[str]) -> decontaminate.Index:
    """Return the index of evaluation files; made once a process."""
    return _index(tuple((path, Path(path).stat().st_mtime_ns) for path in paths))


@cache
def _index(files: tuple[tuple[str, int], ...]) -> decontaminate.Index:
    """Read every row of the files."""
    return decontaminate.Index(row for path, _ in files for row in examined.read(path))


def check(work: Work) -> dict[str, str]:
    """Return the hashes of the files that a work needs; one line for each thing that is wrong, before anything is read.

    ConfigError for a salt that does not go with what is asked; DataError for a file that cannot be read; MissingExtra
    where what finds personal data is not installed.
    """
    if work.anonymize == "hash" and work.salt is None:
        do = "make one: head -c 32 /dev/urandom > salt; keep it secret, and use it again for the same marks"
        raise ConfigError(problem("anonymize", "hash without a salt", "expected --salt-file FILE", do=do))
    if work.salt is not None and work.anonymize in ("", "mask"):
        raise ConfigError(problem("salt_file", "a salt that nothing uses", "with --anonymize hash or pseudonyms"))
    if work.against_remove and not work.against:
        raise ConfigError(problem("against_remove", "nothing to compare with", do="name evaluation files: --against"))
    _how(work)
    if work.anonymize:
        anonymize.find("")
    known = {path: _sha256(path) for path in (*work.against, *([work.salt] if work.salt else ()))}
    if work.against and not sum(1 for path in work.against for _ in examined.read(path)):
        raise DataError(problem(", ".join(work.against), "no row to compare with"))
    return known


def salt(path: str) -> bytes:
    """Return the bytes of a salt's file; DataError when it cannot be read, ConfigError when it is too short."""
    try:
        found = Path(path).read_bytes()
    except OSError as error:
        raise DataError(problem(path, f"not readable: {error.strerror}")) from None
    return anonymize.Hashed(found).salt


def _how(work: Work) -> anonymize.How | None:
    """Return what replaces personal data here; None where nothing does, or the vault will."""
    if work.anonymize == "mask":
        return anonymize.Mask()
    return anonymize.Hashed(salt(work.salt)) if work.anonymize == "hash" and work.salt else None


def _sha256(path: str) -> str:
    """Return the hash of a file; DataError when it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(problem(path, f"not readable: {error.strerror}")) from None
