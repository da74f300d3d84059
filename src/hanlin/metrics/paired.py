"""Whether one model is better than another on the same rows: the difference, its interval, and p.

    redraw the same rows for both (Koehn 2004):   a's score − b's score, 1000 times

Two intervals that overlap do not say that two models are equal: both find the same rows hard. Drawing the rows
together takes that out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hanlin.errors import DataError, problem
from hanlin.metrics.contract import Estimate, Groups, Numbers, Rows, between, grouping, redraws

TIE = 1e-12  # of the score: what the order of a sum may change


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two scores on the same rows, their `difference` a − b, and `p`: how easily chance alone turns it (two-sided)."""

    a: float
    b: float
    difference: Estimate
    p: float


def paired(a: Rows, b: Rows, key: str, *, groups: Groups = None, seed: int = 0, rounds: int = 1000) -> Comparison:
    """Return by how much the score `key` of `a` exceeds that of `b`, whole groups redrawn for both alike.

    p is twice the smaller share of redraws in which one of both is not behind, counted with one redraw more, so that
    it is never 0: at least 2 / (rounds + 1). One row or group tells nothing: p is 1. DataError when the rows differ
    in number.
    """
    if len(a.numbers) != len(b.numbers):
        given = f"{len(a.numbers):,} rows against {len(b.numbers):,}"
        raise DataError(problem("compare", given, "two models scored on the same rows"))
    group = grouping(groups, len(a.numbers))
    units = int(group.max(initial=0)) + 1
    first, second = a.value(key), b.value(key)
    drawn: list[Numbers] = [np.empty(0)]
    for counts in redraws(group, seed, rounds if units > 1 else 0):
        drawn.append(a.measures[key](counts, a.numbers) - b.measures[key](counts, b.numbers))
    found = np.concatenate(drawn)
    found = found[~np.isnan(found)]
    found[np.abs(found) < TIE * max(abs(first), abs(second))] = 0.0
    level = float(min((found <= 0).sum(), (found >= 0).sum()) + 1) / (len(found) + 1)
    difference = between(first - second, [found], n=units, unit=a.measures[key].unit)
    return Comparison(a=first, b=second, difference=difference, p=min(1.0, 2 * level))
