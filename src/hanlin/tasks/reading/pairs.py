"""Parallel text: two files, line by line the same in two languages; one side names the other by its ending.

    train.en.gz   A man sleeps.        ─┐
    train.de.gz   Ein Mann schläft.    ─┴─> {source, target, source_language: en, target_language: de}

Files of unequal length are refused before the first row, with both counts; an empty side is the error of its row.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from hanlin.data import compressed
from hanlin.errors import DataError, nearest, problem
from hanlin.tasks.contract import Raw

TABLES = ("jsonl", "ndjson", "json", "csv", "tsv", "txt", "parquet")


def parallel(path: Path) -> bool:
    """Return whether a file's ending is a language, not that of a table.

    >>> parallel(Path("train.en.gz")), parallel(Path("train.jsonl.gz"))
    (True, False)
    """
    stem, language = _parts(path)
    return bool(stem and language) and language.lower() not in TABLES


def read(path: Path, directions: Sequence[str] = ()) -> Iterator[Raw]:
    """Yield the rows of a file and its other side in each direction, such as "en-de"; DataError where they cannot be.

    Without directions: from the file that is named to the only other one. A file without another side has sources
    alone, as questions have.
    """
    stem, language = _parts(path)
    sides = {_parts(each)[1]: each for each in _siblings(path, stem)}
    if language not in sides:
        near = nearest(path.name, [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else [])
        raise DataError(problem(str(path), "no such file", near=near and str(path.parent / near)))
    chosen = [_split(each) for each in directions]
    if not chosen:
        others = [each for each in sides if each != language]
        if len(others) > 1:
            do = f"task.directions=[{language}-{others[0]}]"
            raise DataError(problem(str(path), f"other sides: {', '.join(sorted(others))}", "one direction", do=do))
        chosen = [(language, others[0] if others else "")]
    for source, target in chosen:
        if source not in sides or (target not in sides and source != language):
            absent = source if source not in sides else target
            given = f"no side '{absent}' beside it"
            raise DataError(problem(str(path), given, f"sides: {', '.join(sorted(sides))}", nearest(absent, sides)))
    for source, target in chosen:
        yield from (
            _alone(sides[source], source, target)
            if target not in sides
            else _both(sides[source], sides[target], source, target)
        )


def _both(first: Path, second: Path, source: str, target: str) -> Iterator[Raw]:
    counts = [_count(each) for each in (first, second)]
    if counts[0] != counts[1]:
        given = f"{counts[0]:,} lines in {first.name}, {counts[1]:,} in {second.name}"
        raise DataError(problem(str(first), given, "as many lines in both", do="make them line up"))
    with _lines(first) as ours, _lines(second) as theirs:
        for number, (a, b) in enumerate(zip(ours, theirs), 1):
            values = {"source": _bare(a), "target": _bare(b), "source_language": source, "target_language": target}
            empty = [side for side in ("source", "target") if not values[side].strip()]
            yield Raw(number=number, values=values, error=f"empty {' and '.join(empty)}" if empty else "")


def _alone(path: Path, source: str, target: str) -> Iterator[Raw]:
    beside = {"source_language": source, **({"target_language": target} if target else {})}
    with _lines(path) as lines:
        for number, line in enumerate(lines, 1):
            error = "" if line.strip() else "empty source"
            yield Raw(number=number, values={"source": _bare(line), **beside}, error=error)


def _bare(line: str) -> str:
    return line.rstrip("\r\n")


def _count(path: Path) -> int:
    with _lines(path) as lines:
        return sum(1 for _ in lines)


@contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    """Open a file's text; DataError where it is none. Lines end with a line feed alone, as `wc -l` counts."""
    try:
        with (
            compressed.open(path) as stream,
            io.TextIOWrapper(cast("IO[bytes]", stream), "utf-8-sig", newline="\n") as text,
        ):
            yield text
    except UnicodeDecodeError as error:
        raise DataError(problem(str(path), f"not UTF-8 at byte {error.start}", do="convert it with iconv")) from None
    except (*compressed.DAMAGED, OSError) as error:
        raise DataError(problem(str(path), f"cannot be read: {error}")) from None


def _parts(path: Path) -> tuple[str, str]:
    """Return what a file's name begins with, and its language."""
    name = path.name
    for ending in compressed.ENDINGS:
        name = name.removesuffix(ending)
    stem, _, language = name.rpartition(".")
    return stem, language


def _siblings(path: Path, stem: str) -> list[Path]:
    """Return the sides that lie together: the same name, each with its language."""
    found = sorted(path.parent.glob("*")) if path.parent.is_dir() else []
    return [each for each in found if _parts(each)[0] == stem and parallel(each) and each.is_file()]


def _split(direction: str) -> tuple[str, str]:
    """Return the two languages of a direction; DataError where it is none.

    >>> _split("en-zh")
    ('en', 'zh')
    """
    source, _, target = direction.partition("-")
    if not source or not target or source == target:
        raise DataError(problem("task.directions", f"'{direction}'", "two languages, such as en-de"))
    return source, target
