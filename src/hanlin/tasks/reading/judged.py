"""Predicted labels against wanted ones, row by row: entities, slots with an intent, or plain tags."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from hanlin.metrics.contract import Numbers, Rows, share
from hanlin.metrics.labels import accuracy, entity_f1, slot_f1
from hanlin.metrics.labels.entity_f1 import Span

Spans = Sequence[Collection[Span]]


def plain(given: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> Rows:
    """Return (right, words) of each row, for `accuracy`."""
    numbers = [[sum(a == b for a, b in zip(*pair)), len(pair[1])] for pair in zip(given, wanted)]
    return Rows(numbers=np.array(numbers, dtype=np.float64), measures=accuracy.MEASURES)


def entities(given: Spans, wanted: Spans) -> Rows:
    """Return what each row adds to `f1`, `precision` and `recall`."""
    return entity_f1.rows(given, wanted, scheme="spans")


def frames(given: Spans, wanted: Spans, intents: tuple[Sequence[str | None], Sequence[str | None]]) -> Rows:
    """Return what each row adds to `slot_f1`, `intent_accuracy` and `frame_accuracy`; `intents` are (given, wanted)."""
    sides = ([(meant or "", slots) for meant, slots in zip(*side)] for side in zip(intents, (given, wanted)))
    return slot_f1.rows(*sides, scheme="spans")


def own(numbers: Numbers) -> Numbers:
    """Return each row's F1 from its (found, given, wanted), 1 where both sides are empty; halved by a wrong intent."""
    both = numbers[:, 1] + numbers[:, 2]
    f1 = np.where(both == 0, 1.0, share(2 * numbers[:, 0], both))
    return f1 * (1 + numbers[:, 3]) / 2 if numbers.shape[1] > 3 else f1
