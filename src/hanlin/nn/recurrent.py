"""Recurrent layers: tanh, GRU and LSTM over whole rows in torch's fused kernels, one step at a time spelled out.

    layout   0 1 1 1 2 2 0        every segment becomes a row of its own, flush left, starting from nothing;
                 │                the first segment of a row goes on from the state that row came with
    rows     1 1 1                padding enters no row, so it never moves a state, on whichever side it stands
             2 2 _                     │ fused kernel
    out      0 y y y y y 0        the same places; the state after is that of a row's last segment

Equations (Elman 1990; Cho et al. 1406.1078; Hochreiter & Schmidhuber 1997), the gates as torch.nn stacks them:

    rnn    h' = tanh(a + b)                                        a = enter x, b = again h, both with a bias
    gru    r, z = sigmoid(a + b);  n = tanh(a + r b);  h' = (1 - z) n + z h
    lstm   i, f, g, o = a + b;  c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')

Letters: B rows, T tokens, N segments, L the longest of them, D inputs, H hidden,
W a state: H, or 2 H for an LSTM (h | c).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hanlin.batch import Layout

Kind = Literal["rnn", "gru", "lstm"]
GATES: dict[str, int] = {"rnn": 1, "gru": 3, "lstm": 4}
WASTE = 2  # padded, LSTM's kernel is 1.6 to 2.5 times as fast as over a packed sequence (2 cores, bf16 and fp32)


def width(kind: Kind, hidden: int) -> int:
    """Return the size of a state."""
    return 2 * hidden if kind == "lstm" else hidden


class Runs:
    """Where the segments of a layout lie; made once for all layers."""

    def __init__(self, layout: Layout) -> None:
        """Find every segment's row, first column and length; this waits for the layout's values."""
        real = layout.real
        self.shape = real.shape
        columns = torch.arange(real.shape[1], device=real.device)
        begins = real & (layout.starts == columns)
        self.rows, self.starts = begins.nonzero(as_tuple=True)
        self.lengths = torch.bincount(begins.flatten().cumsum(0)[real.flatten()] - 1, minlength=len(self.rows))
        self.longest = int(self.lengths.max()) if len(self.rows) else 0
        other = self.rows[1:] != self.rows[:-1]
        edge = other.new_ones(min(1, len(self.rows)))
        self.first = torch.cat((edge, other))  # (N,) the first segment of its row
        self.last = torch.cat((other, edge))
        self.even = bool((self.lengths == self.longest).all())
        self.flush = len(self.rows) == len(real) and bool(((self.starts == 0) & self.first).all())

    @cached_property
    def offsets(self) -> Tensor:
        """Return (N, L) how far each place is into its segment, the last one repeated where a segment is shorter."""
        steps = torch.arange(self.longest, device=self.rows.device)
        return torch.minimum(steps, self.lengths[:, None] - 1)

    def places(self, back: bool) -> Tensor:
        """Return (N, L) where each segment's tokens lie in B * T; `back`: from its end to its beginning."""
        offsets = self.lengths[:, None] - 1 - self.offsets if back else self.offsets
        return (self.rows * self.shape[1] + self.starts)[:, None] + offsets

    @cached_property
    def inside(self) -> Tensor:
        """Return (N, L) booleans: True where the segment has a token."""
        return torch.arange(self.longest, device=self.rows.device) < self.lengths[:, None]

    @cached_property
    def wasteful(self) -> bool:
        """Return whether most of (N, L) would be padding."""
        return len(self.rows) * self.longest > WASTE * int(self.lengths.sum())

    def begin(self, state: Tensor) -> Tensor:
        """Return (N, W): a row's state (B, W) for its first segment, zeros for the others."""
        return state.index_select(0, self.rows) * self.first[:, None]

    def end(self, state: Tensor, after: Tensor) -> Tensor:
        """Return (B, W): the state after each row's last segment, the one before for a row of padding alone."""
        return state.index_copy(0, self.rows[self.last], after[self.last])


@dataclass(frozen=True)
class _Packed:
    """torch's order of a packed sequence: the first tokens of all segments, then the second ones, longest first."""

    order: Tensor  # (N,) segments by falling length
    places: Tensor  # (tokens,) their flat positions in B * T
    sizes: Tensor  # (L,) segments still running at each step; on the CPU

    @classmethod
    def of(cls, runs: Runs, back: bool) -> _Packed:
        order = runs.lengths.argsort(descending=True, stable=True)
        inside = runs.inside[order].t()
        return cls(order, runs.places(back)[order].t()[inside], inside.sum(1).cpu())


class Recurrent(nn.Module):
    """One layer in one direction; its weights are those of torch.nn's RNN, GRU and LSTM under other names."""

    def __init__(self, kind: Kind, inputs: int, hidden: int, *, back: bool = False) -> None:
        """Allocate `enter` (gates * H, D) and `again` (gates * H, H); `back` reads every segment from its end."""
        super().__init__()
        self.kind, self.hidden, self.back = kind, hidden, back
        self.enter = nn.Linear(inputs, GATES[kind] * hidden)
        self.again = nn.Linear(hidden, GATES[kind] * hidden)

    def forward(
        self, x: Tensor, state: Tensor | None = None, runs: Runs | None = None, *, keep: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return outputs (B, T, H) for x (B, T, D), and the state (B, W) after each row.

        What stands on padding is not defined, but finite. Without `keep` the returned state is the one before.
        """
        before = x.new_zeros(len(x), width(self.kind, self.hidden)) if state is None else state
        if runs is None:
            out, after = self._fused(x.flip(1) if self.back else x, before)
            return (out.flip(1) if self.back else out), after
        if not runs.longest:
            return x.new_zeros(*x.shape[:2], self.hidden), before
        uneven_cells = keep and self.kind == "lstm" and not runs.even  # a padded kernel returns no cells but the last
        if uneven_cells or runs.wasteful:
            return self._packed(x, before, runs)
        return self._padded(x, before, runs, keep)

    def _padded(self, x: Tensor, state: Tensor, runs: Runs, keep: bool) -> tuple[Tensor, Tensor]:
        """Run the segments as rows filled up to the longest."""
        rows, length = runs.shape
        if runs.flush and not self.back:
            out, after = self._fused(x[:, : runs.longest], state)
            full = torch.cat((out, out.new_zeros(rows, length - runs.longest, self.hidden)), 1)
        else:
            places = runs.places(self.back)
            inputs = x.flatten(0, 1).index_select(0, places.flatten()).view(*places.shape, -1)
            out, after = self._fused(inputs, runs.begin(state))
            flat = out.new_zeros(rows * length, self.hidden)
            full = flat.index_copy(0, places[runs.inside], out[runs.inside]).view(rows, length, -1)
        if not keep:
            return full, state
        if self.kind != "lstm":
            after = out[torch.arange(len(out), device=out.device), runs.lengths - 1]
        return full, runs.end(state, after)

    def _packed(self, x: Tensor, state: Tensor, runs: Runs) -> tuple[Tensor, Tensor]:
        """Run the segments as torch's packed sequence, which returns every segment's own last state."""
        packed = _Packed.of(runs, self.back)
        data = x.flatten(0, 1).index_select(0, packed.places)
        out, sorted_ = self._fused(data, runs.begin(state)[packed.order], packed.sizes)
        full = out.new_zeros(x.shape[0] * x.shape[1], self.hidden).index_copy(0, packed.places, out)
        after = torch.empty_like(sorted_).index_copy(0, packed.order, sorted_)
        return full.view(*x.shape[:2], -1), runs.end(state, after)

    def _fused(self, x: Tensor, state: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return torch's own answer for rows x (N, L, D), or for packed tokens (tokens, D) with `sizes`."""
        weights = [self.enter.weight, self.again.weight, self.enter.bias, self.again.bias]
        kernels: dict[str, Any] = {"rnn": torch.rnn_tanh, "gru": torch.gru, "lstm": torch.lstm}
        kernel = kernels[self.kind]
        start = [each[None].contiguous() for each in state.split(self.hidden, 1)]
        given = start if self.kind == "lstm" else start[0]
        # biases, layers, dropout, training (only a dropout would look at it), both ways
        chosen = (weights, True, 1, 0.0, torch.is_grad_enabled(), False)
        out, *after = kernel(x, given, *chosen, True) if sizes is None else kernel(x, sizes, given, *chosen)
        return out, torch.cat([each[0] for each in after], 1)

    def step(self, entered: Tensor, state: Tensor) -> Tensor:
        """Return the state (B, W) after one more token; `entered` is `enter` of it, (B, gates * H)."""
        h = state[:, : self.hidden]
        again = self.again(h)
        if self.kind == "rnn":
            return torch.tanh(entered + again)
        if self.kind == "gru":
            (ar, az, an), (br, bz, bn) = entered.chunk(3, 1), again.chunk(3, 1)
            keep = torch.sigmoid(az + bz)
            new = torch.tanh(an + torch.sigmoid(ar + br) * bn)
            return new + keep * (h - new)
        i, f, g, o = (entered + again).chunk(4, 1)
        c = torch.sigmoid(f) * state[:, self.hidden :] + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat((torch.sigmoid(o) * torch.tanh(c), c), 1)


def spelled_out(layer: Recurrent, x: Tensor, state: Tensor, layout: Layout | None) -> tuple[Tensor, Tensor]:
    """Return what `layer` returns, token by token: the slow twin, and the rule of what a layout does to a state."""
    rows, length = x.shape[:2]
    layout = layout or Layout.of(torch.ones(rows, length, dtype=torch.long, device=x.device))
    untouched = torch.ones(rows, dtype=torch.bool, device=x.device)
    out = x.new_zeros(rows, length, layer.hidden)
    backwards = layout.segments.flip(1)
    starts = Layout.of(backwards.cpu()).starts.to(x.device) if layer.back else layout.starts
    for step in range(length):
        column = length - 1 - step if layer.back else step
        real = layout.real[:, column]
        new = real & (starts[:, step] == step)
        state = torch.where((new & ~untouched)[:, None], 0, state)
        state = torch.where(real[:, None], layer.step(layer.enter(x[:, column]), state), state)
        untouched &= ~real
        out[:, column] = torch.where(real[:, None], state[:, : layer.hidden], 0)
    return out, state


class Bidirectional(nn.Module):
    """Two layers over the same rows, one from each end."""

    def __init__(self, kind: Kind, inputs: int, hidden: int) -> None:
        """Allocate two directions of H / 2 each."""
        super().__init__()
        self.ahead = Recurrent(kind, inputs, hidden // 2)
        self.back = Recurrent(kind, inputs, hidden // 2, back=True)

    def forward(self, x: Tensor, runs: Runs | None = None) -> tuple[Tensor, Tensor]:
        """Return (B, T, H), forward beside backward, and (B, H): where each direction arrived, 0 on rows of padding.

        A row is one segment. Of an LSTM it is h that is returned, which needs no packed sequence.
        """
        (ahead, _), (back, _) = self.ahead(x, runs=runs, keep=False), self.back(x, runs=runs, keep=False)
        if runs is None:
            return torch.cat((ahead, back), 2), torch.cat((ahead[:, -1], back[:, 0]), 1)
        arrived = torch.cat((ahead[runs.rows, runs.starts + runs.lengths - 1], back[runs.rows, runs.starts]), 1)
        return torch.cat((ahead, back), 2), runs.end(arrived.new_zeros(len(x), arrived.shape[1]), arrived)
