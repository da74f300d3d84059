"""From a file, an archive or a folder to documents, one at a time, with an account of what was left out and why.

    corpus/ ─┬─ a.txt .md .html .pdf        one document                        ┌─> Document(text, source, meta)
             ├─ b.jsonl .json .csv .parquet one document a row, at `field`   ───┤
             ├─ c.txt.gz .zst  d.zip  e.tar the same, unpacked as a stream      └─> Tally: read = kept + dropped
             └─ f.exe                       dropped, counted

Text is UTF-8, a byte-order mark is removed, CRLF becomes LF; nothing else is changed. What cannot be read is a
DataError when it is the file that was asked for, and a counted drop inside a folder. Formats: data/readers/.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hanlin import files
from hanlin.config import Config
from hanlin.data.readers import contract
from hanlin.data.readers.contract import FIELD, Budget, File, printable
from hanlin.data.tally import Document, Tally, Unusable, flaw
from hanlin.errors import DataError, MissingExtra, problem

__all__ = ["Document", "Piece", "Tally", "flaw", "nothing", "of", "pieces", "read", "require", "sha256"]


class Piece(Config):
    """A file, or a stretch of its lines."""

    path: str
    name: str  # what its documents are named after
    size: int  # bytes of the whole file
    alone: bool = False  # asked for by name: what is wrong with it is an error
    start: int = 0  # bytes
    stop: int | None = None  # None: to the end
    line: int = 0  # lines before `start`


def read(path: str | Path, tally: Tally, *, field: str = FIELD) -> Iterator[Document]:
    """Yield the documents of a file, or of every readable file below a folder in the order of their names.

    Links that lead out of the folder and links to folders are not followed. DataError when the file cannot be
    read, and when nothing at all was kept.
    """
    empty = True
    for piece in pieces(path, tally):
        for document in of(piece, tally, field=field):
            empty = False
            yield document
    if empty:
        raise DataError(*nothing(path, tally))


def require(path: str | Path, tally: Tally) -> None:
    """Raise DataError, saying why, when nothing of a path was kept."""
    if not tally.kept:
        raise DataError(*nothing(path, tally))


def nothing(path: str | Path, tally: Tally) -> list[str]:
    """Return the lines that say why a path holds no document."""
    where = printable(str(path))
    expected = f"expected text in {contract.formats()}"
    lines = [problem(where, _line(tally, reason)) for reason in tally.dropped]
    return [problem(where, "nothing to read", expected), *lines]


def pieces(path: str | Path, tally: Tally) -> Iterator[Piece]:
    """Yield a file, or every file below a folder in the order of their names; links that lead away are counted.

    A pattern, such as `texts/*.train.txt`, stands for the files and folders that it matches.
    """
    root = Path(path)
    if not os.path.lexists(root) and (several := files.matched(root)):
        start = os.path.commonpath([os.path.dirname(each) for each in several])
        for one in several:
            name = printable(os.path.relpath(one, start or "."))
            for piece in pieces(one, tally):
                below = name if piece.alone else f"{name}/{piece.name}"
                yield piece.model_copy(update={"name": below, "alone": False})
        return
    if not os.path.isdir(root):
        yield Piece(path=str(root), name=printable(root.name), size=_size(root), alone=True)
        return
    inside = root.resolve()
    for each in _files(root):
        name = printable(each.relative_to(root).as_posix())
        try:
            if each.is_symlink():
                _check_link(each, inside)
        except Unusable as bad:
            tally.drop(bad.reason, name, bad.given)
        else:
            yield Piece(path=os.fsdecode(each), name=name, size=_size(each))


def of(piece: Piece, tally: Tally, *, field: str = FIELD) -> Iterator[Document]:
    """Yield the documents of a piece, counted as kept; DataError when it was asked for by name and cannot be read."""
    try:
        for document in _file(piece, tally, field):
            yield tally.keep(document)
    except MissingExtra as missing:
        if piece.alone:
            raise
        tally.drop(str(missing), piece.name)
    except Unusable as bad:
        if piece.alone:
            raise DataError(problem(printable(piece.path), bad.given, bad.allowed, do=bad.do)) from None
        tally.drop(bad.reason, piece.name, bad.given)


def sha256(piece: Piece) -> str | None:
    """Return the hash of the file of a piece, None where it cannot be read."""
    path = Path(piece.path)
    try:
        _check_regular(path)
        return files.sha256(path)
    except (Unusable, OSError):
        return None


def _line(tally: Tally, reason: str) -> str:
    """Return how often something was dropped for a reason, and what the first case was."""
    line = f"{tally.dropped[reason]:,} x {reason}, first {tally.examples[reason][0]}"
    return f"{line} ({tally.details[reason]})" if reason in tally.details else line


def _size(path: Path) -> int:
    """Return the bytes of a file, 0 where it cannot be asked: reading it will say why."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _files(root: Path) -> Iterator[Path]:
    """Yield everything below `root` that is not a folder, in the order of names, entering no linked folder."""
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            enter = os.path.isdir(path) and (path == root or not path.is_symlink())
            below = sorted(path.iterdir(), key=lambda each: each.name, reverse=True) if enter else None
        except OSError:  # a folder we may not list is handed on, and counted where files are opened
            below = None
        if below is None:
            yield path
        else:
            waiting += below


def _check_link(path: Path, inside: Path) -> None:
    """Refuse a link to a folder, to nothing, or to what lies outside `inside`."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop, before Python 3.13
        raise Unusable("link to nothing") from None
    if not target.is_relative_to(inside):
        raise Unusable("link out of the folder")
    if target.is_dir():
        raise Unusable("link to a folder")


def _file(piece: Piece, tally: Tally, field: str) -> Iterator[Document]:
    """Yield the documents of one piece; Unusable when it cannot be read, or not to its end."""
    path = Path(piece.path)
    _check_regular(path)
    try:
        with path.open("rb") as stream:
            before = os.fstat(stream.fileno())
            budget = Budget.of(before.st_size)
            part = stream if piece.stop is None and not piece.start else _stretch(stream, piece)
            file = File(name=piece.name, stream=part, tally=tally, budget=budget, field=field, line=piece.line)
            yield from contract.read(file)
            after = path.stat()
    except OSError as error:
        raise Unusable("not readable", f"not readable: {error.strerror or error}") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Unusable("changed while it was read")


def _stretch(stream: IO[bytes], piece: Piece) -> io.BufferedReader:
    """Return a stream of a part of another."""
    stream.seek(piece.start)
    return io.BufferedReader(_Bounded(stream, (piece.stop or piece.size) - piece.start), 1 << 20)


class _Bounded(io.RawIOBase):
    """The next so many bytes of a stream."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self._stream, self._left = stream, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # collections.abc.Buffer, from Python 3.12 on
        data = self._stream.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


def _check_regular(path: Path) -> None:
    """Refuse what is absent, and pipes and devices, which may never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        said = getattr(error, "strerror", None) or str(error)
        raise Unusable("not readable", f"not readable: {said}") from None
    if not stat.S_ISREG(mode):
        raise Unusable("not a regular file")
