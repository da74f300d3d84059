"""What was meant and with which details: `slot_f1`, `intent_accuracy`, and `frame_accuracy`, both exactly right.

"fly from boston to denver"     intent  book_flight
                                slots   (2, 3, from_city), (4, 5, to_city)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from hanlin.metrics.contract import FRACTION, Estimate, Groups, Numbers, Rows, Sums, aligned, share
from hanlin.metrics.labels.confusion import Label, comparable
from hanlin.metrics.labels.entity_f1 import Scheme, both, count

Frame = tuple[Label, Collection[Any]]  # intent, and tags or spans


def rows(
    predictions: Sequence[Frame], references: Sequence[Frame], *, scheme: Scheme = "bio", strict: bool = False
) -> Rows:
    """Return (slots found, given, wanted, intent right, all right, 1) of each row."""
    aligned(predictions, references)
    (intents, slots), (wanted_intents, wanted_slots) = (list(zip(*side)) for side in (predictions, references))
    comparable(intents, wanted_intents)
    pairs = both(slots, wanted_slots, scheme, strict)
    right = np.array([given == wanted for given, wanted in zip(intents, wanted_intents)], dtype=np.float64)
    exact = right * np.array([given == wanted for given, wanted in pairs])
    numbers = np.concatenate([count(pairs).numbers, np.stack([right, exact, np.ones(len(right))], 1)], 1)
    measures = {
        "slot_f1": Sums(_slots, FRACTION),
        "intent_accuracy": Sums(partial(_share, column=3), FRACTION),
        "frame_accuracy": Sums(partial(_share, column=4), FRACTION),
    }
    return Rows(numbers=numbers, measures=measures)


def score(
    predictions: Sequence[Frame],
    references: Sequence[Frame],
    *,
    scheme: Scheme = "bio",
    strict: bool = False,
    groups: Groups = None,
) -> dict[str, Estimate]:
    """Return `slot_f1`, `intent_accuracy` and `frame_accuracy`, fractions; a row is (intent, tags or spans).

    >>> score([("播放", ["O", "B-歌手"])], [("播放", ["O", "B-歌手"])])["frame_accuracy"].value
    1.0
    """
    return rows(predictions, references, scheme=scheme, strict=strict).score(groups)


def _slots(sums: Numbers) -> Numbers:
    return share(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _share(sums: Numbers, *, column: int) -> Numbers:
    return share(sums[..., column], sums[..., -1])
