"""From minutes to steps: what is measured, what is taken off, and that the run itself is left as it was."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from hanlin.batch import Batch
from hanlin.models import llama
from hanlin.objectives import next_token
from hanlin.optim import adamw
from hanlin.optim.schedules import Cosine
from hanlin.runtime import Runtime
from hanlin.train import budget
from hanlin.train.budget import FEWEST, LONGEST_S, MOST, PART, SHARE, WARM, forecast
from hanlin.train.job import Job
from hanlin.train.plan import Plan

SIZES = llama.Config(vocab=19, dim=8, layers=1, heads=2, hidden=16, context=8, dropout=0.1)


class Clock:
    """A clock that moves when something is done."""

    def __init__(self):
        self.now = 0.0

    share = 1.0  # of the time that the processor works for this process

    def perf_counter(self):
        return self.now

    def process_time(self):
        return self.now * self.share


class Source:
    """Batches that take the clock `costs` seconds, one after another, and then the last again."""

    def __init__(self, clock, costs):
        self.clock, self.costs, self.asked = clock, costs, []

    def sample(self, step):
        self.clock.now += self.costs[min(step, len(self.costs) - 1)]
        self.asked.append(step)
        draw = torch.Generator().manual_seed(step)
        tokens = torch.randint(0, 19, (2, 9), generator=draw)
        return Batch(tokens=tokens[:, :-1], targets=tokens[:, 1:])


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(budget, "time", made)
    return made


def make(clock, costs=(2.0,), look=None, dtype=torch.float32, **plan):
    """Return a job whose steps cost `costs` and whose examinations cost `look` seconds."""
    seen = []

    def examine(model, step):
        assert not model.training
        assert model.dtype == dtype
        clock.now += look
        seen.append(step)
        return {"valid_loss": 1.0}

    job = Job(
        model=SIZES.build(seed=0),
        objective=next_token.Config(),
        source=Source(clock, costs),
        optimizer=adamw.Config(),
        schedule=Cosine(),
        plan=Plan(minutes=1.0, rows=2, context=8, **plan),
        runtime=Runtime(device=torch.device("cpu"), dtype=dtype, threads=1),
        report=None,
        checkpoints=None,
        examine=None if look is None else examine,
    )
    return job, seen


class TestBusy:
    """A machine with other things to do."""

    @pytest.mark.parametrize(("share", "lines"), [(1.0, 0), (0.65, 0), (0.5, 1), (0.01, 1)])
    def test_it_is_named(self, clock, share, lines):
        """A run of minutes planned far too short without a word; a warning on every quiet machine."""
        clock.share = share
        job, _ = make(clock)
        said = []
        job = replace(job, report=SimpleNamespace(say=said.append))
        forecast(job, 10.0)
        assert len(said) == lines
        assert all("the machine is busy" in line and f"{share:.0%} of this run's 1 cores" in line for line in said)


class TestSteps:
    """How many."""

    def test_are_the_minutes_over_the_median_step(self, clock):
        """A slow first step that halves the run; a hiccup counted in full."""
        slow = FEWEST // 2  # as many as the median bears; with one of the warm-up it would be one of them
        costs = [500.0] * WARM + [2.0] * (FEWEST - slow) + [90.0] * slow
        job, _ = make(clock, costs)
        assert forecast(job, 10.0)[0] == 300
        assert job.source.asked == list(range(WARM + FEWEST))

    @pytest.mark.parametrize(("minutes", "window_s"), [(100.0, LONGEST_S), (0.5, PART * 30), (1e-9, 0.0)])
    def test_quick_steps_are_timed_for_a_while(self, clock, minutes, window_s):
        """Three steps of a millisecond that stand for an hour; a measurement longer than the run."""
        job, _ = make(clock, [0.125])
        forecast(job, minutes)
        timed = len(job.source.asked) - WARM
        assert abs(timed - max(FEWEST, window_s / 0.125)) < 1

    def test_examinations_are_taken_off(self, clock):
        """A run of ten minutes that takes eleven."""
        job, seen = make(clock, look=3.0)
        steps, every = forecast(job, 10.0)
        looks = -(-steps // every)
        assert looks <= MOST
        assert 600 - (2 + 3) <= 2 * steps + 3 * looks <= 600 + 3
        assert seen == [0]

    def test_slow_examinations_become_few(self, clock):
        """Examinations that eat the time that was given for learning."""
        job, _ = make(clock, look=50.0)
        steps, every = forecast(job, 10.0)
        assert 50 * -(-steps // every) <= SHARE * 600
        assert 2 * steps >= (1 - SHARE) * 600 - 2

    def test_a_chosen_rhythm_is_kept_and_paid_for(self, clock):
        """`evaluate_every: 2` forgotten in the forecast, so that a run takes several times as long."""
        job, _ = make(clock, look=6.0, evaluate_every=2)
        assert forecast(job, 10.0) == (600 // (2 + 3), 2)

    @pytest.mark.parametrize("look", [None, 0.1, 1e6])
    @pytest.mark.parametrize("minutes", [1e-9, 0.1, 100.0])
    def test_at_least_one_of_each(self, clock, look, minutes):
        """Zero steps, or a division by none, for a budget that holds not even one."""
        job, _ = make(clock, look=look)
        steps, every = forecast(job, minutes)
        assert 1 <= every <= steps

    def test_without_anything_held_out(self, clock):
        job, _ = make(clock)
        assert forecast(job, 10.0) == (300, 300 // MOST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_run_is_left_as_it_was(clock, dtype):
    """A model that has learned before step 0, or gradients that are added to the first step's."""
    job, _ = make(clock, look=1.0, dtype=dtype)
    before = [each.detach().clone() for each in job.model.train().parameters()]
    forecast(job, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, job.model.parameters()))
    assert all(each.grad is None for each in job.model.parameters())
    assert job.model.training
