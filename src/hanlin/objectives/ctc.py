"""Answers whose tokens come in the order of their source: the encoder, too, learns to spell them, frame by frame.

    source ─ encode ─ memory ─┬─ decode ─ nats of the targets                                      nats
                              └─ logits of each state ─ every path that spells the targets ─ nats  ctc, × weight

The second part is connectionist temporal classification (Graves et al. 2006, ICML): the sum over all ways to spread the
targets over the states, blanks between them, beside the loss of the answer (Kim et al., arXiv 1609.06773). The states
are read by the model's own output matrix and the token that answers begin with, which is never a target, is the blank:
the model has no weight more than without it. What it gains here is in docs/numbers.md.

Letters: B rows, T tokens, P memory positions, V vocab.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import IGNORE, Batch
from hanlin.models.contract import Memory, Model
from hanlin.objectives import seq2seq
from hanlin.objectives.contract import Loss, Part


class Config(seq2seq.Config):
    """Minimise the nats of an answer's tokens given a source, and of their spelling by the source's states."""

    weight: float = Field(0.5, gt=0)  # of the ctc part

    def counts(self, batch: Batch[Any]) -> tuple[int, ...]:
        """Return the number of targets, for both parts."""
        return super().counts(batch) * 2

    def __call__(self, model: Model[Any], batch: Batch[Any]) -> Loss:
        """Return both parts from one reading of the source."""
        memory = seq2seq.read(model, batch)
        written = seq2seq.nats(model, batch, memory, smoothing=self.smoothing, sampled=self.sampled)
        spelled = Part(name="ctc", total=spelling(model, batch, memory), count=written.count, weight=self.weight)
        return (written, spelled)


def spelling(model: Model[Any], batch: Batch[Any], memory: Memory) -> Tensor:
    """Return the summed nats of each row's targets over all paths through its states (B, P), a scalar in fp32.

    A row with more targets than its states can spell counts nothing. The logits of all states are held at once: 4 B P V
    bytes, and as much again for their gradient.
    """
    assert batch.targets is not None
    layout, states, blank = memory.layout, memory.states, _blank(batch)
    spelled = (batch.targets != IGNORE) & (batch.targets != blank)  # an end that is also the beginning is not spelled
    lengths = torch.full(states.shape[:1], states.shape[1]) if layout is None else layout.real.sum(1)
    logs = model.logits(states).float().log_softmax(-1).transpose(0, 1)  # (P, B, V), as the operator wants them
    return F.ctc_loss(
        logs, batch.targets[spelled], lengths, spelled.sum(1), blank=blank, reduction="sum", zero_infinity=True
    )


def _blank(batch: Batch[Any]) -> int:
    """Return the token that the rows begin with."""
    return int((batch.tokens if batch.layout is None else batch.tokens[batch.layout.real]).flatten()[0])
