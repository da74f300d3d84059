"""A corpus cut into parts that can be read anywhere, in any order, and put together again in the one order.

    corpus/ ─┬─ a.txt b.txt c.md …        ──> small files together                    part 0
             ├─ d.jsonl   0 … 32 MiB      ──> a stretch of lines each                 part 1
             │           32 … 64 MiB                                                  part 2
             └─ e.parquet f.zip g.csv.gz  ──> formats that cannot be cut: whole       part 3 …

Cuts depend on the names, sizes and line ends of the files alone, never on how many processes will read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from hanlin.config import Config
from hanlin.data import documents, localdocs
from hanlin.data.documents import Piece
from hanlin.data.pipeline import remote
from hanlin.data.readers import jsonl
from hanlin.data.tally import Tally
from hanlin.errors import ConfigError, problem

SIZE = 32 << 20  # bytes of a part: small enough that cores end together, large enough that starting one costs nothing
BLOCK = 1 << 20

Role = Literal["train", "valid"]


class Part(Config):
    """What one task reads."""

    number: int
    role: Role  # "valid": a corpus of its own to hold out
    pieces: tuple[Piece, ...] = ()
    corpus: str | None = None  # in place of pieces: what cannot be cut, `localdocs` or a path with a limit
    limit_bytes: int | None = None  # of such a corpus


def parts(sources: Mapping[Role, str], limit_bytes: int | None, tally: Tally) -> list[Part]:
    """Return the parts of the corpora at some paths, in order: of two equal texts the earlier one will stay.

    `limit_bytes` bounds the text of the training corpus.
    """
    if limit_bytes is None and localdocs.NAME not in sources.values():
        return cut(sources, tally)
    far = [source for source in sources.values() if source.startswith(remote.PREFIX)]
    if far:
        do = "name a folder of fewer files: hub:org/name/folder"
        raise ConfigError(problem("limit_bytes", f"{far[0]} is read file by file, without a limit", do=do))
    limits = {"train": limit_bytes}
    return [
        Part(number=number, role=role, corpus=source, limit_bytes=limits.get(role))
        for number, (role, source) in enumerate(sources.items())
    ]


def cut(sources: Mapping[Role, str], tally: Tally, size: int = SIZE) -> list[Part]:
    """Return the parts of the corpora at some paths, in order; links that lead away are counted."""
    parts: list[Part] = []
    for role, path in sources.items():
        for pieces in _together(_pieces(path, tally, size), size):
            parts.append(Part(number=len(parts), role=role, pieces=tuple(pieces)))
    return parts


def _together(pieces: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """Yield lists of pieces of about `size` bytes; a longer piece is alone."""
    waiting: list[Piece] = []
    held = 0
    for piece in pieces:
        weight = (piece.size if piece.stop is None else piece.stop) - piece.start
        if waiting and held + weight > size:
            yield waiting
            waiting, held = [], 0
        waiting.append(piece)
        held += weight
    if waiting:
        yield waiting


def _pieces(path: str, tally: Tally, size: int) -> Iterator[Piece]:
    """Yield each file as one piece, and a long file of lines as several."""
    if path.startswith(remote.PREFIX):
        yield from remote.pieces(path)
        return
    for whole in documents.pieces(path, tally):
        if whole.size <= size or Path(whole.path).suffix.lower() not in jsonl.ENDINGS:
            yield whole
            continue
        cuts = [(0, 0), *_line_ends(Path(whole.path), size)]
        for (start, line), (stop, _) in zip(cuts, [*cuts[1:], (whole.size, 0)]):
            if start < stop:
                yield whole.model_copy(update={"start": start, "stop": stop, "line": line})


def _line_ends(path: Path, size: int) -> Iterator[tuple[int, int]]:
    """Yield (bytes, lines) up to the first line end after each multiple of `size`."""
    at = lines = 0
    goal = size
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            searched = 0
            while at + len(block) >= goal and (end := block.find(b"\n", max(searched, goal - at - 1))) >= 0:
                yield at + end + 1, lines + block.count(b"\n", 0, end + 1)
                searched = end + 1
                goal = at + end + 1 + size
            lines += block.count(b"\n")
            at += len(block)


def fingerprint(parts: Sequence[Part]) -> str:
    """Return what changes when a file of the corpus does: its name, its size or its time."""
    paths = dict.fromkeys(piece.path for part in parts for piece in part.pieces)
    times = [Path(path).stat().st_mtime_ns if Path(path).exists() else None for path in paths]
    return hashlib.sha256(repr((parts, times)).encode(errors="surrogatepass")).hexdigest()
