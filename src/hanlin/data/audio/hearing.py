"""A recording as a recogniser takes it in: windows in which somebody speaks, as log-mel frames with their times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hanlin.data.audio import mel
from hanlin.data.audio.read import RATE, Limits, Sound, stream
from hanlin.data.audio.windows import windows


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """One window: frames (S, F), its time in seconds, and its place among all windows, gated ones included."""

    frames: NDArray[np.float32]
    start: float
    end: float
    number: int


def heard(
    source: Sound, features: int, *, window_s: float, longest_s: float, filled: bool, gate: bool, where: str
) -> Iterator[Heard]:
    """Yield the windows of a recording; with `gate` those in which somebody speaks, `filled` with silence if asked."""
    limits = Limits(seconds=longest_s)
    for number, each in enumerate(windows(stream(source, limits=limits, where=where), window_s)):
        if gate and not each.spans:
            continue
        least = max(mel.WIDTH, int(window_s * RATE) if filled else 0)
        samples = np.pad(each.samples, (0, max(0, least - len(each.samples))))
        yield Heard(frames=mel.log_mel(samples, features).numpy(), start=each.start, end=each.end, number=number)
