"""From documents to batches: what step s trains on is a function of (seed, s) and of nothing that came before.

    epoch      the documents in a new order, one after another, closed to a ring and cut into rows of T tokens from
               a new point on; the rows in a new order
    ring       … d d d d | e e e | f f f f f f | g g …
    row              d d   e e e   f f f               segments 1 1 2 2 2 3 3 3
    targets          d _   e e _   f f f               the next token of the same document; _ is IGNORE
    step s     rows s * B to s * B + B - 1 of the endless sequence of epochs

Nothing is copied: a row is a range of the ring, and the ring is a permutation with its cumulative lengths. An epoch
leaves out N mod T tokens, other ones each time, so that all rows are equally long.

Letters: B rows of a step, T context, N tokens, n documents, R rows of an epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray

from hanlin.batch import IGNORE, Batch, Layout, take
from hanlin.data.shards import Counts, Shards
from hanlin.errors import ConfigError, DataError, problem

Rows = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # tokens, targets, segments, each (B, T)


class BatchSource(ABC):
    """Gives the batch of any step, in any order, as often as asked."""

    steps_per_epoch: int  # after so many, everything was seen once
    tokens_per_step: int  # padding included

    @abstractmethod
    def batch(self, step: int) -> Batch[Any]:
        """Return the global batch of a step."""

    def sample(self, number: int) -> Batch[Any]:
        """Return a batch to time steps by; a source whose batches differ in size spreads them over an epoch."""
        return self.batch(number)

    @final
    def share(self, batch: Batch[Any], rank: int, world: int) -> Batch[Any]:
        """Return the rows of one of `world` processes: equal parts, one after another in the order of ranks."""
        if batch.rows % world:
            raise ConfigError(problem("plan.rows", f"{batch.rows}", f"a multiple of the {world} processes"))
        rows = batch.rows // world
        part: Batch[Any] = take(batch, slice(rank * rows, (rank + 1) * rows))
        return part


class Packed(BatchSource):
    """Rows of exactly `context` tokens with as many documents as they hold; pack=False gives pieces of one document.

    Without packing, a piece shorter than `context` is filled up with the id `pad`. DataError when there is too little
    text for one row.
    """

    def __init__(self, shards: Shards, *, rows: int, context: int, seed: int, pack: bool = True, pad: int = 0) -> None:
        """Read nothing yet but the lengths of the documents."""
        assert rows > 0, "plan.rows is positive"
        assert context > 0, "plan.context is positive"
        assert seed >= 0, "plan.seed is not negative"
        self.rows, self.seed = rows, seed
        self.cut: _Cut = _Ring(shards, context) if pack else _Pieces(shards, context, pad)
        self.steps_per_epoch = -(-self.cut.rows // rows)
        self.tokens_per_step = rows * context
        self._epochs: dict[int, tuple[Counts, Any]] = {}  # the last two

    def batch(self, step: int) -> Batch[Any]:
        """Return the rows of a step; the layout is None when every row is one whole segment."""
        return self.rows_from(step * self.rows, self.rows)

    def rows_from(self, first: int, count: int) -> Batch[Any]:
        """Return `count` rows of the endless sequence of epochs, from row `first` on."""
        numbers = np.arange(first, first + count)
        epochs, drawn = np.divmod(numbers, self.cut.rows)
        parts = [self._rows(int(epoch), drawn[epochs == epoch]) for epoch in range(epochs[0], epochs[-1] + 1)]
        tokens, targets, segments = (torch.from_numpy(np.concatenate(each)) for each in zip(*parts))
        whole = bool((segments == 1).all())
        return Batch(tokens=tokens, targets=targets, layout=None if whole else Layout.of(segments))

    def _rows(self, epoch: int, drawn: Counts) -> Rows:
        """Return the rows that stand at the places `drawn` in an epoch's order."""
        if epoch not in self._epochs:
            bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
            self._epochs[epoch] = self.cut.order(bits), _shuffled(self.cut.rows, bits)
            while len(self._epochs) > 2:
                del self._epochs[next(iter(self._epochs))]
        order, places = self._epochs[epoch]
        return self.cut.take(order, places[drawn])


class Streams(BatchSource):
    """Rows that go on: row r of a step begins where row r of the step before ended, until the epoch is over.

        row 0     [d d d d|d d e e|e f f f]      | a step; what a model learns at once is cut there,
        row 1     [g g g g|g g g g|h h h h]        what it remembers is not (`Batch.continues`)

    A document that begins goes on from nothing. DataError when there is too little text for one step.
    """

    def __init__(self, shards: Shards, *, rows: int, context: int, seed: int) -> None:
        """Read nothing yet but the lengths of the documents."""
        self.rows, self.seed, self.cut = rows, seed, _Ring(shards, context)
        self.steps_per_epoch = self.cut.rows // rows
        self.tokens_per_step = rows * context
        self._order: tuple[int, _Order] | None = None  # of the last epoch asked for
        if not self.steps_per_epoch:
            given, do = f"{shards.total} tokens", "use more text, or fewer plan.rows"
            allowed = f"{rows} rows of {context} or more"
            raise DataError(problem(f"{shards.folder} {shards.split}", given, allowed, do=do))

    def batch(self, step: int) -> Batch[Any]:
        """Return the rows of a step; no row of an epoch's first step continues anything."""
        epoch, at = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self.cut.order(np.random.PCG64(np.random.SeedSequence([self.seed, epoch])))
        order = self._order[1]
        rows = np.arange(self.rows) * self.steps_per_epoch + at
        tokens, targets, segments = map(torch.from_numpy, self.cut.take(order, rows))
        continues = torch.from_numpy(~self.cut.begins(order, rows)) & (at > 0)
        layout = None if bool((segments == 1).all()) else Layout.of(segments)
        return Batch(tokens=tokens, targets=targets, layout=layout, continues=continues)


def _shuffled(count: int, bits: np.random.PCG64) -> Counts:
    """Return 0 … count - 1 in a random order; NumPy promises these bits for all versions, unlike its `permutation`."""
    return np.argsort(bits.random_raw(count), kind="stable")


class _Cut(Protocol):
    """How documents become rows."""

    rows: int  # of an epoch

    def order(self, bits: np.random.PCG64) -> Any:  # noqa: ANN401  # what the same cut's take understands
        """Return a random order of the documents."""

    def take(self, order: Any, rows: Counts) -> Rows:  # noqa: ANN401  # what order returned
        """Return the tokens, targets and segments of some rows, each (B, T)."""


@dataclass(frozen=True, eq=False)
class _Order:
    """The documents of one epoch as a ring."""

    bounds: Counts  # (n + 1,) where each document begins in the ring, and where the last one ends
    shifts: Counts  # (n,) from a position in the ring to the position in the shards, by document
    first: int  # where the first row begins


class _Ring:
    """All documents one after another, cut every T tokens."""

    def __init__(self, shards: Shards, context: int) -> None:
        self.shards, self.context = shards, context
        self.rows = shards.total // context
        if shards.total <= context:
            given = f"smaller than one window: {shards.total} tokens"
            do = "use more text, or a smaller plan.context"
            raise DataError(problem(f"{shards.folder} {shards.split}", given, f"a window is {context + 1}", do=do))

    def order(self, bits: np.random.PCG64) -> _Order:
        documents = _shuffled(self.shards.documents, bits)
        bounds = np.concatenate([[0], np.cumsum(self.shards.lengths[documents])])
        first = int(bits.random_raw()) % self.context
        return _Order(bounds=bounds, shifts=self.shards.starts[documents] - bounds[:-1], first=first)

    def take(self, order: _Order, rows: Counts) -> Rows:
        at = order.first + rows[:, None] * self.context + np.arange(self.context + 1)
        at = np.where(at < self.shards.total, at, at - self.shards.total)
        document = np.searchsorted(order.bounds, at, side="right") - 1
        begins = (at == order.bounds[document])[:, 1:]
        ids = self.shards.take(at + order.shifts[document])
        segments = np.ones_like(ids[:, 1:])
        segments[:, 1:] += np.cumsum(begins[:, :-1], axis=1)
        return ids[:, :-1], np.where(begins, IGNORE, ids[:, 1:]), segments

    def begins(self, order: _Order, rows: Counts) -> NDArray[np.bool_]:
        """Return whether some rows begin with a document's first token, (B,)."""
        first = (order.first + rows * self.context) % self.shards.total
        return np.asarray(order.bounds[np.searchsorted(order.bounds, first)] == first)


class _Pieces:
    """Every document for itself, cut every T tokens; a last token with nothing after it stands in no row."""

    def __init__(self, shards: Shards, context: int, pad: int) -> None:
        self.shards, self.context, self.pad = shards, context, pad
        counts = (np.maximum(shards.lengths - 1, 0) + context - 1) // context
        self.ends = np.cumsum(counts)  # (n,) rows up to and with each document
        self.firsts = self.ends - counts
        self.rows = int(counts.sum())
        if not self.rows:
            given = "no document of two tokens or more"
            raise DataError(problem(f"{shards.folder} {shards.split}", given, do="use more text"))

    def order(self, bits: np.random.PCG64) -> None:
        """Draw nothing: the order of the rows is all there is."""

    def take(self, order: None, rows: Counts) -> Rows:
        document = np.searchsorted(self.ends, rows, side="right")
        begin = (rows - self.firsts[document]) * self.context
        left = (self.shards.lengths[document] - 1 - begin)[:, None]  # tokens that have a next one
        columns = np.arange(self.context + 1)
        ids = self.shards.take((self.shards.starts[document] + begin)[:, None] + np.minimum(columns, left))
        real = columns[:-1] < left
        return np.where(real, ids[:, :-1], self.pad), np.where(real, ids[:, 1:], IGNORE), real.astype(np.int64)
