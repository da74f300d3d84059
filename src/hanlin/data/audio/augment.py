"""Other sound that says the same: another speed, microphone or level, noise, masks; a function of (seed, step) alone.

    samples ─ speed ─ filter ─ level ─ noise ─ log_mel ─ masked ─> frames        each off unless asked for

SpecAugment, Park et al. 2019, arXiv 1904.08779 (masks; time warping is left out: the paper finds it helps least);
masked places take the mean of their row's frames. Speed: Ko et al. 2015, "Audio augmentation for speech recognition".
Filter: FilterAugment, Nam et al. 2021, arXiv 2110.03282 (the linear kind), drawn on the samples: rooms, microphones.

Letters: B rows, S frames, F features.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from hanlin.batch import Frames
from hanlin.config import Config
from hanlin.data.audio.read import RATE, Samples, resampled

MASKS, SOUNDS = 0x5EC, 0x50F  # so that the two draw from streams of their own


class Augment(Config):
    """What is changed in training; all zeros change nothing."""

    time_masks: int = Field(0, ge=0)
    time_width: int = Field(40, gt=0)  # frames at most
    time_share: float = Field(0.2, gt=0, le=1)  # of a row's frames at most, a mask (p of the paper's table 1)
    feature_masks: int = Field(0, ge=0)
    feature_width: int = Field(27, gt=0)  # features at most, for 80 (F of the paper's LD policy)
    speeds: tuple[float, ...] = ()  # one is drawn a row, say (0.9, 1.0, 1.1)
    filter_db: float = Field(0.0, ge=0, le=60)  # bands of the sound are made louder or softer by up to so many dB
    level_db: float = Field(0.0, ge=0, le=60)  # the whole sound is made louder or softer by up to so many dB
    noise_db: tuple[float, ...] = ()  # levels below the sound, one is drawn a row, say (10.0, 20.0, 40.0)

    @property
    def changes_samples(self) -> bool:
        """Whether the samples themselves are changed, not their frames alone."""
        return bool(self.speeds or self.filter_db or self.level_db or self.noise_db)

    def problems(self) -> list[str]:
        """Return what cannot be, one line each."""
        return [f"speed {each:g} is not between 0.5 and 2" for each in self.speeds if not 0.5 <= each <= 2]


def sound(samples: Samples, choice: Augment, *, seed: int, step: int, row: int) -> Samples:
    """Return samples (n,) of the row-th row of a step as `choice` says, each change drawn anew."""
    draws = np.random.default_rng((SOUNDS, seed, step, row))
    if choice.speeds:
        samples = faster(samples, float(draws.choice(choice.speeds)))
    if choice.filter_db:
        samples = filtered(samples, choice.filter_db, draws)
    if choice.level_db:
        samples = samples * np.float32(10 ** (draws.uniform(-choice.level_db, choice.level_db) / 20))
    if choice.noise_db:
        samples = noisy(samples, float(draws.choice(choice.noise_db)), draws)
    return samples


def faster(samples: Samples, speed: float) -> Samples:
    """Return samples played at `speed` times their own; the pitch goes with it."""
    return resampled(samples, RATE * speed)


def filtered(samples: Samples, most_db: float, draws: np.random.Generator) -> Samples:
    """Return samples through a filter drawn at 3 to 6 pitches, from -most_db to most_db each, straight between them."""
    count = int(draws.integers(3, 7))
    places = np.concatenate(([0.0], np.sort(draws.uniform(0.0, 1.0, count - 2)), [1.0]))
    gains_db = draws.uniform(-most_db, most_db, count)
    pitches = np.log1p(np.fft.rfftfreq(len(samples), 1 / RATE) / 700.0) / np.log1p(RATE / 2 / 700.0)  # 0 to 1 in mels
    gains = 10 ** (np.interp(pitches, places, gains_db) / 20)
    return np.fft.irfft(np.fft.rfft(samples) * gains, len(samples)).astype(np.float32)


def noisy(samples: Samples, below_db: float, draws: np.random.Generator) -> Samples:
    """Return samples with white noise whose power is `below_db` dB below theirs."""
    power = float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0
    width = (power / 10 ** (below_db / 10)) ** 0.5
    return (samples + draws.normal(0.0, width, len(samples))).astype(np.float32)


def masked(source: Frames, choice: Augment, *, seed: int, step: int, first: int = 0) -> Frames:
    """Return frames (B, S, F) with stretches of time and bands of features replaced by each row's mean.

    Row b of the batch is row `first` + b of the step: a rank's share is masked as it is in the whole.
    """
    if not choice.time_masks and not choice.feature_masks:
        return source
    values = source.values.clone()
    rows, length, features = values.shape
    real = torch.ones(rows, length, dtype=torch.bool) if source.layout is None else source.layout.real
    for row in range(rows):
        draws = np.random.default_rng((MASKS, seed, step, first + row))
        places = real[row].nonzero()[:, 0]
        if not len(places):
            continue
        mean = values[row, places].mean()
        for _ in range(choice.time_masks):
            widest = min(choice.time_width, int(choice.time_share * len(places)))
            start, end = _stretch(draws, len(places), widest)
            values[row, places[start:end]] = mean
        for _ in range(choice.feature_masks):
            start, end = _stretch(draws, features, min(choice.feature_width, features - 1))
            values[row, places, start:end] = mean
    return Frames(values=values, layout=source.layout)


def _stretch(draws: np.random.Generator, length: int, widest: int) -> tuple[int, int]:
    """Return (start, end): a width from 0 to `widest`, then a place for it, both uniform."""
    width = int(draws.integers(0, widest + 1))
    start = int(draws.integers(0, length - width + 1))
    return start, start + width
