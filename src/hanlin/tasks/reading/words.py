"""Where the words of a text are: as given in a list, or as found; and which token is each word's first."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hanlin.errors import DataError, problem
from hanlin.metrics.labels.entity_f1 import Span
from hanlin.tasks.reading.windows import home, windows
from hanlin.text.encoding import Encoding, require_unicode

Cut = tuple[tuple[int, int], ...]  # words as characters of a text, one past the last
Unit = Literal["word", "character"]
CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"  # and their marks
CHINESE = re.compile(f"[{CJK}]")
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+(?:[-'’.,:/&@][^\W{CJK}]+)*|\S")


def given(text: object) -> tuple[str, Cut | None]:
    """Return a text, and the words where a list of them was given; DataError when it is empty or no text.

    >>> given(["Ada", "met", "李", "白"])
    ('Ada met 李白', ((0, 3), (4, 7), (8, 9), (9, 10)))
    """
    if isinstance(text, str):
        require_unicode(text)
        if not text.strip():
            raise DataError(problem("text", "empty"))
        return text, None
    if not isinstance(text, list | tuple) or not all(isinstance(each, str) for each in text):
        raise DataError(problem("text", f"{text!r}"[:60], "text, or a list of words"))
    if not text:
        raise DataError(problem("text", "empty: no words"))
    empty = next((place for place, each in enumerate(text) if not each), None)
    if empty is not None:
        raise DataError(problem("text", f"word {empty + 1} is empty"))
    require_unicode(*text)
    single = sum(len(each) == 1 for each in text) >= 0.8 * len(text) and any(CHINESE.search(each) for each in text)
    made, cut = "", []
    for each in text:
        apart = made and not single and not (CHINESE.match(made[-1]) and CHINESE.match(each[0]))
        made += " " if apart else ""
        cut.append((len(made), len(made) + len(each)))
        made += each
    return made, tuple(cut)


def split(text: str) -> Cut:
    """Return the words that white space parts."""
    return tuple(each.span() for each in re.finditer(r"\S+", text))


def found(text: str, unit: Unit) -> Cut:
    """Return the words of a plain text; accents, joiners and the like stay with what they follow.

    >>> found("Ada's 李白!", "word"), found("x=李", "character")
    (((0, 5), (6, 7), (7, 8), (8, 9)), ((0, 1), (1, 2), (2, 3)))
    """
    pieces = [each.span() for each in (WORD if unit == "word" else re.compile(r"\S")).finditer(text)]
    cut: list[tuple[int, int]] = []
    for start, end in pieces:
        clings = unicodedata.category(text[start]) in ("Mn", "Me", "Mc", "Cf") or (
            start and text[start - 1] == "\u200d"
        )
        if clings and cut and cut[-1][1] == start:
            cut[-1] = (cut[-1][0], end)
        else:
            cut.append((start, end))
    return tuple(cut)


def unit(examples: Sequence[tuple[str, Cut | None]]) -> Unit:
    """Return what a word is in labelled texts: a character where given words are, else where most is Chinese."""
    sizes = [end - start for _, cut in examples for start, end in cut or ()]
    chinese = sum(len(CHINESE.findall(text)) for text, _ in examples)
    if sizes:
        return "character" if chinese and sum(size == 1 for size in sizes) >= 0.8 * len(sizes) else "word"
    return "character" if 2 * chinese > sum(len("".join(text.split())) for text, _ in examples) else "word"


def first_tokens(cut: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """Return each word's first token among the tokens of the words with a space between them; None for no token."""
    starts, at = [], 0
    for start, end in cut:
        starts.append(at)
        at += end - start + 1
    found: list[int | None] = [None] * len(cut)
    for token, (begin, end) in enumerate(offsets):
        word = max(0, bisect_right(starts, begin) - 1)
        while word < len(cut) and starts[word] < end:
            size = cut[word][1] - cut[word][0]
            if found[word] is None and begin < starts[word] + size and end > begin:
                found[word] = token
            word += 1
    return found


def within(spans: Sequence[Span], cut: Sequence[tuple[int, int]]) -> list[Span]:
    """Return spans of characters as spans of the words that they touch.

    >>> within([(0, 4, "PER")], [(0, 3), (4, 7)]), within([(5, 6, "X")], [(0, 3), (4, 7)])
    ([(0, 1, 'PER')], [(1, 2, 'X')])
    """
    made = []
    for start, end, kind in spans:
        touched = [place for place, (first, past) in enumerate(cut) if first < end and past > start]
        if touched:
            made.append((touched[0], touched[-1] + 1, kind))
    return made


@dataclass(frozen=True, kw_only=True)
class Worded:
    """A window of an encoded text: its tokens, and the (word, place among them) of the words that are told there."""

    ids: tuple[int, ...]
    told: tuple[tuple[int, int], ...]


def worded(read: Encoding, cut: Cut, context: int, overlap: float) -> list[Worded]:
    """Return the windows of words that were encoded with spaces between them; each word that has tokens is told once.

    DataError where `context` tokens hold none.
    """
    own = [place for place, word in enumerate(read.words) if word is not None]
    first, past = (own[0], own[-1] + 1) if own else (len(read.ids), len(read.ids))
    head, body, tail = range(first), range(first, past), range(past, len(read.ids))
    room = context - len(head) - len(tail)
    if room < 2:
        raise DataError(problem("plan.context", f"{context}", f"at least {context - room + 2} tokens"))
    firsts = first_tokens(cut, read.offsets[first:past])
    starts = [False] * len(body)
    for place in firsts:
        if place is not None:
            starts[place] = True
    cutting = windows(len(body), room, int(overlap * room), starts=starts)
    told: list[list[tuple[int, int]]] = [[] for _ in cutting]
    for word, place in enumerate(firsts):
        if place is not None:
            window = home(place, cutting)
            told[window].append((word, place - cutting[window][0] + len(head)))
    found = []
    for (start, end), those in zip(cutting, told):
        places = (*head, *body[start:end], *tail)
        found.append(Worded(ids=tuple(read.ids[place] for place in places), told=tuple(those)))
    return found
