"""Comma- and tab-separated rows below a head line that names the columns.

A comma-separated field may be quoted (RFC 4180). Nothing is quoted in .tsv, where a quotation mark is text (IANA
text/tab-separated-values). A row of more or fewer fields than the head is counted as ragged: nobody can tell which
field is missing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import chain, islice

from hanlin.data.readers import contract
from hanlin.data.readers.contract import File
from hanlin.data.tally import Document, Unusable

ENDINGS = (".csv", ".tsv")
FIELD = 1 << 24  # characters of one field: a quotation mark that nobody closes swallows no more than this


def read(file: File) -> Iterator[Document]:
    """Yield the documents of the rows, one in memory at a time."""
    csv.field_size_limit(FIELD)  # for the whole process; the default, 128 Ki, is less than an article
    tabs = any(suffix == "tsv" for suffix in file.name.lower().split(".")[-2:])
    lines = _lines(file)
    if tabs:
        table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        table = csv.reader(lines, strict=True)
    head = _head(table)
    found = _rows(file, table, head)
    first = list(islice(found, 1))
    texts = [key for key in head if first and not _number(str(first[0][1][key]))]
    return contract.rows(file, chain(first, found), contract.choose(file, head, texts))


def _lines(file: File) -> Iterator[str]:
    """Yield the lines; bytes that are not UTF-8 become lone surrogates, which no document may hold."""
    number = 0
    while line := contract.bounded(file.stream.readline(contract.LONGEST + 1)):
        number += 1
        yield contract.decode(line) if number == 1 else line.decode(errors="surrogateescape")


def _head(table: Iterator[list[str]]) -> list[str]:
    """Return the names of the columns."""
    try:
        head = next(table, [])
    except csv.Error as error:
        raise Unusable("not CSV", f"not CSV: {error}") from None
    if not any(name.strip() for name in head):
        raise Unusable("empty")
    if len(set(head)) < len(head):
        raise Unusable("two columns of one name", f"two columns of one name among: {', '.join(head)}"[:300])
    return head


def _rows(file: File, table: Iterator[list[str]], head: list[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield line number (of its end) and row of each row that fits the head."""
    while True:
        reason, cells = "", list[str]()
        try:
            cells = next(table)
            if not cells:
                reason = "empty"
            elif len(cells) != len(head):
                reason = "ragged row"
            elif any("\udc80" <= each <= "\udcff" for cell in cells if not cell.isascii() for each in cell):
                reason = "not UTF-8"
        except StopIteration:
            return
        except csv.Error as error:
            reason = "too long" if "limit" in str(error) else "not CSV"
        number: int = table.line_num  # type: ignore[attr-defined]  # the csv module's reader has it
        if reason:
            file.tally.drop(reason, f"{file.name}:{number}")
        else:
            yield number, dict(zip(head, cells))


def _number(cell: str) -> bool:
    """Return whether a cell holds a number or nothing."""
    try:
        return not cell.strip() or float(cell) is not None
    except ValueError:
        return False
