"""Whether numbers rise together: `pearson` on a straight line, `spearman` in any order-keeping way.

    spearman = pearson of the ranks; rows of one value share the mean of their ranks

No sum over rows tells a rank, so each redraw is ranked anew. That needs no sorting: with the rows sorted once, the
rank of a value is the number of drawn rows before it, and half of those that share it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hanlin.errors import DataError, problem
from hanlin.metrics.contract import Draws, Estimate, Groups, Numbers, Rows, aligned

Values = Sequence[float] | NDArray[np.floating]
UNIT = "correlation"
FLAT = 1e-12  # a variance below this share of the mean square is rounding


def rows(predictions: Values, references: Values) -> Rows:
    """Return the two numbers of each row, centred and scaled; DataError when all references are the same."""
    aligned(predictions, references)
    numbers = np.stack([np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)], 1)
    if np.ptp(numbers[:, 1]) == 0:
        given = f"all {len(numbers):,} references are {numbers[0, 1]:g}"
        raise DataError(problem("correlation", given, "at least two different ones"))
    numbers = numbers - numbers.mean(0)
    spread = np.abs(numbers).max(0)
    numbers = numbers / np.where(spread > 0, spread, 1.0)
    return Rows(numbers=numbers, measures={"spearman": Draws(_spearman, UNIT), "pearson": Draws(_pearson, UNIT)})


def score(predictions: Values, references: Values, *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `spearman` and `pearson`, from −1 to 1; predictions that are all the same foretell nothing: 0.

    >>> round(score([1.0, 2.0, 3.0], [1.0, 2.0, 9.0])["spearman"].value, 6)
    1.0
    """
    return rows(predictions, references).score(groups)


def _pearson(counts: Numbers, numbers: Numbers) -> Numbers:
    x, y = numbers.T
    n = counts.sum(1)
    mean_x, mean_y, square_x, square_y = (counts @ each / n for each in (x, y, x * x, y * y))
    own, other = square_x - mean_x**2, square_y - mean_y**2
    own, other = np.where(own > FLAT * square_x, own, 0.0), np.where(other > FLAT * square_y, other, 0.0)
    return _ratio(counts @ (x * y) / n - mean_x * mean_y, own, other)


def _spearman(counts: Numbers, numbers: Numbers) -> Numbers:
    middle = (counts.sum(1)[:, None] + 1) / 2  # the mean of all ranks; halves are exact, so equal ranks leave 0
    x, y = (_ranks(counts, column) - middle for column in numbers.T)
    return _ratio(*(np.einsum("rn,rn,rn->r", counts, a, b) for a, b in ((x, y), (x, x), (y, y))))


def _ranks(counts: Numbers, column: Numbers) -> Numbers:
    """Return (r, n): the mean rank, from 1, of each row's value among the rows drawn."""
    _, starts, place = np.unique(np.sort(column), return_index=True, return_inverse=True)
    order = np.argsort(column, kind="stable")
    ties = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(ties, 1) - (ties - 1) / 2
    back = np.empty(len(column), dtype=np.int64)
    back[order] = place
    return ranks[:, back]


def _ratio(together: Numbers, own: Numbers, other: Numbers) -> Numbers:
    """Return the correlation: 0 where the predictions are flat, NaN where the references are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.clip(together / np.sqrt(own) / np.sqrt(other), -1.0, 1.0)
    return np.where(other == 0, np.nan, np.where(own == 0, 0.0, found))
