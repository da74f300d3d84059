"""From documents to damaged texts and what mends them, a row a piece of one document.

    document ─ pieces of `room` tokens ─ damage(ids, bits) ─> source, answer      which damage follows from (seed, row)
    tokens     pad a b c        the answer, one place later
    targets    a   b c end

Letters: B rows, S source positions, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hanlin.batch import IGNORE, Batch, Layout, Tokens
from hanlin.data.batches import BatchSource, Packed
from hanlin.data.corrupt import Ints
from hanlin.data.shards import Shards

Damage = Callable[[Ints, np.random.PCG64], tuple[Ints, Ints]]  # text (n,) -> (source, answer)


class Corrupted(BatchSource):
    """Batches whose source is a damaged text; tokens begin with `pad`, for the objective to put the start there."""

    def __init__(
        self, shards: Shards, damage: Damage, *, rows: int, room: int, context: int, seed: int, pad: int
    ) -> None:
        """Cut pieces of at most `room` tokens; DataError when there is too little text."""
        self.pieces = Packed(shards, rows=rows, context=max(room - 1, 1), seed=seed, pack=False, pad=pad)
        self.damage, self.seed, self.pad = damage, seed, pad
        self.steps_per_epoch = self.pieces.steps_per_epoch
        self.tokens_per_step = rows * context

    def batch(self, step: int) -> Batch[Any]:
        """Return the questions and answers of a step."""
        texts = self.pieces.batch(step)
        assert texts.targets is not None
        asked, answered = [], []
        for row in range(texts.rows):
            after = texts.targets[row]
            rest = after[after != IGNORE].numpy()
            ids = np.concatenate([texts.tokens[row, :1].numpy(), rest])
            bits = np.random.PCG64(np.random.SeedSequence([self.seed, step * texts.rows + row, 2]))
            damaged, answer = self.damage(ids, bits)
            asked.append(damaged)
            answered.append(answer)
        source, read = filled(asked, self.pad)
        targets, written = filled(answered, IGNORE)
        tokens = torch.full_like(targets, self.pad)
        tokens[:, 1:] = torch.where(targets[:, :-1] == IGNORE, self.pad, targets[:, :-1])
        return Batch(tokens=tokens, targets=targets, layout=written, source=Tokens(ids=source, layout=read))


def filled(rows: Sequence[Ints], pad: int) -> tuple[Tensor, Layout | None]:
    """Return rows of different length as one tensor, filled up on the right, with its layout where any was filled."""
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    values = torch.full((len(rows), longest), pad, dtype=torch.long)
    for row, ids in enumerate(rows):
        values[row, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
    real = torch.arange(longest) < lengths[:, None]
    return values, None if bool(real.all()) else Layout.of(real.long())
