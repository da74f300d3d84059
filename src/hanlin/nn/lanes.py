"""Rows of different length in one forward, laid end to end: nothing is computed on padding.

    tokens (1, T)    a │ b │ c │ d d d d d d │ e e e
    lane             0   1   2   3             5          each lane is a row of a preallocated KeyValueCache
                     └together┘ └──── alone ────┘
                      one token    a part of a prompt
                      each

Projections and MLPs see one long row, so that weights are read once for all lanes; attention goes lane by lane, the
lanes that write one token each together (the idea of Orca, Yu et al., OSDI 2022: batch what is alike, loop the rest).
A recurrent state has no slots to lay end to end: `RowLanes` run the lanes that write as one batch, and every part of
a prompt alone.

Letters: L lanes, H heads, K key-value heads, T new tokens, S slots, h head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import Layout
from hanlin.errors import AbilityError, problem
from hanlin.nn.cache import Attends, Cache, KeyValueCache, StateCache


class Span(NamedTuple):
    """Where the tokens of one lane lie in the present forward."""

    lane: int
    column: int  # of its first token
    start: int  # tokens that the lane held before
    stop: int  # tokens that it holds afterwards


class Part(NamedTuple):
    """Tokens of a prompt that a lane gains in the coming forward."""

    lane: int
    tokens: int
    last: bool  # the prompt ends here: what follows is chosen next


Forward = Callable[..., Tensor]  # of a model: tokens (B, T) and a cache to hidden states (B, T, D)


def lanes_of(pool: Cache) -> Lanes | RowLanes:
    """Return the lanes over an empty cache, as its kind asks for."""
    return Lanes(pool) if isinstance(pool, KeyValueCache) else RowLanes(pool)


class Lanes(Cache):
    """A pool of lanes; before each forward, `coming` says which of them gain how many tokens."""

    cuttable = True  # a lane may begin as the first part of another

    def __init__(self, pool: KeyValueCache) -> None:
        """Take over an empty cache."""
        self.pool = pool
        self.held = [0] * len(pool.lengths)  # tokens in each lane
        self._together = 0
        self._width = 0  # slots that the lanes written together read
        self._slots: tuple[Tensor, Tensor]  # lane and slot of what these write
        self._alone: list[Span] = []
        self._chosen: list[int] = []  # columns that a choice follows
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}

    @property
    def lengths(self) -> Tensor:  # type: ignore[override]  # counted on the host, where plans are made
        """Return (L,) tokens in each lane."""
        return torch.tensor(self.held)

    def coming(self, together: int, alone: Sequence[Part]) -> None:
        """Announce the next forward: a token for each of the lanes 0 .. together-1, then parts of prompts."""
        self._together, self._alone, self._masks = together, [], {}
        lanes = torch.arange(together)
        self._slots = (lanes, torch.tensor(self.held[:together], dtype=torch.long))
        self._chosen = list(range(together))
        column = together
        for lane, count, last in alone:
            self._alone.append(Span(lane, column, self.held[lane], self.held[lane] + count))
            column += count
            self._chosen += [column - 1] * last
        self._width = max(self.held[:together], default=0) + 1

    def size(self, length: int) -> int:
        """Return the bytes of a lane of `length` tokens."""
        held = sum(each.nbytes for each in (*self.pool.keys, *self.pool.values))
        return held * length // (self.pool.capacity * len(self.held))

    def run(self, forward: Forward, ids: Sequence[int]) -> list[Tensor]:
        """Return the hidden states (C, D) that choices follow, in groups: of lanes that write, then of last parts."""
        hidden = forward(torch.tensor([ids], device=self.pool.lengths.device), cache=self)[0]
        return [hidden[self._chosen]] if self._chosen else []

    def extend(self, length: int, layout: Layout | None) -> Tensor:
        """Return the positions (1, T) of the announced tokens, and count them in."""
        expected = self._together + sum(span.stop - span.start for span in self._alone)
        assert length == expected, f"{expected} tokens were announced, {length} came"
        assert layout is None, "lanes hold no padding"
        positions = [self._slots[1], *(torch.arange(span.start, span.stop) for span in self._alone)]
        for lane in range(self._together):
            self.held[lane] += 1
        for span in self._alone:
            self.held[span.lane] = span.stop
        assert max(self.held) <= self.pool.capacity, f"a lane holds {self.pool.capacity} tokens"
        return torch.cat(positions)[None].to(self.pool.lengths.device)

    def layer(self, index: int) -> Attends:
        """Return the view that writes to and reads from layer `index`."""
        return _Layer(self, index)

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Return (1, H, T, h): every lane's new tokens after what the lane holds."""
        keys, values = self.pool.keys[index], self.pool.values[index]
        found = torch.empty_like(q)
        if self._together:
            self._write_together(keys, values, k, v)
            attend = self._one_by_one if q.device.type == "cpu" else self._masked
            found[:, :, : self._together] = attend(keys, values, q[0, :, : self._together], window)
        for span in self._alone:
            lane, new = span.lane, slice(span.column, span.column + span.stop - span.start)
            keys[lane, :, span.start : span.stop] = k[0, :, new]
            values[lane, :, span.start : span.stop] = v[0, :, new]
            read = slice(lane, lane + 1)
            seen = keys[read, :, : span.stop], values[read, :, : span.stop]
            found[:, :, new] = _attention(q[:, :, new], *seen, self._mask(span, window))
        return found

    def _write_together(self, keys: Tensor, values: Tensor, k: Tensor, v: Tensor) -> None:
        """Store one key and value a lane."""
        lanes, slots = self._slots
        keys[lanes, :, slots] = k[0, :, : self._together].transpose(0, 1)
        values[lanes, :, slots] = v[0, :, : self._together].transpose(0, 1)

    def _one_by_one(self, keys: Tensor, values: Tensor, q: Tensor, window: int | None) -> Tensor:
        """Return (1, H, together, h) for queries (H, together, h), each lane read as far as it goes, in fp32.

        On a CPU this takes two fifths of the time of one masked call for all lanes (docs/numbers.md): nothing is read
        beyond a lane's end, and torch's bf16 attention is slow for a single query.
        """
        found = torch.empty_like(q)
        for lane, last in enumerate(self._slots[1].tolist()):
            seen = slice(0 if window is None else max(0, last + 1 - window), last + 1)
            read = keys[lane, None, :, seen].float(), values[lane, None, :, seen].float()
            found[:, lane] = _attention(q[None, :, lane, None].float(), *read, None)[0, :, 0]
        return found[None]

    def _masked(self, keys: Tensor, values: Tensor, q: Tensor, window: int | None) -> Tensor:
        """Return (1, H, together, h) for queries (H, together, h) in one call."""
        if (-1, window) not in self._masks:
            last = self._slots[1][:, None, None, None].to(keys.device)
            self._masks[-1, window] = _visible(last, self._width, window)
        count = self._together
        seen = keys[:count, :, : self._width], values[:count, :, : self._width]
        return _attention(q.transpose(0, 1)[:, :, None], *seen, self._masks[-1, window])[:, :, 0].transpose(0, 1)[None]

    def _mask(self, span: Span, window: int | None) -> Tensor | None:
        """Return (1, 1, tokens, stop) booleans for one lane's tokens, None where they see everything."""
        if (span.lane, window) not in self._masks:
            positions = torch.arange(span.start, span.stop, device=self.pool.lengths.device)[None, None, :, None]
            self._masks[span.lane, window] = _visible(positions, span.stop, window)
        return self._masks[span.lane, window]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Make lane `target` begin with the first `tokens` of lane `source`."""
        for each in (*self.pool.keys, *self.pool.values):
            each[target, :, :tokens] = each[source, :, :tokens]
        self.held[target] = tokens

    def swap(self, one: int, other: int) -> None:
        """Exchange two lanes."""
        width = max(self.held[one], self.held[other])
        for each in (*self.pool.keys, *self.pool.values):
            kept = each[one, :, :width].clone()
            each[one, :, :width] = each[other, :, :width]
            each[other, :, :width] = kept
        self.held[one], self.held[other] = self.held[other], self.held[one]

    def clear(self, lane: int) -> None:
        """Forget what a lane holds; its slots will be overwritten."""
        self.held[lane] = 0

    def reorder(self, rows: Tensor) -> None:
        """Gather lanes."""
        self.pool.reorder(rows)
        self.held = [self.held[row] for row in rows.tolist()]

    def truncate(self, lengths: Tensor) -> None:
        """Shorten lanes."""
        self.held = [min(pair) for pair in zip(self.held, lengths.tolist())]

    def snapshot(self) -> Any:  # noqa: ANN401  # opaque
        """Return the lengths, as KeyValueCache does."""
        return list(self.held)

    def restore(self, saved: Any) -> None:  # noqa: ANN401  # a snapshot
        """Go back to saved lengths."""
        self.held = [min(pair) for pair in zip(self.held, saved)]


class RowLanes:
    """The same for what has no slots to lay end to end: a lane is a row of a batch, copied whole or not at all."""

    cuttable = False

    def __init__(self, pool: Cache) -> None:
        """Take over a cache that has read nothing; AbilityError for one of another kind than these two."""
        if not isinstance(pool, StateCache | KeyValueCache):
            raise AbilityError(problem("serving", type(pool).__name__, "keys and values, or recurrent states"))
        self.pool = pool
        self.held = [0] * len(pool.lengths)
        self._together = 0
        self._alone: Sequence[Part] = ()

    def coming(self, together: int, alone: Sequence[Part]) -> None:
        """Announce the next forward, as for Lanes."""
        self._together, self._alone = together, alone

    def size(self, length: int) -> int:
        """Return the bytes of a lane of `length` tokens."""
        held = sum(each.nbytes for each in self._tensors()) // len(self.held)
        return held * length // self.pool.capacity if isinstance(self.pool, KeyValueCache) else held

    def run(self, forward: Forward, ids: Sequence[int]) -> list[Tensor]:
        """Return the hidden states (C, D) that choices follow, as Lanes do."""
        tokens = torch.tensor(ids, device=self.pool.lengths.device)
        first, *others = tokens.split([self._together, *(part.tokens for part in self._alone)])
        found = [self.go_on(forward, 0, first[:, None])[:, -1]] if self._together else []
        for part, new in zip(self._alone, others):
            found += self.take(forward, part, new)
        return found

    def take(self, forward: Forward, part: Part, tokens: Tensor) -> list[Tensor]:
        """Let a lane take in a part (T,) of its prompt; return what a choice follows, (1, D) behind the last part."""
        hidden = self.go_on(forward, part.lane, tokens[None])
        return [hidden[:, -1]] if part.last else []

    def go_on(self, forward: Forward, lane: int, tokens: Tensor, **more: Any) -> Tensor:  # noqa: ANN401  # the model's
        """Return what the lanes from `lane` on say to tokens (B, T), and keep where they arrived."""
        lanes = slice(lane, lane + len(tokens))
        cache = self.pool.rows(lanes, torch.tensor(self.held[lanes], device=tokens.device))
        hidden = forward(tokens, cache=cache, **more)
        if isinstance(cache, StateCache):
            for each, state in zip(self._tensors(), cache.states):
                each[lanes] = state
        self.held[lanes] = [held + tokens.shape[1] for held in self.held[lanes]]
        return hidden

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Make lane `target` what lane `source` is."""
        assert tokens == self.held[source], "a row cannot be cut"
        for each in self._tensors():
            each[target] = each[source]
        self.held[target] = tokens

    def swap(self, one: int, other: int) -> None:
        """Exchange two lanes."""
        for each in self._tensors():
            each[[one, other]] = each[[other, one]]
        self.held[one], self.held[other] = self.held[other], self.held[one]

    def clear(self, lane: int) -> None:
        """Forget what a lane holds."""
        if isinstance(self.pool, StateCache):
            for each in self.pool.states:
                each[lane] = 0
        self.held[lane] = 0

    def _tensors(self) -> list[Tensor]:
        """Return all that is kept, rows first."""
        return self.pool.states if isinstance(self.pool, StateCache) else [*self.pool.keys, *self.pool.values]


class _Layer:
    """One layer of Lanes."""

    def __init__(self, lanes: Lanes, index: int) -> None:
        self.lanes = lanes
        self.index = index

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Write k and v, then read; see Attends."""
        return self.lanes.attend(self.index, q, k, v, window)


def _visible(positions: Tensor, width: int, window: int | None) -> Tensor | None:
    """Return which of `width` slots a query at each of `positions` (…, 1) may read, None for all of them."""
    slots = torch.arange(width, device=positions.device)
    visible = slots <= positions
    if window is not None:
        visible &= slots > positions - window
    return None if bool(visible.all()) else visible


def _attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Return (B, H, T, h)."""
    grouped = q.shape[1] != keys.shape[1]
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=grouped)
