"""What a reader is, and what all readers share: a file's name finds the reader, its ending the unpacking.

    File(name="b.csv.gz", stream) ─ read ─┬─ .gz .zst   unpacked as a stream, metered by the budget
                                          └─ .csv       readers/csv.py:read(File) ─> Document, Document, …

A format is one file of this folder (or an entry point of the group `hanlin.readers`) that says at top level
`ENDINGS = (".csv",)` and has `read(file: File) -> Iterator[Document]`. A reader yields what it can, counts a bad row
in `file.tally`, and raises Unusable for a bad file. It never seeks in `file.stream`: it takes `whole(file)`.
"""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePosixPath
from typing import IO, Any, Protocol, cast

from hanlin import registry
from hanlin.data import compressed
from hanlin.data.tally import Document, Tally, Unusable, flaw

KIND = "data.readers"
FIELD = "text"  # the field that is read where nobody named one
LONGEST = 1 << 28  # bytes of one document or line: tokenizers need some 50 times that in memory
MEMBERS = 1_000_000  # in all archives of one file together
RATIO = 200  # unpacked bytes for each packed one; text gives 3 to 20, DEFLATE at most 1,032
FREE = 1 << 28  # unpacked bytes before the ratio counts: a small file may be dense


@dataclass
class Budget:
    """How much may still be unpacked from one file on the disk, whatever is nested in it."""

    bytes: int
    members: int = MEMBERS

    @property
    def spent(self) -> bool:
        """Return whether nothing is left, so that reading on is pointless."""
        return self.bytes < 0 or self.members < 0

    @classmethod
    def of(cls, packed_bytes: int) -> Budget:
        """Return the budget of a file of a size."""
        return cls(FREE + RATIO * packed_bytes)

    def spend(self, size_bytes: int) -> None:
        """Take what was unpacked; Unusable when nothing is left."""
        self.bytes -= size_bytes
        if self.bytes < 0:
            allowed = f"at most {RATIO} bytes for each packed byte"
            raise Unusable("unpacks to too much", "a file that unpacks to too much", allowed)

    def enter(self) -> None:
        """Take one member of an archive; Unusable when there are too many."""
        self.members -= 1
        if self.members < 0:
            raise Unusable("too many members", "an archive of too many members", f"at most {MEMBERS:,}")


@dataclass(frozen=True, kw_only=True)
class File:
    """A named stream of bytes: a file on the disk, or a member of an archive."""

    name: str  # what documents are named after
    stream: IO[bytes]
    tally: Tally
    budget: Budget
    field: str = FIELD  # or several, by commas: the first that a row has
    depth: int = 0  # how many archives it lies in
    line: int = 0  # lines of the file before the stream begins


class Reader(Protocol):
    """A module of this folder."""

    ENDINGS: tuple[str, ...]

    @staticmethod
    def read(file: File) -> Iterator[Document]:
        """Yield the documents of one file."""


class Metered(io.RawIOBase):
    """A stream that takes what is read of it from a budget."""

    PIECE = 1 << 20

    def __init__(self, stream: IO[bytes] | io.BufferedIOBase, budget: Budget) -> None:
        """Store both."""
        self._stream, self._budget = stream, budget

    def readable(self) -> bool:
        """Return True: there is nothing else to do with it."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # collections.abc.Buffer, from Python 3.12 on
        """Read a piece, and pay for it."""
        data = self._stream.read(min(len(buffer), self.PIECE))
        self._budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)


def read(file: File) -> Iterator[Document]:
    """Yield the documents of a file of any known format; Unusable when it cannot be read, or not to its end."""
    reader, packing = find(file.name)
    try:
        if packing:
            stream = metered(compressed.unpack(file.stream, packing), file.budget)
            file = replace(file, stream=stream)
        yield from reader.read(file)
    except compressed.DAMAGED as error:
        raise Unusable("damaged", f"damaged: {error}") from None


def metered(stream: IO[bytes] | io.BufferedIOBase, budget: Budget) -> io.BufferedReader:
    """Return the stream with every byte of it taken from the budget."""
    return io.BufferedReader(Metered(stream, budget), Metered.PIECE)


def find(name: str) -> tuple[Reader, str]:
    """Return the reader of a file and the packing around it (".gz", ".zst" or ""); Unusable when there is none."""
    endings = [suffix.lower() for suffix in PurePosixPath(name).suffixes[-2:]]
    given = endings[-1] if endings else ""
    packing = endings.pop() if endings and endings[-1] in compressed.ENDINGS else ""
    known = _readers()
    if not packing or endings:
        for ending in endings[-1:]:
            if ending in known:
                return cast("Reader", registry.load(KIND, known[ending])), packing
    raise Unusable("no reader for it", f"a file ending in '{given}'", f"one of {formats()}")


def formats() -> str:
    """Return the endings that can be read, as a person would list them."""
    return f"{' '.join(sorted(_readers()))}, each also .gz or .zst"


@cache
def _readers() -> dict[str, str]:
    """Return ending -> the registered name of its reader."""
    return {ending: name for name in registry.names(KIND) for ending in registry.load(KIND, name).ENDINGS}


def document(text: str, source: str, meta: Mapping[str, str]) -> Document:
    """Return a document, or refuse a text that cannot be one."""
    reason = flaw(text)
    if reason:
        raise Unusable(reason)
    return Document(text=text.replace("\r\n", "\n"), source=source, meta=meta)


def of_row(row: Mapping[str, object], source: str, field: str) -> Document:
    """Return the document that a row holds; its other text fields become `meta`."""
    if field not in row:
        columns = ", ".join(str(key) for key in row)[:200] or "none"
        raise Unusable(f"no field '{field}'", f"no field '{field}', but: {columns}", do="name the field of the text")
    meta = {str(key): value for key, value in row.items() if key != field and isinstance(value, str)}
    return document(_text(row[field], field), source, meta)


def _text(value: object, field: str) -> str:
    """Return the text in a field: itself, or the lines of a list."""
    if isinstance(value, list | tuple) and value and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise Unusable(f"field '{field}' is not text")
    return value


def choose(file: File, columns: Sequence[str], texts: Sequence[str]) -> str:
    """Return the column of the text: the field asked for, or the only one of text where nobody asked.

    `columns` are all there are, `texts` those that could be meant. A choice of our own is noted in the tally.
    """
    asked = wanted(file, columns)
    if asked or file.field != FIELD or len(texts) != 1:
        return asked or file.field
    file.tally.note(f"text taken from '{texts[0]}'")
    return texts[0]


def wanted(file: File, columns: Container[str]) -> str:
    """Return the first of the fields asked for that is there, or an empty text."""
    return next((name for name in file.field.split(",") if name in columns), "")


def rows(file: File, found: Iterator[tuple[int, Mapping[str, object]]], field: str = "") -> Iterator[Document]:
    """Yield the documents of numbered rows; a row that holds none is counted and passed over."""
    for number, row in found:
        source = f"{file.name}:{number}"
        try:
            asked = wanted(file, row)
            if not asked and not field:
                field = choose(file, list(row), [key for key in row if isinstance(row[key], str)])
            yield of_row(row, source, asked or field)
        except Unusable as bad:
            file.tally.drop(bad.reason, source, bad.given)


def bounded(data: bytes, most: int | None = None) -> bytes:
    """Return `data`, or refuse more than one document may hold."""
    most = LONGEST if most is None else most
    if len(data) > most:
        allowed = f"at most {most >> 20} MiB"
        raise Unusable("too long", "a longer document", allowed, do="write one document a line as .jsonl")
    return data


def everything(stream: IO[bytes], most: int | None = None) -> bytes:
    """Return all that is left in a stream, a bounded number of bytes; read(n) would set n aside at once."""
    most = LONGEST if most is None else most
    pieces, size = list[bytes](), 0
    while size <= most and (piece := stream.read(Metered.PIECE)):
        pieces.append(piece)
        size += len(piece)
    return bounded(b"".join(pieces), most)


def whole(file: File, most: int | None = None) -> IO[bytes]:
    """Return the file as something to seek in: itself where it lies on the disk, else its bytes, a bounded number."""
    if isinstance(file.stream, io.BufferedReader) and isinstance(file.stream.raw, io.FileIO):
        return file.stream
    return io.BytesIO(everything(file.stream, most))


def decode(data: bytes) -> str:
    """Return UTF-8 bytes as text without a byte-order mark, saying where other bytes go wrong and what they may be."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unusable("not UTF-8", "not UTF-8 at byte 0", do="it looks like UTF-16: convert it with iconv -f UTF-16")
    if b"\0" in data:
        raise Unusable("binary", f"binary: byte {data.index(0)} is NUL", "text in UTF-8")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(error.object)
    try:
        data.decode("gb18030")
    except UnicodeDecodeError:
        raise Unusable("not UTF-8", f"not UTF-8 at byte {at}") from None
    do = "it may be GB18030: convert it with iconv -f GB18030 -t UTF-8"
    raise Unusable("not UTF-8", f"not UTF-8 at byte {at}", do=do)


def printable(name: str) -> str:
    """Return a file name that UTF-8 can hold, whatever bytes the file system allows."""
    return os.fsencode(name).decode(errors="replace")
