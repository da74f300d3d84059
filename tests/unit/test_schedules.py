"""The learning rate at the ends, on the way, and for every spelling of the warm-up."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from pydantic import TypeAdapter, ValidationError

from hanlin.optim.schedules import Constant, Cosine, Schedule

LENGTHS = [1, 2, 3, 7, 100, 1001]
WARMUPS = [0.0, 0.02, 0.5, 0.999, 1, 5, 2000]


def curve(schedule, steps):
    return [schedule(step, steps) for step in range(steps)]


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("make", [Constant, Cosine])
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


class TestCosine:
    def test_ends(self):
        """The last step not at the final rate, the step after the warm-up not at the peak."""
        for final in (0.0, 0.1, 1.0):
            values = curve(Cosine(warmup=4, final=final), 50)
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
    for wrong in ({"name": "linear"}, {"name": "cosine", "final": 2.0}, {"name": "constant", "warmup": -1.0}):
        with pytest.raises(ValidationError):
            schedule.validate_python(wrong)
