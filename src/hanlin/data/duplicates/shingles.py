"""Text as arrays of integers, so that looking for copies costs a few passes of numpy and no loop over characters.

    "Ｈi, Bob — 你好!"  ── folded ──>  h i 0 0 b o b 0 0 0 你 好 0   ── rolled(·, n) ──> a hash of each n in a row

What is alike to a reader folds alike: case, width (Ａ and A), accents; all but letters and digits becomes 0.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint32]
Hashes = NDArray[np.uint64]

IDEOGRAPHS = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0x20000, 0x2A6E0), (0x2A700, 0x2EE60), (0x30000, 0x323B0))
HANGUL, KANA, MARKS = (0xAC00, 0xD7A4), (0x3040, 0x3100), (0x0300, 0x0370)
DENSE = (*IDEOGRAPHS, HANGUL, KANA)  # scripts written without letters: a sign says as much as half a word
LAST = 0x323B0  # no letter has a code point from here on
NOTHING = 1  # in the table: folds to nothing at all, as an accent does
BASE = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: odd, with no pattern in its bits
MIX = np.uint64(0xD6E8FEB86659FD93)  # Rau's 64-bit mixer


def folded(text: str) -> Codes:
    """Return a text's letters and digits as code points that ignore case, width and accents; 0 stands for the rest."""
    if text.isascii():
        return np.frombuffer(text.encode().translate(_ascii()), np.uint8).astype(np.uint32)
    codes = _table().take(np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), "<u4"))
    accents = codes == NOTHING
    return codes[~accents] if accents.any() else codes


def dense(codes: Codes) -> NDArray[np.bool_]:
    """Return which folded code points belong to Chinese, Japanese or Korean script."""
    if not len(codes) or codes.max() < KANA[0]:
        return np.zeros(len(codes), np.bool_)
    return _dense().take(codes)


def places(text: str) -> NDArray[np.int64]:
    """Return where in the text each of its folded code points stands: accents fold to nothing, all else to one."""
    if text.isascii():
        return np.arange(len(text))
    return np.flatnonzero(
        _table().take(np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), "<u4")) != NOTHING
    )


def words(codes: Codes) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """Return a hash of each word of a folded text, where it begins and where it ends.

    A word is a run of letters and digits; a Chinese, Japanese or Korean sign is one by itself.
    """
    at = np.flatnonzero(codes)
    if not len(at):
        return np.empty(0, np.uint64), at, at
    codes = codes[at]
    signs = dense(codes)
    begins = np.insert(np.diff(at) > 1, 0, True) | signs
    begins[1:] |= signs[:-1]
    first = np.flatnonzero(begins)
    length = np.diff(first, append=len(at))
    within = np.arange(len(at)) - first.repeat(length)
    hashes = mixed(np.add.reduceat(codes * _powers()[within % len(_powers())], first))
    return hashes, at[first], at[first + length - 1] + 1


def rolled(values: NDArray[np.unsignedinteger], n: int) -> Hashes:
    """Return a 64-bit hash of every n values in a row: len(values) - n + 1 of them, none when there are fewer.

    A polynomial in BASE, built by doubling: from the hashes of 4 in a row come those of 8, then 9. About log2(n)
    passes, whatever n is.
    """
    if len(values) < n:
        return np.empty(0, np.uint64)
    ones = values.astype(np.uint64)
    found, width = ones, 1
    for bit in f"{n:b}"[1:]:
        found = found[:-width] * np.uint64(pow(BASE, width, 1 << 64)) + found[width:]
        width *= 2
        if bit == "1":
            found = found[:-1] * np.uint64(BASE) + ones[width:]
            width += 1
    return mixed(found)


def mixed(values: Hashes) -> Hashes:
    """Return the values with every bit made to depend on every other; two values never become one."""
    values = values ^ (values >> np.uint64(32))
    values *= MIX
    values ^= values >> np.uint64(32)
    values *= MIX
    values ^= values >> np.uint64(32)
    return values


@cache
def _powers() -> Hashes:
    """Return powers of BASE, one for each place in a word; a word of more letters uses them again."""
    return np.full(64, BASE, np.uint64).cumprod()


@cache
def _table() -> Codes:
    """Return what each code point folds to; some 0.1 s to make, once a process."""
    table = np.zeros(0x110000, np.uint32)
    for first, end in (*IDEOGRAPHS, HANGUL):
        table[first:end] = np.arange(first, end)
    for code in np.flatnonzero(table[:LAST] == 0).tolist():
        table[code] = _fold(code)
    return table


@cache
def _ascii() -> bytes:
    """Return the head of the table, for bytes.translate."""
    return bytes(_table()[:256].clip(0, 255).tolist())


@cache
def _dense() -> NDArray[np.bool_]:
    """Return for each code point whether its script is dense."""
    table = np.zeros(0x110000, np.bool_)
    for first, end in DENSE:
        table[first:end] = True
    return table


def _fold(code: int) -> int:
    """Return the code point that one folds to: the first letter of what Unicode folds it to, without its accents."""
    if MARKS[0] <= code < MARKS[1]:
        return NOTHING
    for character in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", chr(code)).casefold()):
        if unicodedata.category(character)[0] in "LNM":
            apart = unicodedata.normalize("NFD", character)
            bare = all(MARKS[0] <= ord(mark) < MARKS[1] for mark in apart[1:])
            return ord(apart[0] if bare else character)
    return 0
