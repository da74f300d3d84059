"""What is minimised: a loss is a list of parts, each a total in nats and a count, summed first and divided once.

    part 1   total 5123.4 nats  count 2048  weight 1.0  ┐
    part 2   total   31.7 nats  count   32  weight 0.5  ┴─>  loss = sum of weight * total / (count of the whole step)

Counts depend on the batch alone and are known before the forward, so accumulation, packing, ranks and
uneven batches agree exactly.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hanlin.batch import Batch
from hanlin.config import Config
from hanlin.data.batches import BatchSource
from hanlin.data.shards import Shards
from hanlin.models.contract import Model
from hanlin.text.tokenizer import Tokenizer


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


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a run wants its text cut into batches."""

    tokenizer: Tokenizer
    rows: int  # of a step
    context: int  # tokens a row
    seed: int
    packs: bool  # several documents may share a row


class Pretrains(Objective):
    """Can learn from plain text: makes its own questions and answers of shards."""

    @abstractmethod
    def heads(self, vocab: int) -> Mapping[str, int]:
        """Return the heads that the model needs, name -> outputs."""

    @abstractmethod
    def source(self, shards: Shards, reading: Reading) -> BatchSource:
        """Return the batches of a run."""
