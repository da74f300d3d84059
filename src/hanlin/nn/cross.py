"""Attention from what is written to what was read, whose keys and values are made once and shared by all beams.

    x (R·b, T, D) ─ q ─ fold the b beams of a source into its query axis ─ (R, H, b·T, h) ┐
    memory (R, S, D) ─ k, v, once ───────────────────────────────────────── (R, H, S, h) ─┴─ attend ─ o ─ (R·b, T, D)

Folding costs nothing, and no key is ever copied for a beam.

Letters: B rows, R sources (B is a multiple of it), T tokens, S source positions, D dim, H heads, h head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from hanlin.batch import Layout
from hanlin.nn.attention import look, readable
from hanlin.nn.linear import Linear


class Remembers(Protocol):
    """What was read: a layout, and a place to keep what is made of its states (R, S, D)."""

    @property
    def layout(self) -> Layout | None:
        """Return which source positions are real; None: all of them."""

    def once(self, name: str, make: Callable[[Tensor], Any]) -> Any:  # noqa: ANN401  # whatever make returns
        """Return `make(states)`, made at the first call."""


class CrossAttention(nn.Module):
    """Multi-head attention of x (B, T, D) to a memory; its norm is kept here and applied by the block."""

    def __init__(
        self,
        dim: int,
        norm: nn.Module,
        *,
        heads: int,
        head_dim: int,
        bias: bool,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Allocate q, k, v (H*h, D) and o (D, H*h); scores are multiplied by `scale`, 1 / sqrt(h) when None."""
        super().__init__()
        self.norm = norm
        self.q = Linear(dim, heads * head_dim, bias=bias)
        self.k = Linear(dim, heads * head_dim, bias=bias)
        self.v = Linear(dim, heads * head_dim, bias=bias)
        self.o = Linear(heads * head_dim, dim, bias=bias)
        self.head_dim = head_dim
        self.scale = scale
        self.dropout = dropout

    def forward(self, x: Tensor, memory: Remembers, name: str) -> Tensor:
        """Return (B, T, D), what each token reads; rows b·i to b·i + b - 1 are the beams of source i.

        `name` tells this layer's keys and values from those of the others in the memory.
        """
        keys, values = memory.once(name, self._read)
        mask = memory.once("mask", lambda states: readable(memory.layout))
        rows, length, sources = *x.shape[:2], len(keys)
        assert rows % sources == 0, f"{rows} rows cannot share {sources} sources"
        q = self.q(x).view(sources, -1, keys.shape[1], self.head_dim).transpose(1, 2)
        found = look(q, keys, values, mask, scale=self.scale, dropout=self.dropout if self.training else 0.0)
        return self.o(found.transpose(1, 2).reshape(rows, length, -1))

    def _read(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (R, H, S, h), each in one piece of memory."""
        keys, values = (
            part(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2).contiguous() for part in (self.k, self.v)
        )
        return keys, values
