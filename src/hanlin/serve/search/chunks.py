"""From a document to the passages that are searched: whole sentences up to a size, each with its place in the text.

    One. Two! 第三句。第四句？ …      sentences ─> gathered up to `size` ─> [start, stop) in characters

A passage is text[start:stop] to the letter. What is not white space lies in at least one passage; a short last sentence
of a passage is said again at the head of the next, so that what belongs together is found together. A sentence longer
than a passage is cut between words, and never inside what a reader sees as one character.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

SIZE = 180  # tokens of a passage, estimated: small encoders read 256
AGAIN = 0.2  # of the size: a last sentence up to this long is said again
LETTERS = 4  # of an alphabet make a token, about; of Chinese, Japanese and Korean one does
END = re.compile(r"(?:[.!?]+[\"'”’)\]]*(?=\s)|[。！？；…]+[”’」』）】\"']*|\n[^\S\n]*\n)\s*")
WIDE = ((0x1100, 0x11FF), (0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
JOINER, FLAGS, TONES, STYLES = "\u200d", (0x1F1E6, 0x1F1FF), (0x1F3FB, 0x1F3FF), (0xFE00, 0xFE0F)

Span = tuple[int, int]


def sentences(text: str) -> list[Span]:
    """Return [start, stop) of each sentence of a text, without the white space around it.

    >>> sentences("One. Two!  三。")
    [(0, 4), (5, 9), (11, 13)]
    """
    found = []
    start = 0
    for end in [*(match.end() for match in END.finditer(text)), len(text)]:
        inside = text[start:end]
        left, right = len(inside) - len(inside.lstrip()), len(inside.rstrip())
        if left < right:
            found.append((start + left, start + right))
        start = end
    return found


def chunks(text: str, size: int = SIZE) -> list[Span]:
    """Return [start, stop) of each passage of a text, of about `size` tokens at most; [] for white space."""
    weight = _weights(text)
    found: list[Span] = []
    own: list[Span] = []  # the sentences of the passage under way
    for whole in sentences(text):
        for piece in _cut(text, whole, weight, size):
            if own and weight[piece[1]] - weight[own[0][0]] > size:
                found.append((own[0][0], own[-1][1]))
                last = own[-1]
                short = weight[last[1]] - weight[last[0]] <= AGAIN * size
                fits = weight[piece[1]] - weight[last[0]] <= size
                own = [last] if short and fits and len(own) > 1 else []
            own.append(piece)
    return [*found, (own[0][0], own[-1][1])] if own else found


def _weights(text: str) -> NDArray[np.float64]:
    """Return (characters + 1,) the estimated tokens before each place."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    wide = np.zeros(len(codes), bool)
    for low, high in WIDE:
        wide |= (codes >= low) & (codes <= high)
    return np.concatenate([[0.0], np.cumsum(np.where(wide, 1.0, 1 / LETTERS))])


def _cut(text: str, span: Span, weight: NDArray[np.float64], size: int) -> list[Span]:
    """Return a sentence in pieces that fit, itself where it does."""
    start, stop = span
    found = []
    while weight[stop] - weight[start] > size:
        most = max(start + 1, int(np.searchsorted(weight, weight[start] + size, "right")) - 1)
        least = start + max(1, (most - start) * 3 // 4)
        end = next((at for at in range(most, least, -1) if text[at].isspace()), 0)
        end = end or next((at for at in range(most, start, -1) if _between(text, at)), 0)
        end = end or next((at for at in range(most, stop) if _between(text, at)), stop)
        found.append((start, end))
        start = end + len(text[end:stop]) - len(text[end:stop].lstrip())
    return [*found, (start, stop)] if start < stop else found


def _between(text: str, at: int) -> bool:
    """Return whether a reader sees one character end before `at` and another begin (the heart of UAX 29)."""
    before, after = text[at - 1], text[at]
    code = ord(after)
    joins = after == JOINER or before == JOINER or unicodedata.category(after) in ("Mn", "Me", "Mc")
    if joins or any(low <= code <= high for low, high in (TONES, STYLES)):
        return False
    if not FLAGS[0] <= code <= FLAGS[1]:
        return True
    run = at
    while run > 0 and FLAGS[0] <= ord(text[run - 1]) <= FLAGS[1]:  # flags are pairs of letters
        run -= 1
    return (at - run) % 2 == 0
