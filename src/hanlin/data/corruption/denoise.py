"""Denoising, how BART is pre-trained: sentences change places, runs of tokens shrink to one mask each.

    ids        a b c . d e f g .              ends     0 0 0 1 0 0 0 0 1
    permute    d e f g . a b c .
    infill     d [MASK] g . a [MASK] b c .    a run of 2, and one of 0: how much is missing has to be found out

The answer is the text as it was. Lewis et al., arXiv 1910.13461: 30 % of the tokens, lengths drawn from Poisson(3).

Letters: n tokens.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hanlin.data.corrupt import Flags, Ints, uniform

LONGEST = 30  # no longer runs are drawn: beyond, Poisson(10) leaves a chance of 1e-7


def permute(ids: Ints, ends: Flags, bits: np.random.PCG64) -> Ints:
    """Return the sentences of ids (n,) in a random order; `ends` (n,) says which tokens end one."""
    sentences = np.split(ids, np.flatnonzero(ends[:-1]) + 1)
    order = np.argsort(uniform(bits, len(sentences)), kind="stable")
    return np.concatenate([sentences[place] for place in order])


def infill(ids: Ints, bits: np.random.PCG64, *, rate: float, mean: float, mask: int) -> Ints:
    """Return ids (n,) in which runs, `rate` of all tokens together, have become one `mask` each, never side by side."""
    wanted = round(rate * len(ids))
    lengths = _lengths(wanted, mean, bits)
    left = len(ids) - wanted
    lengths = lengths[np.argsort(lengths == 0, kind="stable")][: left + 1]
    if not len(lengths):
        return ids
    lengths[0] += wanted - int(lengths.sum())  # what was cut off for want of places
    lengths = lengths[np.argsort(uniform(bits, len(lengths)), kind="stable")]
    gaps = np.sort(np.argsort(uniform(bits, left + 1), kind="stable")[: len(lengths)])  # kept tokens before each mask
    starts = gaps + np.cumsum(lengths) - lengths
    pieces, at = [], 0
    for start, length in zip(starts, lengths):
        pieces += [ids[at:start], np.array([mask], dtype=ids.dtype)]
        at = start + length
    return np.concatenate([*pieces, ids[at:]])


def _lengths(total: int, mean: float, bits: np.random.PCG64) -> Ints:
    """Return lengths drawn from Poisson(mean) until they add up to `total`, the last one cut to fit."""
    if not total:
        return np.zeros(0, dtype=np.int64)
    drawn: Ints = np.searchsorted(_chances(mean), uniform(bits, 4 * total + 16), side="right")
    sums = np.cumsum(drawn)
    last = min(int(np.searchsorted(sums, total)), len(drawn) - 1)
    lengths = drawn[: last + 1]
    lengths[-1] += total - int(sums[last])
    return lengths


def _chances(mean: float) -> NDArray[np.float64]:
    """Return how likely each length or a shorter one is."""
    return np.cumsum([math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(LONGEST)])
