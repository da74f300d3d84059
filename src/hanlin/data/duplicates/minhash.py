"""Near duplicates: which texts share most of their wording, found without comparing every two.

    text ─> shingles ─> signature (SIZE small numbers)      equal in about the share of places that the shingles share
                           │
        signatures ─> BANDS of 8 places; texts equal in one band are compared; alike ─> one cluster, its first is kept

A shingle is 8 letters in a row, or 4 where it begins with a Chinese, Japanese or Korean sign; case, accents, white
space and punctuation do not count. So chosen, two unrelated texts of 300 kB share 7 % of them in English and 3 % in
Chinese (5 letters: 33 %), and a typo costs 8 of them and no more.

MinHash: Broder 1997. One hash a shingle, its least value kept in each of SIZE bins, an empty bin borrowing from
another: Shrivastava, arXiv:1703.04664, with each bin asking all others in an order of its own. Least values cut to 16
bits: Li and König, arXiv:0910.3349. Bands: Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, ch. 3. On
training text: Lee et al., arXiv:2107.06499.

Two texts with a share (Jaccard index) of s are compared with a probability of 1 - (1 - s^8)^32: 0.996 at 0.8, 0.42 at
0.6, 0.02 at 0.4; the estimate of s that then decides has a standard error of sqrt(s (1 - s) / 256): 0.025 at 0.8.
Our own code, for rensa 0.5, the fastest library tried, signs texts of 3,000 characters at a third to a quarter of its
speed, though texts of 500 at 1.4 times it (benchmarks/corpus/duplicates.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from hanlin.data.duplicates.shingles import Codes, Hashes, dense, folded, mixed, rolled
from hanlin.data.duplicates.stored import Stored
from hanlin.errors import ConfigError, problem

Signature = NDArray[np.uint16]  # (SIZE,)
Signatures = NDArray[np.uint16]  # (texts, SIZE)
Rows = NDArray[np.int64]

SIZE = 256  # numbers of a signature: 512 bytes a text
BANDS = 32
LETTERS, SIGNS = 8, 4  # characters of a shingle
PIECE = 1 << 15  # characters of a text hashed at once: what that takes stays in the processor's cache
ROUNDS = 64  # texts of one bucket that each become a measure for the rest; pages from one mould fill large buckets
PAIRS = 1 << 14  # compared at once
EMPTY = np.uint64(2**64 - 1)


def signature(text: str) -> Signature:
    """Return the MinHash signature of a text, a pure function of it; (SIZE,) uint16.

    A text too short for a shingle, or without letters and digits, is like no text but its equals, white space at the
    ends apart.
    """
    least = np.full(SIZE, EMPTY)
    for hashes in shingles(text):
        np.minimum.at(least, _bins(hashes), hashes)
    empty = least == EMPTY
    if empty.all():
        digest = blake2b(text.strip().encode(errors="surrogatepass"), digest_size=8).digest()
        whole = np.frombuffer(digest, "<u8").astype(np.uint64)
        least[_bins(whole)] = whole
        empty = least == EMPTY
    if empty.any():
        asked = _orders()[empty]
        lender = (~empty)[asked].argmax(axis=1)
        least[empty] = least[asked[np.arange(len(asked)), lender]]
    return least.astype(np.uint16)


def signatures(texts: Iterable[str]) -> Signatures:
    """Return the signatures of texts, a row each: 512 MB a million; rows may be made anywhere and stacked in order."""
    rows = [signature(text) for text in texts]
    return np.stack(rows) if rows else np.empty((0, SIZE), np.uint16)


def likeness(some: Signatures, others: Signatures) -> NDArray[np.float64]:
    """Return the estimated share of shingles (Jaccard index) that each row of `some` has in common with `others`'."""
    return np.count_nonzero(some == others, axis=-1) / SIZE


def clusters(signatures: Signatures | Stored, threshold: float = 0.8) -> Rows:
    """Return for each row the first row of its cluster: itself when it is to be kept.

    Rows whose likeness reaches `threshold` become one cluster, and so do their clusters. Equal rows always do. Beside
    the signatures, which may be held in a file, some 60 bytes a row are needed. ConfigError unless
    0.7 <= threshold <= 1: of pairs at 0.7 the bands show 85 %, below too few.
    """
    if not 0.7 <= threshold <= 1:
        raise ConfigError(problem("threshold", f"{threshold}", "from 0.7 to 1"))
    kept = np.arange(len(signatures))
    wide = SIZE // BANDS
    for first, end in ((0, SIZE), *((band * wide, (band + 1) * wide) for band in range(BANDS))):
        blocks = signatures.blocks() if isinstance(signatures, Stored) else [signatures]
        keys = [_keys(block[:, first:end]) for block in blocks]
        members, buckets = _buckets(np.concatenate([np.empty(0, np.uint64), *keys]))
        for _ in range(ROUNDS):
            if not len(members):
                break
            members, buckets = _compare(signatures, threshold, kept, members, buckets)
    return kept


def shingles(text: str) -> Iterator[Hashes]:
    """Yield the hashes of a text's shingles, a piece of it at a time; where the pieces end makes no difference."""
    rest: Codes = np.empty(0, np.uint32)
    for start in range(0, len(text), PIECE):
        codes = folded(text[start : start + PIECE])
        codes = np.concatenate([rest, codes[codes != 0]])
        whole = max(0, len(codes) - LETTERS + 1)  # places from which a shingle of either length can be read
        rest = codes[whole:]
        yield from _of(codes, whole)
    signs = dense(rest)
    if signs.any():  # too few are left for LETTERS
        short = rolled(rest, SIGNS)
        yield short[signs[: len(short)]]


def _of(codes: Codes, places: int) -> Iterator[Hashes]:
    """Yield the hashes of the shingles that begin in the first `places` of `codes`."""
    signs = dense(codes[:places])
    long = rolled(codes, LETTERS)[:places]
    if not signs.any():
        yield long
        return
    short = rolled(codes, SIGNS)[:places]
    yield short[signs[: len(short)]]
    yield long[~signs[: len(long)]]


def _bins(hashes: Hashes) -> NDArray[np.intp]:
    """Return the bin of each hash, from its highest bits; a signature keeps its lowest."""
    return (hashes >> np.uint64(64 - (SIZE - 1).bit_length())).astype(np.intp)


@cache
def _orders() -> NDArray[np.intp]:
    """Return for each bin the order in which it asks the others for a value; the same for every text."""
    draws = rolled(np.arange(SIZE * SIZE, dtype=np.uint32), 1).reshape(SIZE, SIZE)
    return draws.argsort(axis=1)


def _keys(part: Signatures) -> Hashes:
    """Return one hash of each row of a part of the signatures."""
    words = np.ascontiguousarray(part).view(np.uint64)
    keys = np.zeros(len(words), np.uint64)
    for column in range(words.shape[1]):
        keys = mixed(keys + words[:, column])
    return keys


def _buckets(keys: Hashes) -> tuple[Rows, Hashes]:
    """Return the rows whose key is not theirs alone, by key and then in order, and their keys."""
    order = keys.argsort(kind="stable")
    return _shared(order, keys[order])


def _shared(members: Rows, buckets: Hashes) -> tuple[Rows, Hashes]:
    """Return the members that have a neighbour in their bucket."""
    twin = buckets[1:] == buckets[:-1]
    shared = np.zeros(len(buckets), np.bool_)
    shared[1:] |= twin
    shared[:-1] |= twin
    return members[shared], buckets[shared]


def _compare(
    signatures: Signatures | Stored, threshold: float, kept: Rows, members: Rows, buckets: Hashes
) -> tuple[Rows, Hashes]:
    """Unite in `kept` the first of each bucket with all that are like it; return what is left of the buckets."""
    begins = np.insert(buckets[1:] != buckets[:-1], 0, True)
    first = members[begins][np.cumsum(begins) - 1]
    alike = begins | (kept[first] == kept[members])
    open = np.flatnonzero(~alike)
    for start in range(0, len(open), PAIRS):
        pairs = open[start : start + PAIRS]
        alike[pairs] = likeness(signatures[first[pairs]], signatures[members[pairs]]) >= threshold
    _unite(kept, first[alike], members[alike])
    return _shared(members[~alike], buckets[~alike])


def _unite(kept: Rows, some: Rows, others: Rows) -> None:
    """Make one cluster of the clusters of each pair; a cluster bears the name of its first row."""
    while True:
        one, other = kept[some], kept[others]
        apart = one != other
        if not apart.any():
            return
        np.minimum.at(kept, np.maximum(one, other)[apart], np.minimum(one, other)[apart])
        while (kept[kept] != kept).any():
            kept[:] = kept[kept]
