"""Entities found exactly, first to last token and type: `f1`, `precision`, `recall` (CoNLL-2003).

    tokens   Ada    Lovelace  met  李    白
    BIO      B-PER  I-PER     O    B-PER I-PER      spans (0, 2, PER), (3, 5, PER): first token, one past the last, type
    BIOES    B-PER  E-PER     O    B-PER E-PER      BMES and BILOU are the same in other letters

    lenient (`strict=False`)   as conlleval, and seqeval unless told: an I that follows nothing of its type begins one
    strict                     as seqeval's strict mode: an entity must be written as the scheme says, or is none

Numbers are summed over rows, then divided: the field's micro average.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set
from functools import partial
from typing import Any, Literal

import numpy as np

from hanlin.errors import DataError, nearest, problem
from hanlin.metrics.contract import FRACTION, Estimate, Groups, Numbers, Rows, Sums, aligned
from hanlin.metrics.labels.f1 import OF

Span = tuple[int, int, str]  # first, one past the last, type
Scheme = Literal["bio", "bioes", "spans"]  # `spans`: the rows hold spans already
SCHEMES = ("bio", "bioes", "spans")
LETTERS = {
    "bio": {"B": "B", "I": "I"},
    "bioes": {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"},
}


def rows(
    predictions: Sequence[Collection[Any]],
    references: Sequence[Collection[Any]],
    *,
    scheme: Scheme = "bio",
    strict: bool = False,
    kind: str | None = None,
) -> Rows:
    """Return (found, given, wanted) entities of each row, of one type alone where `kind` names it."""
    pairs = both(predictions, references, scheme, strict)
    return count([[_of(side, kind) for side in pair] for pair in pairs])


def score(
    predictions: Sequence[Collection[Any]],
    references: Sequence[Collection[Any]],
    *,
    scheme: Scheme = "bio",
    strict: bool = False,
    groups: Groups = None,
) -> dict[str, Estimate]:
    """Return `f1`, `precision` and `recall`, fractions; a row is a list of tags, or of spans with scheme "spans".

    >>> score([["B-PER", "I-PER", "O"]], [["B-PER", "I-PER", "B-LOC"]])["recall"].value
    0.5
    """
    return rows(predictions, references, scheme=scheme, strict=strict).score(groups)


def by_type(
    predictions: Sequence[Collection[Any]],
    references: Sequence[Collection[Any]],
    *,
    scheme: Scheme = "bio",
    strict: bool = False,
    groups: Groups = None,
) -> dict[str, dict[str, Estimate]]:
    """Return type -> its own `f1`, `precision` and `recall`, for every type on either side, sorted."""
    pairs = both(predictions, references, scheme, strict)
    kinds = sorted({span[2] for pair in pairs for side in pair for span in side})
    return {kind: count([[_of(side, kind) for side in pair] for pair in pairs]).score(groups) for kind in kinds}


def both(
    predictions: Sequence[Collection[Any]], references: Sequence[Collection[Any]], scheme: Scheme, strict: bool
) -> list[list[set[Span]]]:
    """Return (given, wanted) spans of each row; DataError names a row whose tags do not fit."""
    if scheme not in SCHEMES:
        raise DataError(problem("entities", f"scheme '{scheme}'", ", ".join(SCHEMES), nearest(scheme, SCHEMES)))
    aligned(predictions, references)
    if scheme == "spans":
        return [[_spans(side, row) for side in pair] for row, pair in enumerate(zip(predictions, references))]
    for row, (given, wanted) in enumerate(zip(predictions, references)):
        if len(given) != len(wanted):
            said = f"{len(given)} predicted tags for {len(wanted)} tokens"
            raise DataError(problem(f"row {row}", said, do="one tag a token"))
    return [
        [spans(list(side), scheme, strict=strict, where=f"row {row}") for side in pair]
        for row, pair in enumerate(zip(predictions, references))
    ]


def count(pairs: Sequence[Sequence[Set[Span]]]) -> Rows:
    """Return (found, given, wanted) of each row's two sets of spans."""
    sums = [[len(given & wanted), len(given), len(wanted)] for given, wanted in pairs]
    measures = {key: Sums(partial(_unpacked, of=of), FRACTION) for key, of in OF}
    return Rows(numbers=np.array(sums, dtype=np.float64), measures=measures)


def spans(tags: Sequence[str], scheme: Scheme = "bio", *, strict: bool = False, where: str = "tags") -> set[Span]:
    """Return the entities that tags spell; DataError names a letter that the scheme does not have.

    >>> sorted(spans(["B-PER", "I-PER", "I-LOC"])), sorted(spans(["B-PER", "I-PER", "I-LOC"], strict=True))
    ([(0, 2, 'PER'), (2, 3, 'LOC')], [(0, 2, 'PER')])
    """
    pieces = [*(_piece(tag, scheme, where) for tag in tags), ("O", "")]
    return _strict(pieces, closed=scheme == "bioes") if strict else _lenient(pieces)


def _lenient(pieces: Sequence[tuple[str, str]]) -> set[Span]:
    """Return every stretch of one type, cut where an entity begins (B, S) and after one ends (E, S)."""
    found: set[Span] = set()
    start, before, kind = -1, "O", ""
    for place, (letter, own) in enumerate(pieces):
        begins = letter in "BS" or before in "ESO" or own != kind
        if start >= 0 and (letter == "O" or begins):
            found.add((start, place, kind))
            start = -1
        if letter != "O" and begins:
            start = place
        before, kind = letter, own
    return found


def _strict(pieces: Sequence[tuple[str, str]], *, closed: bool) -> set[Span]:
    """Return what is written B I* (or, `closed`, S alone or B I* E), one type throughout."""
    found: set[Span] = set()
    for start, (letter, kind) in enumerate(pieces):
        if letter == "S":
            found.add((start, start + 1, kind))
        if letter != "B":
            continue
        end = start + 1
        while pieces[end] == ("I", kind):
            end += 1
        if not closed:
            found.add((start, end, kind))
        elif pieces[end] == ("E", kind):
            found.add((start, end + 1, kind))
    return found


def _piece(tag: str, scheme: Scheme, where: str) -> tuple[str, str]:
    """Return (letter in BIOES, type) of a tag such as B-PER, M-人名 or O."""
    letter, dash, kind = tag.partition("-")
    if tag == "O":
        return "O", ""
    if not dash or letter not in LETTERS[scheme]:
        raise DataError(problem(where, f"tag '{tag}'", f"O, or {', '.join(LETTERS[scheme])} with -TYPE ({scheme})"))
    return LETTERS[scheme][letter], kind


def _spans(side: Collection[Any], row: int) -> set[Span]:
    """Return the spans of a row as a set of tuples; DataError where one is no (first, past the last, type)."""
    found = set()
    for span in side:
        if isinstance(span, str) or len(span) != 3 or not 0 <= span[0] < span[1]:
            raise DataError(problem(f"row {row}", f"span {span!r}", "(first, one past the last, type)"))
        found.add((int(span[0]), int(span[1]), str(span[2])))
    return found


def _of(side: Set[Span], kind: str | None) -> set[Span]:
    return {span for span in side if kind is None or span[2] == kind}


def _unpacked(sums: Numbers, *, of: Callable[[Numbers, Numbers, Numbers], Numbers]) -> Numbers:
    return of(sums[..., 0], sums[..., 1], sums[..., 2])
