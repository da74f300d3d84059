"""Keeping the first of documents that say the same, or nearly the same.

exact: one pass, 16 bytes a document         near: minhash.signature of each, then minhash.clusters of them all
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b

from hanlin.data.tally import Document, Tally

NEAR = "near duplicate"


def exact(documents: Iterable[Document], tally: Tally) -> Iterator[Document]:
    """Yield each text once, the first time it comes; white space at its ends makes no difference.

    A 16-byte digest is kept of each text, never the text: with Python's set around it, some 100 bytes of memory a
    document. That any two of a billion different texts share one has a probability of about 1e-21.
    """
    seen: set[bytes] = set()
    for document in documents:
        key = digest(document.text)
        if key in seen:
            tally.remove("duplicate", document)
        else:
            seen.add(key)
            yield document


def digest(text: str) -> bytes:
    """Return the 16 bytes that stand for a text."""
    return blake2b(text.strip().encode(), digest_size=16).digest()


def near(documents: Iterable[Document], tally: Tally, threshold: float = 0.8) -> Iterator[Document]:
    """Yield the first of each cluster of near duplicates, in order; what is dropped is counted with what was kept.

    All documents are held in memory. For more than fits, call `minhash.signatures` on chunks, anywhere, and
    `minhash.clusters` on their rows in order; then hand each document with its row to `first`.
    """
    from hanlin.data.duplicates import minhash

    held = list(documents)
    rows = minhash.clusters(minhash.signatures(document.text for document in held), threshold).tolist()
    for number, document in enumerate(held):
        if first(document, number, rows[number], held[rows[number]].source, tally):
            yield document


def first(document: Document, number: int, row: int, source: str, tally: Tally) -> bool:
    """Return whether a document is the first of its cluster; if not, count it as a copy of `source`, which is."""
    if row == number:
        return True
    tally.remove(NEAR, replace(document, source=f"{document.source} of {source}"))
    return False
