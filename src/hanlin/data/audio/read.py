"""Sound files as mono samples at 16 kHz, a bounded piece at a time.

    wav flac ogg mp3 ─ libsndfile ─ blocks (n, channels) ─ checked ─ mean of channels ─ soxr ─> float32 in [-1, 1]

    read(source)      all of a file, at most `Limits.seconds` of it
    stream(source)    the same in pieces, for files longer than memory

Whatever a file claims, one block is in memory at a time, and one DataError names what is wrong: a header that promises
more than there is, a cut-off end, NaN or infinity, samples far beyond full scale, an absurd rate or number of channels.
soxr (the resampler of SoX, 24-bit quality by default) removes what lies above 8 kHz before it lowers a rate.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hanlin.errors import DataError, MissingExtra, problem

Samples = NDArray[np.float32]
Sound = str | Path | bytes

RATE = 16_000  # samples a second of everything that leaves this file
BLOCK = 1 << 16  # frames decoded at once
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")  # of the thirty that libsndfile opens
ENDLESS = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # sizes that a writer puts in a header when it does not know the length
FULL = 8.0  # 18 dB over full scale: float files may pass 1 a little, integers written as floats pass it by far
CLAIM = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)  # libsndfile's log of a wav header


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is read at most; rates below 4 kHz hold no speech."""

    seconds: float = 600.0
    channels: int = 16
    low: int = 4_000
    high: int = 768_000


def read(source: Sound, *, limits: Limits | None = None, where: str = "") -> Samples:
    """Return all samples (n,) of a sound file, its path or its bytes; DataError when it cannot be used.

    `where` names bytes in errors.
    """
    return np.concatenate(list(stream(source, limits=limits, where=where)))


def stream(source: Sound, *, limits: Limits | None = None, where: str = "") -> Iterator[Samples]:
    """Yield the samples of a sound file piece by piece, as they come out of the resampler; DataError as in `read`."""
    limits, where = limits or Limits(), where or (str(source) if not isinstance(source, bytes) else "sound")
    with _opened(source, where) as handle:
        sound = _recognised(handle, where)
        _check(sound, limits, where)
        resampler, total = _resampler(sound.samplerate), 0
        for block in _blocks(sound, where):
            total += len(block)
            if total > limits.seconds * sound.samplerate:
                raise DataError(_too_long(where, limits))
            bad = np.flatnonzero(~np.isfinite(block).all(1) | (np.abs(block) > FULL).any(1))
            if len(bad):
                at = (total - len(block) + bad[0]) / sound.samplerate
                given = f"{block[bad[0]].tolist()} at {at:.3f} s"
                raise DataError(problem(where, given, "samples between -1 and 1", do="write the sound again"))
            yield resampler(block.mean(1), False)
        yield resampler(np.zeros(0, np.float32), True)
        if not total or total < sound.frames:
            given = f"ends after {total:,} of the {sound.frames:,} samples it promises" if total else "no samples"
            raise DataError(problem(where, given, do="copy the file again"))


def seconds(source: Sound, *, where: str = "sound") -> float:
    """Return how long a sound file is, as its header says; DataError when it cannot be opened."""
    with _opened(source, where) as handle:
        sound = _recognised(handle, where)
        return float(sound.frames / sound.samplerate)


@contextmanager
def _opened(source: Sound, where: str) -> Iterator[IO[bytes]]:
    """Yield the source as a file to seek in; a pipe or device, which may never end, is refused."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        if not stat.S_ISREG(os.stat(source).st_mode):
            raise DataError(problem(where, "not a regular file"))
        with open(source, "rb") as handle:
            yield handle
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        said = getattr(error, "strerror", None) or str(error)
        raise DataError(problem(where, f"not readable: {said}")) from None


def _recognised(handle: IO[bytes], where: str) -> Any:  # noqa: ANN401  # soundfile.SoundFile, imported when needed
    """Return the file opened by libsndfile, its header believed no further than its own size allows."""
    try:
        import soundfile
    except ImportError:
        raise MissingExtra("soundfile", "speech") from None
    complete = _last_page(handle)
    try:
        sound = soundfile.SoundFile(handle)
    except (soundfile.LibsndfileError, TypeError, ValueError, RuntimeError):
        given, do = "not a sound file, or damaged", "convert it: ffmpeg -i FILE -ar 16000 -ac 1 new.wav"
        raise DataError(problem(where, given, f"one of {', '.join(FORMATS)}", do=do)) from None
    if sound.format not in FORMATS:
        raise DataError(problem(where, f"a file of format {sound.format}", f"one of {', '.join(FORMATS)}"))
    claim = CLAIM.search(sound.extra_info)
    if claim and int(claim[1]) not in ENDLESS and int(claim[1]) > int(claim[2]):
        given = f"cut off: {int(claim[2]):,} bytes of sound, the header promises {int(claim[1]):,}"
        raise DataError(problem(where, given, do="copy the file again"))
    if sound.format == "OGG" and not complete:
        raise DataError(problem(where, "cut off: its last page is not marked as the last", do="copy the file again"))
    return sound


def _last_page(handle: IO[bytes]) -> bool:
    """Return whether an Ogg file ends with a whole page that is marked as the last (RFC 3533, section 6)."""
    handle.seek(max(0, handle.seek(0, os.SEEK_END) - (1 << 17)))  # a page has at most 65,307 bytes
    tail = handle.read()
    handle.seek(0)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _check(sound: Any, limits: Limits, where: str) -> None:  # noqa: ANN401  # soundfile.SoundFile
    """Raise DataError for what the header says and nobody can use."""
    if not limits.low <= sound.samplerate <= limits.high:
        allowed = f"{limits.low:,} to {limits.high:,}"
        raise DataError(problem(where, f"{sound.samplerate:,} samples a second", allowed))
    if sound.channels > limits.channels:
        raise DataError(problem(where, f"{sound.channels} channels", f"at most {limits.channels}"))
    if sound.frames > limits.seconds * sound.samplerate:
        raise DataError(_too_long(where, limits, f"{sound.frames / sound.samplerate:,.0f} s"))


def _too_long(where: str, limits: Limits, given: str = "longer than its header says") -> str:
    return problem(where, f"{given} of sound", f"at most {limits.seconds:,.0f} s", do="cut it, or raise the limit")


def _blocks(sound: Any, where: str) -> Iterator[NDArray[np.float32]]:  # noqa: ANN401  # soundfile.SoundFile
    """Yield (n, channels) pieces until there is nothing left; DataError where the decoder gives up."""
    import soundfile

    while True:
        try:
            block = sound.read(BLOCK, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            given = f"damaged: {getattr(error, 'error_string', error)}"
            raise DataError(problem(where, given, do="copy the file again")) from None
        if not len(block):
            return
        yield block


def _resampler(rate: int) -> Any:  # noqa: ANN401  # (samples, whether they are the last) -> samples at 16 kHz
    """Return what turns mono pieces of one rate into pieces at 16 kHz, as if they were one."""
    if rate == RATE:
        return lambda samples, last: samples
    return _soxr().ResampleStream(rate, RATE, 1, dtype="float32").resample_chunk


def resampled(samples: Samples, rate: float, to: float = RATE) -> Samples:
    """Return mono samples at another rate, band-limited."""
    return samples if rate == to else np.asarray(_soxr().resample(samples, rate, to), np.float32)


def _soxr() -> Any:  # noqa: ANN401  # the module
    try:
        import soxr
    except ImportError:
        raise MissingExtra("soxr", "speech") from None
    return soxr
