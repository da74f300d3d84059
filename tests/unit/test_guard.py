"""Signals that wait for the step to end, and numbers that end a run."""

from __future__ import annotations

import math
import os
import signal
import threading

import pytest

from hanlin.errors import RunError
from hanlin.train.guard import CODES, PATIENCE, Stop, check

FINE = {"loss": 1.0, "grad_norm": 2.0}


class TestCheck:
    """Losses and gradients that are no numbers."""

    @pytest.mark.parametrize("name", ["loss", "grad_norm"])
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_bad_steps_are_counted_in_a_row(self, name, value):
        """A count that never ends, that forgets, or that one good step does not clear."""
        bad = {**FINE, name: value}
        assert [check(bad, 0, before) for before in range(3)] == [1, 2, 3]
        assert check(FINE, 0, 5) == 0

    def test_too_many_end_the_run_with_its_reason(self):
        """A run that learns nothing for days."""
        count = 0
        for step in range(PATIENCE - 1):
            count = check({**FINE, "loss": math.nan}, step, count)
        with pytest.raises(RunError, match=rf"step 9: .*{PATIENCE} steps in a row.*rate"):
            check({**FINE, "loss": math.nan}, 9, count)

    def test_other_numbers_may_be_anything(self):
        assert check({**FINE, "valid_loss": math.nan}, 0, 1) == 0


class TestStop:
    """Ctrl-C and SIGTERM."""

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_is_noted_and_does_not_strike(self, number, code):
        """A step cut in half, a state that is not saved, a wrong exit status."""
        with Stop() as stop:
            assert stop.code is None
            try:
                os.kill(os.getpid(), number)
            except KeyboardInterrupt:
                pytest.fail("struck at once")
            assert stop.code == code

    @pytest.mark.parametrize("first", CODES)
    def test_the_second_strikes_at_once(self, first):
        """A save that hangs and cannot be stopped."""
        with Stop() as stop:
            os.kill(os.getpid(), first)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            assert stop.code == CODES[first]

    def test_the_signals_are_given_back(self):
        """Ctrl-C dead after training, in a notebook or a server."""
        before = [signal.getsignal(number) for number in CODES]

        def fail():
            with Stop():
                assert [signal.getsignal(number) for number in CODES] != before
                raise ValueError("inside")

        with pytest.raises(ValueError, match="inside"):
            fail()
        assert [signal.getsignal(number) for number in CODES] == before

    def test_another_thread_trains_without_them(self):
        """Training in a thread, where signals may not be touched."""
        seen = []

        def work():
            with Stop() as stop:
                seen.append(stop.code)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [None]
