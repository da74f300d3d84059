"""How far numbers are off: `mse`, the mean squared error, `rmse`, its root, and `mae`, the mean absolute error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hanlin.metrics.contract import Estimate, Groups, Numbers, Rows, Sums, aligned, mean

Values = Sequence[float] | NDArray[np.floating]


def rows(predictions: Values, references: Values) -> Rows:
    """Return (squared error, absolute error, 1) of each row."""
    aligned(predictions, references)
    off = np.asarray(predictions, dtype=np.float64) - np.asarray(references, dtype=np.float64)
    numbers = np.stack([off**2, np.abs(off), np.ones(len(off))], 1)
    measures = {
        "mse": Sums(mean, "squared"),
        "rmse": Sums(_root, "as the label"),
        "mae": Sums(_absolute, "as the label"),
    }
    return Rows(numbers=numbers, measures=measures)


def score(predictions: Values, references: Values, *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `mse`, `rmse` and `mae`, in the labels' own units (squared for `mse`); 0 is best.

    >>> score([1.0, 4.0], [1.0, 2.0])["mse"].value
    2.0
    """
    return rows(predictions, references).score(groups)


def _root(sums: Numbers) -> Numbers:
    return np.sqrt(mean(sums))


def _absolute(sums: Numbers) -> Numbers:
    return mean(sums[..., 1:])
