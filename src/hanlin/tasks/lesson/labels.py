"""How good labels are: one a row, several a row, or a number; each row's part in it, and how right each row is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from hanlin.metrics import correlation, mean_squared
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.metrics.labels import accuracy, f1, multilabel

Kind = Literal["single", "multi", "rating"]
MAIN = {"single": "accuracy", "multi": "f1", "rating": "spearman"}  # the score that decides
Label = Any  # a name, a tuple of names, or a number, as the kind says


def score(kind: Kind, given: Sequence[Label], wanted: Sequence[Label]) -> dict[str, Estimate]:
    """Return accuracy and macro F1; of several labels micro F1 and whole sets; of ratings correlation and error."""
    if kind == "rating":
        numbers = _numbers(given), _numbers(wanted)
        return {**correlation.score(*numbers), **mean_squared.score(*numbers)}
    if kind == "multi":
        return multilabel.score([names(each) for each in given], [names(each) for each in wanted])
    texts = [str(each) for each in given], [str(each) for each in wanted]
    return {**accuracy.score(*texts), "f1": f1.score(*texts)["f1"]}


def rows(kind: Kind, given: Sequence[Label], wanted: Sequence[Label]) -> Rows:
    """Return each row's part in accuracy, micro F1 or rank correlation."""
    if kind == "rating":
        return correlation.rows(_numbers(given), _numbers(wanted))
    if kind == "multi":
        return multilabel.rows([names(each) for each in given], [names(each) for each in wanted])
    return accuracy.rows([str(each) for each in given], [str(each) for each in wanted])


def marks(kind: Kind, given: Sequence[Label], wanted: Sequence[Label], count: int) -> Numbers:
    """Return 1 or 0; of several labels the share of all `count` that agree; of ratings minus the error squared."""
    if kind == "rating":
        return -np.square(np.subtract(_numbers(given), _numbers(wanted)))
    if kind == "multi":
        return np.array([1 - len({*names(a)} ^ {*names(b)}) / count for a, b in zip(given, wanted)])
    return np.array([float(str(a) == str(b)) for a, b in zip(given, wanted)])


def names(label: Label) -> tuple[str, ...]:
    """Return the labels of an answer."""
    return label if isinstance(label, tuple) else () if label is None else (str(label),)


def order(name: str) -> tuple[int, float, str]:
    """Return what labels are sorted by: numbers by size, before words."""
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


def _numbers(given: Sequence[Label]) -> list[float]:
    return [float(each) for each in given]
