r"""How the learning rate moves: a multiplier of the optimizer's rate for every step, a pure function.

    1 |   __              1 |   _________        1 |   _
      |  /  `-.             |  /                   |  / `-.              linear: the same, straight
      | /      `-._         | /                    | /     `--..___
    0 |/___________ cosine 0|/___________ constant 0|/___________ inverse_sqrt

    1 |   ______
      |  /      \
      | /        \
    0 |/__________\ wsd: warm up, stay, decay

Step 0 is the first step, and already learns; the last of `steps` gets the final rate.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from hanlin.config import Config


class Constant(Config):
    """Warm up, then stay."""

    name: Literal["constant"] = "constant"
    warmup: float = Field(0.0, ge=0)  # below 1 a share of all steps, from 1 on a number of steps

    def __call__(self, step: int, steps: int) -> float:
        """Return the multiplier of step 0, 1, ... of `steps`."""
        return _rise(step, steps, self.warmup)


class Cosine(Config):
    """Warm up, then fall along half a cosine to `final` (Loshchilov and Hutter, arXiv 1608.03983)."""

    name: Literal["cosine"] = "cosine"
    warmup: float = Field(0.02, ge=0)  # below 1 a share of all steps, from 1 on a number of steps
    final: float = Field(0.1, ge=0, le=1)

    def __call__(self, step: int, steps: int) -> float:
        """Return the multiplier of step 0, 1, ... of `steps`."""
        start = _steps(self.warmup, steps)
        if step < start:
            return _rise(step, steps, self.warmup)
        done = _fallen(step, start, steps)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


class Linear(Config):
    """Warm up, then fall on a straight line to `final`; what most fine-tuning uses."""

    name: Literal["linear"] = "linear"
    warmup: float = Field(0.06, ge=0)  # below 1 a share of all steps, from 1 on a number of steps
    final: float = Field(0.01, ge=0, le=1)  # a last step at 0 would learn nothing

    def __call__(self, step: int, steps: int) -> float:
        """Return the multiplier of step 0, 1, ... of `steps`."""
        start = _steps(self.warmup, steps)
        if step < start:
            return _rise(step, steps, self.warmup)
        done = _fallen(step, start, steps)
        return 1 + (self.final - 1) * done


class InverseSquareRoot(Config):
    """Warm up, then fall with the square root of the steps taken (arXiv 1706.03762); needs to know no end."""

    name: Literal["inverse_sqrt"] = "inverse_sqrt"
    warmup: float = Field(0.02, ge=0)  # below 1 a share of all steps, from 1 on a number of steps

    def __call__(self, step: int, steps: int) -> float:
        """Return the multiplier of step 0, 1, ... of `steps`."""
        start = _steps(self.warmup, steps)
        return _rise(step, steps, self.warmup) if step < start else math.sqrt((start + 1) / (step + 1))


class WarmupStableDecay(Config):
    """Warm up, stay, then fall to `final` over the last `decay` steps (arXiv 2404.06395).

    A run is lengthened by going on from before the decay; falling as 1 - sqrt ends lower than a straight line
    (arXiv 2405.18392).
    """

    name: Literal["wsd"] = "wsd"
    warmup: float = Field(0.02, ge=0)  # below 1 a share of all steps, from 1 on a number of steps
    decay: float = Field(0.2, gt=0)  # the same
    final: float = Field(0.01, ge=0, le=1)
    shape: Literal["sqrt", "linear"] = "sqrt"

    def __call__(self, step: int, steps: int) -> float:
        """Return the multiplier of step 0, 1, ... of `steps`; the fall waits for the end of the rise."""
        start = max(_steps(self.warmup, steps), steps - _steps(self.decay, steps))
        if step < start:
            return _rise(step, steps, self.warmup)
        done = _fallen(step, start, steps)
        return self.final + (1 - self.final) * (1 - (math.sqrt(done) if self.shape == "sqrt" else done))


Schedule = Annotated[Constant | Cosine | Linear | InverseSquareRoot | WarmupStableDecay, Field(discriminator="name")]


def _steps(warmup: float, steps: int) -> int:
    """Return how many steps the warm-up takes."""
    return round(warmup * steps) if warmup < 1 else round(warmup)


def _rise(step: int, steps: int, warmup: float) -> float:
    """Return the straight line that reaches 1 at the end of the warm-up; the first step already learns."""
    return min(1.0, (step + 1) / (_steps(warmup, steps) + 1))


def _fallen(step: int, start: int, steps: int) -> float:
    """Return how far a fall from `start` to the last step has come: 0 at its first step, 1 at the last."""
    return min(1.0, (step - start) / max(1, steps - 1 - start))
