"""What a score is: a value with the interval it would move in, had other rows or documents been drawn.

    numbers (n, k)      one row an example or a document                   ─┐
    e.g.  nats  tokens                                                      │ every row once    ─ measure ─> value
          52.1      20                                                      │
           7.9       3                                                      │ 1000 redraws of n rows
          ...                                                              ─┘                   ─ measure ─> low, high

    Sums    sums of the drawn rows (…, k) -> value   almost everything: sum first, divide once, so that uneven
                                                     documents weigh what they hold
    Draws   how often each row was drawn (r, n)      what no sum can tell: rank correlation, the mean over labels

A new metric is one file here, or in `labels` (classes and spans) or `texts` (strings), with two functions:

    rows(predictions, references, …) -> Rows              what each row is worth: worst rows, comparison of two models
    score(predictions, references, *, groups=None, …)     `rows(…).score(groups)`: fixed key -> Estimate

Both begin with `aligned`; rows of one group (a document, an article, a speaker) are redrawn together. A share whose
denominator is 0 is 0 (`share`); a redraw that has no value is NaN and stays out of the interval. Fractions lie
between 0 and 1 (`FRACTION`); SQuAD, CMRC, BLEU, chrF and ROUGE are given in hundredths (`PERCENT`), as the field
does. One entry in tests/unit/test_metric_contract.py:TABLE then has the file tested like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hanlin.errors import DataError, problem

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]
Groups = Sequence[Hashable] | NDArray[Any] | None  # one name a row; rows of the same name are redrawn together

COVERED = 95.0  # per cent of the redrawn values that lie between low and high
BLOCK = 2**22  # drawn row numbers held at a time: 32 MB
FRACTION, PERCENT = "fraction", "of 100"
REAL = (float, np.floating)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score with its 95 % interval; `n` counts the independent units it rests on."""

    value: float
    low: float
    high: float
    n: int
    unit: str


@dataclass(frozen=True)
class Sums:
    """A score of sums: `reduce` maps the sums (..., k) of the drawn rows to values (...)."""

    reduce: Callable[[Numbers], Numbers]
    unit: str

    def __call__(self, counts: Numbers, numbers: Numbers) -> Numbers:
        """Return the values (r,) of redraws in which each row stands `counts` (r, n) times."""
        return self.reduce(counts @ numbers)


@dataclass(frozen=True)
class Draws:
    """A score of the rows drawn: `value` maps counts (r, n) and numbers (n, k) to values (r,); NaN where undefined."""

    value: Callable[[Numbers, Numbers], Numbers]
    unit: str

    def __call__(self, counts: Numbers, numbers: Numbers) -> Numbers:
        """Return the values (r,) of redraws in which each row stands `counts` (r, n) times."""
        return self.value(counts, numbers)


Measure = Sums | Draws


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What each row is worth, (n, k), and key -> the measure that makes a score of many."""

    numbers: Numbers
    measures: Mapping[str, Measure]

    def score(self, groups: Groups = None, *, seed: int = 0, rounds: int = 1000) -> dict[str, Estimate]:
        """Return every score, between the percentiles of what redrawing rows or groups gives (Efron 1979).

        A row, or group, must be independent of the others: a document, not a token. One alone tells nothing of
        spread: low and high then equal the value. DataError when there are no rows, a number is NaN or infinite, or
        a score is undefined.
        """
        _check(self.numbers)
        group = grouping(groups, len(self.numbers))
        units = int(group.max()) + 1
        values = {key: self.value(key) for key in self.measures}
        drawn: dict[str, list[Numbers]] = {key: [] for key in self.measures}
        for counts in redraws(group, seed, rounds if units > 1 else 0):
            for key, measure in self.measures.items():
                drawn[key].append(measure(counts, self.numbers))
        return {
            key: between(values[key], drawn[key], n=units, unit=measure.unit) for key, measure in self.measures.items()
        }

    def value(self, key: str) -> float:
        """Return one score of all rows; DataError when it is undefined."""
        value = float(self.measures[key](np.ones((1, len(self.numbers))), self.numbers)[0])
        if np.isnan(value):
            raise DataError(problem("score", f"{key} is undefined on these {len(self.numbers):,} rows"))
        return value

    def alone(self, key: str) -> Numbers:
        """Return (n,): the score of each row by itself, to find the worst; only for a measure of sums."""
        measure = self.measures[key]
        assert isinstance(measure, Sums), f"{key} says nothing of a row alone"
        return np.asarray(measure.reduce(self.numbers), dtype=np.float64)


def bootstrap(
    statistics: Numbers, reduce: Callable[[Numbers], Numbers], *, unit: str, seed: int = 0, rounds: int = 1000
) -> Estimate:
    """Return `reduce` of the summed rows with its interval: `Rows.score` for a single measure of sums."""
    statistics = np.asarray(statistics, dtype=np.float64)
    assert statistics.ndim == 2, "statistics are (n, k)"
    return Rows(numbers=statistics, measures={"": Sums(reduce, unit)}).score(seed=seed, rounds=rounds)[""]


def between(value: float, drawn: Sequence[Numbers], *, n: int, unit: str) -> Estimate:
    """Return the value between the percentiles of those drawn values that are defined."""
    found = np.concatenate([*drawn, np.empty(0)])
    found = found[~np.isnan(found)]
    margin = (100 - COVERED) / 2
    low, high = np.percentile(found, [margin, 100 - margin]) if len(found) else (value, value)
    return Estimate(value=value, low=float(low), high=float(high), n=n, unit=unit)


def redraws(group: Counts, seed: int, rounds: int) -> Iterator[Numbers]:
    """Yield (r, n) blocks, `rounds` lines in all: how often each row stands in a redraw of whole groups."""
    rows, units = len(group), int(group.max()) + 1
    single = units == rows and bool((group == np.arange(rows)).all())
    draws = np.random.default_rng(seed)
    most = max(1, BLOCK // rows)
    for start in range(0, rounds, most):
        block = min(most, rounds - start)
        picks = draws.integers(units, size=(block, units)) + units * np.arange(block)[:, None]
        counts = np.bincount(picks.ravel(), minlength=block * units).reshape(block, units).astype(np.float64)
        yield counts if single else counts[:, group]


def grouping(groups: Groups, rows: int) -> Counts:
    """Return (rows,): the number of each row's group, counted from 0; without groups each row is its own."""
    if groups is None:
        return np.arange(rows)
    if len(groups) != rows:
        raise DataError(problem("groups", f"{len(groups):,} for {rows:,} rows", "one a row"))
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in groups])


def together(statistics: Numbers, groups: Groups) -> Numbers:
    """Return the sums of the rows of each group, (groups, k)."""
    if groups is None:
        return statistics
    group = grouping(groups, len(statistics))
    return np.stack([np.bincount(group, weights=column) for column in statistics.T], 1)


def aligned(predictions: Sequence[Any] | NDArray[Any], references: Sequence[Any] | NDArray[Any]) -> None:
    """Raise DataError when there is nothing to score, the sides differ in length, or a number is NaN or infinite."""
    if len(predictions) != len(references):
        given = f"{len(predictions):,} predictions, {len(references):,} references"
        raise DataError(problem("score", given, "one of each a row"))
    if not len(predictions):
        raise DataError(problem("score", "no rows", "at least one"))
    for side, values in (("predictions", predictions), ("references", references)):
        bad = [row for row, value in enumerate(values) if isinstance(value, REAL) and not np.isfinite(value)]
        if bad:
            raise DataError(
                problem("score", f"{side} hold NaN or infinity in {len(bad):,} rows, the first is {bad[0]}")
            )


def share(part: Numbers, whole: Numbers) -> Numbers:
    """Return part / whole, and 0 where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole != 0)


def mean(sums: Numbers) -> Numbers:
    """Return the first sum over the last, the number of rows: the measure of most metrics."""
    return share(sums[..., 0], sums[..., -1])


def _check(statistics: Numbers) -> None:
    """Raise DataError when there is nothing to score, or a number that is none."""
    if not len(statistics):
        raise DataError(problem("score", "no documents", "at least one"))
    bad = np.flatnonzero(~np.isfinite(statistics).all(1))
    if len(bad):
        given = f"{len(bad):,} of {len(statistics):,} have NaN or infinity, the first is number {bad[0]}"
        raise DataError(problem("score", given, do="look for NaN in the model's weights"))
