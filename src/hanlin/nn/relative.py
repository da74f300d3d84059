"""Positions as a bias on the scores, learned by distance and shared by all layers (Raffel et al., arXiv 1910.10683).

    distance = key - query    …  -9 … -4 -3 -2 -1  0  1  2  3  4 … 9  …
    bucket, causal            …   8     4  3  2  1  0  0 (never seen)
    bucket, both ways         one for each step when near, for growing ranges when far; from `farthest` on, the last

Scores are not scaled by 1 / sqrt(h). A cache keeps the bias by distance, so that a step of decoding slices it.

Letters: B rows, T tokens, S keys, H heads, N buckets, L cache length, h head_dim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hanlin.batch import Layout
from hanlin.errors import AbilityError, problem
from hanlin.nn.attention import look, scope
from hanlin.nn.cache import Attends, Cache, KeyValueCache


def buckets(distances: Tensor, count: int, farthest: int, *, causal: bool) -> Tensor:
    """Return the bucket, 0 to count - 1, of each distance key - query; logarithms in fp32, as checkpoints learned them.

    Half of the buckets of a direction hold one distance each, the others ranges that grow up to `farthest`.
    """
    if causal:
        side, steps = torch.zeros_like(distances), (-distances).clamp(min=0)
    else:
        count //= 2
        side, steps = (distances > 0).long() * count, distances.abs()
    near = count // 2
    ratio = torch.log(steps.clamp(min=1).float() / near) / math.log(farthest / near)
    far = (near + (ratio * (count - near)).long()).clamp(max=count - 1)
    return side + torch.where(steps < near, steps, far)


class RelativeBias(nn.Module):
    """A learned number for each bucket and head."""

    def __init__(self, count: int, heads: int, *, farthest: int, causal: bool) -> None:
        """Allocate the weight (N, H)."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, heads))
        self.farthest = farthest
        self.causal = causal

    def line(self, length: int) -> Tensor:
        """Return (H, 2 length - 1): the bias at distances 1 - length to length - 1."""
        distances = torch.arange(1 - length, length, device=self.weight.device)
        numbers = buckets(distances, self.weight.shape[0], self.farthest, causal=self.causal)
        return self.weight[numbers].T

    def square(self, length: int) -> Tensor:
        """Return (H, length, length): row t holds the biases of query t."""
        return self.line(length).unfold(1, length, 1).flip(1)


class RelativeCache(KeyValueCache):
    """A key-value cache that holds the bias by distance beside the keys."""

    line: Tensor  # (H, 2 L - 1), see RelativeBias.line

    def bias(self) -> Tensor:
        """Return (B or 1, H, T, width): the bias of this step's queries for every slot that can be read."""
        if self._even is not None and self._positions.shape[1] == 1:
            first = self.capacity - self._even
            return self.line[None, :, None, first : first + self._width]
        positions = self._positions[:1] if self._even is not None else self._positions
        slots = torch.arange(self._width, device=positions.device)
        return self.line[:, slots - positions[..., None] + self.capacity - 1].transpose(0, 1)


@dataclass(frozen=True)
class Biased:
    """A view for all layers: scores as they are, plus a bias that is -inf where a query may not look."""

    bias: Tensor  # (B or 1, H, T, S)
    dropout: float
    cache: RelativeCache | None

    def layer(self, index: int) -> Attends:
        """Return the view that layer `index` attends through."""
        return _Layer(self, index)


def biased(
    tokens: Tensor, layout: Layout | None, cache: Cache | None, relative: RelativeBias, *, dropout: float = 0.0
) -> Biased:
    """Return the view of one forward over tokens (B, T) or (B, T, D); a cache is extended by them."""
    if cache is not None and not isinstance(cache, RelativeCache):
        given = type(cache).__name__
        raise AbilityError(problem("cache", f"{given} holds no bias by distance", "the cache of model.new_cache"))
    seen = scope(tokens, layout, cache, causal=relative.causal)
    if cache is None:
        bias, mask = relative.square(tokens.shape[1])[None], seen.plain.mask(None, tokens.device)
    else:
        bias, mask = cache.bias(), cache.mask(None)
    if mask is not None:
        bias = torch.where(mask, bias, -math.inf)
    return Biased(bias, dropout, cache)


def new_cache(relative: RelativeBias, length: int, **sizes: Any) -> RelativeCache:  # noqa: ANN401  # KeyValueCache's
    """Return an empty cache of `length` slots a row; the bias is taken from the weights as they are now."""
    cache = RelativeCache(length=length, **sizes)
    cache.line = relative.line(length).detach().contiguous()
    return cache


class _Layer:
    """One layer of a Biased view."""

    def __init__(self, view: Biased, index: int) -> None:
        self.view = view
        self.index = index

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Return (B, H, T, h); see Attends."""
        assert window is None, "there is no window beside a relative bias"
        if self.view.cache is not None:
            k, v = self.view.cache.write(self.index, k, v)
        return look(q, k, v, self.view.bias, scale=1.0, dropout=self.view.dropout)
