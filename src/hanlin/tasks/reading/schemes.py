"""Tags as marks of spans: which scheme they are in, which may follow which, the best legal sequence.

words    Ada    Lovelace  met  李    白        spans (0, 2, PER), (3, 5, PER)
bio      B-PER  I-PER     O    B-PER I-PER
bioes    B-PER  E-PER     O    B-PER E-PER     also in the letters B M E S and B I L U
plain    NOUN   NOUN      VERB …               each tag for itself
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hanlin.metrics.contract import Numbers
from hanlin.metrics.labels.entity_f1 import LETTERS, Span
from hanlin.metrics.labels.entity_f1 import spans as spans

Scheme = Literal["bio", "bioes", "plain"]
Letters = tuple[str, str, str, str]  # of a span's first word, those inside, the last, and of a span of one word
OUTSIDE = "O"


def scheme_of(tags: Collection[str]) -> Scheme:
    """Return the scheme that the tags are written in: plain where any has no letter of a scheme before a dash."""
    parts = [tag.partition("-") for tag in tags if tag != OUTSIDE]
    letters = {letter for letter, _, _ in parts}
    if not parts or not all(dash and kind for _, dash, kind in parts) or not letters <= LETTERS["bioes"].keys():
        return "plain"
    return "bio" if letters <= LETTERS["bio"].keys() else "bioes"


def letters_of(tags: Iterable[str], scheme: Scheme) -> Letters:
    """Return the letters that the tags use; BIOES where they do not say."""
    if scheme != "bioes":
        return "B", "I", "I", "B"
    used = {tag[0] for tag in tags if tag != OUTSIDE}
    return "B", "M" if "M" in used else "I", "L" if "L" in used else "E", "U" if "U" in used else "S"


def complete(tags: Collection[str], scheme: Scheme) -> tuple[str, ...]:
    """Return all labels of a scheme for the types of the tags, O first, sorted by type; plain tags just sorted."""
    if scheme == "plain":
        return tuple(sorted(tags))
    letters = dict.fromkeys(letters_of(tags, scheme))
    kinds = sorted({tag.partition("-")[2] for tag in tags if tag != OUTSIDE})
    return (OUTSIDE, *(f"{letter}-{kind}" for kind in kinds for letter in letters))


def written(found: Iterable[Span], length: int, letters: Letters) -> list[str]:
    """Return a tag for each of `length` words that spell the spans; of spans that overlap, the first.

    >>> written([(0, 2, "PER"), (3, 4, "LOC")], 4, ("B", "M", "E", "S"))
    ['B-PER', 'E-PER', 'O', 'S-LOC']
    """
    begin, inside, end, single = letters
    tags = [OUTSIDE] * length
    for first, past, kind in sorted(found):
        if any(tag != OUTSIDE for tag in tags[first:past]):
            continue
        marks = [single] if past - first == 1 else [begin, *[inside] * (past - first - 2), end]
        tags[first:past] = [f"{mark}-{kind}" for mark in marks]
    return tags


def follows(labels: Sequence[str], scheme: Scheme) -> NDArray[np.bool_]:
    """Return (C + 1, C + 1): whether the column may follow the row; the last of both is the edge of the text."""
    if scheme == "plain":
        return np.ones((len(labels) + 1, len(labels) + 1), bool)
    parts = [(LETTERS[scheme].get(letter, "O"), kind) for letter, _, kind in (each.partition("-") for each in labels)]
    parts.append(("O", ""))
    return np.array([[_may(before, after, scheme) for after in parts] for before in parts])


def _may(before: tuple[str, str], after: tuple[str, str], scheme: Scheme) -> bool:
    """Return whether one (letter in BIOES, type) may follow another."""
    goes_on = after[0] in ("I", "E")
    opened = before[0] in ("B", "I")
    if goes_on:
        return opened and before[1] == after[1]
    return scheme == "bio" or not opened  # in BIOES what was begun is ended


def likeliest(scores: Numbers, allowed: NDArray[np.bool_]) -> list[int]:
    """Return the labels (N,) of the highest summed score (N, C), each allowed after the one before (Viterbi 1967)."""
    if not len(scores):
        return []
    barred = np.where(allowed, 0.0, -np.inf)
    best = scores[0] + barred[-1, :-1]
    back = []
    for each in scores[1:]:
        ways = best[:, None] + barred[:-1, :-1]
        back.append(ways.argmax(0))
        best = ways.max(0) + each
    found = [int((best + barred[:-1, -1]).argmax())]
    for step in reversed(back):
        found.append(int(step[found[-1]]))
    return found[::-1]
