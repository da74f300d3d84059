"""From a file or a folder to documents, one at a time, with an account of what was left out and why.

    corpus/ ─┬─ a.txt            one document                                 ┌─> Document(text, source, meta)
             ├─ b.jsonl          one document a line: the text at `field`  ───┤
             ├─ c.txt.gz  .zst   the same, unpacked as a stream               └─> Tally: read = kept + dropped
             └─ d.pdf            dropped, counted

Text is UTF-8, a byte-order mark is removed, CRLF becomes LF; nothing else is changed. What cannot be read is a
DataError when it is the file that was asked for, and a counted drop inside a folder.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanlin.data import compressed
from hanlin.errors import DataError, problem

LONGEST = 1 << 28  # bytes of one document or line: tokenizers need some 50 times that in memory
EXAMPLES = 3  # sources kept for each reason
ENDINGS = ".txt or .jsonl, each also .gz or .zst"


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text and where it came from; `meta["group"]`, where there is one, is what a split keeps together."""

    text: str
    source: str  # relative to what was read: `sub/a.txt`, `b.jsonl:12`
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Tally:
    """What was read, kept and dropped, and why; read == kept + everything dropped."""

    read: int = 0
    kept: int = 0
    bytes: int = 0  # UTF-8 bytes of what was kept
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> count
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason -> the first few sources

    def keep(self, document: Document) -> Document:
        """Count a document as kept and return it."""
        self.read += 1
        self.kept += 1
        self.bytes += len(document.text.encode())
        return document

    def drop(self, reason: str, source: str) -> None:
        """Count something that was looked at and not kept."""
        self.read += 1
        self._count(reason, source)

    def remove(self, reason: str, document: Document) -> None:
        """Count as dropped what an earlier stage had kept."""
        self.kept -= 1
        self.bytes -= len(document.text.encode())
        self._count(reason, document.source)

    def report(self) -> dict[str, Any]:
        """Return the account as plain data, for a manifest."""
        dropped = {
            reason: {"count": count, "examples": list(self.examples[reason])}
            for reason, count in sorted(self.dropped.items())
        }
        return {"read": self.read, "kept": self.kept, "bytes": self.bytes, "dropped": dropped}

    def _count(self, reason: str, source: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(source)


class _Unusable(Exception):
    """A file or line that gives no document: the reason a tally counts, and what a person needs to know."""

    def __init__(self, reason: str, given: str = "", allowed: str = "", do: str = "") -> None:
        super().__init__(reason)
        self.reason, self.given, self.allowed, self.do = reason, given or reason, allowed, do


def read(path: str | Path, tally: Tally, *, field: str = "text") -> Iterator[Document]:
    """Yield the documents of a file, or of every .txt and .jsonl below a folder in the order of their names.

    Links that lead out of the folder and links to folders are not followed. DataError when the file cannot be
    read, and when nothing at all was kept.
    """
    path = Path(path)
    found = _folder(path, tally, field) if os.path.isdir(path) else _alone(path, tally, field)
    empty = True
    for document in found:
        empty = False
        yield tally.keep(document)
    if empty:
        lines = [f"{count:,} x {reason}, first {tally.examples[reason][0]}" for reason, count in tally.dropped.items()]
        raise DataError(
            problem(_printable(str(path)), "nothing to read", f"expected text in {ENDINGS}"),
            *(problem(_printable(str(path)), line) for line in lines),
        )


def flaw(text: str) -> str | None:
    """Return why a text cannot be a document, or None when it can."""
    if not text or text.isspace():
        return "empty"
    if "\0" in text:
        return "binary"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a character"  # a lone surrogate, which JSON can spell and UTF-8 cannot
    return None


def _alone(path: Path, tally: Tally, field: str) -> Iterator[Document]:
    """Yield the documents of the one file that was asked for."""
    try:
        yield from _file(path, _printable(path.name), tally, field)
    except _Unusable as bad:
        raise DataError(problem(_printable(str(path)), bad.given, bad.allowed, do=bad.do)) from None


def _folder(root: Path, tally: Tally, field: str) -> Iterator[Document]:
    """Yield the documents of every file below `root`."""
    inside = root.resolve()
    for path in _files(root):
        name = _printable(path.relative_to(root).as_posix())
        try:
            if path.is_symlink():
                _check_link(path, inside)
            yield from _file(path, name, tally, field)
        except _Unusable as bad:
            tally.drop(bad.reason, name)


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
        raise _Unusable("link to nothing") from None
    if not target.is_relative_to(inside):
        raise _Unusable("link out of the folder")
    if target.is_dir():
        raise _Unusable("link to a folder")


def _file(path: Path, name: str, tally: Tally, field: str) -> Iterator[Document]:
    """Yield the documents of one file; _Unusable when it cannot be read, or not to its end."""
    _check_regular(path)
    ending = _ending(path)
    try:
        with compressed.open(path) as stream:
            if ending == ".txt":
                yield _document(_decode(_bounded(stream.read(LONGEST + 1))), name, {})
            else:
                yield from _rows(stream, name, tally, field)
    except compressed.DAMAGED as error:
        raise _Unusable("damaged", f"damaged: {error}") from None
    except OSError as error:
        raise _Unusable("not readable", f"not readable: {error.strerror}") from None


def _check_regular(path: Path) -> None:
    """Refuse what is absent, and pipes and devices, which may never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        said = getattr(error, "strerror", None) or str(error)
        raise _Unusable("not readable", f"not readable: {said}") from None
    if not stat.S_ISREG(mode):
        raise _Unusable("not a regular file")


def _ending(path: Path) -> str:
    """Return `.txt` or `.jsonl`, whatever compression follows."""
    endings = [suffix.lower() for suffix in path.suffixes[-2:]]
    if endings and endings[-1] in compressed.ENDINGS:
        endings.pop()
    if not endings or endings[-1] not in {".txt", ".jsonl"}:
        raise _Unusable("not .txt or .jsonl", f"a file ending in '{path.suffix}'", ENDINGS)
    return endings[-1]


def _rows(stream: io.BufferedIOBase, name: str, tally: Tally, field: str) -> Iterator[Document]:
    """Yield the documents of a jsonl stream; a bad line is counted and passed over."""
    number = 0
    while line := _bounded(stream.readline(LONGEST + 1)):
        number += 1
        source = f"{name}:{number}"
        try:
            yield _row(line, source, field)
        except _Unusable as bad:
            tally.drop(bad.reason, source)
    if not number:
        raise _Unusable("empty")


def _row(line: bytes, source: str, field: str) -> Document:
    """Return the document that one line holds; its other text fields become `meta`."""
    text = _decode(line)
    if not text.strip():
        raise _Unusable("empty")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        raise _Unusable("not JSON") from None
    if not isinstance(row, dict) or field not in row:
        raise _Unusable(f"no field '{field}'")
    if not isinstance(row[field], str):
        raise _Unusable(f"field '{field}' is not text")
    return _document(row[field], source, {key: row[key] for key in row if key != field and isinstance(row[key], str)})


def _document(text: str, source: str, meta: Mapping[str, str]) -> Document:
    """Return a document, or refuse a text that cannot be one."""
    reason = flaw(text)
    if reason:
        raise _Unusable(reason)
    return Document(text=text.replace("\r\n", "\n"), source=source, meta=meta)


def _bounded(data: bytes) -> bytes:
    """Return `data`, or refuse more than one document may hold."""
    if len(data) > LONGEST:
        allowed = f"at most {LONGEST >> 20} MiB"
        raise _Unusable("too long", "a longer document", allowed, do="write one document a line as .jsonl")
    return data


def _decode(data: bytes) -> str:
    """Return UTF-8 bytes as text without a byte-order mark, saying where other bytes go wrong and what they may be."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _Unusable("not UTF-8", "not UTF-8 at byte 0", do="it looks like UTF-16: convert it with iconv -f UTF-16")
    if b"\0" in data:
        raise _Unusable("binary", f"binary: byte {data.index(0)} is NUL", "text in UTF-8")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(error.object)
    try:
        data.decode("gb18030")
    except UnicodeDecodeError:
        raise _Unusable("not UTF-8", f"not UTF-8 at byte {at}") from None
    do = "it may be GB18030: convert it with iconv -f GB18030 -t UTF-8"
    raise _Unusable("not UTF-8", f"not UTF-8 at byte {at}", do=do)


def _printable(name: str) -> str:
    """Return a file name that UTF-8 can hold, whatever bytes the file system allows."""
    return os.fsencode(name).decode(errors="replace")
