"""Long sound as windows that a model can read, each with its time, and never more than one of them in memory.

    stream ──┤ 30 s ├──┤ 30 s ├── …       cut at the quietest place of a window's last third, so that few words are
             0      27.4      55.1        torn; what nobody speaks in is told by the gate and need not be read

Times are counted in samples from the beginning of the file and cannot drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hanlin.data.audio import gate
from hanlin.data.audio.read import RATE, Samples

STEP = RATE // 50  # samples: 20 ms, the fineness of a cut
CALM = 10  # steps over which quiet is measured: a gap of 0.2 s between words


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of sound, with its time in seconds."""

    samples: Samples
    start: float
    spans: tuple[gate.Span, ...]  # where somebody speaks, in seconds of the file; empty where nobody does

    @property
    def end(self) -> float:
        """Return when it ends."""
        return self.start + len(self.samples) / RATE


def windows(pieces: Iterable[Samples], seconds: float = 30.0) -> Iterator[Window]:
    """Yield windows of at most `seconds` that together are the sound, in order."""
    most, start = int(seconds * RATE), 0
    held, size = list[Samples](), 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= 2 * most:
            waiting = np.concatenate(held)
            while len(waiting) > most:
                cut = quietest(waiting[:most])
                yield _window(waiting[:cut], start)
                start, waiting = start + cut, waiting[cut:]
            held, size = [waiting.copy()], len(waiting)
    waiting = np.concatenate(held) if held else np.zeros(0, np.float32)
    while len(waiting):
        cut = quietest(waiting[:most]) if len(waiting) > most else len(waiting)
        yield _window(waiting[:cut], start)
        start, waiting = start + cut, waiting[cut:]


def _window(samples: Samples, start: int) -> Window:
    found = (gate.Span(each.start + start / RATE, each.end + start / RATE) for each in gate.spans(samples))
    return Window(samples=samples, start=start / RATE, spans=tuple(found))


def quietest(samples: Samples) -> int:
    """Return where to cut samples that go on: the middle of the quietest 0.2 s of their last third."""
    first = len(samples) * 2 // 3
    steps = (len(samples) - first) // STEP
    if steps <= CALM:
        return len(samples)
    power = np.square(samples[first : first + steps * STEP], dtype=np.float64).reshape(steps, STEP).sum(1)
    calm = np.convolve(power, np.ones(CALM), "valid")
    return first + (int(calm.argmin()) + CALM // 2) * STEP
