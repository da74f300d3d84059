"""How often a text is the wanted one, letter by letter: `exact_match`, a fraction.

Nothing is normalised: what should not count (case, spaces) is taken out before. A row may allow several texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hanlin.errors import DataError, problem
from hanlin.metrics.contract import FRACTION, Estimate, Groups, Rows, Sums, aligned, mean

Answers = str | Sequence[str]  # one wanted text, or all that are allowed
MEASURES = {"exact_match": Sums(mean, FRACTION)}


def rows(predictions: Sequence[str], references: Sequence[Answers]) -> Rows:
    """Return (right, 1) of each row."""
    right = [given in wanted for given, wanted in zip(predictions, allowed(predictions, references))]
    return Rows(numbers=np.stack([np.array(right, dtype=np.float64), np.ones(len(right))], 1), measures=MEASURES)


def score(predictions: Sequence[str], references: Sequence[Answers], *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `exact_match`, a fraction (SQuAD and CMRC have rules of their own, in hundredths).

    >>> score(["翰林", "Paris"], ["翰林", ["paris", "Paris "]])["exact_match"].value
    0.5
    """
    return rows(predictions, references).score(groups)


def allowed(predictions: Sequence[str], references: Sequence[Answers]) -> list[list[str]]:
    """Return each row's wanted texts as a list; DataError where rows do not fit, or hold anything but text."""
    aligned(predictions, references)
    lists = [[wanted] if isinstance(wanted, str) else list(wanted) for wanted in references]
    for row, (given, wanted) in enumerate(zip(predictions, lists)):
        for text in (given, *wanted):
            if not isinstance(text, str):
                raise DataError(problem(f"row {row}", f"{type(text).__name__} {text!r}", "text"))
    return lists


def wanted(predictions: Sequence[str], references: Sequence[Answers]) -> list[list[str]]:
    """Return the same, where every row must have at least one wanted text."""
    lists = allowed(predictions, references)
    if not all(lists):
        raise DataError(problem(f"row {lists.index([])}", "no reference", "at least one text"))
    return lists
