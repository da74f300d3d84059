"""How well a language model foresees text: perplexity by token, and bits per byte, which no tokenizer can flatter.

    perplexity = exp(nats / tokens)          bits per byte = nats / ln 2 / UTF-8 bytes of the original text

Both take one number a document, so their intervals come from redrawing documents.
"""

from __future__ import annotations

import numpy as np

from hanlin.errors import DataError, problem
from hanlin.metrics.contract import Counts, Estimate, Numbers, bootstrap, together


def perplexity(nats: Numbers, tokens: Counts, groups: Counts | None = None) -> Estimate:
    """Return exp of the mean nats a token, from each document's summed nats and number of scored tokens.

    Documents with the same number in `groups` (chapters of one book) are redrawn together.

    >>> round(perplexity(np.log([8.0, 2.0]), np.array([1, 1])).value, 6)
    4.0
    """
    return bootstrap(_pairs(nats, tokens, groups, "tokens"), _exp_of_mean, unit="per token")


def bits_per_byte(nats: Numbers, sizes: Counts, groups: Counts | None = None) -> Estimate:
    """Return bits a byte of text, from each document's summed nats and the UTF-8 size of its original text.

    >>> round(bits_per_byte(np.log([256.0, 256.0]), np.array([1, 1])).value, 6)
    8.0
    """
    return bootstrap(_pairs(nats, sizes, groups, "bytes"), _bits, unit="bits per byte")


def _exp_of_mean(sums: Numbers) -> Numbers:
    return np.exp(sums[..., 0] / sums[..., 1])


def _bits(sums: Numbers) -> Numbers:
    return sums[..., 0] / np.log(2) / sums[..., 1]


def _pairs(nats: Numbers, counts: Counts, groups: Counts | None, unit: str) -> Numbers:
    """Return (n, 2) statistics, one row a group, without those that have nothing to say (0 nats of 0)."""
    assert len(nats) == len(counts), "one number a document"
    pairs = np.stack([np.asarray(nats, dtype=np.float64), np.asarray(counts, dtype=np.float64)], 1)
    pairs = together(pairs, groups)
    pairs = pairs[pairs.any(1)]
    if not pairs[:, 1].all():
        empty = int((pairs[:, 1] == 0).sum())
        raise DataError(problem("score", f"{empty:,} documents cost nats but hold no {unit}", do="leave them out"))
    return pairs
