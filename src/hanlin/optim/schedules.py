"""How the learning rate moves: a multiplier of the optimizer's rate for every step, a pure function.

    1 |   __              1 |   _________
      |  /  `-.             |  /
      | /      `-._         | /
    0 |/___________ cosine 0|/___________ constant

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
        done = min(1.0, (step - start) / max(1, steps - 1 - start))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


Schedule = Annotated[Constant | Cosine, Field(discriminator="name")]


def _steps(warmup: float, steps: int) -> int:
    """Return how many steps the warm-up takes."""
    return round(warmup * steps) if warmup < 1 else round(warmup)


def _rise(step: int, steps: int, warmup: float) -> float:
    """Return the straight line that reaches 1 at the end of the warm-up; the first step already learns."""
    return min(1.0, (step + 1) / (_steps(warmup, steps) + 1))
