"""Numbers a row: how far a `sequence` head's scores are from the values they should be.

squared     (score - value)²                                                         mean squared error
absolute    |score - value|                                                          outliers count once, not squared
huber       error² / 2 where |error| <= 1, |error| - 1/2 beyond (Huber 1964)         squared near, absolute far

Of several values a row, such as three ratings, the mean is taken. A single rating is the same as kind `rating` of
objectives/classification.py.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import Batch
from hanlin.models.contract import Model
from hanlin.objectives.classification import Answers
from hanlin.objectives.contract import Loss, Objective, Part

ERRORS: dict[str, Any] = {"squared": F.mse_loss, "absolute": F.l1_loss, "huber": F.huber_loss}


class Config(Objective):
    """The loss of a `sequence` head that says numbers; its `Answers.values` are (B,) or (B, N)."""

    error: Literal["squared", "absolute", "huber"] = "squared"

    def counts(self, batch: Batch[Answers]) -> tuple[int, ...]:
        """Return the rows."""
        return (batch.rows,)

    def __call__(self, model: Model[Any], batch: Batch[Answers]) -> Loss:
        """Return one part, summed over rows; the loss is taken in fp32."""
        assert batch.labels is not None
        hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds)
        scores = model.heads["sequence"](hidden, batch.layout).float()
        return (Part(name=self.error, total=self.total(scores, batch.labels.values), count=batch.rows),)

    def total(self, scores: Tensor, values: Tensor) -> Tensor:
        """Return the summed error of scores (B, N) against values (B, N), or (B,) where N is 1."""
        wanted = values.float().reshape(len(scores), -1)
        assert wanted.shape == scores.shape, f"{tuple(values.shape)} values for {tuple(scores.shape)} scores"
        return ERRORS[self.error](scores, wanted, reduction="none").mean(-1).sum()
