"""What is heard in a window, and how training changes it: a function of (seed, step, place in the batch).

samples ─ speed ─ noise ─ log-mel frames ─ masks ─> frames      data/audio/augment.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from hanlin.batch import Frames
from hanlin.data.audio import augment, hearing
from hanlin.data.audio.augment import Augment as Augment
from hanlin.data.audio.hearing import Ear as Ear
from hanlin.data.audio.hearing import Heard
from hanlin.data.audio.read import RATE
from hanlin.errors import AbilityError, DataError, problem
from hanlin.models import whisper
from hanlin.models.contract import Json, ModelConfig
from hanlin.tasks.contract import Row


def listened(recordings: Sequence[tuple[str | bytes, str | None]], ear: Ear) -> list[tuple[int, Heard]]:
    """Return (place, window) of recordings (sound, transcript or None) in order; DataError for what cannot be used.

    A recording with a transcript is one window; it is there even where the gate hears nobody.
    """
    names = [each if isinstance(each, str) else "sound" for each, _ in recordings]
    sounds, known = [each for each, _ in recordings], [bool(text) for _, text in recordings]
    found = []
    for place, windows in enumerate(hearing.together(sounds, ear, names, known, torch.get_num_threads())):
        if windows and windows[-1].number and recordings[place][1] is not None:
            given, do = f"a transcript of more than {ear.window_s:g} s of sound", "cut it, or raise task.window_s"
            raise DataError(problem(names[place], given, do=do))
        found += [(place, window) for window in windows]
    return found


def fitting(config: ModelConfig, window_s: float) -> Json:
    """Return features, window and filling as a model hears; a 30-second checkpoint gets all of its window.

    AbilityError for a family that hears nothing.
    """
    if not isinstance(config, whisper.Config):
        family = type(config).__module__.rsplit(".", 1)[-1]
        raise AbilityError(problem(f"model {family}", "reads no sound", "a model of the family whisper"))
    longest = 2 * config.source_context / whisper.FRAMES_A_SECOND
    window_s = min(window_s, longest) if config.any_length else longest
    return {"features": config.features, "filled": not config.any_length, "window_s": window_s}


def changed(rows: Sequence[Row], choice: Augment, ear: Ear, *, seed: int, step: int) -> list[Row]:
    """Return the rows of a step with other sound that says the same; what would no longer fit the window stays."""
    found = []
    for place, row in enumerate(rows):
        frames, samples = row.source, row.note.samples
        if samples is not None:
            other = augment.sound(samples, choice, seed=seed, step=step, row=place)
            if other is not samples and len(other) <= ear.window_s * RATE:
                frames = hearing.frames(other, ear)
        values = torch.from_numpy(np.asarray(frames, np.float32))[None]
        masked = augment.masked(Frames(values=values), choice, seed=seed, step=step, first=place)
        found.append(replace(row, source=masked.values[0].numpy()))
    return found
