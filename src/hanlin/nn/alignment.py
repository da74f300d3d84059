"""The alignment of a recurrent decoder: where in the source each of its states looks, and what it reads there.

    state (B, T, H) ─┬─ a score for every source position ─ softmax ─ weights (B, T, S) ─ context (B, T, E)
    memory (R, S, E) ┘
    bahdanau   score = v . tanh(q state + k source)     arXiv 1409.0473, "additive"
    luong      score = state . k source                 arXiv 1508.04025, "general"

Both look with the state after the present token, so all steps of a row can look at once. B is a multiple of R: row b
reads source b // (B / R), which is how beams share one.

Letters: B rows, T tokens, R sources, S source positions, E their size, H hidden.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from hanlin.nn.attention import readable
from hanlin.nn.cross import Remembers
from hanlin.nn.linear import Linear

Way = Literal["bahdanau", "luong"]


class Alignment(nn.Module):
    """One head that scores by a learned match; every weight is returned, for copying and for pictures."""

    def __init__(self, way: Way, hidden: int, size: int) -> None:
        """Allocate k (H, E) and, for bahdanau, q (H, H) and score (1, H)."""
        super().__init__()
        self.k = Linear(size, hidden, bias=False)
        self.q = Linear(hidden, hidden) if way == "bahdanau" else None
        self.score = Linear(hidden, 1, bias=False) if way == "bahdanau" else None

    def forward(self, state: Tensor, memory: Remembers) -> tuple[Tensor, Tensor]:
        """Return context (B, T, E) and weights (B, T, S), which sum to 1 over the real source positions."""
        keys, states = memory.once("alignment", lambda states: (self.k(states), states))
        mask = memory.once("mask", lambda states: readable(memory.layout))
        rows, length, sources = *state.shape[:2], len(keys)
        assert rows % sources == 0, f"{rows} rows cannot share {sources} sources"
        asked = state.reshape(sources, -1, state.shape[-1])  # the beams of a source one after another
        scores = self._scores(asked, keys)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, 0], -math.inf)
        weights = scores.softmax(-1)
        return (weights @ states).view(rows, length, -1), weights.view(rows, length, -1)

    def _scores(self, asked: Tensor, keys: Tensor) -> Tensor:
        """Return (R, T, S)."""
        if self.q is None or self.score is None:
            return asked @ keys.transpose(1, 2)
        matched: Tensor = self.score(torch.tanh(self.q(asked)[:, :, None] + keys[:, None]))
        return matched[..., 0]
