"""Precision, recall and their harmonic mean, for one label a row: `f1`, `precision`, `recall`.

    precision  hits / rows given the label         f1 = 2 hits / (given + wanted)
    recall     hits / rows that wanted it

    macro    the mean over labels: a rare label weighs as much as a common one
    micro    hits of all labels together; over all labels it is the accuracy, so it tells more over a choice of them
    binary   of the label `positive` alone

A label that neither side uses has no F1 and is left out of the mean, in every redraw too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from hanlin.errors import DataError, nearest, problem
from hanlin.metrics.contract import FRACTION, Draws, Estimate, Groups, Numbers, Rows, share
from hanlin.metrics.labels.confusion import Label, coded, margins

KEYS = ("f1", "precision", "recall")
AVERAGES = ("macro", "micro", "binary")


def rows(
    predictions: Sequence[Label],
    references: Sequence[Label],
    *,
    average: str = "macro",
    positive: Label | None = None,
    labels: Sequence[Label] | None = None,
) -> Rows:
    """Return each row's given and wanted label as numbers; `labels` restricts the mean to those named."""
    if average not in AVERAGES:
        raise DataError(problem("f1", f"average '{average}'", ", ".join(AVERAGES), nearest(average, AVERAGES)))
    if (average == "binary") != (positive is not None):
        raise DataError(problem("f1", f"average '{average}' with positive={positive!r}", do="binary needs `positive`"))
    named, codes = coded(predictions, references, [positive] if average == "binary" else labels)
    kept = 1 if average == "binary" else len(set(labels)) if labels else len(named)
    pool = _macro if average == "macro" else _micro
    measures = {key: Draws(partial(_value, of=of, pool=pool, size=len(named), kept=kept), FRACTION) for key, of in OF}
    return Rows(numbers=codes.astype(np.float64), measures=measures)


def score(
    predictions: Sequence[Label],
    references: Sequence[Label],
    *,
    average: str = "macro",
    positive: Label | None = None,
    labels: Sequence[Label] | None = None,
    groups: Groups = None,
) -> dict[str, Estimate]:
    """Return `f1`, `precision` and `recall`, fractions, averaged as `average` says (see above).

    >>> round(score(["a", "b", "b"], ["a", "a", "b"])["f1"].value, 3)
    0.667
    """
    return rows(predictions, references, average=average, positive=positive, labels=labels).score(groups)


def by_label(
    predictions: Sequence[Label], references: Sequence[Label], *, groups: Groups = None
) -> dict[Label, dict[str, Estimate]]:
    """Return label -> its own `f1`, `precision` and `recall`, for every label that either side uses."""
    named, codes = coded(predictions, references)
    found: dict[Label, dict[str, Estimate]] = {}
    for place, label in enumerate(named):
        own = np.where(codes == place, 0.0, 1.0)  # this label against the rest
        measures = {key: Draws(partial(_value, of=of, pool=_micro, size=2, kept=1), FRACTION) for key, of in OF}
        found[label] = Rows(numbers=own, measures=measures).score(groups)
    return found


def _value(
    counts: Numbers,
    numbers: Numbers,
    *,
    of: Callable[[Numbers, Numbers, Numbers], Numbers],
    pool: Callable[[Callable[..., Numbers], Numbers, Numbers, Numbers], Numbers],
    size: int,
    kept: int,
) -> Numbers:
    """Return the pooled score of the first `kept` labels, for every line of counts."""
    hits, given, wanted = (each[:, :kept] for each in margins(counts, numbers, size))
    return pool(of, hits, given, wanted)


def _macro(of: Callable[..., Numbers], hits: Numbers, given: Numbers, wanted: Numbers) -> Numbers:
    used = given + wanted > 0
    return share((of(hits, given, wanted) * used).sum(1), used.sum(1))


def _micro(of: Callable[..., Numbers], hits: Numbers, given: Numbers, wanted: Numbers) -> Numbers:
    return of(hits.sum(1), given.sum(1), wanted.sum(1))


def _f1(hits: Numbers, given: Numbers, wanted: Numbers) -> Numbers:
    return share(2 * hits, given + wanted)


def _precision(hits: Numbers, given: Numbers, wanted: Numbers) -> Numbers:
    return share(hits, given)


def _recall(hits: Numbers, given: Numbers, wanted: Numbers) -> Numbers:
    return share(hits, wanted)


OF = tuple(zip(KEYS, (_f1, _precision, _recall)))
