"""The learning rate at the ends, on the way, and for every spelling of the warm-up."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from pydantic import TypeAdapter, ValidationError

from hanlin.optim.schedules import Constant, Cosine, InverseSquareRoot, Linear, Schedule, WarmupStableDecay

ALL = [Constant, Cosine, Linear, InverseSquareRoot, WarmupStableDecay]

LENGTHS = [1, 2, 3, 7, 100, 1001]
WARMUPS = [0.0, 0.02, 0.5, 0.999, 1, 5, 2000]


def curve(schedule, steps):
    return [schedule(step, steps) for step in range(steps)]


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("make", ALL)
def test_rises_then_never_rises_again(make, warmup, steps):
    """A jump at the end of the warm-up, a rate above the peak, a first step that learns nothing."""
    values = curve(make(warmup=warmup), steps)
    rise = round(warmup * steps) if warmup < 1 else warmup
    assert all(0 < value <= 1 for value in values)
    assert all(a < b for a, b in pairwise(values[:rise]))
    falling = values[rise:]
    assert falling == sorted(falling, reverse=True)
    assert not falling or falling[0] == 1


class TestConstant:
    def test_stays(self):
        assert curve(Constant(), 5) == [1.0] * 5
        assert curve(Constant(warmup=3), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


class TestLinear:
    def test_is_a_line(self):
        """A line over the warm-up too."""
        values = curve(Linear(warmup=10, final=0.2), 111)
        assert values[10:] == pytest.approx([1 - 0.8 * done / 100 for done in range(101)])


class TestInverseSquareRoot:
    def test_halves_in_four_times_the_steps(self):
        """A jump after the warm-up, or a fall that depends on the length of the run."""
        values = curve(InverseSquareRoot(warmup=99), 1000)
        assert values[99] == 1.0
        assert values[399] == pytest.approx(0.5)
        assert curve(InverseSquareRoot(warmup=99), 500) == values[:500]
        assert curve(InverseSquareRoot(warmup=0), 4)[3] == pytest.approx(0.5)


class TestWarmupStableDecay:
    def test_rises_stays_and_falls(self):
        """A fall that begins too early, ends before the end, or takes a number of steps for a share."""
        values = curve(WarmupStableDecay(warmup=10, decay=0.21, final=0.1, shape="linear"), 100)
        assert values[9] < values[10] == values[79] == 1.0
        assert values[79:] == pytest.approx([1 - 0.9 * done / 20 for done in range(21)])
        assert values == curve(WarmupStableDecay(warmup=0.1, decay=21, final=0.1, shape="linear"), 100)

    def test_the_root_falls_quickly_first(self):
        """1 - done for 1 - sqrt(done): the other way round."""
        values = curve(WarmupStableDecay(warmup=0, decay=0.5, final=0.0), 201)
        assert values[101 + 24] == pytest.approx(1 - math.sqrt(24 / 99))

    def test_a_fall_longer_than_the_run_waits_for_the_rise(self):
        values = curve(WarmupStableDecay(warmup=5, decay=900), 20)
        assert values[4] < values[5] == 1.0 > values[6]


class TestCosine:
    @pytest.mark.parametrize("make", [Cosine, Linear, WarmupStableDecay])
    def test_ends(self, make):
        """The last step not at the final rate, the step after the warm-up not at the peak."""
        for final in (0.0, 0.1, 1.0):
            values = curve(make(warmup=4, final=final), 50)
            assert values[3] < values[4] == 1.0
            assert math.isclose(values[-1], final, abs_tol=1e-12)

    def test_is_half_a_cosine(self):
        """A line, or a cosine over the warm-up too."""
        values = curve(Cosine(warmup=10, final=0.2), 111)
        for done in range(101):
            assert math.isclose(values[10 + done], 0.2 + 0.8 * (1 + math.cos(math.pi * done / 100)) / 2)
        assert math.isclose(values[60], 0.6)

    def test_no_step_after_the_last_rises(self):
        """The cosine coming up again where a run goes beyond its steps."""
        assert Cosine(warmup=0.0, final=0.1)(300, 100) == pytest.approx(0.1)


def test_warmup_below_one_is_a_share_and_from_one_a_number():
    """One taken for the other: a run that never leaves its warm-up, or has none."""
    assert curve(Cosine(warmup=0.1), 100) == curve(Cosine(warmup=10), 100)
    assert curve(Constant(warmup=1.0), 10) == curve(Constant(warmup=1), 10) == [0.5] + [1.0] * 9
    assert curve(Constant(warmup=0.5), 10)[5] == 1.0


def test_is_chosen_by_name():
    schedule = TypeAdapter(Schedule)
    assert schedule.validate_python({"name": "cosine", "final": 0.5}) == Cosine(final=0.5)
    assert schedule.validate_python({"name": "constant"}) == Constant()
    assert {schedule.validate_python({"name": make().name}) for make in ALL} == {make() for make in ALL}
    for wrong in (
        {"name": "lineal"},
        {"name": "wsd", "shape": "cosine"},
        {"name": "cosine", "final": 2.0},
        {"name": "constant", "warmup": -1.0},
    ):
        with pytest.raises(ValidationError):
            schedule.validate_python(wrong)
