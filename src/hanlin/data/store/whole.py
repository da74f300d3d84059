"""A folder that replaces an earlier one whole or not at all, and never what somebody else put there."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hanlin import files
from hanlin.errors import DataError, problem

DAY_S = 86_400


@contextmanager
def replacing(folder: Path, ours: Callable[[Path], set[str]]) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` at the end; whatever fails, `folder` stays as it was.

    `ours` returns the names of the files we wrote into an existing folder, or raises DataError when it is not our
    work. DataError when `folder` holds anything else, RunError when the disk refuses.
    """
    with files.explained(folder):
        _sweep(folder)
        _check(folder, ours)
    with files.filling(folder) as partial:
        yield partial
        _check(folder, ours)


def _check(folder: Path, ours: Callable[[Path], set[str]]) -> None:
    """Refuse to replace anything but an empty folder or one that holds only our files."""
    if not folder.exists():
        return
    allowed, do = "only Hanlin's own work is replaced", "choose another output, or move it away"
    if not folder.is_dir():
        raise DataError(problem(str(folder), "is not a folder", do=do))
    names = {path.name for path in folder.iterdir()}
    try:
        foreign = sorted(names - ours(folder)) if names else []
    except DataError as error:
        raise DataError(problem(str(folder), "is not empty", allowed, do=do), *error.problems) from None
    if foreign:
        given = f"holds {', '.join(foreign[:3])}, which Hanlin did not write"
        raise DataError(problem(str(folder), given, allowed, do=do))


def _sweep(folder: Path) -> None:
    """Put back or remove what killed runs left beside `folder`; a living one makes a file at least once a day."""
    old = folder.with_name(f"{files.OLD}{folder.name}")
    if old.exists() and not folder.exists():
        old.rename(folder)
    left = re.compile(re.escape(files.PARTIAL) + r"(\d+|old)-" + re.escape(folder.name))
    for path in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if left.fullmatch(path.name) and time.time() - path.lstat().st_mtime > DAY_S:
            shutil.rmtree(path, ignore_errors=True)
