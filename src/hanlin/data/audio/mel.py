"""Log-mel frames: what a speech model reads, equal to Whisper's (arXiv 2212.04356, section 2.2).

    samples at 16 kHz ─ 25 ms Hann windows every 10 ms ─ |FFT|² ─ mel bands ─ log10 ─ 8 decades kept ─ (x + 4) / 4

A row of n samples gives n // 160 frames. The band edges follow Slaney's scale (Auditory Toolbox, 1998): linear up to
1 kHz, 27 bands for each factor of 6.4 above, each triangle scaled to the same area.
In numpy, one thread a recording: on a busy machine the threads of torch or BLAS cost a clip of half a second 30 ms, the
features themselves 0.4. Spectra are taken in fp64, so near silence they differ from others' in fp32 by up to 1e-4.

Letters: B rows, S frames, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanlin.batch import Frames, Layout
from hanlin.data.audio.read import RATE, Samples
from hanlin.errors import DataError, problem

HOP, WIDTH = 160, 400  # samples: 10 and 25 ms
WINDOW = np.hanning(WIDTH + 1)[:-1]
KNOWN = {"sampling_rate": RATE, "hop_length": HOP, "n_fft": WIDTH, "dither": 0.0, "do_normalize": False}


def log_mel(samples: Samples, features: int = 80) -> Tensor:
    """Return (S, F) float32 frames of samples (n,), S = n // 160; DataError for less than 25 ms of sound."""
    if len(samples) < WIDTH:
        raise DataError(problem("sound", f"{1000 * len(samples) / RATE:g} ms", "at least 25 ms"))
    wave = np.pad(samples.astype(np.float32), WIDTH // 2, mode="reflect")
    cut = np.lib.stride_tricks.sliding_window_view(wave, WIDTH)[: len(samples) // HOP * HOP : HOP]
    spectrum = np.fft.rfft(cut * WINDOW)
    power = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)
    bands = np.einsum("sk,fk->sf", power, filters(features))  # a product of matrices would wait for its threads
    logs = np.log10(np.maximum(bands, 1e-10))
    logs = np.maximum(logs, logs.max() - 8.0)
    return torch.from_numpy((logs + np.float32(4.0)) / np.float32(4.0))


@cache
def filters(features: int) -> NDArray[np.float32]:
    """Return (F, 201): how much of each frequency of the FFT each band takes."""
    edges = _hertz(np.linspace(0.0, _mels(RATE / 2), features + 2))
    bins = np.linspace(0.0, RATE / 2, WIDTH // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return triangles.astype(np.float32)


def _mels(hertz: float) -> float:
    """Return Slaney's mels of a frequency above 1 kHz."""
    return float(15.0 + np.log(hertz / 1000.0) * 27.0 / np.log(6.4))


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp((mels - 15.0) * np.log(6.4) / 27.0))


def frames(rows: Sequence[Samples], features: int = 80, *, window: int | None = None) -> Frames:
    """Return the rows' frames side by side, (B, S, F), padding hidden by the layout.

    With a `window` in frames (a model that reads silence as content), every row is filled with silence up to it before
    its features are taken, nothing is padding, and DataError names a row that is longer.
    """
    if window is not None:
        rows = [_filled(samples, window * HOP) for samples in rows]
    return side_by_side([log_mel(samples, features) for samples in rows])


def side_by_side(found: Sequence[Tensor]) -> Frames:
    """Return rows (S, F) of different length as (B, S, F), with a layout where any is shorter than another."""
    lengths = torch.tensor([len(each) for each in found])
    values = torch.nn.utils.rnn.pad_sequence(list(found), batch_first=True)
    real = torch.arange(values.shape[1]) < lengths[:, None]
    return Frames(values=values, layout=None if bool(real.all()) else Layout.of(real.long()))


def _filled(samples: Samples, length: int) -> Samples:
    if len(samples) > length:
        given, do = f"{len(samples) / RATE:g} s of sound", "cut it into windows"
        raise DataError(problem("sound", given, f"at most {length / RATE:g} s", do=do))
    return np.pad(samples, (0, length - len(samples)))


def check(preprocessor: Mapping[str, Any], where: str = "preprocessor_config.json") -> None:
    """Raise DataError naming every key of a preprocessor_config.json that asks for features other than these."""
    found = [
        problem(f"{where}: {key}", f"{preprocessor[key]!r} is not implemented", f"known: {known!r}")
        for key, known in KNOWN.items()
        if preprocessor.get(key) not in (None, known)
    ]
    if found:
        raise DataError(*found)
