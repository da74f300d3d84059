"""Long texts in overlapping windows: every token is read, and is answered where it sees most around it.

tokens   0 1 2 3 4 5 6 7 8 9          room 6, overlap 2
windows  └─────────┘
                 └─────────┘          token 4 is answered by the first, token 5 by the second
"""

from __future__ import annotations

from collections.abc import Sequence

Window = tuple[int, int]  # first token, one past the last


def windows(length: int, room: int, overlap: int, *, starts: Sequence[bool] | None = None) -> list[Window]:
    """Return windows of at most `room` tokens, each beginning at least `overlap` tokens before the last one's end.

    `starts` says of each token whether a window may begin there; where that is too far back, one begins anyway.

    >>> windows(10, 6, 2)
    [(0, 6), (4, 10)]
    """
    assert 0 <= overlap < room, "windows go on"
    found = [(0, min(room, length))]
    while found[-1][1] < length:
        before, end = found[-1]
        start = end - overlap
        if starts is not None:
            start = next((place for place in range(start, before, -1) if starts[place]), start)
        found.append((start, min(start + room, length)))
    return found


def home(place: int, found: Sequence[Window]) -> int:
    """Return which window reads most on both sides of a token; the ends of the text are no edges."""
    length = found[-1][1]

    def sees(number: int) -> int:
        start, end = found[number]
        if not start <= place < end:
            return -1
        return min(place - start if start else length, end - 1 - place if end < length else length)

    return max(range(len(found)), key=sees)
