"""Batches of encoded rows, of like lengths together, so that little is computed on padding.

    an epoch    groups in a new order ─ pools of 50 batches ─ sorted by length ─ cut every `rows` (or `tokens`) ─ the
                batches in a new order

What a step learns from is a function of (seed, step), as in data/batches.py. A group is what must stay together: one
row, or all rows with one `group` number. Every row is seen once an epoch; the last batch of an epoch may be smaller.
With `shortest_first` the first epoch is one pool, and its batches stay in rising length: where an order is to be found,
as that of sound and letters, short rows show it (SortaGrad, arXiv 1512.02595).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hanlin.batch import Batch
from hanlin.data.batches import BatchSource
from hanlin.errors import DataError, problem
from hanlin.tasks.contract import Augments, Row, Task

POOL = 50  # batches sorted by length together: more saves padding, and makes batches less random
GOLDEN = 0.618034  # multiples of it, taken modulo 1, fill 0 to 1 evenly however many they are


class Bucketed(BatchSource):
    """The batches of a task's encoded rows, `rows` groups each, or as many as fit into `tokens` with their padding."""

    def __init__(
        self,
        task: Task[Any, Any],
        encoded: Sequence[Row],
        *,
        rows: int,
        tokens: int | None,
        seed: int,
        pad: int,
        shortest_first: bool = False,
    ) -> None:
        """Group the rows; DataError when there are none."""
        if not encoded:
            raise DataError(problem("data.train", "no rows to learn from"))
        self.task, self.pad, self.seed = task, pad, seed
        self.rows, self.tokens, self.shortest_first = rows, tokens, shortest_first
        self.groups = grouped(encoded)
        self.lengths = np.array([max(row.length for row in group) for group in self.groups])
        self.sizes = np.array([len(group) for group in self.groups])
        self._epochs: dict[int, list[list[int]]] = {}
        self._ends: list[int] = []  # batches up to and with each epoch; one number where all epochs have as many
        self.steps_per_epoch = len(self._epoch(0))
        longest = max(max(self.lengths[batch]) * self.sizes[batch].sum() for batch in self._epoch(0))
        self.tokens_per_step = int(longest)

    def batch(self, step: int) -> Batch[Any]:
        """Return the batch of a step."""
        epoch, place = self._place(step)
        rows = [row for number in self._epoch(epoch)[place] for row in self.groups[number]]
        if isinstance(self.task, Augments):
            rows = self.task.augmented(rows, seed=self.seed, step=step)
        return self.task.collate(rows, self.pad)

    def sample(self, number: int) -> Batch[Any]:
        """Return a batch of the first epoch, any number of them spread evenly over it: short rows and long ones."""
        return self.batch(int(number * GOLDEN % 1 * self.steps_per_epoch))

    def _place(self, step: int) -> tuple[int, int]:
        """Return the epoch of a step and the batch in it."""
        if self.tokens is None:
            return divmod(step, self.steps_per_epoch)
        while not self._ends or self._ends[-1] <= step:
            done = self._ends[-1] if self._ends else 0
            self._ends.append(done + len(self._epoch(len(self._ends))))
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        return epoch, step - (self._ends[epoch - 1] if epoch else 0)

    def _epoch(self, epoch: int) -> list[list[int]]:
        """Return the groups of each batch of an epoch; the last two epochs asked for are kept."""
        if epoch not in self._epochs:
            if len(self._epochs) > 1:
                del self._epochs[next(iter(self._epochs))]
            draws = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._epochs[epoch] = self._cut(draws, rising=self.shortest_first and epoch == 0)
        return self._epochs[epoch]

    def _cut(self, draws: np.random.Generator, *, rising: bool) -> list[list[int]]:
        """Return an epoch's batches, in a random order or of rising length."""
        order = draws.permutation(len(self.groups))
        if rising:
            return self._fill(order[np.argsort(self.lengths[order], kind="stable")].tolist())
        size = self.rows if self.tokens is None else max(1, int(self.tokens / max(1.0, float(self.lengths.mean()))))
        found: list[list[int]] = []
        for at in range(0, len(order), POOL * size):
            pool = order[at : at + POOL * size]
            found += self._fill(pool[np.argsort(self.lengths[pool], kind="stable")].tolist())
        return [found[each] for each in draws.permutation(len(found))]

    def _fill(self, ordered: list[int]) -> list[list[int]]:
        """Return groups of rising length, cut into batches."""
        found: list[list[int]] = []
        count = 0  # rows in the last batch
        for number in ordered:
            more = count + self.sizes[number]
            full = more * self.lengths[number] > self.tokens if self.tokens is not None else False
            if not found or full or (self.tokens is None and len(found[-1]) >= self.rows):
                found.append([])
                more = self.sizes[number]
            found[-1].append(number)
            count = more
        return found


def grouped(encoded: Sequence[Row]) -> list[list[Row]]:
    """Return the rows, those with one group number together, in the order of their first."""
    found: dict[Any, list[Row]] = {}
    for number, row in enumerate(encoded):
        found.setdefault(("row", number) if row.group is None else ("group", row.group), []).append(row)
    return list(found.values())


def in_turn(encoded: Sequence[Row], tokens: int, most: int) -> list[list[int]]:
    """Return places of rows in batches of at most `tokens` with their padding and `most` rows, the longest first.

    For answering: the order of answers is put right by whoever asks.
    """
    order = sorted(range(len(encoded)), key=lambda place: -encoded[place].length)
    found: list[list[int]] = []
    longest = 0
    for place in order:
        if not found or len(found[-1]) >= most or (len(found[-1]) + 1) * longest > tokens:
            found.append([])
            longest = max(1, encoded[place].length)
        found[-1].append(place)
    return found
