"""Answers to a source: the source is encoded once, every token of the answer is predicted from it and those before.

    source ─ encode ─ memory ─┐
    tokens  start a b c ──────┴─ decode ─ nats against targets  a b c end

With smoothing s the loss of a target is (1 - s) (-log p) + s · mean over the vocab of -log p (arXiv 1512.00567).
With `sampled`, that share of the tokens that are read is the model's own likeliest guess, made in a first pass over the
right ones: scheduled sampling (arXiv 1506.03099) in two passes, as for Transformers (arXiv 1906.07651).

Letters: B rows, T tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from hanlin.batch import IGNORE, Batch
from hanlin.models.contract import Encodes, Memory, Model, require
from hanlin.objectives.contract import Loss, Objective, Part
from hanlin.objectives.cross_entropy import total_nats


class Config(Objective):
    """Minimise the nats of an answer's tokens given a source."""

    smoothing: float = Field(0.0, ge=0, lt=1)
    sampled: float = Field(0.0, ge=0, le=1)  # of the tokens after the first are guesses; the same all along

    def counts(self, batch: Batch[Any]) -> tuple[int, ...]:
        """Return the number of targets."""
        assert batch.targets is not None
        return (int((batch.targets != IGNORE).sum()),)

    def __call__(self, model: Model[Any], batch: Batch[Any]) -> Loss:
        """Return one part: nats over targets."""
        return (nats(model, batch, read(model, batch), smoothing=self.smoothing, sampled=self.sampled),)


def read(model: Model[Any], batch: Batch[Any]) -> Memory:
    """Return what the model reads of the batch's source; AbilityError for a family that reads no source."""
    assert batch.source is not None, "a batch of answers has a source"
    return require(model, Encodes).encode(batch.source)  # type: ignore[type-abstract]  # as in decode


def nats(model: Model[Any], batch: Batch[Any], memory: Memory, *, smoothing: float = 0.0, sampled: float = 0.0) -> Part:
    """Return the nats of the batch's targets given what was read of its source."""
    assert batch.targets is not None
    tokens = batch.tokens
    if sampled:
        tokens = guessed(model, batch, memory, sampled)
    hidden = model(tokens, layout=batch.layout, kinds=batch.kinds, memory=memory)
    total = total_nats(model, hidden, batch.targets, smoothing=smoothing)
    return Part(name="nats", total=total, count=int((batch.targets != IGNORE).sum()))


@torch.no_grad()
def guessed(model: Model[Any], batch: Batch[Any], memory: Memory, share: float) -> Tensor:
    """Return the tokens (B, T), a random share of those that repeat a target replaced by the model's guess of it."""
    assert batch.targets is not None
    read = replace(memory, states=memory.states.detach(), kept={})  # what is kept of it here has no gradient
    hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds, memory=read)
    guesses = torch.zeros_like(batch.targets)
    known = batch.targets != IGNORE
    guesses[known] = torch.cat([model.logits(part).argmax(-1) for part in hidden[known].split(256)])
    before = torch.cat((guesses[:, :1], guesses[:, :-1]), 1)
    repeats = torch.zeros_like(known)
    repeats[:, 1:] = known[:, :-1] & (batch.tokens[:, 1:] == batch.targets[:, :-1])
    drawn = torch.rand(batch.tokens.shape, device=batch.tokens.device) < share
    return torch.where(repeats & drawn, before, batch.tokens)
