"""Which label was taken for which: the table behind F1, the Matthews correlation and kappa.

                 given
              cat   dog   owl
wanted  cat    5     1     0        counts[wanted, given]
        dog    2     3     0
        owl    0     0     0        a label that one side never uses still has its line
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hanlin.errors import DataError, problem
from hanlin.metrics.contract import Counts, Numbers, aligned

Label = Hashable


@dataclass(frozen=True)
class Confusion:
    """How many rows of each wanted label were given each label: counts (wanted, given)."""

    labels: tuple[Label, ...]
    counts: Counts

    def worst(self, limit: int = 10) -> list[tuple[Label, Label, int]]:
        """Return the commonest mistakes as (wanted, given, rows), the most frequent first."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
        pairs = [divmod(int(place), len(self.labels)) for place in order]
        return [(self.labels[i], self.labels[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def confusion(
    predictions: Sequence[Label], references: Sequence[Label], *, labels: Sequence[Label] | None = None
) -> Confusion:
    """Return the table of rows by wanted and given label; `labels` fixes the order, those not named follow.

    >>> confusion(["a", "b", "b"], ["a", "a", "b"]).counts.tolist()
    [[1, 1], [0, 1]]
    """
    named, codes = coded(predictions, references, labels)
    size = len(named)
    flat = np.bincount(codes[:, 1] * size + codes[:, 0], minlength=size * size)
    return Confusion(named, flat.reshape(size, size))


def coded(
    predictions: Sequence[Label], references: Sequence[Label], labels: Sequence[Label] | None = None
) -> tuple[tuple[Label, ...], Counts]:
    """Return the labels, named ones first and the others sorted, and (n, 2): each row's given and wanted number."""
    comparable(predictions, references)
    first = list(dict.fromkeys(labels or ()))
    named = (*first, *ordered({*predictions, *references} - {*first}))
    number = {label: place for place, label in enumerate(named)}
    return named, np.array([[number[given], number[wanted]] for given, wanted in zip(predictions, references)])


def ordered(labels: Iterable[Label]) -> list[Any]:
    """Return labels sorted by their own order, kind by kind: 2 before 10, numbers apart from strings."""
    return sorted(labels, key=lambda label: (not isinstance(label, Number), label if _sorts(label) else repr(label)))


def comparable(predictions: Sequence[Any] | NDArray[Any], references: Sequence[Any] | NDArray[Any]) -> None:
    """Raise DataError where the rows do not fit, or one side's labels are numbers and the other's are strings."""
    aligned(predictions, references)
    texts = [{isinstance(label, str) for label in side} for side in (predictions, references)]
    if texts[0].isdisjoint(texts[1]):
        given = f"predictions are like {predictions[0]!r}, references like {references[0]!r}"
        raise DataError(problem("score", given, "labels of one kind, both numbers or both strings"))


def totals(counts: Numbers, codes: Counts, size: int) -> Numbers:
    """Return (r, size): how often each of `size` codes is drawn, rows (n,) of one code summed by `counts` (r, n)."""
    found = np.zeros((len(counts), size))
    if len(codes):
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        found[:, present] = np.add.reduceat(counts[:, order], starts, axis=1)
    return found


def margins(counts: Numbers, numbers: Numbers, size: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return (r, size) three times: rows that hit each label, that were given it, that wanted it."""
    given, wanted = numbers[:, 0].astype(np.int64), numbers[:, 1].astype(np.int64)
    hit = given == wanted
    return totals(counts[:, hit], given[hit], size), totals(counts, given, size), totals(counts, wanted, size)


def _sorts(label: Label) -> bool:
    return isinstance(label, str | int | float | np.number)
