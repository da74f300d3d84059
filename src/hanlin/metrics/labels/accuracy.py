"""How often the label is the right one: `accuracy`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hanlin.metrics.contract import FRACTION, Estimate, Groups, Rows, Sums, mean
from hanlin.metrics.labels.confusion import Label, comparable

MEASURES = {"accuracy": Sums(mean, FRACTION)}


def rows(predictions: Sequence[Label], references: Sequence[Label]) -> Rows:
    """Return (right, 1) of each row."""
    comparable(predictions, references)
    right = [given == wanted for given, wanted in zip(predictions, references)]
    return Rows(numbers=np.stack([np.array(right, dtype=np.float64), np.ones(len(right))], 1), measures=MEASURES)


def score(predictions: Sequence[Label], references: Sequence[Label], *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `accuracy`, a fraction.

    >>> round(score(["好", "坏", "好"], ["好", "好", "好"])["accuracy"].value, 3)
    0.667
    """
    return rows(predictions, references).score(groups)
