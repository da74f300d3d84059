"""Mending damaged text, how encoder–decoders are pre-trained: T5's spans or BART's denoising.

spans      inputs with sentinels in place of runs      targets: the runs        data/corruption/spans.py
denoise    sentences permuted, runs masked             targets: the text        data/corruption/denoise.py

Sentinels are a tokenizer's <extra_id_0> … where it has them, else the ids from its vocab on, and so is the mask: the
model then needs a vocab that is larger by as many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from hanlin.batch import Batch
from hanlin.data.batches import BatchSource
from hanlin.data.corrupt import Ints
from hanlin.data.corruption.denoise import infill, permute
from hanlin.data.corruption.source import Corrupted, Damage
from hanlin.data.corruption.spans import room, spans
from hanlin.data.shards import Shards
from hanlin.errors import ConfigError, problem
from hanlin.models.contract import Model
from hanlin.objectives.contract import Loss, Pretrains, Reading
from hanlin.objectives.seq2seq import Config as Seq2Seq
from hanlin.objectives.seq2seq import nats, read
from hanlin.text.tokenizer import Tokenizer

ENDS = tuple(".!?。！？…\n")  # what ends a sentence


class Config(Pretrains):
    """Minimise the nats of what mends a damaged text."""

    kind: Literal["spans", "denoise"] = "spans"
    rate: float = Field(default_factory=lambda chosen: 0.15 if chosen.get("kind") == "spans" else 0.3, gt=0, lt=1)
    mean: float = Field(3.0, ge=1, le=10)  # tokens of a run
    permuted: bool = True  # sentences change places; for `denoise`
    sentinels: int = Field(100, gt=0)  # for `spans`
    smoothing: float = Field(0.0, ge=0, lt=1)

    def counts(self, batch: Batch[Any]) -> tuple[int, ...]:
        """Return the number of targets."""
        return Seq2Seq().counts(batch)

    def __call__(self, model: Model[Any], batch: Batch[Any]) -> Loss:
        """Return one part: nats over targets; ConfigError when the model's vocab has no room for what marks damage."""
        assert batch.targets is not None
        highest = max(int(batch.targets.max()), int(batch.source.ids.max()))  # type: ignore[union-attr]  # Tokens
        if highest >= model.config.vocab:
            do = f"model.vocab={highest + 1} or more"
            raise ConfigError(problem("model.vocab", f"{model.config.vocab} has no room for id {highest}", do=do))
        if model.config.start is not None:
            tokens = batch.tokens.clone()
            tokens[:, 0] = model.config.start
            batch = replace(batch, tokens=tokens)
        return (nats(model, batch, read(model, batch), smoothing=self.smoothing),)

    def heads(self, vocab: int) -> Mapping[str, int]:
        """Return none: the decoder answers."""
        return {}

    def source(self, shards: Shards, reading: Reading) -> BatchSource:
        """Return damaged pieces of documents and what mends them."""
        damage, size = self._spans(reading) if self.kind == "spans" else self._denoise(reading)
        pad = reading.tokenizer.special.pad or 0
        rows, context, seed = reading.rows, reading.context, reading.seed
        return Corrupted(shards, damage, rows=rows, room=size, context=context, seed=seed, pad=pad)

    def _spans(self, reading: Reading) -> tuple[Damage, int]:
        """Return T5's damage, and the tokens of a text."""
        marks, end = marked(reading.tokenizer, self.sentinels), reading.tokenizer.special.eos
        last = int(marks[-1]) if end is None else end
        free = marks[:-1] if end is None and len(marks) > 1 else marks

        def damage(ids: Ints, bits: np.random.PCG64) -> tuple[Ints, Ints]:
            return spans(ids, bits, rate=self.rate, mean=self.mean, sentinels=free, end=last)

        return damage, room(reading.context, self.rate, self.mean)

    def _denoise(self, reading: Reading) -> tuple[Damage, int]:
        """Return BART's damage, and the tokens of a text."""
        tokenizer = reading.tokenizer
        mask = tokenizer.vocab if tokenizer.special.mask is None else tokenizer.special.mask
        end = tokenizer.special.eos
        ends = np.array([tokenizer.decode([id]).rstrip(" ").endswith(ENDS) for id in range(tokenizer.vocab)])
        closing = np.zeros(0, np.int64) if end is None else np.array([end])

        def damage(ids: Ints, bits: np.random.PCG64) -> tuple[Ints, Ints]:
            moved = permute(ids, ends[ids], bits) if self.permuted else ids
            inputs = infill(moved, bits, rate=self.rate, mean=self.mean, mask=mask)
            return inputs, ids if len(ids) and ids[-1] == end else np.concatenate([ids, closing])

        return damage, reading.context - 1


def marked(tokenizer: Tokenizer, count: int) -> Ints:
    """Return the ids of `count` sentinels, in the order in which they are used."""
    known = [tokenizer.id(f"<extra_id_{number}>") for number in range(count)]
    own = [id for id in known if id is not None]
    return np.array(own) if own else np.arange(tokenizer.vocab, tokenizer.vocab + count)
