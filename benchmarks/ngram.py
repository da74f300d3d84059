"""An interpolated Kneser-Ney n-gram over letters, to stand beside neural models of the same text.

P_k(w | c) = max(n(cw) - D_k, 0) / n(c.) + D_k * different(c.) / n(c.) * P_(k-1)(w | c without its first letter)

n are counts at the highest order and numbers of different letters before, below it; D_k = n_1 / (n_1 + 2 n_2); P_0 is
uniform. Kneser and Ney, 1995; Chen and Goodman, 1999, section 2.7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def nats(train: Ids, held: Ids, letters: int, order: int = 6) -> float:
    """Return the mean of -ln P over `held` (N,), each letter given the `order - 1` before it, in `train` for the first.

    Ids are below `letters`; letters ** order must be below 2 ** 63.
    """
    if letters**order >= 2**63:
        raise ValueError(f"{letters}^{order} grams do not fit into 64 bits")
    text = np.concatenate([train[-(order - 1) :], held]) if order > 1 else held
    found = np.full(len(held), 1 / letters)
    for size in range(1, order + 1):
        grams, counts = np.unique(_codes(train, letters, size), return_counts=True)
        if size < order:  # how many letters stand before each gram
            longer = np.unique(_codes(train, letters, size + 1))
            grams, counts = np.unique(longer % letters**size, return_counts=True)
        ones, twos = (counts == 1).sum(), (counts == 2).sum()
        discount = ones / (ones + 2 * twos) if ones else 0.5
        contexts, start = np.unique(grams // letters, return_index=True)
        total, different = np.add.reduceat(counts, start), np.diff([*start, len(grams)])
        asked = _codes(text[order - size :], letters, size)
        n = _at(grams, np.maximum(counts - discount, 0), asked)
        all_, kinds = _at(contexts, total, asked // letters), _at(contexts, different, asked // letters)
        known = all_ > 0
        found = np.where(known, (n + discount * kinds * found) / np.where(known, all_, 1), found)
    return float(-np.log(found).mean())


def _codes(ids: Ids, letters: int, size: int) -> Ids:
    """Return a number for every gram of `size` neighbouring letters, in order of their ends."""
    codes = np.zeros(len(ids) - size + 1, dtype=np.int64)
    for place in range(size):
        codes = codes * letters + ids[place : len(ids) - size + 1 + place]
    return codes


def _at(keys: Ids, values: NDArray[np.number], asked: Ids) -> NDArray[np.float64]:
    """Return the value of each key asked for, 0 where it is not there; keys are in order."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0).astype(np.float64)
