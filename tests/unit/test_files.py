"""Old or new, never half: every write is interrupted at every call it makes; names never lead out of their folder."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from folders import in_time
from safetensors import SafetensorError

from hanlin import files
from hanlin.config import read_json
from hanlin.errors import ConfigError, DataError, RunError

CALLS = ("open", "fsync", "replace", "rename", "mkdir")  # of os; what a write asks the system to do


OLD, NEW = ({"x/a": text, "x/deep/b": text} for text in (b"old", b"new"))
KILLED = """
import os, sys
from pathlib import Path
from hanlin import files

calls = 0

def dying(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os._exit(9)
        return real(*args, **kwargs)
    return call

for name in ("rename", "rmdir", "unlink"):
    setattr(os, name, dying(getattr(os, name)))
with files.filling(Path(sys.argv[1])) as partial:
    (partial / "a").write_text("new")
    (partial / "deep").mkdir()
    (partial / "deep" / "b").write_text("new")
"""


class Breaks:
    """Counts calls of the given functions of `os` and lets the one numbered `at` fail."""

    def __init__(self, monkeypatch, names, at, code=errno.ENOSPC):
        self.count = 0
        for name in names:
            monkeypatch.setattr(os, name, self._breaking(getattr(os, name), at, code))

    def _breaking(self, real, at, code):
        def call(*args, **kwargs):
            self.count += 1
            if self.count == at:
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        return call


def tree(folder):
    """Return every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(folder, text):
    with files.filling(folder) as partial:
        (partial / "a").write_text(text)
        (partial / "deep").mkdir()
        (partial / "deep" / "b").write_text(text)


class TestWrite:
    """One file."""

    def test_replaces_and_makes_folders(self, tmp_path):
        files.write(tmp_path / "x" / "y.txt", b"one")
        files.write(tmp_path / "x" / "y.txt", b"two")
        assert tree(tmp_path) == {"x/y.txt": b"two"}

    def test_failing_anywhere_leaves_old_or_new(self, tmp_path, monkeypatch):
        """A file truncated before it is filled, a temporary file left behind, an error without its line."""
        for at in count(1):
            files.write(tmp_path / "y.txt", b"old")
            with monkeypatch.context() as patch:
                breaks = Breaks(patch, CALLS, at)
                try:
                    files.write(tmp_path / "y.txt", b"new")
                    allowed = [b"new"]
                except RunError as error:
                    assert str(error).startswith(f"{tmp_path / 'y.txt'}: cannot be written: no space left")  # noqa: PT017
                    allowed = [b"old", b"new"]
            assert tree(tmp_path) in [{"y.txt": content} for content in allowed]
            if breaks.count < at:
                break
        assert at > 4

    @pytest.mark.parametrize("make", ["a file for a folder", "a folder for a file"])
    def test_something_in_the_way_is_one_line(self, tmp_path, make):
        """A traceback from the system instead of a line that names the path."""
        (tmp_path / "x").write_text("here")
        target = tmp_path / "x" / "y.txt"
        if make == "a folder for a file":
            target = tmp_path / "z"
            (target / "full").mkdir(parents=True)
        with pytest.raises(RunError, match="cannot be written") as caught:
            files.write(target, b"new")
        assert len(caught.value.problems) == 1
        assert (tmp_path / "x").read_text() == "here"

    def test_json_is_strict(self, tmp_path):
        """NaN written into JSON, which other readers refuse; the old file lost on the way."""
        files.write_json(tmp_path / "x.json", {"a": "翰林"})
        with pytest.raises(ValueError, match="Out of range float"):
            files.write_json(tmp_path / "x.json", {"a": float("nan")})
        assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"a": "翰林"}


class TestFilling:
    """A folder."""

    def test_takes_the_place_of_the_old_one(self, tmp_path):
        fill(tmp_path / "x", "one")
        (tmp_path / "x" / "stale").write_text("old")
        fill(tmp_path / "x", "two")
        assert tree(tmp_path) == {"x/a": b"two", "x/deep/b": b"two"}

    def test_a_failing_body_changes_nothing(self, tmp_path):
        """A half-filled folder that looks finished, or an error of ours dressed as a full disk."""
        fill(tmp_path / "x", "one")

        def spoil():
            with files.filling(tmp_path / "x") as partial:
                (partial / "a").write_text("two")
                raise DataError("no good")

        with pytest.raises(DataError, match="no good"):
            spoil()
        assert tree(tmp_path) == {"x/a": b"one", "x/deep/b": b"one"}

    @pytest.mark.parametrize("old", [True, False])
    def test_failing_anywhere_leaves_old_or_new(self, tmp_path, monkeypatch, old):
        """The old folder moved away when the new one cannot take its place."""
        for at in count(1):
            here = tmp_path / str(at)
            here.mkdir()
            if old:
                fill(here / "x", "old")
            before = tree(here)
            with monkeypatch.context() as patch:
                breaks = Breaks(patch, CALLS, at)
                try:
                    fill(here / "x", "new")
                    allowed = [NEW]
                except RunError:
                    allowed = [before, NEW]
            assert not old or (here / "x" / "a").exists()  # after an error at once, after a kill by sweep
            files.sweep(here)
            assert tree(here) in allowed
            if breaks.count < at:
                break
        assert at > 10

    def test_killed_anywhere_leaves_old_or_new(self, tmp_path):
        """Killed between moving the old folder away and the new one in: both swept away as unfinished."""
        for at in count(1):
            fill(tmp_path / "x", "old")
            ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x"), str(at)])
            files.sweep(tmp_path)
            assert tree(tmp_path) in ([OLD, NEW] if ended.returncode else [NEW])
            if ended.returncode == 0:
                break
        assert at > 4

    def test_a_full_disk_in_the_tensor_writer_is_a_full_disk(self, tmp_path):
        """The tensor writer reports the system's refusals as errors of its own, which passed as tracebacks."""
        with pytest.raises(RunError, match="no space left on the disk"), files.filling(tmp_path / "x"):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        with pytest.raises(SafetensorError, match="header"), files.filling(tmp_path / "x"):
            raise SafetensorError("Error while deserializing header: header too large")
        assert tree(tmp_path) == {}

    def test_others_may_read_what_the_umask_lets_them(self, tmp_path):
        """Weights that their owner alone may read, and a server of another user cannot open."""
        with files.filling(tmp_path / "x") as partial:
            (partial / "a").write_text("one")
            (partial / "a").chmod(0o600)
        (tmp_path / "plain").write_text("one")
        assert stat.S_IMODE((tmp_path / "x" / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)

    def test_sweep_removes_unfinished_work_only(self, tmp_path):
        """Work of a killed process that stays for ever, or finished work swept with it; links are not followed."""
        fill(tmp_path / "x", "one")
        (tmp_path / f"{files.PARTIAL}7-x" / "deep").mkdir(parents=True)
        (tmp_path / f"{files.PARTIAL}7-y.json").write_text("{")
        (tmp_path / f"{files.PARTIAL}link").symlink_to(tmp_path / "x")
        files.sweep(tmp_path)
        assert tree(tmp_path) == {"x/a": b"one", "x/deep/b": b"one"}
        assert [path.name for path in tmp_path.iterdir()] == ["x"]

    def test_discard(self, tmp_path):
        fill(tmp_path / "x", "one")
        files.discard(tmp_path / "x")
        files.discard(tmp_path / "x")
        assert list(tmp_path.iterdir()) == []


@pytest.fixture(autouse=True)
def never_waits():
    with in_time(10):
        yield


@pytest.fixture
def folder(tmp_path):
    """A folder `in` with one file, and a secret beside it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("ours")
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "sub" / "b").write_text("ours")
    (tmp_path / "secret").write_text("theirs")
    return tmp_path / "in"


class TestInside:
    """Names that come from a file someone else wrote."""

    def test_what_is_inside(self, folder):
        (folder / "link").symlink_to("sub/b")
        assert files.inside(folder, "a") == folder / "a"
        assert files.inside(folder, "sub/b") == folder / "sub" / "b"
        assert files.inside(folder, "link") == folder / "link"

    def test_what_is_not(self, folder):
        """A path out of the folder, or a name that the system chokes on with a traceback."""
        ways_out = ["..", "../secret", "sub/../../secret", "/etc/passwd", "//etc/passwd", "~/a"]
        no_files = ["", ".", "sub", "nothing", "sub/../a", "./a", "a/", "sub//b"]
        chokes = ["a\0b", "a" * 300, "x/" * 3000 + "a", "\ud800"]
        for name in [*ways_out, *no_files, *chokes]:
            assert files.inside(folder, name) is None, name[:50]

    def test_links_out_loops_and_pipes(self, folder):
        """Reading through a link, for ever round a loop, or for ever from a pipe."""
        (folder / "out").symlink_to(folder.parent / "secret")
        (folder / "up").symlink_to(folder.parent)
        (folder / "loop").symlink_to("loop")
        os.mkfifo(folder / "pipe")
        for name in ("out", "up/secret", "loop", "loop/a", "pipe"):
            assert files.inside(folder, name) is None, name

    def test_the_hub_cache_links_to_its_blobs(self, tmp_path):
        """A downloaded model refused because the hub's cache keeps its files elsewhere; other ways out stay shut."""
        snapshot, blobs = tmp_path / "models--x" / "snapshots" / "abc", tmp_path / "models--x" / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        (blobs / "1f").write_text("weights")
        (tmp_path / "secret").write_text("theirs")
        (snapshot / "model.safetensors").symlink_to("../../blobs/1f")
        (snapshot / "bad").symlink_to("../../../secret")
        assert files.inside(snapshot, "model.safetensors") == snapshot / "model.safetensors"
        assert files.inside(snapshot, "bad") is None


class TestReadJson:
    """The one reader of JSON files."""

    def test_what_is_not_an_object_is_one_line(self, tmp_path):
        """A crash of the parser on hostile depth or digits."""
        broken = [b"", b"\0" * 100, b"{", b"[1]", b"3", b"null", b"\xff{}", b'{"a": 1' + b"0" * 5000 + b"}"]
        deep = [b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000]
        for content in [*broken, *deep]:
            (tmp_path / "x.json").write_bytes(content)
            with pytest.raises(ConfigError, match=r"x\.json: ") as caught:
                read_json(tmp_path / "x.json")
            assert len(caught.value.problems) == 1

    def test_what_is_not_a_file_is_one_line(self, tmp_path):
        """Waiting for ever at a pipe."""
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "loop").symlink_to("loop")
        for name in ("pipe", "loop", ".", "nothing", "nothing/x"):
            with pytest.raises(ConfigError):
                read_json(tmp_path / name)

    def test_size_is_bounded(self, tmp_path):
        (tmp_path / "x.json").write_text("{" + " " * 100 + "}")
        with pytest.raises(ConfigError, match="102 bytes; at most 50"):
            read_json(tmp_path / "x.json", limit=50)


def test_no_path_of_this_machine(tmp_path):
    """The error names the file asked for, not the temporary one."""
    with pytest.raises(RunError) as caught:
        files.write(Path("/proc/nothing/here"), b"")
    assert "partial" not in str(caught.value)
