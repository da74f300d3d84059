"""Warm-up of what a step takes: rows that start short, or few, and grow to the plan's while the run is young.

    context: [64, 128]      a step's rows of 256 are cut into four of 64, later into two of 128; the tokens stay
    rows: [8, 16]           a step takes 8 rows, later 16, then the plan's

    step    0 ─────── over · steps ────────────────── steps
            │ first │ second │  the plan's own

Early steps learn from near words and from coarse gradients; neither needs long rows or many (arXiv 2108.06084,
arXiv 1711.00489). What step s takes is a function of s, and no row is left out or taken twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from pydantic import Field

from hanlin.batch import Batch, Layout
from hanlin.config import Config
from hanlin.data.batches import BatchSource, Packed
from hanlin.errors import ConfigError, problem


class Grow(Config):
    """The stages before the plan's own sizes; each takes an equal part of `over`."""

    context: tuple[int, ...] = ()  # tokens a row; each divides the plan's
    rows: tuple[int, ...] = ()
    over: float = Field(0.2, gt=0, le=1)  # share of all steps

    def against(self, rows: int, context: int) -> list[str]:
        """Return contradictions with the sizes that are grown to."""
        found = [] if self.context or self.rows else ["grow says neither context nor rows"]
        for name, stages, end in (("context", self.context, context), ("rows", self.rows, rows)):
            path = [0, *stages, end]
            if stages and any(one >= two for one, two in pairwise(path)):
                found.append(f"grow.{name} {list(stages)} does not grow to {name} {end}")
        uneven = [each for each in self.context if each > 0 and context % each]
        found += [f"grow.context {each} does not divide context {context}" for each in uneven]
        return found

    def share(self, rows: int) -> float:
        """Return the mean rows of a step as a share of the plan's."""
        if not self.rows:
            return 1.0
        return 1 - self.over * (1 - sum(self.rows) / len(self.rows) / rows)


class Grown(BatchSource):
    """A source of packed rows whose first steps are shorter, or fewer rows."""

    def __init__(self, source: Packed, grow: Grow, *, context: int, steps: int) -> None:
        """Take rows from `source`; `steps` is the length of the run, `context` that of the source's rows."""
        self.source, self.grow, self.context, self.steps = source, grow, context, steps
        self.tokens_per_step = source.tokens_per_step
        self.steps_per_epoch = max(1, round(source.steps_per_epoch / grow.share(source.rows)))

    def batch(self, step: int) -> Batch[Any]:
        """Return the rows of a step."""
        rows = self._stage(step, self.grow.rows, self.source.rows)
        whole = self.source.rows_from(self._taken(step), rows)
        return cut(whole, self._stage(step, self.grow.context, self.context))

    def _stage(self, step: int, stages: Sequence[int], end: int) -> int:
        """Return the size at a step."""
        bounds = self._bounds(len(stages))
        return next((size for size, bound in zip(stages, bounds) if step < bound), end)

    def _bounds(self, stages: int) -> list[int]:
        """Return the first step after each stage."""
        return [round(self.grow.over * self.steps * (stage + 1) / stages) for stage in range(stages)]

    def _taken(self, step: int) -> int:
        """Return the rows that all steps before this one have taken."""
        taken, before = 0, 0
        for size, bound in zip(self.grow.rows, self._bounds(len(self.grow.rows))):
            taken += size * (min(step, bound) - before)
            before = min(step, bound)
        return taken + self.source.rows * (step - before)


def grown(source: BatchSource, grow: Grow | None, *, context: int, steps: int) -> BatchSource:
    """Return the source as the plan grows it, itself where it does not; ConfigError when it is of another kind."""
    if grow is None:
        return source
    if not isinstance(source, Packed):
        given, do = f"the rows of {type(source).__name__} do not grow", "leave it out"
        raise ConfigError(problem("plan.grow", given, "packed rows of plain text", do=do))
    return Grown(source, grow, context=context, steps=steps)


def cut(batch: Batch[Any], context: int) -> Batch[Any]:
    """Return the same tokens in rows of `context`, which divides their length; a piece begins a segment of its own."""
    assert batch.targets is not None
    if batch.tokens.shape[1] == context:
        return batch
    layout = None
    if batch.layout is not None:
        segments = batch.layout.segments.reshape(-1, context)
        first = segments[:, :1]
        renumbered = torch.where(segments > 0, segments - first.clamp(min=1) + 1, 0)
        whole = bool((renumbered == 1).all())
        layout = None if whole else Layout.of(renumbered)
    return Batch(tokens=batch.tokens.reshape(-1, context), targets=batch.targets.reshape(-1, context), layout=layout)
