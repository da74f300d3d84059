"""Recordings on disk for the contract table of tasks: a synthetic voice, silence, and a file that is none."""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
from pathlib import Path

import numpy as np

from hanlin.models import whisper
from hanlin.tasks import transcribe

RATE = 16_000
MODEL = whisper.Config(
    vocab=259, dim=16, layers=1, heads=2, context=32, source_context=60, any_length=True, features=20
)
TASK = transcribe.Config(window_s=1.2, limit=6, features=20)


def voiced(seconds, pitch):
    """Return samples whose harmonics swell and fade, as those of a voice do."""
    t = np.arange(int(seconds * RATE)) / RATE
    parts = [np.sin(2 * np.pi * pitch * n * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t + n)) / n for n in range(1, 12)]
    return 0.2 * np.sum(parts, 0)


def recordings(folder):
    """Write a few and return their rows."""
    import soundfile

    rows = []
    for number, (seconds, pitch) in enumerate([(0.5, 110), (0.8, 180), (0.4, 240), (1.1, 150)]):
        soundfile.write(folder / f"{number}.wav", voiced(seconds, pitch), RATE)
        rows.append({"audio": str(folder / f"{number}.wav"), "text": f"say {number} 好"})
    soundfile.write(folder / "silence.wav", np.zeros(RATE), RATE)
    return [*rows, {"audio": str(folder / "silence.wav"), "text": "unheard"}]


def _rows():
    folder = Path(tempfile.mkdtemp(prefix="hanlin-spoken-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rows, bad = recordings(folder), {"audio": 7, "text": "a"}
    changed = {"speeds": (0.9, 1.1), "noise_db": (10.0,), "time_masks": 1, "feature_masks": 1, "feature_width": 4}
    return {
        "transcribe": (TASK, MODEL, rows, bad),
        "transcribe-ctc": (TASK.model_copy(update={"ctc": 0.5}), MODEL, rows, bad),
        "transcribe-augmented": (TASK.model_copy(update={"augment": TASK.augment.model_copy(update=changed)}),
                                 MODEL, rows, bad),
    }  # fmt: skip


INSTALLED = all(importlib.util.find_spec(name) for name in ("soundfile", "soxr", "jiwer"))
ROWS = _rows() if INSTALLED else {}
