"""Texts that mean the same lie near each other: four ways to say so, all on cosines of pooled vectors.

    contrastive   -log softmax(cos(text, ·) / temperature)[its pair]        over all pairs and negatives of the step
    triplet       max(0, cos(text, negative) - cos(text, pair) + margin)    an example
    cosine        (cos(text, pair) - score)²                                an example, scores from 0 to 1
    cosent        log(1 + Σ exp((cos_j - cos_i) / temperature))             over examples i, j with score_i > score_j

InfoNCE (van den Oord et al., arXiv 1807.03748); triplets on cosines (FaceNet, arXiv 1503.03832); CoSENT (Su 2022),
which asks for the order of the scores alone, as Spearman's correlation does. A candidate with the same text as the
right one, or as the one asked, is no wrong answer and is left out.

Letters: B rows, n examples, m candidates, D dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import Batch
from hanlin.models.contract import Model
from hanlin.nn.heads import How, pool
from hanlin.objectives.contract import Part
from hanlin.objectives.joint import Joint

Kind = Literal["contrastive", "triplet", "cosine", "cosent"]
TEXT, PAIR, NEGATIVE = range(3)  # what a row is of its example; every example has the first two


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What each row is: (B,) its role, its example's score (0 to 1, NaN where unknown), a number for its text."""

    roles: Tensor
    scores: Tensor
    keys: Tensor  # the same for the same text


class Config(Joint):
    """The loss of pairs, triplets or scored pairs."""

    kind: Kind = "contrastive"
    how: How = "mean"
    temperature: float = Field(0.05, gt=0)
    margin: float = Field(0.2, gt=0)

    def counts(self, batch: Batch[Sides]) -> tuple[int, ...]:
        """Return the examples that ask something."""
        return (int(self._asks(batch).sum()),)

    def embed(self, model: Model[Any], batch: Batch[Sides]) -> Tensor:
        """Return (B, D) pooled states of length 1."""
        hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds)
        return F.normalize(pool(hidden, batch.layout, self.how), dim=-1)

    def joint(self, vectors: Tensor, batch: Batch[Sides]) -> Part:
        """Return the one part; of `cosent`, which is one sum over a step, the count times that sum."""
        ways = {"contrastive": _contrastive, "triplet": self._triplet, "cosine": _cosine, "cosent": self._cosent}
        assert batch.labels is not None
        asks = self._asks(batch)
        total = ways[self.kind](vectors, batch.labels, asks) if self.kind != "contrastive" else None
        if total is None:
            total = _contrastive(vectors / self.temperature**0.5, batch.labels, asks)
        return Part(name=self.kind, total=total, count=int(asks.sum()))

    def _asks(self, batch: Batch[Sides]) -> Tensor:
        """Return (n,) which examples are learned from: of contrastive pairs, those not scored as unlike."""
        assert batch.labels is not None
        scores = batch.labels.scores[batch.labels.roles == TEXT]
        return ~(scores < 0.5) if self.kind == "contrastive" else torch.ones_like(scores, dtype=torch.bool)
