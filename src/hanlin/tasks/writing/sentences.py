"""Sentences of a text, and what tells of each how much of the whole it says.

    text ─ split ─> sentences ─ measures ─> (n, MEASURES)

    place       1 / (1 + i), the first, the last, how far into the text
    length      logarithm of its words; whether it is very short
    centre      how much of the others' words it has: the mean cosine of tf-idf vectors, and its rank in the graph that
                they span (TextRank, Mihalcea & Tarau 2004; LexRank, arXiv 1109.2128)

Words are those of ROUGE (metrics/texts/rouge.py), so a Chinese character is one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hanlin.errors import DataError, problem
from hanlin.metrics.contract import Numbers
from hanlin.metrics.texts.rouge import ALONE, tokens

END = re.compile(
    rf"(?<=[。！？；])(?=[^\s”’」』）])|(?<=[.!?…])\s+(?=\S)|(?<=[.!?…。！？][\"'”’」』)）])\s*(?=\S)|"
    rf"(?<=[{ALONE}][.!?])(?=\S)|\n+"
)
MEASURES = 9
ROUNDS, DAMPING = 30, 0.85  # of the walk; 0.85 as in both papers
SHORT = 5  # words


def text_of(field: str, value: object) -> str:
    """Return a value as text; DataError where it is none, or empty."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise DataError(problem(field, f"{value!r}"[:60], "text"))
    if not str(value).strip():
        raise DataError(problem(field, "empty"))
    return str(value)


def split(text: str) -> list[str]:
    """Return the sentences of a text, none of them empty.

    >>> split("One. Two? 三。四！")
    ['One.', 'Two?', '三。', '四！']
    """
    return [each.strip() for each in END.split(text) if each.strip()]


def joined(sentences: Sequence[str]) -> str:
    """Return sentences as one text; no space comes where two Chinese ones meet.

    >>> joined(["三。", "四。"]), joined(["One.", "Two."])
    ('三。四。', 'One. Two.')
    """
    found = ""
    for each in sentences:
        found += ("" if not found or (scripted(found[-20:]) and scripted(each[:20])) else " ") + each
    return found


def scripted(text: str) -> bool:
    """Return whether most of a text's words are single characters, as in Chinese."""
    words = tokens(text)
    return 2 * sum(bool(re.match(f"[{ALONE}]", each)) for each in words) > len(words)


def measures(sentences: Sequence[str]) -> Numbers:
    """Return (n, MEASURES) numbers, one line a sentence."""
    count = len(sentences)
    words = [Counter(tokens(each)) for each in sentences]
    near = _cosines(words)
    around = near - np.eye(count) * np.diag(near)
    place = np.arange(count)
    sizes = np.array([each.total() for each in words])
    return np.stack(
        [
            1 / (1 + place),
            place == 0,
            place == count - 1,
            place / max(1, count - 1),
            np.log1p(sizes),
            sizes < SHORT,
            around.sum(1) / max(1, count - 1),
            _rank(around) * count,
            np.ones(count),
        ],
        1,
    ).astype(np.float64)


def _cosines(words: Sequence[Counter[str]]) -> Numbers:
    """Return (n, n) cosines of tf-idf vectors; what every sentence has weighs little."""
    known = {word: column for column, word in enumerate(sorted({word for each in words for word in each}))}
    table = np.zeros((len(words), max(1, len(known))))
    for line, each in enumerate(words):
        for word, times in each.items():
            table[line, known[word]] = times
    table *= np.log(1 + len(words) / np.maximum(1, (table > 0).sum(0)))
    sizes = np.linalg.norm(table, axis=1, keepdims=True)
    table /= np.where(sizes > 0, sizes, 1)
    return np.asarray(table @ table.T)


def _rank(near: Numbers) -> Numbers:
    """Return (n,) how often a walk along likenesses comes by; the shares sum to 1."""
    count = len(near)
    sums = near.sum(1, keepdims=True)
    steps = np.where(sums > 0, near / np.where(sums > 0, sums, 1), 1 / count)
    found = np.full(count, 1 / count)
    for _ in range(ROUNDS):
        found = (1 - DAMPING) / count + DAMPING * (found @ steps)
    return found
