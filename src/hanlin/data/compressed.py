"""Plain, .gz and .zst files as streams of the bytes inside; never more than a bounded piece in memory."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

import zstandard

PIECE = 1 << 12  # packed bytes unpacked at once: Zstandard's densest blocks make 128 MiB of them
ENDINGS = (".gz", ".zst")
DAMAGED = (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError)  # what reading a damaged file raises


def open(path: Path) -> io.BufferedIOBase:
    """Return a stream of the bytes in a file, unpacked if its name says so; one of DAMAGED when they cannot be."""
    ending = path.suffix.lower()
    if ending == ".gz":
        return gzip.open(path)
    stream = path.open("rb")
    return unpack(stream, ending) if ending in ENDINGS else stream


def unpack(stream: IO[bytes], ending: str) -> io.BufferedIOBase:
    """Return a stream of the bytes packed in another, by ".gz" or ".zst"; one of DAMAGED when they cannot be."""
    if ending == ".gz":
        return gzip.GzipFile(fileobj=stream, mode="rb")
    return io.BufferedReader(_Zstandard(stream), 1 << 20)


class _Zstandard(io.RawIOBase):
    """The bytes in a .zst file; EOFError when it ends in the middle, which zstandard's own reader passes over."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False  # whether the present frame has been given any bytes
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # collections.abc.Buffer, from Python 3.12 on
        while not self._ready:
            packed = self._next() or self._file.read(PIECE)
            if not packed:
                if self._begun:
                    raise EOFError("it ends in the middle")
                return 0
            self._begun = True
            self._ready = memoryview(self._frame.decompress(packed))
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _next(self) -> bytes:
        """Start another frame when the present one is complete, and return what was already read of it."""
        if not self._frame.eof:
            return b""
        left: bytes = self._frame.unused_data
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        return left

    def close(self) -> None:
        self._file.close()
        super().close()
