"""The folder of work under way: claimed by one process, kept for the same question, emptied for another."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hanlin import files
from hanlin.config import read_json
from hanlin.errors import RunError, problem


@contextmanager
def claimed(output: Path) -> Iterator[Path]:
    """Yield the folder beside `output` in which to work, removed at the end unless something went wrong.

    RunError while another process works there, or when it cannot be made.
    """
    folder = output.parent / f".{output.name}.work"
    with files.explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may hold what is to be hidden
    try:
        with FileLock(folder / "lock", timeout=0):
            yield folder
    except Timeout:
        do = "wait for it, or choose another output"
        raise RunError(problem(str(output), "another process is preparing it", do=do)) from None
    shutil.rmtree(folder, ignore_errors=True)


def begin(folder: Path, asked: Sequence[object]) -> None:
    """Keep what an earlier run did to answer the same question, and nothing else; `asked` is plain data."""
    state = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    known = folder / "state.json"
    if known.exists() and read_json(known).get("asked") == state:
        return
    for each in folder.iterdir():
        if each.name != "lock":
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    files.write_json(known, {"asked": state})
