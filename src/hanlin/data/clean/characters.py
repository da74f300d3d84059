"""What kinds of characters a text is made of, counted at some 200 MB/s by one table look-up a character."""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SPACE, HAN, KANA, LETTER, DIGIT, PUNCTUATION, SYMBOL = range(7)
PLANES = 0x20000  # the table's size: above are rare Han characters (planes 2 and 3), and nothing written
RANGES = (  # written without spaces between words; unicode.org/Public/UNIDATA/Blocks.txt
    (HAN, 0x2E80, 0x2FDF),
    (HAN, 0x3005, 0x3007),
    (KANA, 0x3041, 0x30FF),
    (HAN, 0x3100, 0x312F),
    (KANA, 0x31F0, 0x31FF),
    (HAN, 0x3400, 0x4DBF),
    (HAN, 0x4E00, 0x9FFF),
    (HAN, 0xF900, 0xFAFF),
    (KANA, 0xFF66, 0xFF9F),
)

Kinds = npt.NDArray[np.uint8]


class Counts(NamedTuple):
    """How many characters of each kind a text has."""

    space: int
    han: int
    kana: int
    letter: int  # of all other scripts
    digit: int
    punctuation: int
    symbol: int  # what is left, too: controls, private use

    @property
    def letters(self) -> int:
        """Return the letters of all scripts."""
        return self.han + self.kana + self.letter

    @property
    def visible(self) -> int:
        """Return everything but white space."""
        return sum(self) - self.space


def codes(text: str) -> npt.NDArray[np.uint32]:
    """Return the code point of each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


@lru_cache(maxsize=1)  # several steps look at one document
def kinds(text: str) -> Kinds:
    """Return the kind of each character."""
    found = _table()[
        np.frombuffer(text.encode(), dtype=np.uint8) if text.isascii() else np.minimum(codes(text), PLANES)
    ]
    found.flags.writeable = False
    return found


def counts(of: Kinds) -> Counts:
    """Return how many characters there are of each kind."""
    return Counts(*np.bincount(of, minlength=SYMBOL + 1).tolist())


def is_cjk(text: str, found: Counts | None = None) -> bool:
    """Return whether most of a text is in a script without spaces, a Han character being worth four letters."""
    if text.isascii():
        return False
    found = counts(kinds(text)) if found is None else found
    unspaced = found.han + found.kana
    return unspaced > 0 and 4 * unspaced >= found.letter


def words(of: Kinds) -> int:
    """Return the number of words: each Han or kana character, and each run of other letters and digits."""
    inside = (of == LETTER) | (of == DIGIT)
    runs = np.count_nonzero(inside[1:] > inside[:-1]) + bool(inside.size and inside[0])
    return int(runs + np.count_nonzero((of == HAN) | (of == KANA)))


@cache
def _table() -> Kinds:
    """Return code point -> kind; the last entry stands for all code points from PLANES on."""
    major = {"L": LETTER, "M": LETTER, "N": DIGIT, "P": PUNCTUATION, "Z": SPACE}
    table = [major.get(unicodedata.category(chr(code))[0], SYMBOL) for code in range(PLANES)]
    for kind, first, last in RANGES:
        table[first : last + 1] = [kind] * (last + 1 - first)
    for code in b"\t\n\v\f\r":
        table[code] = SPACE
    return np.array([*table, HAN], dtype=np.uint8)
