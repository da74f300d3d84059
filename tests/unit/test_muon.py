"""Muon: matrices are turned, the rest goes by Adam; equal to a plain loop over single matrices, and saved whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hanlin.config import parse
from hanlin.errors import ConfigError
from hanlin.models import gpt2, llama
from hanlin.optim import muon
from hanlin.optim.contract import load_state, save_state
from hanlin.optim.muon import orthogonal

CONFIG = muon.Config(
    rate=0.05,
    momentum=0.9,
    weight_decay=0.2,
    adam_rate=0.01,
    beta1=0.8,
    beta2=0.95,
    eps=1e-3,
    rest=("*embed*", "*.bias"),
)


class Small(nn.Module):
    """Two matrices of one shape, a tall and a wide one, and what is left to Adam."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.up, self.down = nn.Linear(6, 15), nn.Linear(15, 6, bias=False)
        self.norm = nn.LayerNorm(6)


def small(seed=0):
    """Return the module with every parameter random."""
    model = Small()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    return model


def set_gradients(model, step):
    """Give every parameter a gradient that depends on the step alone."""
    generator = torch.Generator().manual_seed(step)
    for each in model.parameters():
        each.grad = torch.randn(each.shape, generator=generator)


def turned(matrix):
    """Return one matrix made orthogonal by the polynomial 3.4445 s - 4.7750 s³ + 2.0315 s⁵ of its singular values."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ v


def plain(model, steps):
    """Return the parameters after `steps` steps, each by itself, in fp64, written down from the docstring."""
    weights = {name: each.detach().double() for name, each in model.named_parameters()}
    state = {name: (torch.zeros_like(each), torch.zeros_like(each)) for name, each in weights.items()}
    for step in range(1, steps + 1):
        set_gradients(model, step)
        for name, each in model.named_parameters():
            w, g, (m, v) = weights[name], each.grad.double(), state[name]
            if w.ndim == 2 and "embed" not in name:
                m = 0.9 * m + g
                update = turned(g + 0.9 * m) * math.sqrt(max(1, w.shape[0] / w.shape[1]))
                w = w * (1 - 0.05 * 0.2) - 0.05 * update
            else:
                m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
                w = w - 0.01 * (m / (1 - 0.8**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-3)
            weights[name], state[name] = w, (m, v)
    return weights


def after(steps, model=None, config=CONFIG):
    """Return a model and its optimizer after `steps` steps."""
    model = model or small()
    optimizer = config.build(model)
    for step in range(1, steps + 1):
        set_gradients(model, step)
        optimizer.step()
    return model, optimizer


class TestOrthogonal:
    """The polynomial."""

    @pytest.mark.parametrize("shape", [(1, 24, 24), (3, 40, 12), (3, 12, 40), (2, 64, 1), (1, 1, 1)])
    @pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
    def test_brings_singular_values_near_one(self, shape, size):
        """A product over the wrong side, a norm over the whole stack, too few rounds, an overflow."""
        generator = torch.Generator().manual_seed(0)
        n, rows, columns = shape
        few = min(rows, columns)
        left = torch.linalg.qr(torch.randn(n, rows, few, generator=generator)).Q
        right = torch.linalg.qr(torch.randn(n, columns, few, generator=generator)).Q
        values = torch.logspace(0, -1.5, few)  # the smallest is a thirtieth of the largest
        scales = size * 10.0 ** torch.arange(n)[:, None, None]  # in one stack, of very different size
        found = orthogonal(left * values @ right.mT * scales)
        assert found.dtype == torch.float32
        spread = torch.linalg.svdvals(found)
        assert (spread > 0.5).all()
        assert (spread < 1.5).all()
        # The directions stay: singular vectors are those of the matrix, and no sign is turned.
        within = left.mT @ found @ right
        assert (within.diagonal(dim1=1, dim2=2) > 0.4).all()
        assert (within - torch.diag_embed(within.diagonal(dim1=1, dim2=2))).abs().max() < 0.1

    def test_nothing_stays_nothing(self):
        """A division by a norm of zero: NaN for ever in a layer without a gradient."""
        assert torch.equal(orthogonal(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))

    def test_a_stack_is_its_matrices(self):
        """A neighbour of the same shape that changes an update."""
        stack = torch.randn(4, 10, 6, generator=torch.Generator().manual_seed(0))
        alone = torch.cat([orthogonal(each[None]) for each in stack])
        torch.testing.assert_close(orthogonal(stack), alone, atol=0.02, rtol=0.02)


class TestStep:
    """The arithmetic."""

    def test_is_the_plain_one(self):
        """Momentum lost, or no look ahead by it; decay through the gradient; tall matrices unscaled; swapped betas."""
        model, _ = after(5)
        for name, expected in plain(small(), 5).items():
            found = dict(model.named_parameters())[name].detach().double()
            # Matrices are turned in bf16: five steps of 0.05 times entries of some 0.5, each off by one in a hundred.
            close = 5e-3 if expected.ndim == 2 and "embed" not in name else 1e-5
            torch.testing.assert_close(
                found, expected, atol=close, rtol=0, msg=lambda said, name=name: f"{name}: {said}"
            )

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    def test_descends_a_quadratic(self, scale):
        """The wrong sign, or a step that grows with the gradient."""
        model, goal = small(), small(seed=1)
        optimizer = CONFIG.model_copy(update={"weight_decay": 0.0, "adam_rate": 0.05, "eps": 1e-8}).build(model)
        losses = []
        for _ in range(100):
            pairs = zip(model.parameters(), goal.parameters())
            loss = torch.stack([(a - b.detach()).square().sum() for a, b in pairs]).sum()
            losses.append(loss.item())
            optimizer.zero_grad()
            (scale * loss).backward()
            optimizer.step()
        assert max(losses) == losses[0]
        assert losses[-1] < 0.05 * losses[0]

    def test_same_seed_same_bits(self):
        """Anything drawn, or an order that is not fixed."""
        one, two = after(4)[0], after(4)[0]
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))

    def test_a_parameter_without_a_gradient_is_left(self):
        """A crash, or decay, for an unused layer."""
        model = small()
        optimizer = CONFIG.build(model)
        before = {name: each.detach().clone() for name, each in model.named_parameters()}
        model.two.weight.grad = torch.ones(6, 6)
        optimizer.step()
        moved = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
        assert moved == {"two.weight"}

    def test_the_rate_of_each_group_follows_the_schedule(self):
        """A group that the schedule's multiplier does not reach."""
        model, optimizer = after(1)
        assert [group["initial_lr"] for group in optimizer.param_groups] == [0.05, 0.01]
        before = [each.detach().clone() for each in model.parameters()]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        set_gradients(model, 9)
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


class TestGroups:
    """Who is a matrix."""

    def matrices(self, model, config=CONFIG):
        names = {id(each): name for name, each in model.named_parameters()}
        groups = config.build(model).param_groups
        assert sorted(names) == sorted(id(each) for group in groups for each in group["params"])
        return {names[id(each)] for group in groups if group["matrices"] for each in group["params"]}

    @pytest.mark.parametrize(("family", "parts"), [(llama, ["gate", "up", "down"]), (gpt2, ["up", "down"])])
    def test_go_by_name(self, family, parts):
        """An embedding, an output matrix or positions made orthogonal; a matrix of attention left out."""
        config = family.Config(vocab=32, dim=8, layers=2, heads=2, hidden=16, context=8, tied=False)
        wanted = [f"attn.{part}" for part in "qkvo"] + [f"mlp.{part}" for part in parts]
        expected = {f"blocks.{layer}.{part}.weight" for layer in range(2) for part in wanted}
        assert self.matrices(config.build(), muon.Config()) == expected

    def test_patterns_are_the_users(self):
        """A pattern that is asked for and ignored; a vector taken for a matrix."""
        everything = {"embed.weight", "one.weight", "two.weight", "up.weight", "down.weight"}
        assert self.matrices(small(), muon.Config(rest=())) == everything
        assert self.matrices(small(), muon.Config(rest=("*",))) == set()
        assert self.matrices(small()) == everything - {"embed.weight"}

    def test_frozen_parameters_stay(self):
        """A frozen layer that decay moves all the same."""
        model = small()
        model.two.weight.requires_grad_(False)
        groups = CONFIG.build(model).param_groups
        assert all(each is not model.two.weight for group in groups for each in group["params"])

    @pytest.mark.parametrize("given", [{"rate": 0.0}, {"momentum": 1.0}, {"adam_rate": -1.0}, {"weight_decay": -0.1}])
    def test_impossible_choices_are_refused(self, given):
        with pytest.raises(ConfigError, match=next(iter(given))):
            parse(muon.Config, given)


class TestState:
    """Saved and loaded."""

    def test_goes_on_with_the_same_bits(self):
        """A momentum or step count lost, or given to another parameter of the same shape."""
        model, optimizer = after(3)
        saved = {name: each.clone() for name, each in save_state(optimizer, model).items()}
        rest = {
            f"{name}#{key}"
            for name in ("embed.weight", "one.bias", "up.bias", "norm.weight", "norm.bias")
            for key in ("step", "first", "second")
        }
        assert saved.keys() == rest | {f"{name}.weight#momentum" for name in ("one", "two", "up", "down")}
        again = small(seed=5)
        again.load_state_dict(model.state_dict())
        other = CONFIG.build(again)
        load_state(other, again, saved)
        for step in (4, 5):
            for each, its in ((model, optimizer), (again, other)):
                set_gradients(each, step)
                its.step()
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
