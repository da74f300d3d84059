"""Scoring documents: windows, batches, and what is reported."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hanlin.errors import ConfigError
from hanlin.evaluation import harness
from hanlin.evaluation.harness import examine, nats, portion, windows
from hanlin.models import gpt2, llama

VOCAB, CONTEXT = 19, 16


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    family = {"llama": llama, "gpt2": gpt2}[request.param]
    return family.Config(vocab=VOCAB, dim=16, layers=2, heads=2, context=CONTEXT, spread=0.4).build(seed=1).eval()


@dataclass
class Held:
    """Documents in memory, shaped like data/shards.py:Shards."""

    ids: list[np.ndarray]
    sizes: np.ndarray

    @property
    def documents(self):
        return len(self.ids)

    @property
    def lengths(self):
        return np.array([len(each) for each in self.ids])

    def document(self, index):
        return self.ids[index]


def held(*lengths, seed=0):
    """Return documents of random tokens with three bytes a token."""
    draws = np.random.default_rng(seed)
    ids = [draws.integers(0, VOCAB, size=length).astype(np.uint16) for length in lengths]
    return Held(ids, np.array([3 * length for length in lengths]))


def token_by_token(model, ids, context, overlap):
    """Return the nats of one document, each token in a forward of its own: the slow twin of windows and batches."""
    total, start = 0.0, 0
    for place in range(1, len(ids)):
        if place - start > context:
            start = place - 1 - overlap
        with torch.inference_mode():
            seen = torch.tensor(ids[start:place].astype(np.int64))[None]
            total -= float(model.logits(model(seen)[0, -1]).log_softmax(-1)[int(ids[place])])
    return total


@given(length=st.integers(0, 60), context=st.integers(1, 12), data=st.data())
def test_windows_score_each_token_once(length, context, data):
    """Guards against tokens at the edges scored twice or never, and against windows wider than the context."""
    overlap = data.draw(st.integers(0, context - 1))
    scored = []
    for start, stop, prefix in windows(length, context, overlap):
        assert 0 <= start < stop <= length
        assert stop - 1 - start <= context
        assert prefix == (overlap + 1 if start else 1)
        scored += range(start + prefix, stop)
    assert scored == list(range(1, length))


@pytest.mark.parametrize(("context", "overlap"), [(16, 0), (16, 8), (5, 4), (1, 0)])
@pytest.mark.parametrize("pool", [16, 0])
def test_nats_equal_token_by_token(model, monkeypatch, context, overlap, pool):
    """Guards against a past that is too long or too short at a window's start, and sums credited to a neighbour."""
    monkeypatch.setattr(harness, "POOL", pool)
    data = held(1, 2, 17, 18, 40, 0, 7, 3)
    expected = [token_by_token(model, ids, context, overlap) for ids in data.ids]
    assert nats(model, data.ids, context=context, overlap=overlap, tokens_per_batch=64) == pytest.approx(expected)


@pytest.mark.parametrize("packs", [True, False])
def test_packed_padded_and_alone_agree(model, monkeypatch, packs):
    """Guards against documents that see each other, or padding, when they share a row or a batch."""
    monkeypatch.setattr(type(model), "packs", packs)
    data = held(*range(2, 40), seed=2)
    together = nats(model, iter(data.ids), context=CONTEXT, overlap=4)
    alone = [nats(model, [ids], context=CONTEXT, overlap=4, tokens_per_batch=1)[0] for ids in data.ids]
    assert together == pytest.approx(alone, rel=1e-5)


def test_uniform_model_needs_log2_vocab_bits_a_token(model):
    """Guards against nats for bits, tokens for bytes, or a first token that is counted."""
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    data = held(5, 30, 2)
    scores = examine(model, data)
    tokens = 37 - 3
    assert scores.perplexity.value == pytest.approx(VOCAB, rel=1e-6)
    assert scores.bits_per_byte.value == pytest.approx(math.log2(VOCAB) * tokens / (3 * 37), rel=1e-6)
    assert (scores.documents, scores.tokens, scores.bytes) == (3, tokens, 3 * 37)


def test_scores_are_plain_data_with_fixed_keys(model):
    """Guards against keys that drift: other tools read them by name."""
    scores = examine(model, held(5, 30, 2), context=8, overlap=2).to_dict()
    assert json.loads(json.dumps(scores)) == scores
    assert list(scores) == ["perplexity", "bits_per_byte", "documents", "tokens", "bytes"]
    assert list(scores["perplexity"]) == ["value", "low", "high", "n", "unit"]
    assert scores["bits_per_byte"]["low"] < scores["bits_per_byte"]["value"] < scores["bits_per_byte"]["high"]
    assert scores["perplexity"]["n"] == 3


def test_progress_adds_up(model):
    """Guards against a bar that stops short of its end or runs past it."""
    told = []
    data = held(5, 300, 1, 0)
    examine(model, data, tokens_per_batch=16, advance=told.append)
    assert sum(told) == 4 + 299
    assert len(told) > 1


@pytest.mark.parametrize(("context", "overlap"), [(17, 0), (8, 8), (8, -1), (0, 0)])
def test_windows_that_cannot_be_are_refused(model, context, overlap):
    """Guards against an endless loop (overlap as wide as the window) and windows past the model's context."""
    with pytest.raises(ConfigError, match=f"context {context}, overlap {overlap}; .* the model's 16"):
        examine(model, held(5), context=context, overlap=overlap)


def test_portion_is_spread_and_bounded():
    """Guards against judging training by the first documents alone, and against a portion larger than asked for."""
    data = held(*[10] * 100)
    found = portion(data, 95)
    assert [len(each) for each in found] == [10] * 9 + [5]
    assert all(any(part is whole or part.base is whole for whole in data.ids) for part in found)
    assert np.array_equal(found[1], data.ids[10])
    assert [len(each) for each in portion(data, 5000)] == [10] * 100
    assert [len(each) for each in portion(held(1000), 64)] == [64]
    assert portion(held(), 64) == []
