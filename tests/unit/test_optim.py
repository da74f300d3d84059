"""AdamW is AdamW, decay goes to matrices alone, and saved state goes on with the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hanlin.config import parse
from hanlin.errors import CheckpointError, ConfigError
from hanlin.models import gpt2, llama
from hanlin.optim import adamw
from hanlin.optim.contract import load_state, save_state

CONFIG = adamw.Config(rate=0.01, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.3)


class Small(nn.Module):
    """One parameter of each kind that decay must tell apart."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.up = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)


def small(dtype=torch.float32):
    """Return the model with every parameter random."""
    model = Small().to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    return model


def set_gradients(model, step):
    """Give every parameter a gradient that depends on the step alone."""
    generator = torch.Generator().manual_seed(step)
    for each in model.parameters():
        each.grad = torch.randn(each.shape, generator=generator).to(each.dtype)


def decayed(config, model):
    """Return the names of the parameters in groups with decay."""
    names = {id(each): name for name, each in model.named_parameters()}
    groups = config.build(model).param_groups
    assert sorted(names) == sorted(id(each) for group in groups for each in group["params"])  # each in just one group
    return {names[id(each)] for group in groups if group["weight_decay"] for each in group["params"]}


class TestAdamW:
    """The arithmetic."""

    def test_is_the_formula_of_its_docstring(self):
        """Betas swapped, no bias correction, eps inside the root, decay through the gradient or not times the rate."""
        model = small(torch.float64)
        reference = {name: each.detach().clone() for name, each in model.named_parameters()}
        m = {name: torch.zeros_like(each) for name, each in reference.items()}
        v = {name: torch.zeros_like(each) for name, each in reference.items()}
        optimizer = CONFIG.build(model)
        for t in range(1, 8):
            set_gradients(model, t)
            for name, each in model.named_parameters():
                m[name] = 0.8 * m[name] + 0.2 * each.grad
                v[name] = 0.9 * v[name] + 0.1 * each.grad**2
                step = m[name] / (1 - 0.8**t) / ((v[name] / (1 - 0.9**t)).sqrt() + 1e-3)
                decay = 0.3 if name == "up.weight" else 0.0
                reference[name] = reference[name] - 0.01 * (step + decay * reference[name])
            optimizer.step()
            for name, each in model.named_parameters():
                torch.testing.assert_close(each.detach(), reference[name], atol=1e-12, rtol=1e-12)

    def test_equals_torch(self):
        """A choice that does not reach torch, or the fused kernel computing something else."""
        model, other = small(), small()
        parts = [
            {"params": [other.up.weight]},
            {"params": [other.embed.weight, other.up.bias, *other.norm.parameters()], "weight_decay": 0.0},
        ]
        reference = torch.optim.AdamW(parts, lr=0.01, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.3, fused=False)
        optimizer = CONFIG.build(model)
        for step in range(20):
            set_gradients(model, step)
            set_gradients(other, step)
            optimizer.step()
            reference.step()
        for one, two in zip(model.parameters(), other.parameters()):
            torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)

    def test_decay_alone_shrinks_matrices_alone(self):
        """Norms pulled to zero, or a matrix that never is."""
        model = small()
        before = {name: each.detach().clone() for name, each in model.named_parameters()}
        for each in model.parameters():
            each.grad = torch.zeros_like(each)
        CONFIG.build(model).step()
        for name, each in model.named_parameters():
            factor = 1 - 0.01 * 0.3 if name == "up.weight" else 1.0
            torch.testing.assert_close(each.detach(), before[name] * factor, atol=1e-7, rtol=1e-6)


class TestGroups:
    """Who decays."""

    def test_llama(self):
        config = llama.Config(
            vocab=32, dim=8, layers=2, heads=2, hidden=16, context=8, attention_bias=True, mlp_bias=True
        )
        parts = [f"attn.{part}" for part in "qkvo"] + ["mlp.gate", "mlp.up", "mlp.down"]
        expected = {f"blocks.{layer}.{part}.weight" for layer in range(2) for part in parts} | {"head.weight"}
        assert decayed(adamw.Config(), config.build()) == expected

    def test_gpt2(self):
        config = gpt2.Config(vocab=32, dim=8, layers=1, heads=2, context=8)
        parts = [f"attn.{part}" for part in "qkvo"] + ["mlp.up", "mlp.down"]
        assert decayed(adamw.Config(), config.build()) == {f"blocks.0.{part}.weight" for part in parts}

    def test_patterns_are_the_users(self):
        """A pattern that is asked for and ignored."""
        assert decayed(adamw.Config(exempt=()), small()) == {name for name, _ in small().named_parameters()}
        assert decayed(adamw.Config(exempt=("*",)), small()) == set()
        assert decayed(adamw.Config(exempt=("up.*",)), small()) == {"embed.weight", "norm.weight", "norm.bias"}

    def test_frozen_parameters_stay(self):
        """A frozen layer that decay moves all the same."""
        model = small()
        model.up.weight.requires_grad_(False)
        groups = adamw.Config().build(model).param_groups
        assert all(each is not model.up.weight for group in groups for each in group["params"])

    def test_each_group_knows_its_peak_rate(self):
        """A group that the schedule cannot reach."""
        assert [group["initial_lr"] for group in adamw.Config(rate=0.02).build(small()).param_groups] == [0.02, 0.02]

    @pytest.mark.parametrize("given", [{"rate": 0.0}, {"rate": -1.0}, {"beta1": 1.0}, {"beta2": -0.1}, {"eps": 0.0}])
    def test_impossible_choices_are_refused(self, given):
        with pytest.raises(ConfigError, match=next(iter(given))):
            parse(adamw.Config, given)


class TestState:
    """Saved and loaded."""

    def test_goes_on_with_the_same_bits(self):
        """A moment or step count lost, or given to another parameter of the same shape."""
        model = small()
        optimizer = CONFIG.build(model)
        for step in range(3):
            set_gradients(model, step)
            optimizer.step()
        saved = {name: each.clone() for name, each in save_state(optimizer, model).items()}
        assert len(saved) == 3 * len(list(model.parameters()))
        again = small()
        again.load_state_dict(model.state_dict())
        other = CONFIG.build(again)
        load_state(other, again, saved)
        for step in range(3, 6):
            for each, its in ((model, optimizer), (again, other)):
                set_gradients(each, step)
                its.step()
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))

    def test_loading_does_not_share_memory(self):
        """A checkpoint in memory that training changes."""
        model = small()
        optimizer = CONFIG.build(model)
        set_gradients(model, 0)
        optimizer.step()
        saved = {name: each.clone() for name, each in save_state(optimizer, model).items()}
        kept = {name: each.clone() for name, each in saved.items()}
        load_state(optimizer, model, saved)
        set_gradients(model, 1)
        optimizer.step()
        assert all(torch.equal(saved[name], kept[name]) for name in kept)

    @pytest.mark.parametrize(
        ("name", "tensor"),
        [
            ("other.weight#exp_avg", torch.zeros(4, 3)),
            ("nothing", torch.zeros(1)),
            ("up.weight#exp_avg", torch.zeros(3, 4)),
        ],
    )
    def test_the_state_of_another_model_is_refused(self, name, tensor):
        """Moments of other parameters, taken because their number fits."""
        model = small()
        with pytest.raises(CheckpointError, match=name):
            load_state(CONFIG.build(model), model, {name: tensor})
