"""Attention, and what each position of a forward may see.

                        ┌─ no cache ─> Plain   one mask for all layers, from the layout
    scope(tokens, …) ───┤
                        └─ a cache ──> Cache   writes, then reads everything up to each query
    scope.positions (B or 1, T)        scope.layer(i).attend(q, k, v, window) -> (B, H, T, h)

Letters: B rows, T tokens, D dim, H heads, K key-value heads, h head_dim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hanlin.batch import Layout
from hanlin.nn.cache import Attends, Cache
from hanlin.nn.dropout import dropout as drop
from hanlin.nn.linear import Linear
from hanlin.nn.norms import RMSNorm
from hanlin.nn.rope import Turn, rotate


@dataclass(frozen=True)
class Scope:
    """Positions of the tokens, and each layer's view of what they may attend to."""

    positions: Tensor  # (B or 1, T)
    plain: Plain
    cache: Cache | None

    def layer(self, index: int) -> Attends:
        """Return the view that layer `index` attends through."""
        if self.cache is None:
            return self.plain
        view: Attends = self.cache.layer(index)
        return view


def scope(
    tokens: Tensor, layout: Layout | None, cache: Cache | None, *, causal: bool = True, dropout: float = 0.0
) -> Scope:
    """Return the scope of one forward over tokens (B, T) or (B, T, D); a cache is extended by them."""
    length = tokens.shape[1]
    plain = Plain(length, layout, causal=causal, dropout=dropout)
    if cache is not None:
        return Scope(cache.extend(length, layout), plain, cache)
    positions = torch.arange(length, device=tokens.device)[None] if layout is None else layout.positions
    return Scope(positions, plain, None)


class Plain:
    """Attention within one forward, nothing remembered."""

    def __init__(self, length: int, layout: Layout | None, *, causal: bool, dropout: float) -> None:
        """Keep what the mask is made of; it is made at the first layer and shared."""
        self.length = length
        self.layout = layout
        self.causal = causal
        self.dropout = dropout
        self._masks: dict[int | None, Tensor | None] = {}
        self._biases: dict[int | None, Tensor] = {}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Return (B, H, T, h); a query sees its own segment, not later where causal, at most `window` tokens back."""
        if torch.is_grad_enabled() and q.device.type == "cpu" and q.dtype == torch.bfloat16:
            return spelled_out(q, k, v, self._bias(window, q), self.dropout)
        plain_causal = self.layout is None and self.causal and (window is None or window >= self.length)
        mask = None if plain_causal else self.mask(window, q.device)
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout, is_causal=plain_causal, enable_gqa=grouped
        )

    def mask(self, window: int | None, device: torch.device) -> Tensor | None:
        """Return (B or 1, 1, T, T) booleans, True where a query may look, or None when it may look everywhere."""
        if window not in self._masks:
            self._masks[window] = self._make_mask(window, device)
        return self._masks[window]

    def _bias(self, window: int | None, q: Tensor) -> Tensor | None:
        """Return the mask as numbers to add, 0 or -inf: unlike masked_fill, adding costs nothing on the way back."""
        mask = self.mask(window, q.device)
        if mask is not None and window not in self._biases:
            self._biases[window] = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(
                ~mask, -math.inf
            )
        return self._biases.get(window)

    def _make_mask(self, window: int | None, device: torch.device) -> Tensor | None:
        columns = torch.arange(self.length, device=device)
        distance = columns[:, None] - columns
        mask = torch.ones(1, self.length, self.length, dtype=torch.bool, device=device)
        if self.causal:
            mask = mask & (distance >= 0)
        if window is not None:
            mask = mask & (distance < window)
        if self.layout is not None:
            segments = self.layout.segments
            mask = mask & (segments[:, :, None] == segments[:, None, :])
        return mask[:, None] if self.causal or window is not None or self.layout is not None else None


class Firsts:
    """Attention of each row's first token alone: one query a row, over what of the row is real."""

    def __init__(self, layout: Layout | None, dropout: float) -> None:
        """Keep what the mask is made of."""
        self.layout = layout
        self.dropout = dropout

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Return (B, H, 1, h) for queries q (B, H, 1, h)."""
        assert window is None, "a window would hide the row's end"
        return look(q, k, v, readable(self.layout), dropout=self.dropout)


def readable(layout: Layout | None) -> Tensor | None:
    """Return (R, 1, 1, S) booleans, True where there is a source token; None where all are.

    A source without any token is read as its padding: no row of a mask is empty, and softmax never returns NaN.
    """
    if layout is None or bool(layout.real.all()):
        return None
    assert int(layout.segments.max()) <= 1, "a row of a memory holds one source"
    real = layout.real
    return (real | ~real.any(1, keepdim=True))[:, None, None]


def look(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scale: float | None = None, dropout: float = 0.0
) -> Tensor:
    """Return attention (B, H, T, h); `mask` is True where a query may look, or numbers to add to the scores.

    Training in bf16 on a CPU takes the spelled-out way: see `spelled_out`.
    """
    if torch.is_grad_enabled() and q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return spelled_out(q, k, v, mask, dropout, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)


def spelled_out(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """Return attention as matmul, softmax, matmul; `mask` is True where a query may look, or numbers to add.

    Scores are multiplied by `scale`, 1 / sqrt(h) when None.

    The bf16 backward of torch's fused attention on CPU takes several times as long (docs/numbers.md), so training
    goes this way; it is also the slow twin that every other path is tested against.
    """
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        v = v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    scores = (q / math.sqrt(q.shape[-1]) if scale is None else q * scale) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(-1)
    if dropout:
        weights = drop(weights, dropout)
    return weights @ v


class Attention(nn.Module):
    """Multi-head self-attention over x (B, T, D), with fewer key-value heads than heads where asked."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        bias: bool,
        window: int | None = None,
        o_bias: bool | None = None,
        norm: float | None = None,
    ) -> None:
        """Allocate q (H*h, D), k and v (K*h, D), o (D, H*h); `bias` goes for all four unless `o_bias` says otherwise.

        `norm` is the eps of an RMSNorm over each head's query and key (arXiv 2302.05442), None for no norm.
        """
        super().__init__()
        self.q = Linear(dim, heads * head_dim, bias=bias)
        self.k = Linear(dim, kv_heads * head_dim, bias=bias)
        self.v = Linear(dim, kv_heads * head_dim, bias=bias)
        self.o = Linear(heads * head_dim, dim, bias=bias if o_bias is None else o_bias)
        self.q_norm = None if norm is None else RMSNorm(head_dim, norm)
        self.k_norm = None if norm is None else RMSNorm(head_dim, norm)
        self.head_dim = head_dim
        self.window = window

    def forward(self, x: Tensor, view: Attends, by: Turn | None = None, asks: Tensor | None = None) -> Tensor:
        """Return (B, T, D), what each position reads through `view`; queries and keys are turned `by` when given.

        Where `asks` (B, A, D) is given, those alone are the queries, and (B, A, D) comes back.
        """
        q, k, v = self._split(self.q(x if asks is None else asks)), self._split(self.k(x)), self._split(self.v(x))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if by is not None:
            q, k = rotate(q, by), rotate(k, by)
        read = view.attend(q, k, v, self.window)
        return self.o(read.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """Return (B, T, heads*h) as (B, heads, T, h)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
