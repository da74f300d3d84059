"""One label a row: cross-entropy over classes, independent labels, or a number.

single      -log softmax(scores)[class]                          nats a row
multi       sum of binary cross-entropies, divided by labels     nats a row
rating      (score - value)²                                     a row
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import Batch
from hanlin.models.contract import Model, Summarises
from hanlin.nn.heads import pool
from hanlin.objectives.contract import Loss, Objective, Part


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What each row should be told to be: (B,) classes, (B, C) zeros and ones, or (B,) values.

    `features` (B, D) are what the head reads, where they are known: the model itself need not run then.
    """

    values: Tensor
    features: Tensor | None = None


class Config(Objective):
    """The loss of a `sequence` head."""

    kind: Literal["single", "multi", "rating"] = "single"
    reads: Literal["first", "mean"] = "first"  # what of a row's states goes into the head
    smoothing: float = Field(0.0, ge=0, lt=1)  # of single labels (Szegedy et al., arXiv 1512.00567)

    def counts(self, batch: Batch[Answers]) -> tuple[int, ...]:
        """Return the rows."""
        return (batch.rows,)

    def __call__(self, model: Model[Any], batch: Batch[Answers]) -> Loss:
        """Return one part, summed over rows; the loss is taken in fp32."""
        assert batch.labels is not None
        scores = scored(model, batch, self.reads).float()
        return (Part(name=self.kind, total=self.total(scores, batch.labels.values), count=batch.rows),)

    def total(self, scores: Tensor, values: Tensor) -> Tensor:
        """Return the summed loss of scores (B, C)."""
        if self.kind == "single":
            return F.cross_entropy(scores, values, reduction="sum", label_smoothing=self.smoothing)
        if self.kind == "multi":
            each = F.binary_cross_entropy_with_logits(scores, values.float(), reduction="none")
            return each.mean(-1).sum()
        return F.mse_loss(scores[:, 0], values.float(), reduction="sum")


def scored(model: Model[Any], batch: Batch[Answers], reads: Literal["first", "mean"] = "first") -> Tensor:
    """Return the scores (B, C) of a `sequence` head, from features where the batch brings them."""
    if batch.labels is not None and batch.labels.features is not None:
        known = batch.labels.features.to(next(model.heads["sequence"].parameters()).dtype)
        return model.heads["sequence"](known[:, None], None)
    if reads == "first" and isinstance(model, Summarises):
        return model.heads["sequence"](model.first(batch.tokens, layout=batch.layout, kinds=batch.kinds)[:, None], None)
    hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds)
    if reads == "mean":
        return model.heads["sequence"](pool(hidden, batch.layout, "mean").to(hidden.dtype)[:, None], None)
    return model.heads["sequence"](hidden, batch.layout)
