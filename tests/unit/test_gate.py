"""The gate in front of a recogniser: what is speech, and above all what is not."""

import io
import tarfile

import numpy as np
import pytest

from hanlin.data.audio import gate
from hanlin.data.audio.read import RATE, read

draws = np.random.default_rng(0)


def at(samples, level_db):
    return (samples / np.sqrt(np.mean(samples**2)) * 10 ** (level_db / 20)).astype(np.float32)


def noise(seconds, level_db, color=0.0):
    """Return noise whose power falls with frequency to the power of `color`: 0 white, 1 pink, 2 brown."""
    length = int(seconds * RATE)
    spectrum = np.fft.rfft(draws.normal(size=length))
    return at(np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** (color / 2), length), level_db)


def hum(seconds, level_db, hertz=50):
    t = np.arange(int(seconds * RATE)) / RATE
    return at(sum(np.sin(2 * np.pi * hertz * n * t + n) / n for n in (1, 2, 3, 5, 7)), level_db)


def click(seconds, ms):
    found = np.zeros(int(seconds * RATE), np.float32)
    found[len(found) // 3 : len(found) // 3 + max(1, int(ms * RATE / 1000))] = 0.9
    return found


def vowels(seconds=1.0, level_db=-20, pitch=120.0):
    """Return something like a voice: pulses at a pitch that glides, through two resonances that move."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 1.5 * t)) / RATE)
    found = np.zeros(len(t))
    for n in range(1, 30):
        hertz = n * pitch
        first, second = 500 + 250 * np.sin(2 * np.pi * 3 * t), 1500 + 600 * np.cos(2 * np.pi * 2 * t)
        found += sum(1 / (1 + ((hertz - each) / 100) ** 2) for each in (first, second)) * np.cos(2 * np.pi * n * phase)
    return at(found, level_db)


@pytest.mark.parametrize("seconds", [0.5, 3.0, 12.0])
class TestNobodySpeaks:
    """Sounds in which a recogniser would make up words."""

    def test_silence(self, seconds):
        assert not gate.speaks(np.zeros(int(seconds * RATE), np.float32))

    @pytest.mark.parametrize("level_db", [-60, -40, -20])
    @pytest.mark.parametrize("color", [0, 1, 2])
    def test_noise(self, seconds, level_db, color):
        """Guards against a threshold of loudness alone, and brown noise whose neighbours are alike."""
        assert not gate.speaks(noise(seconds, level_db, color))

    @pytest.mark.parametrize("hertz", [50, 60, 100, 120, 220, 440])
    def test_hum(self, seconds, hertz):
        """Guards against a pitch taken for a voice, with noise beside it, and where it sets in halfway."""
        steady = hum(seconds, -20, hertz)
        assert not gate.speaks(steady)
        assert not gate.speaks(steady + noise(seconds, -40))
        assert not gate.speaks(hum(seconds, -6, hertz) + noise(seconds, -30))
        steady[: len(steady) // 2] = 0
        assert not gate.speaks(steady)

    @pytest.mark.parametrize("ms", [0.1, 1, 5, 20])
    def test_one_click(self, seconds, ms):
        """Guards against a knock on the microphone, in silence or in noise."""
        assert not gate.speaks(click(seconds, ms))
        assert not gate.speaks(click(seconds, ms) + noise(seconds, -40))


class TestSomebodySpeaks:
    """Sounds that must pass."""

    @pytest.mark.parametrize("level_db", [-10, -30, -45])
    @pytest.mark.parametrize("pitch", [90.0, 120.0, 220.0, 300.0])
    def test_a_voice(self, level_db, pitch):
        """Guards against low, high and quiet voices lost."""
        assert gate.speaks(vowels(level_db=level_db, pitch=pitch))

    def test_a_voice_in_hum_and_noise(self):
        """Guards against a hum that hides the voice it sounds with."""
        padded = np.pad(vowels(1.5), (RATE, RATE))
        assert gate.speaks(padded + hum(3.5, -25))
        assert gate.speaks(padded + noise(3.5, -40))

    def test_where(self):
        """Guards against times of frames taken for times of samples."""
        found = gate.spans(np.concatenate((np.zeros(2 * RATE), vowels(), np.zeros(3 * RATE), vowels())).astype("f4"))
        assert len(found) == 2
        assert found[0].start == pytest.approx(2 - gate.REACH, abs=0.15)
        assert found[0].end == pytest.approx(3 + gate.REACH, abs=0.15)
        assert found[1].start == pytest.approx(6 - gate.REACH, abs=0.15)
        assert found[1].end == 7.0


def test_real_digits(real_data):
    """Guards against thresholds that suit synthetic sounds alone: 99 of 100 trimmed digits pass, creaking ones too."""
    pytest.importorskip("soundfile")
    passed = []
    with tarfile.open(real_data / "data/speech/fsdd/fsdd.tar.gz") as archive:
        wavs = [each for each in archive if each.name.endswith(".wav")]
        for each in wavs[5::18]:
            stream = archive.extractfile(each)
            assert isinstance(stream, io.IOBase | tarfile.ExFileObject)
            passed.append(gate.speaks(read(stream.read())))
    assert len(passed) >= 150
    assert sum(passed) / len(passed) >= 0.99
