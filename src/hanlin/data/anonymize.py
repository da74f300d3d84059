"""Finding personal data in Chinese and English text, and putting something else in its place.

    text ──find(kinds, tag)──> spans ──replace(how)──> text      mask        [EMAIL]
                                                                 Hashed      [EMAIL:3f2a91…]   same value, same mark
                                                                 Vault       person42@example.com, and the way back
    Anonymizer(document) -> document                             the same as one step of cleaning

Kinds are the files of `data/pii/`; names and places are found by a tagger only.
"""

from __future__ import annotations

import hmac
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from typing import Any, Protocol

from hanlin.data.pii.contract import Span as Span
from hanlin.data.pii.contract import View, same_value
from hanlin.data.pii.contract import kinds as known_kinds
from hanlin.data.pii.vault import Vault as Vault
from hanlin.data.pii.vault import written
from hanlin.data.tally import Document, Tally
from hanlin.errors import ConfigError, nearest, problem

COVERED = "personal data"  # the name under which a tally counts it

Tag = Callable[[str], Iterable[tuple[int, int, str]]]  # text -> (start, end, kind), in characters


class How(Protocol):
    """A way to replace: a string for each span, and perhaps more spans."""

    def replacements(self, text: str, spans: Sequence[Span]) -> list[tuple[Span, str]]:
        """Return the spans of `text`, in order, each with what takes its place."""


class Mask:
    """Replace by the kind: `[EMAIL]`."""

    def replacements(self, text: str, spans: Sequence[Span]) -> list[tuple[Span, str]]:
        """Return each span with its kind in brackets."""
        return [(span, f"[{span.kind.upper()}]") for span in spans]


@dataclass(frozen=True)
class Hashed:
    """Replace by kind and 64 bits of HMAC-SHA256: the same value, the same mark; keep `salt` secret."""

    salt: bytes

    def __post_init__(self) -> None:
        """Refuse a salt that could be guessed: a phone number has few possible values."""
        if len(self.salt) < 16:
            given = f"{len(self.salt)} bytes"
            raise ConfigError(
                problem("salt", given, "expected 16 random bytes or more", do="use secrets.token_bytes(32)")
            )

    def replacements(self, text: str, spans: Sequence[Span]) -> list[tuple[Span, str]]:
        """Return each span with its kind and hash in brackets."""
        return [(span, f"[{span.kind.upper()}:{self._digest(span)}]") for span in spans]

    def _digest(self, span: Span) -> str:
        said = f"{span.kind}\0{same_value(span.text)}".encode("utf-8", "surrogatepass")
        return hmac.digest(self.salt, said, "sha256")[:8].hex()


@dataclass
class Counts:
    """How much was found, by kind, for a report."""

    documents: int = 0
    touched: int = 0  # documents in which anything was found
    found: Counter[str] = field(default_factory=Counter)

    def add(self, spans: Sequence[Span]) -> None:
        """Count the spans of one document."""
        self.documents += 1
        self.touched += bool(spans)
        self.found.update(span.kind for span in spans)

    def report(self) -> dict[str, Any]:
        """Return the counts as plain data, for a manifest."""
        return {"documents": self.documents, "touched": self.touched, "found": dict(sorted(self.found.items()))}


@dataclass(frozen=True, kw_only=True)
class Anonymizer:
    """A step of cleaning: the document without personal data; `counts` gathers what was found."""

    how: How = field(default_factory=Mask)
    kinds: Sequence[str] | None = None
    tag: Tag | None = None
    counts: Counts = field(default_factory=Counts)

    def __call__(self, document: Document) -> Document:
        """Return the document with personal data replaced in its text; `meta` and `source` are left as they are."""
        spans = find(document.text, self.kinds, self.tag)
        self.counts.add(spans)
        return covered(document, spans, self.how, None)


def find(text: str, kinds: Sequence[str] | None = None, tag: Tag | None = None) -> tuple[Span, ...]:
    """Return the personal data of a text in order, none overlapping: the longest first, then the most certain.

    `kinds`: all that are known, by default; others may come from `tag`, whose spans lose against longer ones.
    Wrong and missed spans: `python -m benchmarks.corpus.privacy`.

    >>> [span.text for span in find("Write to ann@example.org or call +44 20 7946 0958.")]
    ['ann@example.org', '+44 20 7946 0958']
    """
    recognisers = known_kinds()
    if kinds is not None and tag is None:
        _check(kinds)
    view = View(text)
    spans = [
        Span(start, end, kind, text[start:end])
        for kind, recogniser in recognisers.items()
        if kinds is None or kind in kinds
        for start, end in recogniser.find(view)
    ]
    if tag:
        spans += [
            Span(start, end, kind, text[start:end])
            for start, end, kind in tag(text)
            if (kinds is None or kind in kinds) and 0 <= start < end <= len(text)
        ]
    return _settled(spans)


def replace(text: str, spans: Sequence[Span], how: How) -> str:
    """Return the text with its spans replaced; `spans` as `find` returns them."""
    return written(text, how.replacements(text, spans))


def covered(document: Document, spans: Sequence[Span], how: How, tally: Tally | None) -> Document:
    """Return the document with its spans replaced, and counted as a change.

    A vault is asked even where there are no spans: what only looks like one of its pseudonyms must be told apart.
    """
    text = replace(document.text, spans, how) if spans or isinstance(how, Vault) else document.text
    if text == document.text:
        return document
    after = with_changes(document, text=text)
    if tally:
        tally.change(COVERED, document, after)
    return after


def fingerprint(vault: Vault) -> str:
    """Return what tells a vault from another and says nothing of its salt."""
    return hmac.digest(vault.salt, b"hanlin vault", "sha256").hex()


def restore(text: str, vault: Vault) -> str:
    """Return the text as it was before `replace(text, spans, vault)`, exactly."""
    return vault.restore(text)


def _check(kinds: Sequence[str]) -> None:
    """Refuse kinds that nobody finds without a tagger."""
    known = [kind for kind, recogniser in known_kinds().items() if not recogniser.TAGGED]
    wrong = [
        problem("kinds", f"nothing finds '{kind}'", f"without a tagger: {', '.join(known)}", nearest(kind, known))
        for kind in kinds
        if kind not in known
    ]
    if wrong:
        raise ConfigError(*wrong)


def _settled(spans: list[Span]) -> tuple[Span, ...]:
    """Return those spans that no longer or more certain one overlaps, in order."""
    ranks = known_kinds()

    def order(span: Span) -> tuple[int, int, int, str]:
        rank = ranks[span.kind].RANK if span.kind in ranks else 0
        return span.start - span.end, -rank, span.start, span.kind

    kept: list[Span] = []
    for span in sorted(spans, key=order):
        at = bisect(kept, span)
        if (not at or kept[at - 1].end <= span.start) and (at == len(kept) or span.end <= kept[at].start):
            kept.insert(at, span)
    return tuple(kept)
