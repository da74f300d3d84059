"""What flows from data to models: Layout, Source, Batch. The loader builds them, models and objectives read them.

    segments   1 1 1 2 2 0 0      which document each token belongs to; 0 is padding
    starts     0 0 0 3 3 5 5      where the token's segment begins; position = column - start
    targets    b c _ e _ _ _      the answer AT t, already shifted; _ is IGNORE, no loss

A token attends within its own segment, so segments replace attention, padding and document masks.
Padding attends to padding: no row of a mask is empty, and softmax never returns NaN.

Letters: B rows, T tokens a row, S source positions, D hidden dim, F features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

IGNORE = -100  # a target without loss; also what torch's cross_entropy ignores

L = TypeVar("L")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which segment each token belongs to; `None` in its place means one segment a row and no padding."""

    segments: Tensor  # (B, T) integer, 0 = padding
    starts: Tensor  # (B, T) integer, the column where the token's segment begins
    longest: int  # tokens in the longest segment

    @classmethod
    def of(cls, segments: Tensor) -> Self:
        """Build a layout from (B, T) segment numbers; a run of equal numbers in a row is one segment."""
        rows, length = segments.shape
        columns = torch.arange(length).expand(rows, length)
        new = torch.ones_like(segments, dtype=torch.bool)
        new[:, 1:] = segments[:, 1:] != segments[:, :-1]
        starts = torch.where(new, columns, 0).cummax(1).values if length else columns
        longest = int(((columns - starts + 1) * (segments > 0)).max()) if segments.numel() else 0
        return cls(segments=segments, starts=starts, longest=longest)

    @property
    def positions(self) -> Tensor:
        """Return (B, T) positions, counted from 0 within each segment."""
        return torch.arange(self.segments.shape[1], device=self.segments.device) - self.starts

    @property
    def real(self) -> Tensor:
        """Return (B, T) booleans: True where there is a token, False on padding."""
        return self.segments > 0


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A source of token ids: (B, S), with its layout."""

    ids: Tensor
    layout: Layout | None = None


@dataclass(frozen=True, kw_only=True)
class Frames:
    """A source of feature frames: (B, S, F), with its layout."""

    values: Tensor
    layout: Layout | None = None


Source = Tokens | Frames


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[L]):
    """One step's worth of examples. Only `tokens` is always there."""

    tokens: Tensor  # (B, T) ids, or (B, T, D) already embedded
    targets: Tensor | None = None  # (B, T), IGNORE where there is no loss
    layout: Layout | None = None
    kinds: Tensor | None = None  # (B, T) token types
    source: Source | None = None
    groups: Tensor | None = None  # (B,) rows with the same number belong to one example
    labels: L | None = None  # a frozen dataclass of tensors that the task declares, first axis B
    continues: Tensor | None = None  # (B,) True where a row goes on where that row of the step before ended
    cache: Any = None  # what the model keeps of the step before; the trainer fills it in, after `take` and `move`

    @property
    def rows(self) -> int:
        """Return B."""
        return self.tokens.shape[0]


def take(thing: Any, rows: slice) -> Any:  # noqa: ANN401  # returns the type it is given
    """Return the given rows of a Batch, or of any frozen dataclass of tensors in it (None stays None)."""
    if thing is None or isinstance(thing, int | float | str):
        return thing
    if isinstance(thing, Tensor):
        return thing[rows]
    return replace(thing, **{field.name: take(getattr(thing, field.name), rows) for field in fields(thing)})


def move(thing: Any, device: torch.device) -> Any:  # noqa: ANN401  # returns the type it is given
    """Return a Batch, or any frozen dataclass of tensors, on `device`."""
    if thing is None or isinstance(thing, int | float | str):
        return thing
    if isinstance(thing, Tensor):
        return thing.to(device, non_blocking=True)
    return replace(thing, **{field.name: move(getattr(thing, field.name), device) for field in fields(thing)})
