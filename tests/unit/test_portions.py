"""Portions: every row once and in order, even in tokens, no example parted, no more tokens than asked for."""

from __future__ import annotations

import random

import pytest
import torch

from hanlin.batch import Batch, Layout, Tokens
from hanlin.train.portions import portions


def batch(lengths, *, groups=None, source=None):
    """Return rows with so many tokens each, padding after them; a source likewise."""
    return Batch(
        tokens=torch.zeros(len(lengths), max(lengths), dtype=torch.long),
        layout=layout(lengths),
        groups=None if groups is None else torch.tensor(groups),
        source=None if source is None else Tokens(ids=torch.zeros(len(source), max(source)), layout=layout(source)),
    )


def layout(lengths):
    return Layout.of((torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long())


def bounds(cuts):
    return [(each.start, each.stop) for each in cuts]


@pytest.mark.parametrize("seed", range(20))
def test_every_row_once_and_in_order(seed):
    """A row left out, taken twice or in an empty portion; two rows of one example in two portions."""
    draw = random.Random(seed)
    rows = draw.randint(1, 12)
    groups = sorted(draw.choices(range(6), k=rows)) if seed % 2 else None
    given = batch([draw.randint(1, 9) for _ in range(rows)], groups=groups)
    for cuts in (portions(given, count=draw.randint(1, 14)), portions(given, most=draw.randint(1, 60))):
        found = bounds(cuts)
        assert [row for first, last in found for row in range(first, last)] == list(range(rows))
        assert all(first < last for first, last in found)
        if groups:
            assert all(groups[last - 1] != groups[last] for _, last in found[:-1])


def test_even_in_rows_where_rows_are_even():
    assert bounds(portions(Batch(tokens=torch.zeros(12, 5)), count=4)) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert len(portions(Batch(tokens=torch.zeros(7, 5)), count=3)) == 3
    assert bounds(portions(Batch(tokens=torch.zeros(2, 5)), count=6)) == [(0, 1), (1, 2)]


def test_even_in_tokens():
    """One portion of all long rows, whose memory is then not what was planned."""
    assert bounds(portions(batch([9, 1, 1, 1, 3, 3]), count=2)) == [(0, 1), (1, 6)]
    assert bounds(portions(batch([1, 1, 1, 1, 1, 9]), count=3)) == [(0, 4), (4, 5), (5, 6)]


def test_a_source_counts():
    """An encoder's tokens forgotten: they take memory like any other."""
    assert bounds(portions(batch([2, 2, 2], source=[9, 1, 1]), count=2)) == [(0, 1), (1, 3)]
    assert bounds(portions(batch([2, 2, 2], source=[9, 1, 1]), most=22)) == [(0, 2), (2, 3)]


def test_no_more_tokens_than_asked_for():
    """Padding not counted; a portion one row too large; one row too long that stops everything."""
    given = batch([4, 1, 1, 1, 1])
    assert bounds(portions(given, most=8)) == [(0, 2), (2, 4), (4, 5)]
    assert bounds(portions(given, most=11)) == [(0, 2), (2, 4), (4, 5)]
    assert bounds(portions(given, most=1)) == [(row, row + 1) for row in range(5)]
    assert bounds(portions(given, most=100)) == [(0, 5)]
