"""Questions out of plain text, for encoders: words hidden behind a mask, and pairs that follow each other or do not.

    ids      ▁the  ▁play er ▁sang  。        units     0     1   1   2     3        a unit is hidden whole
    corrupt   the  [MASK] [MASK] sang 。      targets   _    play er   _     _        _ is IGNORE, no loss

Of the tokens chosen, 80 % become the mask, 10 % another token, 10 % stay (Devlin et al., arXiv 1810.04805); which,
follows from the bits handed in, so that each epoch asks anew (Liu et al., 1907.11692). NumPy promises the raw bits of
PCG64 for all versions, unlike what it makes of them.

Letters: B rows, T tokens, N chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORE = -100  # as in batch.py, which torch comes with
KEPT, REPLACED = 0.1, 0.1  # of the chosen tokens; the rest are masked
RUNS = (0.4, 0.3, 0.2, 0.1)  # how often 1, 2, 3, 4 characters are taken together (Cui et al., arXiv 2004.13922)

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def uniform(bits: np.random.PCG64, count: int) -> NDArray[np.float64]:
    """Return `count` numbers in [0, 1), 53 bits each."""
    return np.asarray((bits.random_raw(count) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """What each token of a vocabulary is to the word it stands in; each array is (V,)."""

    joins: Flags  # goes on with a word that is open
    opens: Flags  # leaves its word open
    special: Flags  # never hidden, never put in another's place
    han: Flags  # Chinese characters alone

    def units(self, ids: Ints) -> Ints:
        """Return the number of the word that each token of ids (B, T) is part of; -1 for special tokens.

        Numbers go up along a row and from row to row; a word never goes over the end of a row.
        """
        joined = np.zeros(ids.shape, dtype=np.bool_)
        joined[:, 1:] = self.joins[ids[:, 1:]] & self.opens[ids[:, :-1]] & ~self.special[ids[:, :-1]]
        numbers = np.cumsum(~joined.ravel()).reshape(ids.shape) - 1
        return np.where(self.special[ids], -1, numbers)


def grouped(units: Ints, han: Flags, bits: np.random.PCG64) -> Ints:
    """Return units with neighbouring Chinese ones taken together, one to four by chance: n-grams, not real words.

    `units` and `han` are (B, T); a run never goes over what is not Chinese.
    """
    flat, chinese = units.ravel(), han.ravel()
    first = np.ones(flat.shape, dtype=np.bool_)
    first[1:] = flat[1:] != flat[:-1]
    follows = np.zeros(flat.shape, dtype=np.bool_)  # a Chinese unit right after another one, in the same row
    follows[1:] = first[1:] & chinese[1:] & chinese[:-1] & (flat[1:] >= 0) & (flat[:-1] >= 0)
    follows.reshape(units.shape)[:, 0] = False
    sizes = np.searchsorted(np.cumsum(RUNS), uniform(bits, flat.size), side="right") + 1
    breaks = first.copy()
    left = 0
    for place in np.flatnonzero(first & chinese):
        left = left - 1 if follows[place] else 0
        breaks[place] = left <= 0
        left = int(sizes[place]) if breaks[place] else left
    numbers = np.cumsum(breaks) - 1
    return np.where(flat < 0, -1, numbers).reshape(units.shape)


def hide(ids: Ints, units: Ints, bits: np.random.PCG64, *, rate: float, mask: int, others: Ints) -> tuple[Ints, Ints]:
    """Return (ids with questions in them, targets), both (B, T), for about `rate` of the tokens that have a unit.

    Units are taken whole, in random order, as long as they fit what is left of the share; at least one is taken where
    there is any. `others` are the ids that may take a token's place.
    """
    chosen = _chosen(units.ravel(), bits, rate).reshape(ids.shape)
    places = np.flatnonzero(chosen)
    fate, stand_in = uniform(bits, len(places)), uniform(bits, len(places))
    replaced = others[(stand_in * len(others)).astype(np.int64)]
    before = ids.ravel()[places]
    corrupt = ids.copy()
    corrupt.ravel()[places] = np.where(fate < KEPT, before, np.where(fate < KEPT + REPLACED, replaced, mask))
    return corrupt, np.where(chosen, ids, IGNORE)


def _chosen(units: Ints, bits: np.random.PCG64, rate: float) -> Flags:
    """Return which of the flat tokens are hidden."""
    known, numbers, sizes = np.unique(units, return_inverse=True, return_counts=True)
    inside = known >= 0
    share = max(1, round(rate * int(sizes[inside].sum())))
    order = np.argsort(uniform(bits, len(known)), kind="stable")
    order = order[inside[order]]
    taken = np.cumsum(sizes[order]) <= share
    picked = np.zeros(len(known), dtype=np.bool_)
    picked[order[taken]] = True
    if len(order) and not picked.any():
        picked[order[0]] = True
    flags: Flags = picked[numbers]
    return flags


def split(starts: Flags, draw: float) -> int:
    """Return where to cut a piece of two tokens or more in two: at a word's start if any, else anywhere inside.

    `starts` (n,) says where words start; `draw` in [0, 1) chooses among the places in the middle half, where there are.
    """
    places = np.flatnonzero(starts[1:]) + 1
    if not len(places):
        places = np.arange(1, len(starts))
    middle = places[(places >= len(starts) // 4) & (places <= -(-3 * len(starts) // 4))]
    places = middle if len(middle) else places
    return int(places[int(draw * len(places))])
