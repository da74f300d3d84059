"""Any number of labels a row: `f1`, `precision`, `recall` over all of them, and `accuracy`, the whole set right.

given {sport, china}   wanted {sport, world}      1 hit of 2 given and 2 wanted; the set is wrong

micro   hits of all labels together           macro   the mean over labels that either side uses, in every redraw
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np

from hanlin.errors import DataError, nearest, problem
from hanlin.metrics.contract import FRACTION, Estimate, Groups, Numbers, Rows, Sums, aligned, mean, share
from hanlin.metrics.labels.confusion import Label, ordered
from hanlin.metrics.labels.f1 import OF

AVERAGES = ("micro", "macro")


def rows(
    predictions: Sequence[Collection[Label]],
    references: Sequence[Collection[Label]],
    *,
    average: str = "micro",
    labels: Sequence[Label] | None = None,
) -> Rows:
    """Return (whole set right, hits.., given.., wanted.., 1) of each row: one column each, or one a label for macro."""
    if average not in AVERAGES:
        raise DataError(problem("multilabel", f"average '{average}'", ", ".join(AVERAGES), nearest(average, AVERAGES)))
    aligned(predictions, references)
    for row, side in enumerate([*predictions, *references]):
        if isinstance(side, str):
            raise DataError(
                problem(f"row {row % len(references)}", f"'{side}' for a set of labels", do="['…'] for one")
            )
    pairs = [(set(given), set(wanted)) for given, wanted in zip(predictions, references)]
    named = list(labels) if labels else ordered({label for pair in pairs for side in pair for label in side})
    if average == "macro":
        columns = [[[label in side for label in named] for side in pair] for pair in pairs]
        given, wanted = np.array(columns, dtype=np.float64).reshape(len(pairs), 2, len(named)).swapaxes(0, 1)
        hits = given * wanted
    else:
        chosen = set(named)
        sizes = [[len(side & chosen) for side in (given & wanted, given, wanted)] for given, wanted in pairs]
        hits, given, wanted = np.array(sizes, dtype=np.float64).T[..., None]
    right = np.array([[given == wanted] for given, wanted in pairs], dtype=np.float64)
    measures = {key: Sums(partial(_mean_over_labels, of=of), FRACTION) for key, of in OF}
    numbers = np.concatenate([right, hits, given, wanted, np.ones_like(right)], 1)
    return Rows(numbers=numbers, measures={**measures, "accuracy": Sums(mean, FRACTION)})


def score(
    predictions: Sequence[Collection[Label]],
    references: Sequence[Collection[Label]],
    *,
    average: str = "micro",
    labels: Sequence[Label] | None = None,
    groups: Groups = None,
) -> dict[str, Estimate]:
    """Return `f1`, `precision`, `recall` and `accuracy`, fractions; each row is a set of labels, or an empty one.

    >>> score([{"sport", "china"}], [{"sport", "world"}])["f1"].value
    0.5
    """
    return rows(predictions, references, average=average, labels=labels).score(groups)


def _mean_over_labels(sums: Numbers, *, of: Callable[[Numbers, Numbers, Numbers], Numbers]) -> Numbers:
    hits, given, wanted = np.split(sums[..., 1:-1], 3, axis=-1)
    used = given + wanted > 0
    return share((of(hits, given, wanted) * used).sum(-1), used.sum(-1))
