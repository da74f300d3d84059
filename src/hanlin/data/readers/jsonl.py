"""JSON lines: each line is a row and a document; a bad line is counted and passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from hanlin.data.readers import contract
from hanlin.data.readers.contract import File
from hanlin.data.tally import Document, Unusable

ENDINGS = (".jsonl", ".ndjson")


def read(file: File) -> Iterator[Document]:
    """Yield the documents of the rows, one line in memory at a time."""
    return contract.rows(file, _rows(file))


def _rows(file: File) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield line number and row of each line that holds one."""
    number = file.line
    while line := contract.bounded(file.stream.readline(contract.LONGEST + 1)):
        number += 1
        try:
            yield number, _row(line, file.field)
        except Unusable as bad:
            file.tally.drop(bad.reason, f"{file.name}:{number}", bad.given)
    if number == file.line:
        raise Unusable("empty")


def _row(line: bytes, field: str) -> Mapping[str, object]:
    """Return the object that one line holds."""
    text = contract.decode(line)
    if not text.strip():
        raise Unusable("empty")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):  # ValueError: also a number of more digits than Python reads
        raise Unusable("not JSON") from None
    if not isinstance(row, dict):
        raise Unusable(f"no field '{field}'")
    return row
