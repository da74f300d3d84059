"""What is minimised: a loss is a list of parts, each a total in nats and a count, summed first and divided once.

    part 1   total 5123.4 nats  count 2048  weight 1.0  ┐
    part 2   total   31.7 nats  count   32  weight 0.5  ┴─>  loss = sum of weight * total / (count of the whole step)

Counts depend on the batch alone and are known before the forward, so accumulation, packing, ranks and
uneven batches agree exactly.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hanlin.batch import Batch
from hanlin.config import Config
from hanlin.models.contract import Model


@dataclass(frozen=True, kw_only=True)
class Part:
    """One summand of a loss."""

    name: str
    total: Tensor  # scalar, summed over `count` items, with its gradient
    count: int
    weight: float = 1.0


Loss = tuple[Part, ...]


class Objective(Config):
    """Maps a model and a batch to a loss."""

    @abstractmethod
    def counts(self, batch: Batch[Any]) -> tuple[int, ...]:
        """Return how many items each part will count, in the order of the parts."""

    @abstractmethod
    def __call__(self, model: Model[Any], batch: Batch[Any]) -> Loss:
        """Return the loss of one batch, or of a slice of one."""
