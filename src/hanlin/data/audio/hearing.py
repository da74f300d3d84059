"""Recordings as a recogniser takes them in: windows as log-mel frames with their times, several recordings at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hanlin.data.audio import mel
from hanlin.data.audio.read import RATE, Limits, Samples, Sound, stream
from hanlin.data.audio.windows import windows


@dataclass(frozen=True, kw_only=True)
class Ear:
    """How a model hears."""

    features: int
    window_s: float
    longest_s: float  # of one recording
    filled: bool  # with silence up to the window
    gate: bool  # windows in which nobody speaks are not there
    samples: bool = False  # are kept beside the frames


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """One window: frames (S, F), its time in seconds, and its place among all windows, gated ones included."""

    frames: NDArray[np.float32]
    start: float
    end: float
    number: int
    speaks: bool  # somebody, or nobody was asked
    samples: Samples | None  # (n,) where they were asked for


def heard(source: Sound, ear: Ear, where: str, *, known: bool = False) -> list[Heard]:
    """Return the windows of a recording in which somebody speaks; where it is `known` that somebody does, all."""
    limits, found = Limits(seconds=ear.longest_s), list[Heard]()
    for number, each in enumerate(windows(stream(source, limits=limits, where=where), ear.window_s)):
        speaks = not ear.gate or bool(each.spans)
        if speaks or known:
            kept = each.samples if ear.samples else None
            times = {"start": each.start, "end": each.end}
            found.append(Heard(frames=frames(each.samples, ear), **times, number=number, speaks=speaks, samples=kept))
    return found


def together(
    sources: Sequence[Sound], ear: Ear, names: Sequence[str], known: Sequence[bool], threads: int
) -> list[list[Heard]]:
    """Return what `heard` returns of each recording, in order; the first that cannot be used raises."""

    def one(place: int) -> list[Heard]:
        return heard(sources[place], ear, names[place], known=known[place])

    if threads < 2 or len(sources) < 2:
        return [one(place) for place in range(len(sources))]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(len(sources))))


def frames(samples: Samples, ear: Ear) -> NDArray[np.float32]:
    """Return the frames (S, F) of a window's samples (n,)."""
    least = max(mel.WIDTH, int(ear.window_s * RATE) if ear.filled else 0)
    found: NDArray[np.float32] = mel.log_mel(np.pad(samples, (0, max(0, least - len(samples)))), ear.features).numpy()
    return found
