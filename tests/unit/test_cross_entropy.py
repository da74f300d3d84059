"""Chunked cross-entropy is torch's plain one: value, gradients, and what is left out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from hanlin.batch import IGNORE
from hanlin.models import gpt2, llama
from hanlin.objectives import cross_entropy
from hanlin.objectives.cross_entropy import total_nats

VOCAB, DIM = 37, 8
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def build(tied, seed=0):
    """Return a model of no layers: an embedding, a norm and a head, all random."""
    model = llama.Config(vocab=VOCAB, dim=DIM, layers=1, heads=2, hidden=8, context=32, tied=tied).build(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    return model


def examples(ignore, rows=3, length=7, seed=1):
    """Return hidden states and targets, `ignore` of which are left out."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, length, DIM, generator=generator, requires_grad=True)
    targets = torch.randint(0, VOCAB, (rows, length), generator=generator)
    left_out = torch.randperm(rows * length, generator=generator)[:ignore]
    targets.view(-1)[left_out] = IGNORE
    return hidden, targets


def gradients(model, hidden):
    """Return every gradient and forget it."""
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    found["hidden"] = hidden.grad
    model.zero_grad(set_to_none=True)
    hidden.grad = None
    return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ignore", [0, 1, 8, 20, 21])
@pytest.mark.parametrize("chunk", [1, 2, 5, 7, 20, 21, 22, None])
def test_equals_the_plain_one(chunk, ignore, tied):
    """The last chunk lost, a chunk averaged, ignored targets counted, a gradient from the last chunk alone."""
    model = build(tied)
    hidden, targets = examples(ignore)
    plain = F.cross_entropy(model.logits(hidden).flatten(0, 1), targets.flatten(), reduction="sum")
    (0.3 * plain).backward()
    expected = gradients(model, hidden)
    total = total_nats(model, hidden, targets, chunk=chunk)
    (0.3 * total).backward()
    found = gradients(model, hidden)
    torch.testing.assert_close(total, plain, **CLOSE)
    assert found.keys() == expected.keys() == {"embed.weight" if tied else "head.weight", "hidden"}
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(total_nats(model, hidden, targets, chunk=chunk), plain, **CLOSE)


def test_nothing_to_learn_is_zero_and_moves_nothing():
    """NaN from a batch without a single target."""
    model = build(True)
    hidden, targets = examples(21)
    total = total_nats(model, hidden, targets)
    total.backward()
    assert float(total.detach()) == 0.0
    assert not hidden.grad.any()
    with torch.no_grad():
        assert float(total_nats(model, hidden, targets)) == 0.0


def test_a_tied_matrix_learns_from_both_ends():
    """The gradient through the head alone, or through the embedding alone."""
    model = build(True)
    tokens, targets = torch.randint(0, VOCAB, (2, 9)), torch.randint(0, VOCAB, (2, 9))
    F.cross_entropy(model.logits(model(tokens)).flatten(0, 1), targets.flatten(), reduction="sum").backward()
    expected = model.embed.weight.grad.clone()
    model.zero_grad()
    total_nats(model, model(tokens), targets, chunk=4).backward()
    torch.testing.assert_close(model.embed.weight.grad, expected, atol=1e-4, rtol=1e-4)


def test_a_frozen_head_stays_and_lets_the_gradient_through():
    """A gradient for a parameter that is frozen, or none for what lies before it."""
    model = build(False)
    model.head.weight.requires_grad_(False)
    hidden, targets = examples(3)
    total_nats(model, hidden, targets, chunk=4).backward()
    assert model.head.weight.grad is None
    expected = torch.autograd.grad(
        F.cross_entropy(model.logits(hidden).flatten(0, 1), targets.flatten(), reduction="sum"), hidden
    )
    torch.testing.assert_close(hidden.grad, expected[0], **CLOSE)


def test_logits_exist_a_chunk_at_a_time(monkeypatch):
    """All logits made at once, gigabytes for a long batch and a large vocabulary; or logits that no target asks for."""
    model = build(True)
    sizes = []
    plain = model.logits
    monkeypatch.setattr(model, "logits", lambda hidden: sizes.append(len(hidden)) or plain(hidden))
    hidden, targets = examples(0)
    total_nats(model, hidden, targets, chunk=5)
    assert sizes == [5, 5, 5, 5, 1]
    sizes.clear()
    total_nats(model, *examples(8), chunk=5)
    assert sizes == [5, 5, 3]
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 4 * VOCAB * 700)
    monkeypatch.setattr(cross_entropy, "FEWEST", 1)
    sizes.clear()
    total_nats(model, *examples(0, rows=10, length=200))
    assert sizes == [700, 700, 600]


def test_views_and_single_rows():
    """A slice of a larger batch, read as if it lay in one piece."""
    model = build(True)
    hidden, targets = examples(0)
    sliced = total_nats(model, hidden[:, ::2].transpose(0, 1), targets[:, ::2].transpose(0, 1), chunk=3)
    plain = F.cross_entropy(model.logits(hidden[:, ::2]).flatten(0, 1), targets[:, ::2].flatten(), reduction="sum")
    torch.testing.assert_close(sliced, plain, **CLOSE)


def test_bf16_sums_in_fp32():
    """A total or gradient rounded after every chunk: off by far more than its terms are."""
    model = gpt2.Config(vocab=VOCAB, dim=DIM, layers=1, heads=2, context=8).build().to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4000, DIM, generator=generator).bfloat16().requires_grad_()
    targets = torch.randint(0, VOCAB, (4000,), generator=generator)
    total = total_nats(model, hidden, targets, chunk=8)
    total.backward()
    whole = total_nats(model, hidden.detach().requires_grad_(), targets, chunk=4000)
    assert total.dtype == torch.float32
    assert math.isclose(float(total.detach()), float(whole.detach()), rel_tol=1e-5)
    found = model.embed.weight.grad
    assert found.dtype == hidden.grad.dtype == torch.bfloat16
    wide = model.float()
    exact = torch.autograd.grad(
        F.cross_entropy(wide.logits(hidden.detach().float()), targets, reduction="sum"), wide.embed.weight
    )[0]
    assert (found.float() - exact).norm() < 0.01 * exact.norm()
