"""Labelled speech in folders, archives and lists, and the augmentation of it."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch

from hanlin.batch import Frames, Layout
from hanlin.data.audio import augment
from hanlin.data.audio.augment import Augment
from hanlin.data.audio.labelled import rows
from hanlin.data.audio.read import RATE
from hanlin.data.tally import Tally
from hanlin.errors import ConfigError, DataError

soundfile = pytest.importorskip("soundfile")


def wav(seconds=0.2, rate=8_000):
    held = io.BytesIO()
    soundfile.write(held, np.random.default_rng(0).normal(0, 0.1, int(seconds * rate)), rate, format="WAV")
    return held.getvalue()


LIST = [
    {"file": "a.wav", "label": 0, "speaker": "ann", "split": "train"},
    {"file": "sub/b.wav", "label": 7, "speaker": "ben", "split": "dev"},
]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "set"
    (path / "sub").mkdir(parents=True)
    (path / "a.wav").write_bytes(wav())
    (path / "sub/b.wav").write_bytes(wav(0.3))
    (path / "labels.jsonl").write_text("".join(json.dumps(each) + "\n" for each in LIST))
    return path


def archive(folder, ending):
    path = folder.parent / f"set{ending}"
    with tarfile.open(path, "w:gz" if ending.endswith("gz") else "w") as file:
        for each in ("sub/b.wav", "labels.jsonl", "a.wav"):
            file.add(folder / each, each)
    return path


@pytest.mark.parametrize("ending", ["", ".tar", ".tar.gz", ".tgz"])
def test_folders_and_archives_are_the_same_set(folder, ending):
    """Guards against order of the archive instead of the list, a label 0 taken for none, and rates mixed up."""
    found = list(rows(archive(folder, ending) if ending else folder))
    assert [(each.text, each.speaker, each.split, len(each.samples)) for each in found] == [
        ("0", "ann", "train", 3_200),
        ("7", "ben", "dev", 4_800),
    ]
    assert [each.text for each in rows(folder, split="dev")] == ["7"]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_lists(folder, ending):
    """Guards against one kind of list with columns of its own, and against Chinese read as something else."""
    path = folder / f"list{ending}"
    mark = "\t" if ending == ".tsv" else ","
    row = {"audio": "a.wav", "text": "广州市"}
    path.write_text(
        json.dumps(row) if ending == ".jsonl" else f"audio{mark}text\na.wav{mark}广州市\n", encoding="utf-8"
    )
    assert [each.text for each in rows(path)] == ["广州市"]
    assert [each.text for each in rows(path, text="audio")] == ["a.wav"]


def test_bad_rows_are_counted(folder):
    """Guards against rows that vanish, one bad clip that ends everything, and names that lead out of the set."""
    (folder / "broken.wav").write_bytes(wav()[:200])
    (folder.parent / "secret.wav").write_bytes(wav())
    bad = [{"file": name, "text": "x"} for name in ("none.wav", "broken.wav", "../secret.wav", "/etc/hostname")]
    bad += [{"file": "a.wav"}, {"text": "x"}]
    listed = folder / "labels.jsonl"
    listed.write_text(listed.read_text() + "".join(json.dumps(each) + "\n" for each in bad))
    tally = Tally()
    assert len(list(rows(folder, tally=tally))) == 2
    assert (tally.read, tally.kept, sum(tally.dropped.values())) == (8, 2, 6)
    assert tally.dropped["no such file in the set"] == 3
    listed.write_text(json.dumps(bad[0]))
    with pytest.raises(DataError, match="no utterance to read; 1 x no such file in the set"):
        list(rows(folder))


def test_sets_that_are_none(folder):
    """Guards against tracebacks of tarfile, and lists that are half read."""
    (folder.parent / "x.tar").write_bytes(b"no tar")
    with pytest.raises(DataError, match="not a readable archive"):
        list(rows(folder.parent / "x.tar"))
    with tarfile.open(folder.parent / "y.tar", "w") as file:
        file.add(folder / "a.wav", "a.wav")
    with pytest.raises(DataError, match=r"no labels\.jsonl in it"):
        list(rows(folder.parent / "y.tar"))
    (folder / "labels.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match=r"labels\.jsonl:1: not a JSON object"):
        list(rows(folder))
    with pytest.raises(DataError, match="no such file"):
        list(rows(folder / "none.jsonl"))


class TestAugment:
    """The same seed and step, the same change; and never more than was asked for."""

    CHOICE = Augment(time_masks=2, time_width=10, feature_masks=2, feature_width=6)

    def source(self):
        values = torch.randn(3, 60, 20, generator=torch.Generator().manual_seed(0))
        segments = torch.ones(3, 60, dtype=torch.long)
        segments[1, 30:] = 0
        return Frames(values=values, layout=Layout.of(segments))

    def test_masks_are_a_function_of_seed_and_step(self):
        """Guards against a global random state, and a share of the batch masked otherwise than the whole."""
        one = augment.masked(self.source(), self.CHOICE, seed=1, step=5)
        again = augment.masked(self.source(), self.CHOICE, seed=1, step=5)
        assert torch.equal(one.values, again.values)
        for seed, step in ((1, 6), (2, 5)):
            assert not torch.equal(one.values, augment.masked(self.source(), self.CHOICE, seed=seed, step=step).values)
        part = Frames(values=self.source().values[2:])
        assert torch.equal(augment.masked(part, self.CHOICE, seed=1, step=5, first=2).values, one.values[2:])

    def test_masks_keep_to_their_widths(self):
        """Guards against masks wider than asked for, padding written to, and the given frames changed."""
        source = self.source()
        before = source.values.clone()
        for step in range(40):
            changed = augment.masked(source, self.CHOICE, seed=0, step=step).values != before
            assert not changed[1, 30:].any()
            times, bands = changed.all(2), changed[:, :30].all(1)
            assert int(times.sum(1).max()) <= 20
            assert int(times[1].sum()) <= 2 * int(0.2 * 30)
            assert int(bands.sum(1).max()) <= 12
        assert torch.equal(source.values, before)

    def test_nothing_asked_nothing_changed(self):
        source = self.source()
        assert augment.masked(source, Augment(), seed=0, step=0) is source
        samples = np.ones(100, np.float32)
        assert augment.sound(samples, Augment(), seed=0, step=0, row=0) is samples

    def test_speed_and_noise(self):
        """Guards against slow for fast, and decibels of amplitude for those of power."""
        pytest.importorskip("soxr")
        t = np.arange(RATE) / RATE
        samples = np.sin(2 * np.pi * 300 * t).astype(np.float32)
        fast = augment.faster(samples, 1.25)
        assert len(fast) == 12_800
        assert np.abs(np.fft.rfft(fast[:8_000])).argmax() * 2 == pytest.approx(375, abs=2)
        noise = augment.noisy(samples, 10.0, np.random.default_rng(0)) - samples
        assert np.mean(noise**2) == pytest.approx(0.05, rel=0.05)
        choice = Augment(speeds=(0.9, 1.1), filter_db=6, level_db=6, noise_db=(20.0,))
        one, two = (augment.sound(samples, choice, seed=0, step=3, row=2) for _ in range(2))
        np.testing.assert_array_equal(one, two)
        with pytest.raises((ConfigError, ValueError), match="speed 5 is not between"):
            Augment(speeds=(5.0,))

    def test_filter_and_level(self):
        """Guards against a filter that moves the sound, has jumps, or goes beyond its decibels, and levels of power."""
        draws = np.random.default_rng(0)
        samples = draws.normal(0.0, 0.1, RATE + 1).astype(np.float32)
        for _ in range(20):
            found = augment.filtered(samples, 12.0, draws)
            assert found.dtype == np.float32
            assert len(found) == len(samples)
            gains_db = 20 * np.log10(np.abs(np.fft.rfft(found) / np.fft.rfft(samples)))
            assert np.abs(gains_db).max() <= 12.01
            assert gains_db.max() - gains_db.min() > 1
            assert np.abs(np.diff(gains_db)[20:]).max() < 0.5  # a hertz apart
        levels = [
            np.sqrt(np.square(augment.sound(samples, Augment(level_db=20), seed=0, step=step, row=0)).mean() / 0.01)
            for step in range(40)
        ]
        assert 0.1 * 0.98 < min(levels) < 0.3
        assert 3 < max(levels) < 10 * 1.02

    def test_what_changes_the_samples(self):
        """Guards against a change that is left out because the samples were not kept."""
        samples = np.ones(RATE, np.float32)
        assert not Augment(time_masks=2, feature_masks=2).changes_samples
        for each in ({"speeds": (1.1,)}, {"filter_db": 1}, {"level_db": 1}, {"noise_db": (1.0,)}):
            assert Augment(**each).changes_samples
            assert augment.sound(samples, Augment(**each), seed=0, step=0, row=0) is not samples
