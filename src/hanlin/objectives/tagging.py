"""One label a token, and of joint tasks one a row too: two sums, each divided by its own count.

tags      -log softmax(token scores)[label]       nats a word: at its first token, where `targets` has a label
intents   -log softmax(row scores)[intent]        nats a text, weighed by `weight` (Chen et al., arXiv 1902.10909)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import IGNORE, Batch
from hanlin.models.contract import Model
from hanlin.nn.heads import first as first
from hanlin.objectives.contract import Loss, Objective, Part


@dataclass(frozen=True, kw_only=True)
class Intents:
    """What each row means as a whole: (B,) classes, IGNORE for a row that goes on with a text."""

    values: Tensor


class Config(Objective):
    """The loss of a `token` head whose first outputs are tags, and the others, of the first token, intents."""

    tags: int = Field(gt=0)  # outputs that are tags
    intents: bool = False
    weight: float = Field(1.0, gt=0)  # of the intents' part

    def counts(self, batch: Batch[Intents]) -> tuple[int, ...]:
        """Return the labelled tokens, and the texts."""
        assert batch.targets is not None
        tags = int((batch.targets != IGNORE).sum())
        if not self.intents:
            return (tags,)
        assert batch.labels is not None
        return tags, int((batch.labels.values != IGNORE).sum())

    def __call__(self, model: Model[Any], batch: Batch[Intents]) -> Loss:
        """Return one part or two; the losses are taken in fp32."""
        assert batch.targets is not None
        counts = self.counts(batch)
        hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds)
        scores = model.heads["token"](hidden, batch.layout).float()
        own = scores[..., : self.tags].flatten(0, 1)
        tags = F.cross_entropy(own, batch.targets.flatten(), ignore_index=IGNORE, reduction="sum")
        found = (Part(name="tags", total=tags, count=counts[0]),)
        if not self.intents:
            return found
        assert batch.labels is not None
        meant = first(scores, batch.layout)[:, self.tags :]
        total = F.cross_entropy(meant, batch.labels.values, ignore_index=IGNORE, reduction="sum")
        return (*found, Part(name="intents", total=total, count=counts[1], weight=self.weight))
