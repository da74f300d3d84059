"""Linear layers: in inference in fp32 the product is made by another library, and must stay the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hanlin.nn import linear as layers
from hanlin.nn.linear import LEAST, Linear, linear

WIDE, DEEP = 1024, LEAST // 1024  # the smallest matrix that goes to oneDNN


@pytest.fixture
def asked(monkeypatch):
    """Return the answers to "does oneDNN make it?" in a list."""
    answers = []
    plain = layers._onednn
    monkeypatch.setattr(layers, "_onednn", lambda x, weight: answers.append(plain(x, weight)) or answers[-1])
    return answers


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 64, 300])
def test_inference_equals_training(asked, rows, bias):
    x, weight, b = drawn(rows, DEEP), drawn(WIDE, DEEP, seed=1), drawn(WIDE, seed=2) if bias else None
    with torch.inference_mode():
        quick = linear(x, weight, b)
    torch.testing.assert_close(quick, linear(x, weight, b), atol=1e-4, rtol=1e-5)
    assert asked == [torch.backends.mkldnn.is_available(), False]


CUTS = {
    "last": lambda x: x[:, -1],
    "every other": lambda x: x[:, ::2],
    "turned": lambda x: x.transpose(0, 1),
    "expanded": lambda x: x[:1].expand(5, -1, -1),
    "one": lambda x: x[0, 0],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_views_are_read_as_they_lie(cut):
    x, weight = cut(drawn(4, 6, DEEP)), drawn(DEEP, WIDE, seed=1).T
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), x @ weight.T, atol=1e-4, rtol=1e-5)


KINDS = [
    (torch.float32, WIDE, True),
    (torch.float32, WIDE - 1, False),
    (torch.bfloat16, WIDE, False),
    (torch.float64, WIDE, False),
]


@pytest.mark.parametrize(("kind", "wide", "made"), KINDS)
def test_large_matrices_in_fp32_go_to_onednn(asked, kind, wide, made):
    with torch.inference_mode():
        assert linear(drawn(2, DEEP).to(kind), drawn(wide, DEEP).to(kind)).dtype == kind
    assert asked == [made and torch.backends.mkldnn.is_available()]


def test_gradients_are_torchs():
    ours = Linear(DEEP, WIDE)
    theirs = nn.Linear(DEEP, WIDE)
    theirs.load_state_dict(ours.state_dict())
    x = drawn(3, DEEP)
    for each in (ours, theirs):
        each(x).square().sum().backward()
    assert torch.equal(ours.weight.grad, theirs.weight.grad)
    assert torch.equal(ours.bias.grad, theirs.bias.grad)


def test_drawn_on_the_meta_device():
    with torch.no_grad(), torch.device("meta"):
        assert Linear(DEEP, WIDE)(torch.empty(2, DEEP)).shape == (2, WIDE)
