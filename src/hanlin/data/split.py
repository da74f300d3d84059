"""Which documents train and which examine: decided by a hash, so that order, additions and restarts change nothing.

hash(seed, group or text)  ∈ [0, 1)     below valid_fraction -> "valid", else "train"
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

from hanlin.data.documents import Document
from hanlin.errors import ConfigError, problem

Split = Literal["train", "valid"]


def split(document: Document, valid_fraction: float, seed: int) -> Split:
    """Return the side a document belongs to; documents with one `meta["group"]`, or the same text, share a side.

    White space at the ends of a text makes no difference, as in `copies.exact`. ConfigError unless
    0 <= valid_fraction < 1.
    """
    if not 0 <= valid_fraction < 1:
        raise ConfigError(problem("valid_fraction", f"{valid_fraction}", "from 0 up to, not including, 1"))
    return "valid" if share(document, seed) < valid_fraction else "train"


def share(document: Document, seed: int) -> float:
    """Return the place in [0, 1) that the hash gives a document."""
    key = document.meta.get("group") or document.text.strip()
    keyed = f"{seed}\n{key}".encode(errors="surrogatepass")  # JSON can put half a character into a group
    digest = blake2b(keyed, digest_size=8, person=b"hanlin split").digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
