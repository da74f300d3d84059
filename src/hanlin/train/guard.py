"""What may stop a run: a signal, or numbers that are no longer numbers."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any, Self

from hanlin.errors import RunError, problem

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}  # 128 + signal number, as shells report it
PATIENCE = 10  # steps in a row without a finite gradient before a run gives up


class Stop:
    """Inside it, Ctrl-C and SIGTERM are noted instead of striking: the step at work is finished and saved.

    A second Ctrl-C strikes at once.
    """

    def __init__(self) -> None:
        """Start with no signal seen."""
        self.code: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over the two signals, where this is the main thread."""
        for number in CODES:
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # another thread: signals are not ours to handle
                break
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.code is not None:
            raise KeyboardInterrupt
        self.code = CODES[signal.Signals(number)]


def check(numbers: Mapping[str, float], step: int, bad_before: int) -> int:
    """Return how many steps in a row had no finite loss and gradient; RunError when there were too many.

    Such a step changes no weights, so a single overflow costs one step and a broken run ends with its reason.
    """
    if all(math.isfinite(numbers[name]) for name in ("loss", "grad_norm")):
        return 0
    if bad_before + 1 >= PATIENCE:
        given = f"loss or gradient is not finite for {PATIENCE} steps in a row"
        do = "lower optimizer.rate, lengthen schedule.warmup, or set plan.precision=fp32; the last checkpoint is sound"
        raise RunError(problem(f"step {step}", given, do=do))
    return bad_before + 1
