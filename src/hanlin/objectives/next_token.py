"""Next-token prediction: every token is the target of the position before it, within its own document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hanlin.batch import IGNORE, Batch
from hanlin.data.batches import BatchSource, Packed, Streams
from hanlin.data.shards import Shards
from hanlin.models.contract import Model
from hanlin.objectives.contract import Loss, Part, Pretrains, Reading
from hanlin.objectives.cross_entropy import total_nats


class Config(Pretrains):
    """Minimise the summed negative log-likelihood of the targets."""

    streams: bool = False  # a row goes on where it ended the step before, and a recurrent model's state with it

    def counts(self, batch: Batch[Any]) -> tuple[int, ...]:
        """Return the number of targets."""
        assert batch.targets is not None
        return (int((batch.targets != IGNORE).sum()),)

    def __call__(self, model: Model[Any], batch: Batch[Any]) -> Loss:
        """Return one part: nats over targets."""
        assert batch.targets is not None
        hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds, cache=batch.cache)
        total = total_nats(model, hidden, batch.targets)
        return (Part(name="nats", total=total, count=self.counts(batch)[0]),)

    def heads(self, vocab: int) -> Mapping[str, int]:
        """Return none: the language model itself answers."""
        return {}

    def source(self, shards: Shards, reading: Reading) -> BatchSource:
        """Return packed documents, or streams of them, each token the answer to those before it."""
        if self.streams:
            return Streams(shards, rows=reading.rows, context=reading.context, seed=reading.seed)
        pad = reading.tokenizer.special.pad or 0
        return Packed(
            shards, rows=reading.rows, context=reading.context, seed=reading.seed, pack=reading.packs, pad=pad
        )
