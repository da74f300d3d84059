"""Estimates, their intervals, and the two scores of a language model."""

import math

import numpy as np
import pytest

from hanlin.errors import DataError
from hanlin.metrics import contract
from hanlin.metrics.contract import Estimate, bootstrap
from hanlin.metrics.perplexity import bits_per_byte, perplexity


def mean(sums):
    """Reduce sums to a ratio."""
    return sums[..., 0] / sums[..., 1]


def slow_twin(statistics, reduce, seed, rounds):
    """Redraw row by row, with plain indexing, from the same stream of numbers."""
    draws = np.random.default_rng(seed)
    picks = draws.integers(len(statistics), size=(rounds, len(statistics)))
    return np.percentile([reduce(statistics[pick].sum(0)) for pick in picks], [2.5, 97.5])


def test_sum_then_divide_once():
    """Guards against averaging the documents' averages, which counts a short document as much as a long one."""
    found = perplexity(np.array([100 * math.log(3), 0.0]), np.array([100, 300]))
    assert found.value == pytest.approx(3**0.25)
    assert (found.n, found.unit) == (2, "per token")


def test_bits_per_byte_of_a_coin():
    """Guards against nats reported as bits, or characters counted for bytes."""
    found = bits_per_byte(np.array([6 * math.log(2)]), np.array([len("翰林".encode())]))
    assert found == Estimate(value=found.value, low=found.value, high=found.value, n=1, unit="bits per byte")
    assert found.value == pytest.approx(1.0)


@pytest.mark.parametrize("block", [2**22, 70, 1])
def test_interval_equals_redrawing_row_by_row(monkeypatch, block):
    """Guards against counts credited to another round, and against intervals that depend on the block size."""
    monkeypatch.setattr(contract, "BLOCK", block)
    statistics = np.random.default_rng(1).gamma(2.0, size=(35, 2))
    found = bootstrap(statistics, mean, unit="", seed=5, rounds=200)
    low, high = slow_twin(statistics, mean, 5, 200)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.low < found.value < found.high


def test_interval_covers_the_truth_as_often_as_it_says():
    """Guards against an interval of one standard error, or of the rows instead of their mean."""
    draws = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        values = draws.normal(3.0, 1.0, size=60)
        found = bootstrap(np.stack([values, np.ones(60)], 1), mean, unit="", seed=trial, rounds=300)
        hits += found.low <= 3.0 <= found.high
    assert 180 <= hits <= 199


def test_same_seed_same_interval():
    """Guards against scores that move when nothing has changed."""
    statistics = np.random.default_rng(2).random((20, 2))
    assert bootstrap(statistics, mean, unit="", seed=1) == bootstrap(statistics, mean, unit="", seed=1)
    assert bootstrap(statistics, mean, unit="", seed=1) != bootstrap(statistics, mean, unit="", seed=2)


def test_one_document_has_no_spread():
    """Guards against NaN intervals when there is a single document."""
    found = perplexity(np.array([5.0]), np.array([5]))
    assert found.low == found.value == found.high == pytest.approx(math.e)


def test_groups_are_redrawn_together():
    """Guards against chapters of one book passing for independent books, which narrows the interval."""
    nats, tokens = np.repeat([[10.0], [30.0], [20.0], [25.0]], 10, axis=1).ravel(), np.full(40, 10)
    groups = np.repeat([7, 3, 5, 9], 10)
    apart, together = perplexity(nats, tokens), perplexity(nats, tokens, groups)
    assert together.value == pytest.approx(apart.value)
    assert (apart.n, together.n) == (40, 4)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_documents_with_nothing_to_score_change_nothing():
    """Guards against 0/0 when a redraw holds only documents of one token."""
    found = perplexity(np.array([4.0, 0.0, 0.0]), np.array([2, 0, 0]))
    assert found.n == 1
    assert found.value == pytest.approx(math.exp(2))


@pytest.mark.parametrize(
    ("nats", "sizes", "said"),
    [
        ([], [], "no documents"),
        ([0.0], [0], "no documents"),
        ([1.0, math.nan, math.inf], [1, 1, 1], "2 of 3 have NaN or infinity, the first is number 1"),
        ([1.0, 2.0], [3, 0], "1 documents cost nats but hold no bytes"),
    ],
)
def test_what_cannot_be_scored_is_said(nats, sizes, said):
    """Guards against a NaN score in a results file, found weeks later."""
    with pytest.raises(DataError, match=said):
        bits_per_byte(np.array(nats), np.array(sizes))
