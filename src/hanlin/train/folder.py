"""The folder of a run: one writer at a time, one recipe for good.

runs/x/  run.json        the recipe as it was asked for
recipe.yaml     the recipe as it was resolved: minutes became steps
data/           shards, where the run made them itself
checkpoints/  metrics.jsonl  timing.jsonl  loss.png  README.md   and the bundle

folder is absent or empty -> begin      same recipe -> go on      another recipe, or not a run -> refuse
A run that failed before its first step, for a typo in its recipe, gives way to the next.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hanlin import files
from hanlin.config import read_json, read_yaml, write_yaml
from hanlin.errors import RunError, problem
from hanlin.train.recipe import Recipe, build, differences, plain

LOCK, ASKED, RESOLVED = ".lock", "run.json", "recipe.yaml"
SHOWN = 5  # differing values named in a refusal


@contextmanager
def claimed(folder: Path, recipe: Recipe, *, fresh: bool = False) -> Iterator[None]:
    """Hold the folder for this recipe; RunError when another process, another recipe or other files have it.

    `fresh` empties a folder that is a run's; it never touches one that is not.
    """
    with files.explained(folder):
        _check_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        with files.explained(folder):
            lock.acquire(timeout=0)
    except Timeout:
        raise RunError(problem(str(folder), "another run is at work here", do="wait for it, or stop it")) from None
    try:
        files.sweep(folder)
        asked = _comparable(plain(recipe))
        if fresh or _unbegun(folder, asked):
            _empty(folder)
        if (folder / ASKED).exists():
            _check_same(folder, asked)
        else:
            files.write_json(folder / ASKED, {"schema": 1, "asked": asked})
        yield
    finally:
        lock.release()


def resolved(folder: Path) -> Recipe | None:
    """Return the recipe that an earlier start of this run resolved, if there was one."""
    path = folder / RESOLVED
    return build(read_yaml(path.read_text(encoding="utf-8"), str(path))) if path.exists() else None


def keep(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe."""
    head = "# The recipe of this run with every number filled in; `hanlin train` takes it as it is.\n"
    files.write(folder / RESOLVED, (head + write_yaml(plain(recipe))).encode())


def fingerprint(recipe: Recipe, data: str) -> str:
    """Return a hash of what makes a checkpoint belong to this run: the resolved recipe and the data's hash."""
    text = json.dumps([_comparable(plain(recipe)), data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_run(folder: Path) -> bool:
    """Return whether the folder holds a run."""
    return (folder / ASKED).is_file()


def _check_foreign(folder: Path) -> None:
    """Refuse a file, and a folder with anything in it that no run put there."""
    if folder.exists() and not folder.is_dir():
        raise RunError(problem(str(folder), "a file stands there", do="choose another --output"))
    if folder.is_dir() and not is_run(folder):
        others = sorted({path.name for path in folder.iterdir() if not path.name.startswith(files.PARTIAL)} - {LOCK})
        if others:
            given = f"holds '{others[0]}' and no run"
            raise RunError(problem(str(folder), given, do="choose another --output, or empty it yourself"))


def _empty(folder: Path) -> None:
    """Remove everything but the lock; run.json last, so that an interrupted emptying is still a run's folder."""
    for path in sorted(folder.iterdir(), key=lambda each: each.name == ASKED):
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _unbegun(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Return whether another recipe's run failed here before its plan was resolved, and left nothing but data."""
    if not is_run(folder) or any(folder.glob("checkpoints/*")):
        return False
    left = {path.name for path in folder.iterdir()} - {LOCK, ASKED, "data", "tensorboard", "checkpoints"}
    return not left and read_json(folder / ASKED).get("asked") != asked


def _comparable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain recipe without what does not change the result."""
    return {key: value for key, value in recipe.items() if key != "output"}


def _check_same(folder: Path, asked: Mapping[str, Any]) -> None:
    """Refuse when the folder's run was asked for with another recipe, naming what differs."""
    before = read_json(folder / ASKED).get("asked", {})
    known = resolved(folder)
    if asked == before or (known is not None and asked == _comparable(plain(known))):
        return
    found = differences(before, asked)
    lines = [problem(str(folder), "holds a run of another recipe", do="choose another --output, or --fresh")]
    lines += [problem(str(folder), line) for line in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(problem(str(folder), f"and {len(found) - SHOWN} more differences"))
    raise RunError(*lines)
