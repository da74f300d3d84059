"""One step: portions add up, clipping clips, NaN changes nothing, the twin follows, one seed gives the same bits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import toys
from torch.nn import functional as F

from hanlin.batch import IGNORE, Batch, Layout
from hanlin.errors import ConfigError
from hanlin.models import gpt2, llama
from hanlin.objectives import next_token
from hanlin.objectives.contract import Objective, Part
from hanlin.optim import adamw
from hanlin.optim.contract import OptimizerConfig, groups
from hanlin.runtime import Runtime
from hanlin.train.plan import Plan
from hanlin.train.step import Learner, mix, named

VOCAB = 50
GPT2 = gpt2.Config(
    vocab=VOCAB, dim=8, layers=2, heads=2, context=16, dropout=0.0, embed_dropout=0.0, attention_dropout=0.0
)
LLAMA = llama.Config(vocab=VOCAB, dim=8, layers=2, heads=2, hidden=16, context=16)
DROPS = GPT2.model_copy(update={"dropout": 0.3, "embed_dropout": 0.3, "attention_dropout": 0.3})


class Plain(Objective):
    """Two parts in the model's own number type: nats, and with half the weight a square of hidden states."""

    def counts(self, batch):
        return (int((batch.targets != IGNORE).sum()), batch.rows)

    def __call__(self, model, batch):
        hidden = model(batch.tokens, layout=batch.layout)
        nats = F.cross_entropy(model.logits(hidden).flatten(0, 1), batch.targets.flatten(), reduction="sum")
        count, rows = self.counts(batch)
        square = hidden[..., 0].mean(1).square().sum()
        return (Part(name="nats", total=nats, count=count), Part(name="square", total=square, count=rows, weight=0.5))


class Spoiled(Plain):
    """As Plain, with what is to be tested added to the loss."""

    kind: str

    def __call__(self, model, batch):
        first, second = super().__call__(model, batch)
        weight = model.embed.weight
        root = (weight - weight.detach()).square().sum().sqrt()  # its value is 0, its gradient NaN
        extra = {
            "gradient": root,
            "value": math.nan,
            "both": weight.sum() * math.nan,
            "infinite": weight.sum() * math.inf,
        }
        return (replace(first, total=first.total + extra[self.kind]), second)


class Slope(Objective):
    """A gradient that is the sum of the tokens, in every weight of the embedding."""

    def counts(self, batch):
        return (batch.rows,)

    def __call__(self, model, batch):
        return (Part(name="slope", total=model.embed.weight.sum() * float(batch.tokens.sum()), count=batch.rows),)


class Descent(OptimizerConfig):
    """Plain gradient descent, whose change is its gradient."""

    def build(self, model):
        return torch.optim.SGD(groups(model, self.rate, 0.0, ()), lr=self.rate)

    def numbers(self, name, parameter):
        return 0


def batch(rows=6, length=9, seed=0):
    """Return a batch whose rows have between no target and all of them, packed and padded."""
    generator = torch.Generator().manual_seed(seed)
    tokens, targets = (torch.randint(0, VOCAB, (rows, length), generator=generator) for _ in range(2))
    segments = torch.ones(rows, length, dtype=torch.long)
    for row in range(rows):
        targets[row, : row * length // (rows - 1)] = IGNORE
        segments[row, length - row :] = 0
        segments[row, : row // 2] = 2
    targets[segments == 0] = IGNORE
    return Batch(tokens=tokens, targets=targets, layout=Layout.of(segments))


def learner(config=LLAMA, *, objective=None, optimizer=None, seed=0, dtype=torch.float32, model=None, **plan):
    model = model or config.build(seed=1)
    chosen = Plan(steps=10, **{"rows": 6, "clip": None, **plan})
    runtime = Runtime(device=torch.device("cpu"), dtype=dtype, threads=1, seed=seed)
    return Learner(
        model, (optimizer or Descent(rate=1.0)).build(model), objective or next_token.Config(), chosen, runtime
    )


def gradients(it, given, step=0):
    """Return the numbers of a step and its gradients as one vector."""
    numbers = it.gradients(given, step)
    return numbers, torch.cat([each.grad.flatten() for each in it.model.parameters()])


def weights(it):
    return torch.cat([each.detach().flatten().clone() for each in it.model.parameters()])


# Rows of the batch below have 9, 8, ..., 4 tokens and 9, 8, 6, 4, 2, 0 targets: no cut but 1 and 6 is even in either.
CUTS = [{"accumulate": 2}, {"accumulate": 3}, {"accumulate": 4}, {"accumulate": 5}, {"accumulate": 6}]
CUTS += [{"portion": 1}, {"portion": 20}, {"portion": 45}]


class TestPortions:
    """Accumulation changes memory, not results."""

    @pytest.mark.parametrize("cut", CUTS, ids=str)
    def test_add_up_in_fp64(self, cut):
        """Averages of averages, the last portion alone, a part divided by its portion's count."""
        found = []
        for given in ({}, cut):
            model = GPT2.build(seed=1).double()
            found.append(gradients(learner(model=model, objective=Plain(), **given), batch()))
        (one, whole), (two, parts) = found
        assert (whole - parts).abs().max() <= 1e-12 * whole.abs().max()
        for name in ("loss", "nats", "square"):
            assert math.isclose(one[name], two[name], rel_tol=1e-12)

    @pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
    @pytest.mark.parametrize("cut", CUTS, ids=str)
    def test_add_up_in_fp32(self, cut, config):
        one, whole = gradients(learner(config), batch())
        two, parts = gradients(learner(config, **cut), batch())
        assert (whole - parts).abs().max() <= 1e-6 * whole.abs().max()
        assert math.isclose(one["loss"], two["loss"], rel_tol=1e-6)

    def test_the_loss_is_the_mean_over_all_targets(self):
        """A mean of rows, or of portions, or over padding."""
        it, given = learner(accumulate=3), batch()
        logits = it.model.logits(it.model(given.tokens, layout=given.layout))
        expected = F.cross_entropy(logits.flatten(0, 1), given.targets.flatten())
        expected.backward()
        wanted = torch.cat([each.grad.flatten() for each in it.model.parameters()])
        it.model.zero_grad()
        numbers, found = gradients(it, given)
        assert numbers.keys() == {"loss"}
        assert math.isclose(numbers["loss"], expected.item(), rel_tol=1e-5)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)

    def test_parts_have_their_own_counts_and_weights(self):
        """All parts divided by the first one's count."""
        it, given = learner(GPT2, objective=Plain(), accumulate=2), batch()
        with torch.no_grad():
            nats, square = it.objective(it.model, given)
        numbers = it.gradients(given, 0)
        assert math.isclose(numbers["nats"], nats.total.item() / (given.targets != IGNORE).sum().item(), rel_tol=1e-5)
        assert math.isclose(numbers["square"], 0.5 * square.total.item() / 6, rel_tol=1e-5)
        assert math.isclose(numbers["loss"], numbers["nats"] + numbers["square"], rel_tol=1e-6)

    @pytest.mark.parametrize(("rows", "portions"), [(5, 2), (1, 3), (2, 6)])
    def test_rows_that_do_not_divide(self, rows, portions):
        """The rows left over dropped; no row at all to a portion."""
        tokens, targets = batch().tokens[:rows], batch(seed=1).tokens[:rows]
        given = Batch(tokens=tokens, targets=targets)
        _, whole = gradients(learner(), given)
        _, parts = gradients(learner(accumulate=portions), given)
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-4)

    def test_a_carried_state_stays_with_its_row(self):
        """Uneven portions that take the states of other rows."""
        found = []
        for accumulate in (1, 2, 3):
            model = toys.RecurrentConfig(vocab=VOCAB, context=16).build(seed=1)
            it = learner(model=model, accumulate=accumulate)
            rows = batch(rows=7)
            before, after = (
                Batch(tokens=rows.tokens, targets=rows.targets, continues=torch.full((7,), on)) for on in (False, True)
            )
            it.advance(before, 0, 0.0)
            found.append(gradients(it, after)[1])
        torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(found[2], found[0], atol=1e-6, rtol=1e-4)

    def test_nothing_to_learn(self):
        """A division by zero targets."""
        it, given = learner(accumulate=2), batch()
        before = weights(it)
        numbers = it.advance(replace(given, targets=torch.full_like(given.targets, IGNORE)), 0, 1.0)
        assert (numbers["loss"], numbers["grad_norm"]) == (0.0, 0.0)
        assert torch.equal(weights(it), before)


class TestClip:
    """Large gradients."""

    def test_the_step_is_as_long_as_the_clip(self):
        """Clipping forgotten, done before all portions are in, or by element; the norm told after instead of before."""
        for accumulate in (1, 3):
            free, bound = learner(accumulate=accumulate), learner(accumulate=accumulate, clip=0.01)
            before = weights(free)
            norm = free.advance(batch(), 0, 1.0)["grad_norm"]
            told = bound.advance(batch(), 0, 1.0)["grad_norm"]
            assert norm > 0.1
            assert math.isclose(norm, told, rel_tol=1e-5)
            long, short = weights(free) - before, weights(bound) - before
            assert math.isclose(long.norm(), norm, rel_tol=1e-4)
            assert math.isclose(short.norm(), 0.01, rel_tol=1e-3)
            assert F.cosine_similarity(long, short, dim=0) > 0.999

    def test_small_gradients_are_left_alone(self):
        """Every gradient scaled to the clip."""
        free, bound = learner(), learner(clip=1000.0)
        free.advance(batch(), 0, 1.0)
        bound.advance(batch(), 0, 1.0)
        assert torch.equal(weights(free), weights(bound))


class TestNotFinite:
    """NaN and infinity."""

    @pytest.mark.parametrize("clip", [None, 1.0])
    @pytest.mark.parametrize("kind", ["gradient", "value", "both", "infinite"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_changes_nothing_and_is_told(self, dtype, kind, clip):
        """One bad batch that turns all weights, or the optimizer's moments, into NaN for ever."""
        it = learner(optimizer=adamw.Config(), objective=Plain(), clip=clip, dtype=dtype, accumulate=2)
        it.advance(batch(), 0, 1.0)
        before, twin = weights(it), [each.detach().clone() for each in it.work.parameters()]
        moments = {key: {n: each.clone() for n, each in s.items()} for key, s in it.optimizer.state.items()}
        good = it.objective
        it.objective = Spoiled(kind=kind)
        numbers = it.advance(batch(), 1, 1.0)
        assert not (math.isfinite(numbers["loss"]) and math.isfinite(numbers["grad_norm"]))
        assert torch.equal(weights(it), before)
        assert all(torch.equal(a, b) for a, b in zip(twin, it.work.parameters()))
        for key, state in it.optimizer.state.items():
            assert all(torch.equal(state[name], moments[key][name]) for name in state)
        it.objective = good
        after = it.advance(batch(), 2, 1.0)
        assert math.isfinite(after["loss"] + after["grad_norm"])
        assert not torch.equal(weights(it), before)


class TestTwin:
    """Computing in bf16, remembering in fp32."""

    def test_follows_the_weights(self):
        """A twin that keeps its first weights, or weights rounded to the twin's."""
        it = learner(dtype=torch.bfloat16, optimizer=adamw.Config(rate=1e-3))
        for step in range(3):
            it.advance(batch(seed=step), step, 1.0)
            for ours, theirs in zip(it.model.parameters(), it.work.parameters()):
                assert (ours.dtype, theirs.dtype) == (torch.float32, torch.bfloat16)
                assert torch.equal(ours.detach().bfloat16(), theirs.detach())
        assert any((each != each.bfloat16().float()).any() for each in it.model.parameters())
        assert all(s.dtype == torch.float32 for state in it.optimizer.state.values() for s in state.values())
        assert all(each.grad is None for each in [*it.model.parameters(), *it.work.parameters()])

    def test_small_steps_add_up(self):
        """Steps below the resolution of bf16, lost one by one."""
        it = learner(dtype=torch.bfloat16, optimizer=Descent(rate=1e-5))
        before = weights(it)
        for step in range(50):
            it.advance(batch(), step, 1.0)
        _, slope = gradients(learner(), batch())
        torch.testing.assert_close(weights(it) - before, -50e-5 * slope, atol=5e-6, rtol=0.05)

    def test_gradients_are_summed_in_fp32(self):
        """Portions added up in bf16, where 64 + 1/8 is 64."""
        it = learner(dtype=torch.bfloat16, objective=Slope(), rows=8, accumulate=8)
        it.gradients(Batch(tokens=torch.tensor([[512]] + [[1]] * 7)), 0)
        assert (it.model.embed.weight.grad == 64 + 7 / 8).all()

    def test_gradients_are_near_those_of_fp32(self):
        _, exact = gradients(learner(), batch())
        for accumulate in (1, 6):
            _, found = gradients(learner(dtype=torch.bfloat16, accumulate=accumulate), batch())
            assert found.dtype == torch.float32
            assert (found - exact).norm() < 0.02 * exact.norm()

    def test_fp32_has_no_twin(self):
        it = learner()
        assert it.work is it.model


class TestChance:
    """What is drawn follows from seed, step and portion."""

    def after(self, *, noise=0, steps=3, **given):
        it = learner(DROPS, optimizer=adamw.Config(), accumulate=2, **given)
        for step in range(steps):
            torch.manual_seed(noise)
            it.advance(batch(seed=step), step, 1.0)
        return weights(it)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_same_seed_same_bits(self, dtype):
        """Something drawn from the global random state, which a resumed run does not have."""
        one = self.after(dtype=dtype)
        assert torch.equal(one, self.after(dtype=dtype, noise=99))
        assert not torch.equal(one, self.after(dtype=dtype, seed=1))

    def test_every_step_and_portion_draws_anew(self):
        """The same units dropped in every portion or step."""
        given = batch()
        twice = Batch(tokens=given.tokens[:1].repeat(2, 1), targets=given.targets[:1].repeat(2, 1))
        once = Batch(tokens=given.tokens[:1], targets=given.targets[:1])
        _, at_0 = gradients(learner(DROPS), once, step=0)
        _, at_1 = gradients(learner(DROPS), once, step=1)
        _, both = gradients(learner(DROPS, accumulate=2), twice, step=0)
        assert not torch.equal(at_0, at_1)
        assert (both - at_0).abs().max() > 1e-3 * at_0.abs().max()

    def test_dropout_comes_back_after_an_examination(self):
        """A model left in evaluation mode by the score on the way."""
        it = learner(DROPS)
        it.work.eval()
        _, found = gradients(it, batch())
        _, expected = gradients(learner(DROPS), batch())
        assert torch.equal(found, expected)

    def test_seeds_lie_far_apart(self):
        """Neighbouring steps that share their draws; seeds that torch refuses."""
        seen = {mix(seed, step, index) for seed in range(10) for step in range(30) for index in range(4)}
        assert len(seen) == 1200
        assert all(0 <= each < 2**63 for each in seen)
        assert len({each % 1024 for each in seen}) > 600


class TestAverage:
    """plan.ema."""

    def test_is_the_formula(self):
        """An average that stands still, follows too late, or forgets nothing of where the weights began."""
        it = learner(dtype=torch.bfloat16, ema=0.5)
        expected = weights(it)
        for step in range(6):
            it.advance(batch(seed=step), step, 0.1)
            keep = min(0.5, (1 + step) / (10 + step))
            expected = keep * expected + (1 - keep) * weights(it)
        found = torch.cat([each.flatten() for each in it.average.values()])
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        assert it.average.keys() == named(it.model).keys()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_is_what_is_examined_and_then_put_back(self, dtype):
        """A run that goes on from its average, or is scored by its last weights; dropout in an examination."""
        it = learner(DROPS, dtype=dtype, ema=0.9)
        it.advance(batch(), 0, 1.0)
        ours, work = weights(it), [each.detach().clone() for each in it.work.parameters()]
        with it.examined() as model:
            assert not model.training
            for each, average in zip(model.parameters(), it.average.values()):
                assert torch.equal(each, average.to(dtype))
        assert torch.equal(weights(it), ours)
        assert all(torch.equal(a, b) for a, b in zip(work, it.work.parameters()))

    def test_is_put_back_after_an_error(self):
        it = learner(ema=0.9)
        it.advance(batch(), 0, 1.0)
        before = weights(it)

        def fail():
            with it.examined():
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert torch.equal(weights(it), before)

    def test_a_step_without_a_finite_gradient_moves_nothing(self):
        it = learner(GPT2, objective=Spoiled(kind="both"), ema=0.9)
        before = {name: each.clone() for name, each in it.average.items()}
        it.advance(batch(), 0, 1.0)
        assert all(torch.equal(before[name], each) for name, each in it.average.items())


def test_compiling_needs_a_compiler(monkeypatch):
    """A page of inductor's traceback where one word was missing."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"plan.compile: no C\+\+ compiler is found; install"):
        learner(compile=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch's compiler imports what torch deprecates
def test_compiled_is_near_the_plain_one():
    """Another loss, gradients that do not arrive, an examination that compiles each shape anew."""
    _, plain = gradients(learner(), batch())
    it = learner(compile=True)
    _, found = gradients(it, batch())
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=1e-4)
    with it.examined() as model, torch.no_grad():
        for length in (3, 4, 5):
            model(batch().tokens[:, :length])


class TestRate:
    """The schedule's multiplier."""

    def test_multiplies_the_peak(self):
        """A rate that compounds from step to step, or that a group does not get."""
        it = learner(optimizer=adamw.Config(rate=0.01))
        for multiplier in (0.5, 1.0, 0.1):
            numbers = it.advance(batch(), 0, multiplier)
            assert numbers["rate"] == 0.01 * multiplier
            assert [group["lr"] for group in it.optimizer.param_groups] == [0.01 * multiplier] * 2

    def test_nothing_moves_at_zero(self):
        it = learner(optimizer=adamw.Config())
        before = weights(it)
        it.advance(batch(), 0, 0.0)
        assert torch.equal(weights(it), before)

    def test_learning_learns(self):
        """The wrong sign."""
        it = learner(optimizer=adamw.Config(rate=0.01))
        losses = [it.advance(batch(), step, 1.0)["loss"] for step in range(30)]
        assert losses[-1] < 0.7 * losses[0]


def test_named_is_what_is_saved():
    """A gradient's history saved with the weights, or a parameter left out."""
    model = LLAMA.build()
    saved = named(model)
    assert saved.keys() == dict(model.named_parameters()).keys()
    assert not any(each.requires_grad for each in saved.values())
