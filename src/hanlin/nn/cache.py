"""What a model remembers between steps, behind one small interface.

    cache.extend(length, layout) -> positions (B, T)      make room for the coming tokens; padding takes none
    cache.layer(i).attend(q, k, v) -> (B, H, T, h)        write k, v; read everything up to each query
    cache.reorder(rows) · cache.truncate(lengths)         beams and speculative decoding
    cache.snapshot() · cache.restore(saved)               the same for states that cannot be cut

`KeyValueCache` is preallocated and holds rows of different length side by side: row b's token at position p lies in
slot p, whatever padding came with it. Rows of equal length take a path without masks or scatter.

Letters: B rows, H heads, K key-value heads, T new tokens, S slots, h head_dim.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import Layout
from hanlin.errors import AbilityError, problem


class Attends(Protocol):
    """One layer's view of what may be attended to."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Return (B, H, T, h) for queries (B, H, T, h), keys and values (B, K, T, h)."""


class Cache(ABC):
    """The state of `rows` sequences; `lengths` (B,) counts the tokens each has taken in."""

    lengths: Tensor

    @abstractmethod
    def extend(self, length: int, layout: Layout | None) -> Tensor:
        """Make room for `length` more columns and return their positions (B, length); padding takes no room."""

    @abstractmethod
    def layer(self, index: int) -> Any:  # noqa: ANN401  # Attends, or a recurrent layer's state
        """Return one layer's part."""

    @abstractmethod
    def reorder(self, rows: Tensor) -> None:
        """Make row i what row `rows[i]` was; rows may repeat or be left out."""

    @abstractmethod
    def truncate(self, lengths: Tensor) -> None:
        """Forget all but the first `lengths[b]` tokens of each row; AbilityError where the state cannot be cut."""

    @abstractmethod
    def snapshot(self) -> Any:  # noqa: ANN401  # opaque to everyone but restore
        """Return the present state for `restore`."""

    @abstractmethod
    def restore(self, saved: Any) -> None:  # noqa: ANN401  # what snapshot returned
        """Go back to a snapshot."""


class KeyValueCache(Cache):
    """Keys and values of all layers, preallocated: (B, K, S, h) each."""

    def __init__(
        self,
        *,
        layers: int,
        rows: int,
        kv_heads: int,
        head_dim: int,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocate `length` slots for every row of every layer."""
        shape = (rows, kv_heads, length, head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.capacity = length
        self._even: int | None = 0  # the common length while all rows are equally long, else None
        self._start = 0  # where the present step writes, on the even path
        self._width = 0  # how many slots the present step reads
        self._places: tuple[Tensor, Tensor, Tensor]  # rows, columns and slots of what this step writes, if uneven
        self._positions = torch.zeros(rows, 0, dtype=torch.long, device=device)
        self._masks: dict[int | None, Tensor | None] = {}

    def extend(self, length: int, layout: Layout | None) -> Tensor:
        """Reserve slots and prepare what every layer of this step shares."""
        columns = torch.arange(length, device=self.lengths.device)
        self._masks = {}
        assert layout is None or int(layout.segments.max()) <= 1, "a cached row holds one segment"
        if layout is None or bool(layout.real.all()):
            real = torch.ones(len(self.lengths), length, dtype=torch.bool, device=self.lengths.device)
            self._positions = self.lengths[:, None] + columns
            added = torch.full_like(self.lengths, length)
        else:
            real = layout.real
            self._positions = torch.where(layout.real, self.lengths[:, None] + layout.real.cumsum(1) - 1, 0)
            added = layout.real.sum(1)
            self._even = None
        self._start = self._even or 0
        self.lengths = self.lengths + added
        if self._even is not None:
            self._even += length
        else:
            rows, columns = real.nonzero(as_tuple=True)
            self._places = rows, columns, self._positions[rows, columns]
        self._width = self._even if self._even is not None else int(self.lengths.max())
        assert self._width <= self.capacity, f"cache holds {self.capacity} tokens a row, {self._width} asked for"
        return self._positions

    def layer(self, index: int) -> Attends:
        """Return the view that writes to and reads from layer `index`."""
        return _Layer(self, index)

    def write(self, index: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store this step's keys and values (B, K, T, h) and return all readable ones (B, K, width, h)."""
        keys, values = self.keys[index], self.values[index]
        if self._even is not None:
            keys[:, :, self._start : self._even] = k
            values[:, :, self._start : self._even] = v
        else:
            rows, columns, slots = self._places
            keys[rows, :, slots] = k.transpose(1, 2)[rows, columns]
            values[rows, :, slots] = v.transpose(1, 2)[rows, columns]
        return keys[:, :, : self._width], values[:, :, : self._width]

    def mask(self, window: int | None) -> Tensor | None:
        """Return (B or 1, 1, T, width) booleans, True where a query may read, or None when it may read everything."""
        if window not in self._masks:
            self._masks[window] = self._make_mask(window)
        return self._masks[window]

    def _make_mask(self, window: int | None) -> Tensor | None:
        if self._even is not None and self._positions.shape[1] == 1 and (window is None or window >= self._width):
            return None
        positions = self._positions[:1] if self._even is not None else self._positions
        slots = torch.arange(self._width, device=positions.device)
        mask = slots <= positions[..., None]
        if window is not None:
            mask &= slots > positions[..., None] - window
        return mask[:, None]

    def reorder(self, rows: Tensor) -> None:
        """Gather rows of every layer."""
        self.keys = [each.index_select(0, rows) for each in self.keys]
        self.values = [each.index_select(0, rows) for each in self.values]
        self.lengths = self.lengths.index_select(0, rows)
        self._look()

    def truncate(self, lengths: Tensor) -> None:
        """Shorten rows; slots past the end are never read and will be overwritten."""
        self.lengths = torch.minimum(self.lengths, lengths.to(self.lengths))
        self._look()

    def rows(self, lanes: slice, lengths: Tensor) -> Self:
        """Return some rows, of which `lengths` slots are taken, as a cache of its own over the same memory."""
        part = copy.copy(self)
        part.keys, part.values = ([each[lanes] for each in side] for side in (self.keys, self.values))
        part.lengths = lengths
        part._look()
        return part

    def _look(self) -> None:
        """Note whether all rows are equally long now."""
        longest, shortest = int(self.lengths.max()), int(self.lengths.min())
        self._even = longest if longest == shortest else None

    def snapshot(self) -> Any:  # noqa: ANN401  # opaque
        """Return the lengths: slots below them are never overwritten while rows keep their places."""
        return self.lengths.clone()

    def restore(self, saved: Any) -> None:  # noqa: ANN401  # a snapshot
        """Go back to the saved lengths; a snapshot ends when the cache is reordered or cut below it and goes on."""
        self.truncate(saved)


class _Layer:
    """One layer of a KeyValueCache."""

    def __init__(self, cache: KeyValueCache, index: int) -> None:
        self.cache = cache
        self.index = index

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Write k and v, then read; see Attends."""
        keys, values = self.cache.write(self.index, k, v)
        return F.scaled_dot_product_attention(
            q, keys, values, attn_mask=self.cache.mask(window), enable_gqa=q.shape[1] != keys.shape[1]
        )


class StateCache(Cache):
    """The states of a recurrent model: one tensor a layer, rows first."""

    def __init__(self, states: list[Tensor]) -> None:
        """Start from the given states, each (B, ...)."""
        self.states = states
        self.lengths = torch.zeros(states[0].shape[0], dtype=torch.long, device=states[0].device)

    def extend(self, length: int, layout: Layout | None) -> Tensor:
        """Count the coming tokens."""
        real = self.lengths.new_ones(len(self.lengths), length).bool() if layout is None else layout.real
        positions = self.lengths[:, None] + real.cumsum(1) - 1
        self.lengths = self.lengths + real.sum(1)
        return positions

    def layer(self, index: int) -> Tensor:
        """Return the state of layer `index`; write a new one to `states[index]`."""
        return self.states[index]

    def reorder(self, rows: Tensor) -> None:
        """Gather rows of every state."""
        self.states = [each.index_select(0, rows) for each in self.states]
        self.lengths = self.lengths.index_select(0, rows)

    def rows(self, lanes: slice, lengths: Tensor) -> StateCache:
        """Return some rows, each of `lengths` tokens, as a cache of its own, which replaces its states as it steps."""
        part = StateCache([each[lanes] for each in self.states])
        part.lengths = lengths
        return part

    def truncate(self, lengths: Tensor) -> None:
        """Do nothing when nothing is to be forgotten; a recurrent state cannot be cut."""
        if bool((lengths.to(self.lengths) < self.lengths).any()):
            raise AbilityError(problem("recurrent state", "cannot be cut", do="take a snapshot and restore it"))

    def snapshot(self) -> Any:  # noqa: ANN401  # opaque
        """Return copies of all states."""
        return [each.clone() for each in self.states], self.lengths.clone()

    def restore(self, saved: Any) -> None:  # noqa: ANN401  # a snapshot
        """Go back to a snapshot."""
        states, lengths = saved
        self.states = [each.clone() for each in states]
        self.lengths = lengths.clone()
