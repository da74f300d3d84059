"""Signatures of more texts than fit into memory: rows of a file that is read where it is asked and never mapped.

A map would be quicker to write, but every page that was looked at counts as this process's memory until the system
takes it back, and looking for duplicates looks at all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint16]

BLOCK = 1 << 24  # bytes read at once


class Stored:
    """Rows of `width` 16-bit numbers in a file, put there in order; it takes the place of an array."""

    def __init__(self, file: IO[bytes], width: int, parts: Iterable[Numbers] = ()) -> None:
        """Write the rows of the parts into an open, empty file, which stays open as long as this is used."""
        self._file, self.width, self._count = file, width, 0
        for part in parts:
            assert part.dtype == np.uint16
            assert part.shape[1] == width
            file.write(np.ascontiguousarray(part).data)
            self._count += len(part)
        file.flush()

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._count

    def blocks(self) -> Iterator[Numbers]:
        """Yield all rows in order, some at a time."""
        rows = max(1, BLOCK // (2 * self.width))
        for start in range(0, self._count, rows):
            yield self._read(start, min(rows, self._count - start))

    def __getitem__(self, rows: NDArray[np.int64]) -> Numbers:
        """Return some rows, in any order."""
        found = np.empty((len(rows), self.width), np.uint16)
        for place, row in enumerate(rows.tolist()):
            found[place] = self._read(row, 1)[0]
        return found

    def _read(self, start: int, count: int) -> Numbers:
        """Return neighbouring rows."""
        size = 2 * self.width
        data = os.pread(self._file.fileno(), count * size, start * size)
        return np.frombuffer(data, np.uint16).reshape(count, self.width)
