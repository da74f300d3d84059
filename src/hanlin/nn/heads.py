"""From hidden states to a vector a row or to scores: pooling, and the heads that encoders carry.

    hidden (B, T, D) ─┬─ pool(…, "cls" | "mean" | "max") ─> (B, D)
                      ├─ First     dense, activation, out  ─> (B, N)       labels of a row, or of a pair
                      ├─ Each      out                     ─> (B, T, N)    labels of tokens, or the ends of a span
                      └─ Guess     dense, activation, norm, then the embedding ─> (…, V)

A row is one segment here, padded or not. The last layer of a head is called `out`; its length is the head's outputs.

Letters: B rows, T tokens, D dim, N outputs, V vocab.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hanlin.batch import Layout
from hanlin.nn.dropout import Dropout
from hanlin.nn.linear import Linear, linear
from hanlin.nn.mlp import ACTIVATIONS

How = Literal["cls", "mean", "max"]
HOW: tuple[How, ...] = get_args(How)


def first(hidden: Tensor, layout: Layout | None) -> Tensor:
    """Return (B, D), the state of each row's first token, on whichever side its padding is."""
    if layout is None:
        return hidden[:, 0]
    return hidden[torch.arange(len(hidden), device=hidden.device), layout.real.int().argmax(1)]


def pool(hidden: Tensor, layout: Layout | None, how: How) -> Tensor:
    """Return (B, D) fp32: a row's first state, or the mean or the maximum over its tokens; zeros for an empty row."""
    states = hidden.float()
    if layout is None:
        real = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    else:
        real = layout.real
    counts = real.sum(1, keepdim=True)
    if how == "cls":
        found = first(states, layout)
    elif how == "mean":
        found = (states * real[..., None]).sum(1) / counts.clamp(min=1)
    else:
        found = states.masked_fill(~real[..., None], -torch.inf).amax(1)
    return found.masked_fill(counts == 0, 0.0)


class First(nn.Module):
    """Scores (B, N) from each row's first token, through one hidden layer."""

    def __init__(self, dim: int, outputs: int, *, activation: str, dropout: float, before: float = 0.0) -> None:
        """Allocate dense (D, D) and out (N, D); `before` is the dropout on the state itself."""
        super().__init__()
        self.dense = Linear(dim, dim)
        self.out = Linear(dim, outputs)
        self.activation = ACTIVATIONS[activation]
        self.dropout, self.before = Dropout(dropout), Dropout(before)

    def forward(self, hidden: Tensor, layout: Layout | None = None) -> Tensor:
        """Return (B, N) for hidden (B, T, D)."""
        return self.out(self.dropout(self.activation(self.dense(self.before(first(hidden, layout))))))


class Each(nn.Module):
    """Scores (B, T, N) from every token for itself."""

    def __init__(self, dim: int, outputs: int, *, dropout: float = 0.0) -> None:
        """Allocate out (N, D)."""
        super().__init__()
        self.out = Linear(dim, outputs)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, layout: Layout | None = None) -> Tensor:
        """Return (B, T, N) for hidden (B, T, D); what stands on padding means nothing."""
        return self.out(self.dropout(hidden))


class Bias(nn.Module):
    """A linear layer whose matrix is another's: it holds the bias alone."""

    def __init__(self, outputs: int) -> None:
        """Allocate the bias (N,)."""
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Return (…, N) for x (…, D) and a matrix (N, D)."""
        return linear(x, matrix, self.bias)


class Guess(nn.Module):
    """What word stands here: a transform of each state, compared with the embedding of every word."""

    def __init__(self, dim: int, outputs: int, *, activation: str, eps: float) -> None:
        """Allocate dense (D, D), norm (D,) and out, a bias (V,)."""
        super().__init__()
        self.dense = Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps)
        self.out = Bias(outputs)
        self.activation = ACTIVATIONS[activation]

    def forward(self, hidden: Tensor, matrix: Tensor) -> Tensor:
        """Return (…, V) for hidden (…, D); `matrix` (V, D) is the embedding."""
        return self.out(self.norm(self.activation(self.dense(hidden))), matrix)
