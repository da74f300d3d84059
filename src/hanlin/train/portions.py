"""Which rows of a step are computed together: cut where the tokens, not the rows, are shared out evenly.

    portion 1   ████ ██████ ███       rows stay in order, and those of one example stay together
    portion 2   ██████████████        (Batch.groups)

How a step is cut changes its memory and not its result: losses are summed over all portions and divided once.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import torch

from hanlin.batch import Batch, Layout, Source, Tokens


def portions(batch: Batch[Any], *, count: int = 1, most: int | None = None) -> list[slice]:
    """Return the rows of each portion, none of them empty: `count` of them, as even in tokens as rows allow.

    With `most`, instead as few as hold at most so many tokens each, padding included, as it takes memory too; a
    single example that is longer is a portion of its own.
    """
    ends = [row + 1 for row in range(batch.rows) if _ends(batch, row)]
    if most is not None:
        return _slices(_bounded(ends, batch.tokens.shape[1] + _width(batch.source), most))
    sums = list(accumulate(_tokens(batch)))
    count = min(count, len(ends))
    cuts, at = [0], 0
    for number in range(1, count):
        wanted = sums[-1] * number / count
        at = min(range(at, len(ends) - count + number), key=lambda each: abs(sums[ends[each] - 1] - wanted)) + 1
        cuts.append(ends[at - 1])
    return _slices([*cuts, batch.rows])


def _bounded(ends: list[int], width: int, most: int) -> list[int]:
    """Return where to cut so that rows of `width` tokens stay within `most`, as late as may be each time."""
    cuts = [0]
    for end, after in pairwise([*ends, ends[-1] + 1]):
        if end == ends[-1] or (after - cuts[-1]) * width > most:
            cuts.append(end)
    return cuts


def _slices(cuts: list[int]) -> list[slice]:
    return [slice(first, last) for first, last in pairwise(cuts)]


def _ends(batch: Batch[Any], row: int) -> bool:
    """Return whether a row is the last one of its example."""
    return batch.groups is None or row + 1 == batch.rows or bool(batch.groups[row] != batch.groups[row + 1])


def _tokens(batch: Batch[Any]) -> list[int]:
    """Return the tokens of every row, those of its source among them, padding aside."""
    total = _real(batch.layout, batch.rows, batch.tokens.shape[1])
    if batch.source is not None:
        total = total + _real(batch.source.layout, batch.rows, _width(batch.source))
    found: list[int] = total.tolist()
    return found


def _real(layout: Layout | None, rows: int, width: int) -> torch.Tensor:
    return torch.full((rows,), width) if layout is None else layout.real.sum(1)


def _width(source: Source | None) -> int:
    """Return the positions of a source, padding included."""
    if source is None:
        return 0
    return source.ids.shape[1] if isinstance(source, Tokens) else source.values.shape[1]
