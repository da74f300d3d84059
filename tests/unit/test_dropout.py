"""Dropout drawn sixteen bits a number: shares, means, gradients, draws."""

from __future__ import annotations

import pytest
import torch

from hanlin.nn.dropout import LEVELS, Dropout, dropout


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_share_left_out_is_the_one_asked_for(p, dtype):
    """A sign bit that is never drawn, or bounds off by one level: every fourth number would be kept too often."""
    torch.manual_seed(0)
    count = 400_000
    left = (dropout(torch.ones(count, dtype=dtype), p) == 0).reshape(-1, 4).double().mean(0)
    bound = 5 * (p * (1 - p) / (count / 4)) ** 0.5 + 1 / LEVELS
    assert (left - p).abs().max() < bound


def test_the_mean_stays():
    """Kept numbers divided by another share than the one that is kept."""
    torch.manual_seed(1)
    for p in (0.1, 0.3, 1 / 3):
        kept = dropout(torch.ones(300_000), p)
        assert kept.unique().tolist() == [0.0, pytest.approx(1 / (1 - p), abs=1e-4)]
        assert kept.mean() == pytest.approx(1, abs=0.01)


def test_neighbours_are_drawn_apart():
    """One draw stretched over its neighbours: the four numbers of a word would fall together."""
    torch.manual_seed(2)
    words = (dropout(torch.ones(200_000), 0.5) == 0).reshape(-1, 4).double()
    together = torch.corrcoef(words.T) - torch.eye(4)
    assert together.abs().max() < 0.02


def test_gradients_flow_where_numbers_did():
    """A mask drawn again on the way back."""
    torch.manual_seed(3)
    x = torch.randn(7, 5, 3, requires_grad=True)  # no multiple of four
    y = dropout(x, 0.4)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0)
    assert torch.allclose(y, x * x.grad)


def test_the_generator_decides():
    """Draws that no seed repeats: a run killed and started again would end elsewhere."""
    x = torch.ones(1000)
    torch.manual_seed(4)
    one, two = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(4)
    assert torch.equal(dropout(x, 0.5), one)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("p", [0.0, 1e-9])
def test_nothing_is_left_out_of_next_to_nothing(p):
    """A share below a level, rounded up."""
    x = torch.randn(5000)
    assert torch.equal(dropout(x, p), x)


def test_only_while_training():
    """A served model that answers by chance."""
    layer, x = Dropout(0.5), torch.randn(100)
    assert (layer(x) == 0).any()
    assert torch.equal(layer.eval()(x), x)
    assert Dropout(0.0)(x) is x
    assert repr(layer) == "Dropout(p=0.5)"


def test_all_or_an_empty_tensor():
    """No numbers at all; and nearly all left out."""
    assert dropout(torch.ones(0, 3), 0.5).shape == (0, 3)
    torch.manual_seed(5)
    assert torch.isfinite(dropout(torch.ones(1000), 1 - 1e-6)).all()
