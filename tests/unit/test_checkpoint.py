"""Training state: whole or not at all, checked when read, and never silently begun again."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from itertools import count

import pytest
import torch
from safetensors.torch import save_file

from hanlin import files
from hanlin.checkpoint import Checkpoints, State
from hanlin.errors import CheckpointError, RunError
from hanlin.train.loop import Progress

PARTS = ("state.json", "model.safetensors", "optimizer.safetensors")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Do not wait for the disk: no test here pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def state(step):
    """Return a state whose every number depends on the step."""
    return State(
        step=step,
        model={"w": torch.full((3, 2), float(step)), "b": torch.full((1,), 0.1 * step)},
        optimizer={"w#exp_avg": torch.full((3, 2), step + 0.5), "w#step": torch.tensor(float(step))},
        facts={"step": step, "best": 1.0 / (step + 3), "note": "翰林", "none": None},
    )


def equal(one, two):
    """Return whether two states are the same, bit for bit."""
    tensors = all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)
        for a, b in ((one.model, two.model), (one.optimizer, two.optimizer))
    )
    return tensors and (one.step, dict(one.facts)) == (two.step, dict(two.facts))


def kept(folder, *, keep=2):
    """Return checkpoints over a folder, and the list that takes what they say."""
    said = []
    return Checkpoints(folder, keep=keep, say=said.append), said


@pytest.fixture
def three(tmp_path):
    """A folder with the checkpoints of steps 10, 20 and 30."""
    checkpoints, _ = kept(tmp_path / "c", keep=3)
    for step in (10, 20, 30):
        checkpoints.save(state(step), best=None)
    return tmp_path / "c"


def damage(path, kind):
    """Damage a file as disks, copies and crashes do."""
    whole = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zeroed":
        path.write_bytes(b"\0" * len(whole))
    elif kind == "longer":
        path.write_bytes(whole + b" 0")
    elif kind == "missing":
        path.unlink()
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"w": 1}))
    else:
        at = len(whole) // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])


class TestSaving:
    """What is there after a save."""

    def test_comes_back_bitwise(self, tmp_path):
        """A number rounded on the way, or a type changed."""
        checkpoints, said = kept(tmp_path)
        strange = State(
            step=7,
            model={
                "w": torch.tensor([float("nan"), -0.0, 1e-45]),
                "h": torch.randn(5).bfloat16(),
                "n": torch.arange(3),
            },
            optimizer={},
            facts={"best": 0.1 + 0.2, "belongs": "x"},
        )
        checkpoints.save(strange, best=None)
        found = checkpoints.latest()
        assert all(
            found.model[n].numpy(force=True).tobytes() == strange.model[n].numpy(force=True).tobytes() for n in "wn"
        )
        assert torch.equal(found.model["h"], strange.model["h"])
        assert (found.optimizer, found.facts, found.step, said) == ({}, strange.facts, 7, [])

    def test_tensors_that_share_memory_or_stride(self, tmp_path):
        """Views and transposes: refused by the file format, or written in the wrong order."""
        checkpoints, _ = kept(tmp_path)
        base = torch.arange(12.0).view(3, 4)
        checkpoints.save(State(step=1, model={"a": base, "t": base.t()}, optimizer={}, facts={}), best=None)
        found = checkpoints.latest().model
        assert torch.equal(found["a"], base)
        assert torch.equal(found["t"], base.t())

    def test_the_loops_progress_comes_back(self, tmp_path):
        """Early stopping or the guard's count begun again after a resume."""
        from dataclasses import asdict

        progress = Progress(step=9, bad=2, best=1.2345678901234567, best_step=6, waited=3, belongs="abc")
        checkpoints, _ = kept(tmp_path)
        checkpoints.save(State(step=9, model={}, optimizer={}, facts=asdict(progress)), best=6)
        assert Progress(**checkpoints.latest().facts) == progress

    def test_the_last_few_and_the_best_stay(self, tmp_path):
        """The best deleted with the old, a former best kept for ever, the newest deleted."""
        checkpoints, _ = kept(tmp_path, keep=2)
        seen = []
        for step, best in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4), (6, 4), (7, 4), (8, None)):
            checkpoints.save(state(step), best=best)
            seen.append(checkpoints.steps())
        assert seen == [[1], [1, 2], [1, 2, 3], [3, 4], [4, 5], [4, 5, 6], [4, 6, 7], [7, 8]]
        assert equal(checkpoints.latest(), state(8))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["000007", "000008"]

    def test_steps_are_numbers_not_words(self, tmp_path):
        """The newest by name, which is not the newest by number once steps have seven digits."""
        checkpoints, _ = kept(tmp_path, keep=3)
        for step in (999_998, 999_999, 1_000_000, 1_000_001):
            checkpoints.save(state(step), best=None)
        assert checkpoints.steps() == [999_999, 1_000_000, 1_000_001]
        assert checkpoints.latest().step == 1_000_001

    def test_saving_a_step_again_replaces_it(self, three):
        """After a fall-back the same step comes by again, and its folder is in the way."""
        damage(three / "000030" / "state.json", "truncated")
        checkpoints, said = kept(three, keep=3)
        assert checkpoints.latest().step == 20
        checkpoints.save(state(30), best=None)
        said.clear()
        assert equal(checkpoints.latest(), state(30))
        assert said == []


class TestDamaged:
    """What happens when the newest is not whole."""

    @pytest.mark.parametrize(
        "kind", ["truncated", "empty", "zeroed", "longer", "missing", "flipped", "a folder", "pickle"]
    )
    @pytest.mark.parametrize("part", PARTS)
    def test_the_one_before_is_used_and_the_damage_named(self, three, part, kind):
        """Going on from rubbish, from step 0, or without a word."""
        damage(three / "000030" / part, kind)
        checkpoints, said = kept(three)
        assert equal(checkpoints.latest(), state(20))
        assert len(said) == 1
        assert str(three / "000030" / part) in said[0]
        assert said[0].endswith("going on from step 20")
        with pytest.raises(CheckpointError, match=part):
            checkpoints.read(30)

    def test_an_empty_folder_and_two_damaged_ones(self, three):
        (three / "000040").mkdir()
        damage(three / "000030" / "model.safetensors", "flipped")
        checkpoints, said = kept(three)
        assert equal(checkpoints.latest(), state(20))
        assert [("000040" in line, "000030" in line) for line in said] == [(True, False), (False, True)]

    def test_every_single_bit_of_the_state_matters(self, three):
        """A flipped digit in the counters, which no one would notice."""
        path = three / "000030" / "state.json"
        whole = path.read_bytes()
        checkpoints, _ = kept(three)
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
            with pytest.raises(CheckpointError):
                checkpoints.read(30)
        path.write_bytes(whole)
        assert equal(checkpoints.read(30), state(30))

    def test_all_damaged_is_an_error_with_every_line(self, three):
        """A run of days begun again at step 0 because its checkpoints could not be read."""
        for step, part in ((10, "state.json"), (20, "model.safetensors"), (30, "optimizer.safetensors")):
            damage(three / f"{step:06d}" / part, "flipped")
        checkpoints, _ = kept(three)
        with pytest.raises(CheckpointError) as caught:
            checkpoints.latest()
        assert len(caught.value.problems) == 4
        assert "--fresh" in caught.value.problems[-1]

    def test_none_is_none(self, tmp_path):
        checkpoints, said = kept(tmp_path / "new" / "deep")
        assert checkpoints.latest() is None
        assert said == []

    def test_files_of_two_checkpoints_mixed(self, three):
        """Weights of one step beside the optimizer of another, each file whole."""
        shutil.copy(three / "000020" / "model.safetensors", three / "000030" / "model.safetensors")
        checkpoints, said = kept(three)
        assert checkpoints.latest().step == 20
        assert "model.safetensors" in said[0]

    def test_a_folder_under_another_steps_name(self, three):
        """An old state taken for a new one because someone renamed its folder."""
        shutil.copytree(three / "000010", three / "000040")
        checkpoints, said = kept(three)
        assert checkpoints.latest().step == 30
        assert "000040" in said[0]

    def test_strangers_in_the_folder_are_left_alone(self, three):
        """A crash over a file that is not a checkpoint, or its deletion."""
        (three / "notes.txt").write_text("mine")
        (three / "²").mkdir()
        checkpoints, _ = kept(three, keep=1)
        checkpoints.save(state(40), best=None)
        assert checkpoints.latest().step == 40
        assert {path.name for path in three.iterdir()} == {"000040", "notes.txt", "²"}


class Killed(BaseException):
    """The process ends here."""


class TestInterrupted:
    """A save that does not get to its end."""

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), Killed()], ids=["full disk", "killed"])
    def test_the_newest_is_whole_whatever_call_fails(self, tmp_path, monkeypatch, error):
        """A save that counts before it is whole, or that drops old ones before it counts."""
        for at in count(1):
            folder = tmp_path / str(at)
            checkpoints, _ = kept(folder, keep=1)
            checkpoints.save(state(10), best=None)
            calls = 0

            def failing(real, at=at):
                def call(*args, **kwargs):
                    nonlocal calls
                    calls += 1
                    if calls == at:
                        raise error
                    return real(*args, **kwargs)

                return call

            with monkeypatch.context() as patch:
                for name in ("open", "rename", "replace", "fsync", "rmdir", "unlink", "mkdir"):
                    patch.setattr(os, name, failing(getattr(os, name)))
                try:
                    checkpoints.save(state(20), best=None)
                except (RunError, Killed) as caught:
                    assert not isinstance(caught, RunError) or len(caught.problems) == 1  # noqa: PT017
            again, said = kept(folder, keep=1)
            found = again.latest()
            assert equal(found, state(10)) or equal(found, state(20))
            assert said == []
            assert all(path.name.isdigit() for path in folder.iterdir())
            if calls < at:
                break
        assert at > 10

    def test_leftovers_are_swept(self, three):
        """Disks that fill with the halves of killed saves; and none of them counts as a checkpoint."""
        (three / f"{files.PARTIAL}77-000040").mkdir()
        save_file({"w": torch.ones(1)}, three / f"{files.PARTIAL}77-000040" / "model.safetensors")
        (three / f"{files.PARTIAL}77-x").write_text("half")
        checkpoints, said = kept(three)
        assert sorted(path.name for path in three.iterdir()) == ["000010", "000020", "000030"]
        assert checkpoints.latest().step == 30
        assert said == []

    def test_a_file_too_large_for_the_disk_is_one_line(self, tmp_path):
        """The tensor writer's own error, which passed as a traceback, in place of the full disk's."""
        resource = pytest.importorskip("resource")
        checkpoints, _ = kept(tmp_path)
        checkpoints.save(state(10), best=None)
        large = State(step=20, model={"w": torch.zeros(10_000)}, optimizer={}, facts={})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            with pytest.raises(RunError, match="cannot be written") as caught:
                checkpoints.save(large, best=None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(caught.value.problems) == 1
        assert equal(checkpoints.latest(), state(10))
        assert [path.name for path in tmp_path.iterdir()] == ["000010"]

    def test_a_file_where_the_folder_should_be(self, tmp_path):
        (tmp_path / "c").write_text("here")
        with pytest.raises(RunError, match="a file stands where a folder is needed"):
            kept(tmp_path / "c")
