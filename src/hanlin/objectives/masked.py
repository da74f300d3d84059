"""Masked words and following sentences, how encoders are pre-trained: either part alone, or both, counted apart.

masked           -log p(the hidden token | all around it)     nats over hidden tokens     arXiv 1810.04805
next_sentence    -log p(follows or not | [CLS])               nats over pairs
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import IGNORE, Batch
from hanlin.data.batches import BatchSource
from hanlin.data.masked import Follows, Masked, Questions
from hanlin.data.shards import Shards
from hanlin.errors import AbilityError, problem
from hanlin.models.contract import Model
from hanlin.objectives.contract import Loss, Part, Pretrains, Reading
from hanlin.objectives.cross_entropy import total_nats


class Config(Pretrains):
    """Minimise the nats of hidden tokens, of pairs, or of both."""

    masked: bool = True  # ask for hidden tokens
    next_sentence: bool = False  # ask whether the second half follows the first; RoBERTa showed it can go
    rate: float = Field(0.15, gt=0, lt=1)  # of the tokens are hidden
    words: Literal["whole", "pieces"] = "whole"  # whole words are hidden, or tokens for themselves
    chinese: Literal["characters", "ngrams"] = "characters"  # ngrams: one to four neighbours (arXiv 2004.13922)
    weight: float = Field(1.0, gt=0)  # of the next_sentence part

    def problems(self) -> list[str]:
        """Return contradictions."""
        return [] if self.masked or self.next_sentence else ["nothing is asked: masked and next_sentence are false"]

    def counts(self, batch: Batch[Follows]) -> tuple[int, ...]:
        """Return the hidden tokens, and the pairs."""
        answers = batch.labels.answers if batch.labels is not None else None
        asked = (batch.targets if self.masked else None, answers if self.next_sentence else None)
        return tuple(int((each != IGNORE).sum()) for each in asked if each is not None)

    def __call__(self, model: Model[Any], batch: Batch[Follows]) -> Loss:
        """Return one part for each question, from one forward."""
        hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds)
        totals = []
        if self.masked:
            assert batch.targets is not None
            totals.append(("masked", total_nats(model, hidden, batch.targets), 1.0))
        if self.next_sentence:
            assert batch.labels is not None
            totals.append(("next_sentence", _follows(model, hidden, batch.labels.answers), self.weight))
        return tuple(
            Part(name=name, total=total, count=count, weight=weight)
            for (name, total, weight), count in zip(totals, self.counts(batch))
        )

    def heads(self, vocab: int) -> Mapping[str, int]:
        """Return the heads that answer."""
        return {**({"masked": vocab} if self.masked else {}), **({"next_sentence": 2} if self.next_sentence else {})}

    def source(self, shards: Shards, reading: Reading) -> BatchSource:
        """Return packed rows with questions; AbilityError for a family that takes one document a row."""
        if not reading.packs:
            raise AbilityError(problem("objective masked", "a family that cannot pack", "an encoder"))
        asks = Questions(
            rate=self.rate if self.masked else 0.0,
            whole=self.words == "whole",
            ngrams=self.chinese == "ngrams",
            pairs=self.next_sentence,
        )
        return Masked(shards, reading.tokenizer, asks, rows=reading.rows, context=reading.context, seed=reading.seed)


def _follows(model: Model[Any], hidden: Tensor, answers: Tensor) -> Tensor:
    """Return the summed cross-entropy of pairs, taken in fp32; `answers` (B, T) stand at their first tokens."""
    asked = answers != IGNORE
    scores = model.heads["next_sentence"](hidden[asked][:, None], None).float()
    return F.cross_entropy(scores, answers[asked], reduction="sum")
