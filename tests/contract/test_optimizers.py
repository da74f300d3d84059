"""The contract that every optimizer and every schedule keeps: one table of each, found by file; a new file is a row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hanlin import registry
from hanlin.optim.contract import load_state, save_state, slowed
from hanlin.optim.schedules import Constant, Cosine, InverseSquareRoot, Linear, WarmupStableDecay

NAMES = registry.names("optim")
CHOICES = {  # large, so that nothing hides: rates, decay, and what is easily left out
    "sgd": [{"rate": 0.05}, {"rate": 0.05, "momentum": 0.0}, {"rate": 0.05, "nesterov": True}],
    "adam": [{"rate": 0.02, "beta1": 0.8, "eps": 1e-3}],
    "adamw": [{"rate": 0.02, "beta1": 0.8, "eps": 1e-3}],
    "muon": [{"rate": 0.05, "adam_rate": 0.02}],
    "lion": [{"rate": 0.01, "beta1": 0.8}],
    "adafactor": [{"rate": 0.05}, {"rate": 9.0, "clip": 2.0}],
}
COUPLED = {"sgd", "adam"}  # decay goes through the gradient
CASES = [(name, index) for name in NAMES for index in range(len(CHOICES.get(name, [{}])))]
SCHEDULES = [Constant(warmup=3), Cosine(), Linear(), InverseSquareRoot(), WarmupStableDecay()]


class Net(nn.Module):
    """What names tell apart: an embedding, two blocks with a matrix, a bias and a norm each, a head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}) for _ in range(2))
        self.head = nn.Linear(4, 5, bias=False)

    def forward(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h = h + torch.tanh(block["up"](block["norm"](h)))
        return self.head(h)


def net(dtype=torch.float32, seed=0):
    """Return the net with every parameter random."""
    model, generator = Net().to(dtype), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    return model


def config(name, index=0, **more):
    return registry.load("optim", name).Config(**{**CHOICES.get(name, [{}])[index], **more})


def loss_of(model, step):
    """Return the loss on data that depends on the step alone."""
    draw = torch.Generator().manual_seed(step)
    x, y = torch.randint(0, 7, (16,), generator=draw), torch.randint(0, 5, (16,), generator=draw)
    return nn.functional.cross_entropy(model(x), y)


def learn(model, optimizer, steps, schedule=SCHEDULES[0]):
    """Take the steps as training does: the rate is the group's peak times the schedule's multiplier."""
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * schedule(step, 12)
        loss_of(model, step).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def values(model):
    return {name: each.detach().clone() for name, each in model.named_parameters()}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.name)
@pytest.mark.parametrize(("name", "index"), CASES)
def test_saved_and_loaded_is_never_stopped(name, index, schedule):
    """A moment, a step count or a rate lost; state given to another parameter of the same shape."""
    whole, cut = net(), net()
    learn(whole, config(name, index).build(whole), range(9), schedule)
    before = config(name, index).build(cut)
    learn(cut, before, range(4), schedule)
    saved = {key: each.clone() for key, each in save_state(before, cut).items()}
    again = net(seed=3)
    again.load_state_dict(cut.state_dict())
    after = config(name, index).build(again)
    load_state(after, again, saved)
    learn(again, after, range(4, 9), schedule)
    for key, each in values(whole).items():
        assert torch.equal(each, values(again)[key]), key


@pytest.mark.parametrize(("name", "index"), CASES)
class TestEveryOptimizer:
    """What holds for all."""

    def test_state_is_as_large_as_foretold(self, name, index):
        """A disk that fills up because a forecast forgot a moment."""
        model, chosen = net(), config(name, index)
        optimizer = chosen.build(model)
        learn(model, optimizer, range(2))
        found = sum(each.numel() for each in save_state(optimizer, model).values() if each.ndim)
        assert found == sum(chosen.numbers(key, each) for key, each in model.named_parameters())

    def test_every_parameter_stands_in_one_group(self, name, index):
        """A parameter that never learns, or twice."""
        model = net()
        frozen = model.blocks[0]["up"].weight.requires_grad_(False)
        found = [
            each for group in config(name, index, layer_decay=0.5).build(model).param_groups for each in group["params"]
        ]
        assert sorted(map(id, found)) == sorted(id(each) for each in model.parameters() if each is not frozen)

    def test_no_gradient_no_change(self, name, index):
        """A layer that was not used, moved all the same; NaN from a root of zero."""
        for grad in (None, 0.0):
            model = net()
            optimizer = config(name, index, weight_decay=0.0).build(model)
            before = values(model)
            for each in model.parameters():
                each.grad = None if grad is None else torch.zeros_like(each)
            optimizer.step()
            optimizer.step()
            assert all(torch.equal(each, before[key]) for key, each in values(model).items())

    def test_decay_goes_by_name(self, name, index):
        """Norms pulled to zero, a matrix that is not, a pattern that is asked for and ignored, another factor."""
        for exempt, decayed in ((("*norm*", "*bias", "embed.*"), {"up.weight", "head.weight"}), (("*",), set())):
            model = net()
            chosen = config(name, index, weight_decay=0.3, exempt=exempt)
            if name == "muon":
                chosen, decayed = chosen.model_copy(update={"rest": ("*embed*", "*norm*", "*bias")}), decayed
            optimizer = chosen.build(model)
            before = values(model)
            for each in model.parameters():
                each.grad = torch.zeros_like(each)
            optimizer.step()
            for key, each in values(model).items():
                if not any(key.endswith(end) for end in decayed):
                    assert torch.equal(each, before[key]), key
                elif name in COUPLED:
                    assert ((each - before[key]) * before[key] < 0).all(), key
                else:
                    torch.testing.assert_close(each, before[key] * (1 - chosen.rate * 0.3))

    def test_lower_layers_learn_more_slowly(self, name, index):
        """A decay by layer that is asked for and ignored, or upside down."""
        model = net()
        names = {id(each): key for key, each in model.named_parameters()}
        slow, plain = (
            config(name, index, layer_decay=decay).build(net_) for decay, net_ in ((0.5, model), (1.0, net()))
        )
        peaks = {names[id(each)]: group["initial_lr"] for group in slow.param_groups for each in group["params"]}
        top = max(group["initial_lr"] for group in plain.param_groups)
        assert peaks["blocks.0.up.weight"] == pytest.approx(0.25 * top)
        assert peaks["blocks.1.up.weight"] == pytest.approx(0.5 * top)
        assert peaks["blocks.1.norm.bias"] == pytest.approx(2 * peaks["blocks.0.norm.bias"])
        assert peaks["embed.weight"] == pytest.approx(0.125 * peaks["head.weight"])

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    def test_descends_a_quadratic(self, name, index, scale):
        """The wrong sign; a step that grows without bound with the gradient, where it should not."""
        if name == "sgd" and scale != 1.0:
            pytest.skip("its steps are the gradient's size")
        model, goal = net(), net(seed=1)
        learning_rate = {"rate": 0.02 if name == "sgd" else 0.05, "weight_decay": 0.0}
        if name == "adafactor":
            learning_rate["rate"] = 0.3
        if name == "muon":
            learning_rate["adam_rate"] = 0.05
        optimizer = config(name, index, **learning_rate, **({"eps": 1e-8} if name in ("adam", "adamw") else {})).build(
            model
        )
        losses = []
        for step in range(150):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * Linear(warmup=0)(step, 150)
            distance = sum((a - b.detach()).square().sum() for a, b in zip(model.parameters(), goal.parameters()))
            losses.append(distance.item())
            optimizer.zero_grad()
            (scale * distance).backward()
            optimizer.step()
        assert losses[-1] < 0.05 * losses[0]

    def test_same_seed_same_bits(self, name, index):
        """Anything drawn, or an order that is not fixed."""
        one, two = net(), net()
        for model in (one, two):
            learn(model, config(name, index).build(model), range(3))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


def lion(w, g, state, t, decay):
    m = state.get("m", torch.zeros_like(w))
    state["m"] = 0.99 * m + 0.01 * g
    return w - 0.01 * (torch.sign(0.8 * m + 0.2 * g) + decay * w)


def adafactor(w, g, state, t, decay, rate=0.05, clip=1.0):
    b = 1 - t**-0.8
    if w.ndim == 2:
        state["r"] = b * state.get("r", 0) + (1 - b) * (g**2).mean(1, keepdim=True)
        state["c"] = b * state.get("c", 0) + (1 - b) * (g**2).mean(0, keepdim=True)
        v = state["r"] * state["c"] / state["r"].mean()
    else:
        v = state["v"] = b * state.get("v", 0) + (1 - b) * g**2
    u = torch.where(g == 0, 0, g / v.clamp(min=1e-60).sqrt())
    u = u / max(1.0, u.square().mean().sqrt().item() / clip)
    size = max(1e-3, w.square().mean().sqrt().item())
    return w - size * min(rate, 1 / math.sqrt(t)) * u - rate * decay * w


def adafactor_fast(w, g, state, t, decay):
    return adafactor(w, g, state, t, decay, rate=9.0, clip=2.0)


def adam(w, g, state, t, decay, decoupled=False):
    g = g if decoupled else g + decay * w
    m = state["m"] = 0.8 * state.get("m", 0) + 0.2 * g
    v = state["v"] = B2[decoupled] * state.get("v", 0) + (1 - B2[decoupled]) * g**2
    moved = m / (1 - 0.8**t) / ((v / (1 - B2[decoupled] ** t)).sqrt() + 1e-3)
    return w - 0.02 * (moved + (decay * w if decoupled else 0))


B2 = {False: 0.999, True: 0.95}  # the defaults of adam and of adamw


def adamw(w, g, state, t, decay):
    return adam(w, g, state, t, decay, decoupled=True)


def sgd(w, g, state, t, decay, momentum=0.9, nesterov=False):
    g = g + decay * w
    m = state["m"] = momentum * state.get("m", 0) + g
    return w - 0.05 * (g + momentum * m if nesterov else m)


def plain_sgd(w, g, state, t, decay):
    return sgd(w, g, state, t, decay, momentum=0.0)


def nesterov(w, g, state, t, decay):
    return sgd(w, g, state, t, decay, nesterov=True)


FORMULAS = [  # written down from the docstrings and papers; Muon's stands in tests/unit/test_muon.py
    *[("sgd", 0, sgd), ("sgd", 1, plain_sgd), ("sgd", 2, nesterov), ("adam", 0, adam), ("adamw", 0, adamw)],
    *[("lion", 0, lion), ("adafactor", 0, adafactor), ("adafactor", 1, adafactor_fast)],
]


@pytest.mark.parametrize(("name", "index", "formula"), FORMULAS)
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_is_the_formula_of_its_docstring(name, index, formula, decay):
    """Betas swapped, no bias correction, eps inside the root, decay at the wrong place, rows taken for columns."""
    model = net(torch.float64)
    weights, states = values(model), {key: {} for key in values(model)}
    optimizer = config(name, index, weight_decay=decay, exempt=("*norm*",)).build(model)
    for t in range(1, 9):
        loss_of(model, t).backward()
        for key, each in model.named_parameters():
            amount = 0.0 if "norm" in key else decay
            weights[key] = formula(weights[key], each.grad.clone(), states[key], t, amount)
        optimizer.step()
        optimizer.zero_grad()
        for key, each in model.named_parameters():
            torch.testing.assert_close(each.detach(), weights[key], atol=1e-9, rtol=1e-9, msg=f"{key} at step {t}")


TORCHS = {
    ("sgd", 0): lambda parts: torch.optim.SGD(parts, lr=0.05, momentum=0.9),
    ("sgd", 2): lambda parts: torch.optim.SGD(parts, lr=0.05, momentum=0.9, nesterov=True, foreach=True),
    ("adam", 0): lambda parts: torch.optim.Adam(parts, lr=0.02, betas=(0.8, 0.999), eps=1e-3, foreach=False),
    ("adamw", 0): lambda parts: torch.optim.AdamW(parts, lr=0.02, betas=(0.8, 0.95), eps=1e-3, foreach=False),
    ("adafactor", 0): lambda parts: torch.optim.Adafactor(parts, lr=0.05, eps=(1e-15, 1e-3), foreach=False),
}


@pytest.mark.parametrize(("name", "index"), TORCHS)
def test_equals_torchs_plain_one(name, index):
    """A choice that does not reach torch, or the fused kernel computing something else."""
    ours, theirs = net(), net()
    optimizer = config(name, index, weight_decay=0.1, exempt=()).build(ours)
    reference = TORCHS[name, index]([{"params": list(theirs.parameters()), "weight_decay": 0.1}])
    for step in range(20):
        for model, each in ((ours, optimizer), (theirs, reference)):
            loss_of(model, step).backward()
            each.step()
            each.zero_grad()
    for one, two in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(one, two, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.name)
def test_a_schedule_is_a_function_of_the_step(schedule):
    """One that remembers, leaves (0, 1], or never reaches its peak."""
    found = [schedule(step, 40) for step in range(40)]
    assert [schedule(step, 40) for step in reversed(range(40))] == found[::-1]
    assert all(0 < each <= 1 for each in found)
    assert max(found) == 1.0


def test_shares_of_a_model_without_blocks():
    """A crash for a model that has no layers, or a rate of nothing."""
    assert set(slowed(nn.Linear(2, 2), 0.5).values()) == {1.0}


def test_heads_are_the_top():
    """A fresh classifier that learns most slowly, because its heads are defined before the blocks."""
    model = Net()
    model = nn.ModuleDict(
        {"heads": nn.ModuleDict({"label": nn.Linear(4, 2)}), "embed": model.embed, "blocks": model.blocks}
    )
    shares = slowed(model, 0.5)
    assert shares["heads.label.weight"] == 1.0
    assert shares["embed.weight"] == 0.125
