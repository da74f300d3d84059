"""One document, and the account of everything that was looked at: what was kept, changed and left out, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

EXAMPLES = 3  # sources kept for each reason
EXCERPT = 240  # characters of a text that is kept as an example


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text and where it came from; `meta["group"]`, where there is one, is what a split keeps together."""

    text: str
    source: str  # relative to what was read: `sub/a.txt`, `b.jsonl:12`, `c.zip/d.csv:3`
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Change:
    """What one cleaning step did to documents that stayed; negative where text grew."""

    documents: int = 0
    lines: int = 0  # removed
    characters: int = 0  # removed


@dataclass
class Tally:
    """What was read, kept and dropped, and why; read == kept + everything dropped."""

    read: int = 0
    kept: int = 0
    bytes: int = 0  # UTF-8 bytes of what was kept
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> count
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason -> the first few sources
    excerpts: dict[str, list[str]] = field(default_factory=dict)  # reason -> how the texts of the first few begin
    details: dict[str, str] = field(default_factory=dict)  # reason -> what a person needs to know about the first
    notes: dict[str, int] = field(default_factory=dict)  # what a reader decided by itself -> count
    changed: dict[str, Change] = field(default_factory=dict)  # cleaning step -> what it changed, in order

    def keep(self, document: Document) -> Document:
        """Count a document as kept and return it."""
        self.read += 1
        self.kept += 1
        self.bytes += len(document.text.encode())
        return document

    def drop(self, reason: str, source: str, detail: str = "") -> None:
        """Count something that was looked at and not kept."""
        self.read += 1
        self._count(reason, source)
        if detail and detail != reason:
            self.details.setdefault(reason, detail)

    def remove(self, reason: str, document: Document) -> None:
        """Count as dropped what an earlier stage had kept."""
        self.kept -= 1
        self.bytes -= len(document.text.encode())
        self._count(reason, document.source, document.text)

    def take(self, reason: str, sources: Sequence[str], count: int, size_bytes: int, texts: Sequence[str] = ()) -> None:
        """Count documents as dropped that earlier stages had kept; `sources`, `texts` are those of the first few."""
        self.kept -= count
        self.bytes -= size_bytes
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            self.examples[reason] = [*self.examples.get(reason, []), *sources][:EXAMPLES]
            begun = [text[:EXCERPT] for text in texts]
            self.excerpts[reason] = [*self.excerpts.get(reason, []), *begun][:EXAMPLES]

    def change(self, step: str, before: Document, after: Document) -> None:
        """Count what a cleaning step made of a document that stays."""
        change = self.changed.setdefault(step, Change())
        change.documents += 1
        change.lines += before.text.count("\n") - after.text.count("\n")
        change.characters += len(before.text) - len(after.text)
        self.bytes += len(after.text.encode()) - len(before.text.encode())

    def note(self, decision: str) -> None:
        """Count something a reader decided that a person may want to know."""
        self.notes[decision] = self.notes.get(decision, 0) + 1

    def report(self) -> dict[str, Any]:
        """Return the account as plain data, for a manifest; `notes` and `changed` only where there are any."""
        dropped = {
            reason: {"count": count, "examples": list(self.examples[reason])}
            for reason, count in sorted(self.dropped.items())
        }
        plain: dict[str, Any] = {"read": self.read, "kept": self.kept, "bytes": self.bytes, "dropped": dropped}
        if self.notes:
            plain["notes"] = dict(sorted(self.notes.items()))
        if self.changed:
            plain["changed"] = {step: asdict(change) for step, change in self.changed.items()}
        return plain

    def merge(self, other: Tally) -> None:
        """Add what was counted elsewhere, of documents that come after ours."""
        self.read += other.read
        self.kept += other.kept
        self.bytes += other.bytes
        for reason, count in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            self.examples[reason] = (self.examples.get(reason, []) + other.examples.get(reason, []))[:EXAMPLES]
            self.excerpts[reason] = (self.excerpts.get(reason, []) + other.excerpts.get(reason, []))[:EXAMPLES]
        self.details = {**other.details, **self.details}
        for decision, count in other.notes.items():
            self.notes[decision] = self.notes.get(decision, 0) + count
        for step, theirs in other.changed.items():
            ours = self.changed.setdefault(step, Change())
            ours.documents += theirs.documents
            ours.lines += theirs.lines
            ours.characters += theirs.characters

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain data, which `of` turns back."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Return the tally that plain data holds."""
        changed = {step: Change(**change) for step, change in plain["changed"].items()}
        return cls(**{**plain, "changed": changed})

    def _count(self, reason: str, source: str, text: str = "") -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(source)
            if text:
                self.excerpts.setdefault(reason, []).append(text[:EXCERPT])


class Unusable(Exception):  # not an error yet: a tally counts it, or `documents.read` makes a DataError of it
    """A file or row that gives no document: the reason a tally counts, and what a person needs to know."""

    def __init__(self, reason: str, given: str = "", allowed: str = "", do: str = "") -> None:
        """Keep the parts of the one line that a problem is."""
        super().__init__(reason)
        self.reason, self.given, self.allowed, self.do = reason, given or reason, allowed, do


def flaw(text: str) -> str | None:
    """Return why a text cannot be a document, or None when it can."""
    if not text or text.isspace():
        return "empty"
    if "\0" in text:
        return "binary"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a character"  # a lone surrogate, which JSON can spell and UTF-8 cannot
    return None
