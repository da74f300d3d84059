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
        assert batch.labels is not None
        sides, asks = batch.labels, self._asks(batch)
        texts, pairs = vectors[sides.roles == TEXT], vectors[sides.roles == PAIR]
        negatives, scores = vectors[sides.roles == NEGATIVE], sides.scores[sides.roles == TEXT]
        if self.kind == "contrastive":
            logits = texts @ torch.cat([pairs, negatives]).T / self.temperature
            logits = logits.masked_fill(_same(sides), -torch.inf)
            right = torch.arange(len(texts), device=texts.device)
            total = F.cross_entropy(logits[asks], right[asks], reduction="sum")
        elif self.kind == "triplet":
            total = F.relu((texts * negatives).sum(-1) - (texts * pairs).sum(-1) + self.margin).sum()
        elif self.kind == "cosine":
            total = ((texts * pairs).sum(-1) - scores).square().sum()
        else:
            total = len(texts) * self._order((texts * pairs).sum(-1), scores)
        return Part(name=self.kind, total=total, count=int(asks.sum()))

    def _order(self, cosines: Tensor, scores: Tensor) -> Tensor:
        """Return log(1 + Σ exp((cos_j - cos_i) / temperature)) over all i, j with score_i > score_j."""
        gaps = (cosines[None] - cosines[:, None]) / self.temperature  # [i, j]
        wrong = gaps[scores[:, None] > scores[None]]
        return torch.cat([wrong.new_zeros(1), wrong]).logsumexp(0)

    def _asks(self, batch: Batch[Sides]) -> Tensor:
        """Return (n,) which examples are learned from: of contrastive pairs, those not scored as unlike."""
        assert batch.labels is not None
        scores = batch.labels.scores[batch.labels.roles == TEXT]
        return ~(scores < 0.5) if self.kind == "contrastive" else torch.ones_like(scores, dtype=torch.bool)


def _same(sides: Sides) -> Tensor:
    """Return (n, m): whether a candidate that is not the right one has its text, or the text that is asked."""
    text, pair, negative = (sides.keys[sides.roles == role] for role in (TEXT, PAIR, NEGATIVE))
    candidates = torch.cat([pair, negative])
    found = (candidates[None] == pair[:, None]) | (candidates[None] == text[:, None])
    found[:, : len(pair)] &= ~torch.eye(len(pair), dtype=torch.bool, device=found.device)
    return found
