"""A disk that is full, at any write of `prepare`: one line, nothing lost, and the same command goes on."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from corpora import chinese, content, english, prepare, write

from hanlin import cli
from hanlin.data.pipeline import parts
from hanlin.errors import RunError

ALL = {"anonymize": "pseudonyms", "vault": "vault.json", "salt": "salt", "against": ("exam.jsonl",), "near": 0.8}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a corpus in several parts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts.cut, "__defaults__", (8000,))
    write(tmp_path / "in" / "en.jsonl", [f"{english(n)} ann@corp-mail.org" for n in range(30)])
    write(tmp_path / "in" / "zh.jsonl", [chinese(n) for n in range(30)])
    write(tmp_path / "exam.jsonl", [english(3)])
    Path("salt").write_bytes(b"0123456789abcdef")
    return tmp_path


@pytest.fixture
def disk(monkeypatch):
    """Return a disk with room for so many files; None is endless."""
    room = {"left": None, "used": 0}
    real = os.fsync

    def fsync(file):
        room["used"] += 1
        if room["left"] is not None:
            room["left"] -= 1
            if room["left"] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    return room


def test_full_at_any_write(folder, disk):
    """Guards against a traceback, a half-written folder, an empty vault, and work that is lost or done twice."""
    prepare("one", **ALL)
    kept, needed = Path("vault.json").read_bytes(), disk["used"]
    assert needed > 30
    for left in (
        0,
        needed // 3,
        2 * needed // 3,
        needed - 12,
        needed - 2,
    ):  # the very last says that the folder is there
        Path("vault.json").unlink(missing_ok=True)
        disk["left"] = left
        with pytest.raises(RunError) as caught:
            prepare("two", **ALL)
        assert len(caught.value.problems) == 1
        assert "no space left on the disk" in str(caught.value)
        assert not Path("two").exists()
        assert not [path for path in Path(".two.work").rglob("*") if "partial" in path.name]
        disk["left"] = None
        prepare("two", **ALL)
        assert content("one") == content("two")
        assert Path("vault.json").read_bytes() == kept
        shutil.rmtree("two")


def test_a_write_into_a_full_device_is_one_line(folder, monkeypatch, capsys):
    """Guards against a refusal in the middle of a packed file, which comes when its buffer is flushed."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    real = Path.open

    def full(self, mode="r", *given, **named):
        return real(Path("/dev/full") if "texts-" in self.name and "w" in mode else self, mode, *given, **named)

    monkeypatch.setattr(Path, "open", full)
    assert cli.run(["prepare", "in", "--output", "out", "--kind", "bytes"]) == 1
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert "no space left on the disk" in said
    assert said.count("\n") == 1
    os.chdir(folder)
    assert cli.run(["prepare", "in", "--output", "out", "--kind", "bytes"]) == 0


def test_the_old_folder_stays_when_the_new_one_does_not_fit(folder, disk):
    """Guards against shards that are gone before their successors are there."""
    prepare("out")
    before = content("out")
    needed = disk["used"]
    disk["left"] = needed - 3
    with pytest.raises(RunError):
        prepare("out", seed=1)
    assert content("out") == before
