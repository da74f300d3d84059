"""Where an answer's text ends: at the first stop string to complete, however the text came in pieces.

    stop "end"    … the  │ en │ d       complete: the answer is "… the "
                  … the  │ en │ emy     no stop after all: "en" comes out with "emy"
                released │ held │ next piece

Nothing of a stop string is ever shown.
"""

from __future__ import annotations

from collections.abc import Sequence


class Until:
    """Passes text on up to a stop string, holding back what may be the start of one.

    The stop string that completes first wins, and of two that complete together the longer: the answer is the same
    however the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Begin with nothing held."""
        self.stops = stops
        self.held = ""
        self.done = False  # a stop string has been completed

    def push(self, piece: str) -> str:
        """Return what can be released now that `piece` has come."""
        if not self.stops:
            return piece
        text = self.held + piece
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in self.stops if stop in text]
        if found:
            self.held, self.done = "", True
            return text[: min(found)[1]]
        kept = max(_overlap(text, stop) for stop in self.stops)
        self.held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def finish(self) -> str:
        """Return what is still held: no more text will come to complete it."""
        held, self.held = self.held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are a beginning of `stop`, short of all of it."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
