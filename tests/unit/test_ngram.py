"""The n-gram that stands beside neural models."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ngram


def slow(train, letters, context, order):
    """Return P(. | context) by the formula, one gram at a time."""
    if order == 0:
        return np.full(letters, 1 / letters)
    train = list(train)

    def grams(size):
        return [tuple(train[at : at + size]) for at in range(len(train) - size + 1)]

    def counts(size):
        if size == slow.highest:
            found = grams(size)
        else:
            found = [each[1:] for each in set(grams(size + 1))]
        return {each: found.count(each) for each in set(found)}

    context = tuple(context[len(context) - order + 1 :])
    known = counts(order)
    ones, twos = (list(known.values()).count(number) for number in (1, 2))
    discount = ones / (ones + 2 * twos) if ones else 0.5
    lower = slow(train, letters, context[1:], order - 1)
    after = np.array([known.get((*context, letter), 0) for letter in range(letters)])
    if not after.sum():
        return lower
    return (np.maximum(after - discount, 0) + discount * (after > 0).sum() * lower) / after.sum()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_formula(order):
    """A discount of the wrong order, counts where numbers of neighbours belong, a context one letter off."""
    draw = np.random.default_rng(0)
    train, held = draw.integers(0, 3, 60), draw.integers(0, 4, 25)  # letter 3 is never seen
    slow.highest = order
    text = np.concatenate([train[-(order - 1) :] if order > 1 else train[:0], held])
    expected = 0.0
    for place in range(len(held)):
        chances = slow(train, 4, text[place : place + order - 1], order)
        assert chances.sum() == pytest.approx(1)
        expected -= np.log(chances[held[place]])
    assert ngram.nats(train, held, 4, order) == pytest.approx(expected / len(held), abs=1e-12)


def test_too_many_letters():
    """Numbers that run over and count other grams."""
    with pytest.raises(ValueError, match="64 bits"):
        ngram.nats(np.zeros(9, dtype=np.int64), np.zeros(9, dtype=np.int64), 2000, 6)
