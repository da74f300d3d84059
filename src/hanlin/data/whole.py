"""A folder that appears whole or not at all.

.data.1f2e3d4c.partial   filled here  ──── rename at the end ───>  data
.data.1f2e3d4c.old       what `data` was, for the moment between two renames; then removed
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hanlin.errors import DataError, problem

DAY_S = 86_400


@contextmanager
def replacing(folder: Path, ours: Callable[[Path], set[str]]) -> Iterator[Path]:
    """Yield a new folder that takes the place of `folder` at the end; whatever fails, `folder` stays as it was.

    `ours` returns the names of the files we wrote into an existing folder, or raises DataError when it is not our
    work. DataError in place of OSError: a full disk, a folder that holds anything else.
    """
    name = f".{folder.name}.{secrets.token_hex(4)}"
    partial, old = folder.with_name(f"{name}.partial"), folder.with_name(f"{name}.old")
    try:
        _check(folder, ours)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        partial.mkdir()
        yield partial
        _check(folder, ours)
        _swap(partial, folder, old)
    except OSError as error:
        do = "free some space, or choose another output"
        raise DataError(problem(str(folder), f"cannot be written: {error.strerror}", do=do)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(folder: Path, ours: Callable[[Path], set[str]]) -> None:
    """Refuse to replace anything but an empty folder or one that holds only our files."""
    if not folder.exists():
        return
    do = "choose another output, or move it away"
    if not folder.is_dir():
        raise DataError(problem(str(folder), "is not a folder", do=do))
    names = {path.name for path in folder.iterdir()}
    try:
        foreign = sorted(names - ours(folder)) if names else []
    except DataError as error:
        raise DataError(
            problem(str(folder), "is not empty", "only Hanlin's own work is replaced", do=do), *error.problems
        ) from None
    if foreign:
        given = f"holds {', '.join(foreign[:3])}, which Hanlin did not write"
        raise DataError(problem(str(folder), given, "only its own work is replaced", do=do))


def _swap(partial: Path, folder: Path, old: Path) -> None:
    """Give `partial` the name `folder`; what had it before is removed once that is done."""
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed runs left beside `folder`; a living one makes a file at least once a day."""
    left = re.compile(re.escape(f".{folder.name}.") + r"[0-9a-f]{8}\.(partial|old)")
    for path in folder.parent.iterdir():
        if left.fullmatch(path.name) and time.time() - path.lstat().st_mtime > DAY_S:
            shutil.rmtree(path, ignore_errors=True)
