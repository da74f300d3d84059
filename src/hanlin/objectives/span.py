"""Where a span begins and where it ends: two choices among a row's tokens (Devlin et al., arXiv 1810.04805, §4.2).

    ½ (-log softmax(start scores)[first token] - log softmax(end scores)[last token])      nats a row

A row without the answer points at its first token, twice. Padding is no choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import Batch
from hanlin.models.contract import Model
from hanlin.objectives.contract import Loss, Objective, Part


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The first and the last token of each row's answer: (B, 2) places, both 0 where there is none."""

    values: Tensor


class Config(Objective):
    """The loss of a `span` head."""

    def counts(self, batch: Batch[Ends]) -> tuple[int, ...]:
        """Return the rows."""
        return (batch.rows,)

    def __call__(self, model: Model[Any], batch: Batch[Ends]) -> Loss:
        """Return one part, summed over rows; the loss is taken in fp32."""
        assert batch.labels is not None
        hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds)
        scores = model.heads["span"](hidden, batch.layout).float()  # (B, T, 2)
        if batch.layout is not None:
            scores = scores.masked_fill(~batch.layout.real[..., None], -torch.inf)
        total = F.cross_entropy(scores, batch.labels.values, reduction="sum") / 2
        return (Part(name="ends", total=total, count=batch.rows),)
