"""Archives: a zip or tar is read as a folder is, member by member, and nothing of it is ever written to the disk.

    a.zip ─┬─ b.csv          ─ read ─>  source a.zip/b.csv:1
           ├─ c.tar.gz       ─ read, one archive deep
           ├─ ../d.txt       counted: unsafe name
           └─ e -> /etc/…    counted: link

What is unpacked is taken from one budget a file on the disk, so that an archive that unfolds without end stops early.
"""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from hanlin.data import compressed
from hanlin.data.readers import contract
from hanlin.data.readers.contract import File
from hanlin.data.tally import Document, Unusable
from hanlin.errors import MissingExtra

ENDINGS = (".zip", ".tar", ".tgz")
DEEPEST = 2  # archives around a file
DIRECTORY = 1 << 26  # bytes of a zip's list of members, which is held in memory
HEADER = 1 << 20  # bytes of a tar's extended header: a long name is one
HEADERS = (
    b"L",
    b"K",
    b"x",
    b"g",
    b"X",
)  # types of a tar's extended headers, which tarfile holds in memory: GNU's, POSIX's, Solaris'
MARK = b"\0" * tarfile.BLOCKSIZE  # ends a tar
LINK, SPECIAL, LOCKED = "link in an archive", "not a regular file", "encrypted"


def read(file: File) -> Iterator[Document]:
    """Yield the documents of every member, in the archive's order; what cannot be read is counted."""
    if file.depth >= DEEPEST:
        raise Unusable("archives too deep", f"more than {DEEPEST} archives around a file")
    endings = file.name.lower().split(".")[-2:]
    if "tgz" in endings:
        stream = compressed.unpack(file.stream, ".gz")
        file = replace(file, stream=contract.metered(stream, file.budget))
    try:
        yield from _zip(file) if "zip" in endings else _tar(file)
    except (zipfile.BadZipFile, tarfile.TarError, struct.error) as error:
        raise Unusable("damaged", f"damaged: {error}") from None


def _member(file: File, name: str, refused: str, stream: IO[bytes] | None) -> Iterator[Document]:
    """Yield the documents of one member, or count why there are none."""
    source = f"{file.name}/{contract.printable(name)}"
    file.budget.enter()
    try:
        if refused or stream is None:
            raise Unusable(refused or SPECIAL)
        if not _is_safe(name):
            raise Unusable("unsafe name")
        yield from contract.read(replace(file, name=source, stream=stream, depth=file.depth + 1))
    except MissingExtra as missing:
        file.tally.drop(str(missing), source)
    except Unusable as bad:
        if file.budget.spent:
            raise
        file.tally.drop(bad.reason, source, bad.given)


def _is_safe(name: str) -> bool:
    """Return whether a name stays inside the archive on every system, and shows itself as it is."""
    parts = name.replace("\\", "/").split("/")
    return ".." not in parts and parts[0] != "" and ":" not in parts[0] and "\\" not in name


def _zip(file: File) -> Iterator[Document]:
    """Yield the documents of a zip."""
    stream = contract.whole(file)
    _check_directory(stream)
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                try:
                    yield from _zipped(file, archive, info)
                except (NotImplementedError, zipfile.BadZipFile) as error:  # another method; a local header of another
                    file.tally.drop("damaged", f"{file.name}/{contract.printable(info.filename)}", str(error))


def _zipped(file: File, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[Document]:
    """Yield the documents of one member of a zip."""
    mode = info.external_attr >> 16
    refused = LINK if stat.S_ISLNK(mode) else LOCKED if info.flag_bits & 1 else ""
    if not refused and stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        refused = SPECIAL
    if refused:
        yield from _member(file, info.filename, refused, None)
        return
    with archive.open(info) as member:
        yield from _member(file, info.filename, "", contract.metered(member, file.budget))


def _check_directory(stream: IO[bytes]) -> None:
    """Refuse a zip whose list of members would fill the memory, by the sizes at its end (APPNOTE 4.3.14, 4.3.16)."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - (1 << 16) - 22))
    tail = stream.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("no list of members at its end")
    count, listed = struct.unpack_from("<HI", tail, at + 10)
    big = tail.rfind(b"PK\6\6", 0, at)
    if (count == 0xFFFF or listed == 0xFFFFFFFF) and big >= 0:
        listed = struct.unpack_from("<Q", tail, big + 40)[0]
    if listed > DIRECTORY:
        raise Unusable("too many members", f"a list of members of {listed:,} bytes", f"at most {DIRECTORY:,}")


def _tar(file: File) -> Iterator[Document]:
    """Yield the documents of a tar, as a stream."""
    ends: list[bytes] = []

    class Header(tarfile.TarInfo):
        """A header that is checked before tarfile reads what it announces."""

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
            ends[:] = [bytes(buf)]
            header = super().frombuf(buf, encoding, errors)
            if header.size < 0 or (header.type in HEADERS and header.size > HEADER):
                raise Unusable("damaged", f"damaged: a header of {header.size:,} bytes", f"at most {HEADER:,}")
            return header

    with tarfile.open(fileobj=file.stream, mode="r|", tarinfo=Header) as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
            if info.isdir():
                continue
            stream = archive.extractfile(info) if _is_file(info) else None
            refused = LINK if info.issym() or info.islnk() else "" if stream else SPECIAL
            yield from _member(file, info.name, refused, stream)
    if ends[-1] != MARK:  # tarfile takes a header it cannot read for the end
        raise Unusable("damaged", "damaged: it ends in the middle")


def _is_file(info: tarfile.TarInfo) -> bool:
    """Return whether a member is a plain file, every byte of which is in the archive."""
    return info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) and not info.issparse()
