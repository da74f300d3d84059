"""Data sets of the hub: their parquet files, of one commit, fetched one at a time and gone again once they are read.

hub:org/name[/folder][@revision] ─> the commit, its parquet files ─> Piece(path="hub:org/name@<commit>/file") …
here(piece) ─> fetched into the folder of work ─ read by pyarrow, a few rows in memory ─> removed
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hanlin import files, hub
from hanlin.data.documents import Piece
from hanlin.errors import HubError, problem

PREFIX = "hub:"
ENDING = ".parquet"


def pieces(source: str) -> Iterator[Piece]:
    """Yield the parquet files of a data set in the order of their names; HubError when there are none."""
    name, _, revision = source.removeprefix(PREFIX).partition("@")
    words = name.strip("/").split("/")
    if len(words) < 2:
        raise HubError(problem(source, "not a data set's name", "write hub:org/name, hub:org/name/folder@revision"))
    repository, folder = "/".join(words[:2]), "/".join(words[2:])
    commit, found = hub.dataset(repository, revision or None)
    inside = {path: size for path, size in found.items() if not folder or path.startswith(f"{folder}/")}
    wanted = sorted(path for path in inside if path.endswith(ENDING))
    if not wanted:
        do = "name another folder" if folder else f"try {PREFIX}{repository}@refs/convert/parquet"
        raise HubError(problem(source, f"no {ENDING} among its {len(inside):,} files", do=do))
    for path in wanted:
        yield Piece(path=f"{PREFIX}{repository}@{commit}/{path}", name=path, size=inside[path])


def commits(pieces: Iterator[Piece]) -> dict[str, str]:
    """Return repository -> commit of the pieces that lie on the hub."""
    named = (piece.path.removeprefix(PREFIX).partition("@") for piece in pieces if piece.path.startswith(PREFIX))
    return {repository: rest.partition("/")[0] for repository, _, rest in named}


@contextmanager
def here(piece: Piece, folder: Path) -> Iterator[Piece]:
    """Yield a piece that lies on this machine, fetched for as long as it is read."""
    if not piece.path.startswith(PREFIX):
        yield piece
        return
    repository, _, rest = piece.path.removeprefix(PREFIX).partition("@")
    commit, _, path = rest.partition("/")
    below = folder / f"{files.PARTIAL}{os.getpid()}-hub"
    try:
        with files.explained(folder):
            local = hub.download(repository, commit, path, below)
        yield piece.model_copy(update={"path": str(local), "size": local.stat().st_size})
    finally:
        shutil.rmtree(below, ignore_errors=True)
