"""Sound files read: rates, channels, formats, and whatever a file may claim."""

import io
import itertools
import os
import struct
import tracemalloc

import numpy as np
import pytest
import torch

from hanlin.data.audio import mel, windows
from hanlin.data.audio.read import RATE, Limits, read, resampled, stream
from hanlin.errors import DataError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def tone(seconds=1.0, rate=RATE, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def packed(samples, rate=RATE, format="WAV", subtype=None):
    held = io.BytesIO()
    soundfile.write(held, samples, rate, format=format, subtype=subtype)
    return held.getvalue()


def refused(source, pattern, **given):
    with pytest.raises(DataError, match=pattern) as caught:
        read(source, where="x.wav", **given)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("x.wav: ")


@pytest.mark.parametrize(("format", "near"), [("WAV", 1e-4), ("FLAC", 1e-4), ("OGG", 0.05), ("MP3", 0.05)])
def test_formats(format, near):
    """Guards against a format that is read at another scale, shifted or cut."""
    found = read(packed(tone(), format=format))
    assert found.dtype == np.float32
    assert len(found) == RATE
    assert np.abs(found - tone())[400:-400].max() < near


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_rates(rate):
    """Guards against a resampler that shifts, stretches, or drops the end."""
    found = read(packed(tone(rate=rate), rate, subtype="FLOAT"))
    assert abs(len(found) - RATE) <= 1
    assert np.abs(found[800:-800] - tone()[800 : len(found) - 800]).max() < 1e-3


def test_nothing_folds_back_from_above():
    """Guards against every n-th sample taken: 15 kHz would come back as 1 kHz."""
    high = read(packed(tone(rate=48_000, hertz=15_000), 48_000, subtype="FLOAT"))
    assert np.sqrt(np.mean(high[800:-800] ** 2)) < 1e-4
    assert np.abs(resampled(tone(rate=48_000, hertz=9_000), 48_000)[800:-800]).max() < 1e-3


def test_channels_are_averaged():
    """Guards against the left channel taken for all, or the sum, which clips."""
    both = np.stack([tone(), -tone() * 0.5], 1)
    np.testing.assert_allclose(read(packed(both, subtype="FLOAT")), tone() * 0.25, atol=1e-6)


def test_pieces_are_the_whole(tmp_path, monkeypatch):
    """Guards against a click between two pieces of the resampler, and a last piece that is lost."""
    path = tmp_path / "a.wav"
    path.write_bytes(packed(tone(2.5, 22_050), 22_050, subtype="FLOAT"))
    whole = read(path)
    monkeypatch.setattr("hanlin.data.audio.read.BLOCK", 1_000)
    pieces = list(stream(path))
    assert len(pieces) > 50
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)


class TestHostile:
    """Files that lie, break off, or never end."""

    def test_nan_and_infinity(self):
        """Guards against NaN that reaches the features of a whole batch."""
        for bad in (np.nan, np.inf, -np.inf, 1e30, 32768.0):
            samples = tone()
            samples[8_000] = bad
            refused(packed(samples, subtype="FLOAT"), r"at 0\.500 s; samples between -1 and 1")

    @pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
    @pytest.mark.parametrize("share", [0.5, 0.9])
    def test_cut_off(self, format, share):
        """Guards against half a recording transcribed as if it were all."""
        content = packed(np.random.default_rng(0).normal(0, 0.1, 3 * RATE), format=format)
        refused(content[: int(len(content) * share)], "cut off|damaged|no samples|ends after")

    def test_lying_headers(self):
        """Guards against sizes believed: memory set aside for what a header says, or samples that are not there."""
        content = packed(tone())

        def patched(at, kind, value):
            return content[:at] + struct.pack(kind, value) + content[at + struct.calcsize(kind) :]

        refused(patched(40, "<I", 2_000_000_000), "cut off: 32,000 bytes of sound, the header promises 2,000,000,000")
        refused(patched(24, "<I", 1), "1 samples a second; 4,000 to 768,000")
        refused(patched(24, "<I", 2_000_000_000), "2,000,000,000 samples a second")
        refused(patched(22, "<H", 1_000), "1000 channels; at most 16")
        refused(patched(22, "<H", 0), "not a sound file")
        assert len(read(patched(40, "<I", 0xFFFFFFFF))) == RATE  # what a recorder writes that was not told the length

    def test_flac_that_promises_ten_hours(self):
        """Guards against a length in the header that nobody compares with what was decoded."""
        content = bytearray(packed(tone(), format="FLAC"))
        content[22:26] = struct.pack(">I", 16_000 * 60 * 5)  # the low bits of the number of samples
        refused(bytes(content), "ends after 16,000 of the 4,800,000 samples it promises|damaged")

    def test_what_is_no_sound(self, tmp_path):
        """Guards against a traceback of the decoder, and a pipe that blocks for ever."""
        refused(b"", "not a sound file")
        refused(b"RIFF" + os.urandom(200), "not a sound file")
        refused(packed(tone(), format="AU"), "a file of format AU")
        refused(packed(tone()[:0]), "no samples")
        with pytest.raises(DataError, match="not readable: No such file"):
            read(tmp_path / "none.wav")
        os.mkfifo(tmp_path / "pipe.wav")
        with pytest.raises(DataError, match="not a regular file"):
            read(tmp_path / "pipe.wav")

    def test_a_bomb_of_silence(self, tmp_path):
        """Guards against ten hours packed into kilobytes and unpacked into gigabytes."""
        path = tmp_path / "bomb.flac"
        with soundfile.SoundFile(path, "w", 8_000, 1, format="FLAC") as file:
            for _ in range(60):
                file.write(np.zeros(8_000 * 20, np.int16))  # 20 minutes
        assert path.stat().st_size < 100_000
        with pytest.raises(DataError, match=r"1,200 s of sound; at most 600 s; cut it, or raise the limit"):
            read(path)
        tracemalloc.start()
        seconds = 0.0
        for window in windows.windows(stream(path, limits=Limits(seconds=36_000)), 30.0):
            assert not window.spans
            seconds = window.end
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seconds == 20 * 60
        assert peak < 20e6  # all of it would be 77 MB


class TestWindows:
    """Long sound, cut."""

    def test_nothing_lost_and_cut_in_pauses(self):
        """Guards against words torn in two, times that drift, samples that stand in two windows."""
        draws = np.random.default_rng(0)
        samples = draws.normal(0, 0.1, 50 * RATE).astype(np.float32)
        for pause in (8.5, 17.5, 26.0, 34.5, 43.0):
            samples[int(pause * RATE) : int((pause + 0.4) * RATE)] = 0
        found = list(windows.windows(np.array_split(samples, 777), 10.0))
        np.testing.assert_array_equal(np.concatenate([each.samples for each in found]), samples)
        assert [round(each.start, 1) for each in found] == [0.0, 8.6, 17.6, 26.1, 34.6, 43.1]
        assert all(a.end == b.start for a, b in itertools.pairwise(found))

    def test_pieces_of_any_size(self):
        """Guards against windows that depend on how the sound arrives."""
        samples = np.random.default_rng(1).normal(0, 0.1, 25 * RATE).astype(np.float32)
        cuts = [[each.start for each in windows.windows(np.array_split(samples, n), 4.0)] for n in (1, 7, 1000)]
        assert cuts[0] == cuts[1] == cuts[2]
        assert list(windows.windows([], 4.0)) == []


class TestMel:
    """Frames; parity with transformers is in tests/parity."""

    def test_rows_do_not_change_each_other(self):
        """Guards against a floor shared by the batch, or padding that is not hidden."""
        rows = [tone(0.5), tone(0.31, hertz=300), 0.01 * tone(0.2)]
        together = mel.frames(rows)
        assert together.values.shape == (3, 50, 80)
        assert together.layout.real.sum(1).tolist() == [50, 31, 20]
        for row, each in enumerate(rows):
            torch.testing.assert_close(together.values[row, together.layout.real[row]], mel.log_mel(each))

    def test_too_short_and_too_long(self):
        """Guards against an exception out of the FFT, and sound cut off without a word."""
        with pytest.raises(DataError, match=r"10 ms; at least 25 ms"):
            mel.frames([tone(0.01)])
        with pytest.raises(DataError, match=r"1 s of sound; at most 0\.5 s; cut it into windows"):
            mel.frames([tone(1.0)], window=50)

    def test_other_features_are_refused(self):
        """Guards against a checkpoint fed with features that it was not trained on."""
        mel.check({"hop_length": 160, "n_fft": 400, "sampling_rate": 16_000, "feature_size": 128, "chunk_length": 30})
        with pytest.raises(DataError, match=r"hop_length: 128 is not implemented; known: 160"):
            mel.check({"hop_length": 128})
