"""Writing files so that a crash at any instant leaves the old or the new, never half of either.

write("x.json", bytes)                   temporary sibling, fsync, rename, fsync of the folder
with filling(folder) as partial: ...     the same for a whole folder, which appears at the end or not at all
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from hanlin.errors import RunError, problem

PARTIAL = ".partial-"  # a name that begins so is unfinished work; whoever finds it may sweep it away
OLD = f"{PARTIAL}old-"  # a folder being replaced: swept back to its name when the new one never came


def write(path: Path, content: bytes) -> None:
    """Replace a file by `content`, atomically and durably; RunError when the disk is full or read-only."""
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_json(path: Path, data: Any) -> None:  # noqa: ANN401  # anything JSON can hold
    """Replace a file by JSON, atomically."""
    write(path, (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def matched(path: str | Path) -> list[str]:
    """Return what a path names, in order: itself where it is there, else what `*`, `?` and `[…]` in it stand for."""
    return [str(path)] if os.path.lexists(path) else sorted(glob.glob(str(path)))


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it takes the place of `folder`, on any failure it is removed."""
    partial = folder.with_name(f"{PARTIAL}{os.getpid()}-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with explained(folder):
            partial.mkdir(parents=True)
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    file.chmod(partial.stat().st_mode & 0o666)  # safetensors makes its files private, against the umask
                sync_file(file)
            sync_folder(partial)
            _replace(folder, partial)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(folder: Path, new: Path) -> None:
    """Give `new` the name of `folder`; the old one keeps it when that fails, and gets it back by `sweep` after a crash.

    No system call exchanges two folders everywhere, so for an instant neither has the name.
    """
    if not folder.exists():
        os.rename(new, folder)
        return
    old = folder.with_name(f"{OLD}{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def scratch(folder: Path) -> Iterator[IO[bytes]]:
    """Yield a file in a folder that has no name and ends with its last user; RunError when the disk is full."""
    with explained(folder), tempfile.TemporaryFile(dir=folder) as file:
        yield file


def discard(folder: Path) -> None:
    """Remove a folder so that a crash half-way leaves an unfinished name, not a damaged folder."""
    if not folder.exists():
        return
    doomed = folder.with_name(f"{PARTIAL}{os.getpid()}-{folder.name}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Undo unfinished work that an earlier crash left directly inside `folder`: replaced folders come back."""
    for path in folder.glob(f"{OLD}*"):
        name = folder / path.name.removeprefix(OLD)
        if not name.exists():
            os.rename(path, name)
    for path in folder.glob(f"{PARTIAL}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def explained(path: Path, do: str = "nothing half-written was left") -> Iterator[None]:
    """Turn the disk's refusals (full, read-only, not permitted) into one RunError line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = _code(error)
        if code is None:
            raise
        known = {
            errno.ENOSPC: "no space left on the disk",
            errno.EDQUOT: "disk quota exceeded",
            errno.EROFS: "read-only file system",
            errno.EACCES: "permission denied",
            errno.EPERM: "not permitted",
            errno.EIO: "input/output error",
            errno.ENOTDIR: "a file stands where a folder is needed",
            errno.EEXIST: "a file stands where a folder is needed",
        }
        reason = known.get(code, os.strerror(code))
        raise RunError(problem(str(path), f"cannot be written: {reason}", do=do)) from None


def _code(error: Exception) -> int | None:
    """Return the system's error number; safetensors wraps the system's refusals and leaves it in the text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    if path.is_file():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a folder's names durable, where the system can (Windows cannot open folders)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(folder: Path, name: str) -> Path | None:
    """Return the regular file `name` below `folder`, or None when the name leads out of it or to no regular file.

    Links may not lead out either, but for the hub's cache, where a snapshot's files are links to `../../blobs`.
    """
    if not name or name != os.path.normpath(name) or os.path.isabs(name) or name.startswith("..") or "\0" in name:
        return None
    roots = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        roots.append(folder.resolve().parent.parent / "blobs")
    try:
        target = (folder / name).resolve()
        found = any(target.is_relative_to(root) for root in roots) and target.is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, links in a loop, half a character
        return None
    return folder / name if found else None
