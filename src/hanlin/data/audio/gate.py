"""Where somebody speaks: a gate in front of a recogniser, which would make up words for silence, noise, hum and clicks.

    samples ─ 40 ms frames every 10 ms ─ power by frequency ─ less what stands still ┬─ loud enough?    LEVEL
                                                                                     ├─ has a pitch?    PITCH, CLEAR
                                                                                     ├─ moves?          CHANGE
                                                                                     └─ long enough?    VOICED, LOUD

Speech is what has a voice in it: a pitch between 70 and 400 Hz for VOICED seconds, clear somewhere, whose spectrum
moves, in a stretch of sound of at least LOUD seconds. A voice that creaks may have no pitch in one frame between two.
White, pink and brown noise have no pitch; hum and tones have one, but stand still, and are taken off where they sound
for long; a click is too short. Within REACH seconds of a voice everything is speech, because many consonants have no
pitch.

What it cannot do: whispering has no pitch and is taken for noise; singing, barking and music may be taken for speech;
a voice that drowns in noise is lost: of digits with white noise 10 dB below them, a third. Set on the 2,400 trimmed
digits of six speakers that FSDD gives to learn from, of which 18 do not pass, most of them a clipped "six", and 1,180
synthetic sounds of 0.3 to 12 s (white to brown noise, hums, clicks), of which 9 hums do that set in beside noise;
twelve minutes of noise pass in 3 places. tests/unit/test_gate.py holds the kinds.

Letters: S frames, f frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hanlin.data.audio.read import RATE, Samples

WIDTH, HOP = 640, 160  # samples of a frame and between two
LEVEL = -70.0  # dB of full scale, of a frame less what stands still
SHARE = 0.1  # of a frame's power that has to be left then
STILL = 3.0  # a frequency stands still where its 80th percentile is below so many times its 20th; in noise it is 7
FRAMES = 20  # in fewer, nothing can be said to stand still
PITCH, CLEAR = 0.41, 0.5  # of a frame's power that comes back after one period, everywhere and somewhere
LOW, HIGH = 70, 400  # Hz
DEEP = 100  # Hz; below there is rumble, and no harmonic that a voice needs
FLATTER = 0.8  # of a sample taken off the next, so that the loud low end of brown noise does not pass for a pitch
CHANGE = 0.04  # 1 - cosine of the spectra 50 ms apart, mean over a voiced piece; a steady tone gives 0.001
APART = 5  # frames
VOICED = 0.06  # seconds with a pitch; 20 ms of tone, cut out, give 0.04, 30 ms 0.05
LOUD, DROP = 0.09, 30.0  # seconds in one piece within so many dB of its loudest voiced frame
REACH = 0.3  # seconds before and after
QUIET = 1e-12

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Span:
    """A stretch of sound, in seconds."""

    start: float
    end: float


def spans(samples: Samples) -> list[Span]:
    """Return where somebody speaks in samples (n,) at 16 kHz, earliest first, none touching the next."""
    found: list[Span] = []
    if not len(samples) or 20.0 * np.log10(np.abs(samples).max() + QUIET) < LEVEL:
        return found  # ten hours of silence cost a minute less
    length = len(samples) / RATE
    for first, last in _pieces(_voiced(samples)):
        start = max(0.0, first * HOP / RATE - REACH)
        end = min(length, (last * HOP + WIDTH) / RATE + REACH)
        if found and start <= found[-1].end:
            start = found.pop().start
        found.append(Span(start, end))
    return found


def speaks(samples: Samples) -> bool:
    """Return whether anybody speaks in samples (n,) at 16 kHz."""
    return bool(spans(samples))


def _pieces(voiced: Flags) -> list[tuple[int, int]]:
    """Return (first, last) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], voiced, [False])).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2])]


def _voiced(samples: Samples) -> Flags:
    """Return (S,), True in frames that belong to a voiced, moving piece that is long enough."""
    power = _power(samples)
    left = power - _still(power)
    level = 10.0 * np.log10(left.sum(1) + QUIET)
    pitch, moves = _pitch(left), _moves(left)
    voiced = (level > LEVEL) & (left.sum(1) > SHARE * power.sum(1)) & (pitch > PITCH)
    voiced[1:-1] |= voiced[:-2] & voiced[2:]
    for first, last in _pieces(voiced):
        piece = slice(first, last + 1)
        lasts = last + 1 - first >= VOICED * RATE / HOP and _around(level, first, last) >= LOUD * RATE / HOP
        voiced[piece] = lasts and pitch[piece].max() >= CLEAR and moves[piece].mean() >= CHANGE
    return voiced


def _around(level: Floats, first: int, last: int) -> int:
    """Return how many frames lie in one piece around first to last that are nearly as loud."""
    loud = level > max(LEVEL, float(level[first : last + 1].max()) - DROP)
    before, after = np.flatnonzero(~loud[:first]), np.flatnonzero(~loud[last + 1 :])
    start = int(before[-1]) + 1 if len(before) else 0
    end = last + int(after[0]) if len(after) else len(loud) - 1
    return end + 1 - start


def _power(samples: Samples) -> Floats:
    """Return (S, f) power of each frequency; its sum is the mean square of a frame, low end flattened."""
    padded = np.pad(samples.astype(np.float64), (0, max(0, WIDTH - len(samples))))
    padded = padded - FLATTER * np.concatenate((padded[:1], padded[:-1]))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WIDTH)[::HOP]
    spectrum = np.fft.rfft(windows * np.hanning(WIDTH), 2 * WIDTH)
    power: Floats = np.square(np.abs(spectrum)) / (WIDTH * WIDTH * 0.375)  # 3/8: the mean square of the window
    power[:, : DEEP * 2 * WIDTH // RATE] = 0.0
    return power


def _still(power: Floats) -> Floats:
    """Return (S, f), what to take off: all of the frequencies whose power stays the same, as that of hum does."""
    if len(power) <= FRAMES:
        return np.zeros_like(power)
    ordered = np.sort(np.ascontiguousarray(power.T), axis=1)
    low, high = _percentile(ordered, 20), _percentile(ordered, 80)
    return np.minimum(power, np.where(high < STILL * low, 1.5 * high, 0.0))


def _percentile(ordered: Floats, percent: int) -> Floats:
    """Return (f,), that of each row of numbers in order; numpy's own takes three times as long."""
    before, share = divmod(percent * (ordered.shape[1] - 1), 100)
    found: Floats = ordered[:, before] + (ordered[:, before + 1] - ordered[:, before]) * (share / 100)
    return found


def _pitch(power: Floats) -> Floats:
    """Return (S,): the share of a frame that comes back after the period of a pitch, by the autocorrelation.

    It is divided by that of the window, which sinks with the lag all by itself (Boersma 1993).
    """
    lags = slice(RATE // HIGH, RATE // LOW + 1)
    back = np.fft.irfft(power)
    found: Floats = (back[:, lags] / _fading()[lags]).max(1) / (back[:, 0] + QUIET)
    return found


@cache
def _fading() -> Floats:
    """Return the autocorrelation of a frame's window, 1 at no lag."""
    found: Floats = np.fft.irfft(np.square(np.abs(np.fft.rfft(np.hanning(WIDTH), 2 * WIDTH))))
    return found / found[0]


def _moves(power: Floats) -> Floats:
    """Return (S,): how much a frame's spectrum differs from that of 50 ms later, or earlier at the end."""
    bands = np.sqrt(power[:, :WIDTH].reshape(len(power), -1, 8).sum(2))
    unit = bands / (np.linalg.norm(bands, axis=1, keepdims=True) + QUIET)
    later = np.arange(len(unit)) + APART
    other = np.where(later < len(unit), later, np.maximum(later - 2 * APART, 0))
    found: Floats = 1.0 - (unit * unit[other]).sum(1)
    return found
