"""The rows of an evaluation file with all their texts: a question, its context, its choices, its answer.

dev.jsonl.gz  dev.csv  dev.tsv   a line or row, the texts of all its fields      ─┐
anything else documents reads    a line of its text                              ─┴─> Row(source, texts)
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from hanlin.data import compressed, documents
from hanlin.data.readers.csv import FIELD
from hanlin.data.tally import Tally
from hanlin.errors import DataError, problem

Named = list[tuple[str, str]]  # (field, text)
Reader = Callable[[Iterable[str]], Iterator[tuple[int, Named]]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of an evaluation file: where it stands and its texts."""

    source: str  # `dev.jsonl:12`
    texts: tuple[str, ...]


def read(path: str | Path, fields: Sequence[str] | None = None) -> Iterator[Row]:
    """Yield the rows of an evaluation file with the texts of all their fields, or of `fields`.

    DataError at the first that cannot be read: what is not looked for is not found.
    """
    path = Path(path)
    endings = [suffix.lower() for suffix in path.suffixes[-2:] if suffix.lower() not in compressed.ENDINGS]
    reader = READERS.get(endings[-1]) if endings else None
    for source, row in _plain(path) if reader is None else _table(path, reader):
        texts = tuple(text for name, text in row if text.strip() and (fields is None or name in fields))
        if texts:
            yield Row(source=source, texts=texts)


def _plain(path: Path) -> Iterator[tuple[str, Named]]:
    """Yield the lines of documents that have no fields."""
    for document in documents.read(path, Tally()):
        for number, line in enumerate(document.text.split("\n"), 1):
            yield f"{document.source}:{number}", [("text", line)]


def _table(path: Path, reader: Reader) -> Iterator[tuple[str, Named]]:
    """Yield the rows of a file that has fields."""
    try:
        with compressed.open(path) as stream:
            lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")
            for number, row in reader(lines):
                yield f"{path.name}:{number}", row
    except OSError as error:
        raise DataError(problem(str(path), f"cannot be read: {error.strerror or error}")) from None
    except (*compressed.DAMAGED, csv.Error, ValueError, RecursionError) as error:
        raise DataError(problem(str(path), f"cannot be read: {error}")) from None


def _json_rows(lines: Iterable[str]) -> Iterator[tuple[int, Named]]:
    """Yield the number of each line of .jsonl and its texts by field, those inside lists and objects too."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = json.loads(line)
            fields = row.items() if isinstance(row, dict) else [("", row)]
            yield number, [(name, text) for name, value in fields for text in strings(value)]


def strings(value: object) -> Iterator[str]:
    """Yield every text inside a JSON value; a list of words, as of a tagged sentence, is one text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(each, str) and len(each.split()) < 2 for each in value):
        yield " ".join(value)
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def _table_rows(lines: Iterable[str], *, tabs: bool) -> Iterator[tuple[int, Named]]:
    """Yield the number of each row of a table under a head and its texts by column; .tsv knows no quotes."""
    quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    csv.field_size_limit(FIELD)
    table = csv.reader(lines, delimiter="\t" if tabs else ",", quoting=quoting)
    head = next(table, [])
    for row in table:
        yield table.line_num, list(zip(head, row))


READERS: Mapping[str, Reader] = {
    ".jsonl": _json_rows,
    ".csv": partial(_table_rows, tabs=False),
    ".tsv": partial(_table_rows, tabs=True),
}
