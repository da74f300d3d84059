"""What a score is: a value with the interval it would move in, had other documents been drawn.

    statistics (n, k)   one row an example or a document, k sums each     ─┐
    e.g.  nats  tokens                                                     │ sum of all rows  ─ reduce ─> value
          52.1      20                                                     │
           7.9       3                                                     │ 1000 redraws of n rows, summed
          ...                                                             ─┘      ─ reduce ─> low, high

Rows are summed first and divided once, so uneven documents weigh what they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hanlin.errors import DataError, problem

Numbers = NDArray[np.float64]

COVERED = 95.0  # per cent of the redrawn values that lie between low and high
BLOCK = 2**22  # drawn row numbers held at a time: 32 MB


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score with its 95 % interval; `n` counts the independent units it rests on."""

    value: float
    low: float
    high: float
    n: int
    unit: str


def bootstrap(
    statistics: Numbers, reduce: Callable[[Numbers], Numbers], *, unit: str, seed: int = 0, rounds: int = 1000
) -> Estimate:
    """Return `reduce` of the summed rows, between the percentiles of what redrawing the rows gives (Efron 1979).

    `statistics` is (n, k); `reduce` maps sums (..., k) to values (...). A row must be independent of the others: a
    document, not a token. One row tells nothing of spread: low and high then equal the value.
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    assert statistics.ndim == 2, "statistics are (n, k)"
    _check(statistics)
    value = float(reduce(statistics.sum(0)))
    if len(statistics) == 1:
        return Estimate(value=value, low=value, high=value, n=1, unit=unit)
    margin = (100 - COVERED) / 2
    low, high = np.percentile(reduce(_redrawn(statistics, seed, rounds)), [margin, 100 - margin])
    return Estimate(value=value, low=float(low), high=float(high), n=len(statistics), unit=unit)


def _check(statistics: Numbers) -> None:
    """Raise DataError when there is nothing to score, or a number that is none."""
    if not len(statistics):
        raise DataError(problem("score", "no documents", "at least one"))
    bad = np.flatnonzero(~np.isfinite(statistics).all(1))
    if len(bad):
        given = f"{len(bad):,} of {len(statistics):,} have NaN or infinity, the first is number {bad[0]}"
        raise DataError(problem("score", given, do="look for NaN in the model's weights"))


def _redrawn(statistics: Numbers, seed: int, rounds: int) -> Numbers:
    """Return (rounds, k): sums of n rows drawn with replacement, as counts of each row times the rows."""
    n = len(statistics)
    draws = np.random.default_rng(seed)
    sums = []
    for start in range(0, rounds, max(1, BLOCK // n)):
        block = min(max(1, BLOCK // n), rounds - start)
        rows = draws.integers(n, size=(block, n)) + n * np.arange(block)[:, None]
        counts = np.bincount(rows.ravel(), minlength=block * n).reshape(block, n)
        sums.append(counts @ statistics)
    return np.concatenate(sums)
