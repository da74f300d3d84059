"""Summaries by words shared with the reference: `rouge_1`, `rouge_2`, `rouge_l`, of 100 (Lin 2004).

    "LSTM 模型 for Chinese"  ─>  lstm │ 模 │ 型 │ for │ chinese        Chinese, Japanese and Korean by the character

    rouge_n   F1 of the runs of n tokens, as a bag          rouge_l   F1 of the longest common subsequence

Each is a row's F1, the best over its references; then the mean over rows. On English this is the package rouge-score
without stemming, to the last digit (a test compares them). It is not used itself: it brings all of NLTK, which takes
two seconds to import, for a stemmer; and it drops every letter but a–z, so that 翰林 and "für" would be nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from hanlin.metrics.contract import PERCENT, Estimate, Groups, Numbers, Rows, Sums, share
from hanlin.metrics.texts.exact import Answers, wanted

ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
TOKEN = re.compile(rf"[{ALONE}]|(?:(?![{ALONE}_])\w)+")
KEYS = ("rouge_1", "rouge_2", "rouge_l")


def rows(predictions: Sequence[str], references: Sequence[Answers]) -> Rows:
    """Return (rouge_1, rouge_2, rouge_l, 1) of each row, fractions."""
    numbers = []
    for given, texts in zip(predictions, wanted(predictions, references)):
        a = tokens(given)
        both = [_row(a, tokens(text)) for text in texts]
        numbers.append([*(max(column) for column in zip(*both)), 1.0])
    measures = {key: Sums(partial(_mean, column=column), PERCENT) for column, key in enumerate(KEYS)}
    return Rows(numbers=np.array(numbers), measures=measures)


def score(predictions: Sequence[str], references: Sequence[Answers], *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `rouge_1`, `rouge_2` and `rouge_l`, of 100.

    >>> round(score(["翰林院在北京"], ["翰林在北京"])["rouge_l"].value, 1)
    90.9
    """
    return rows(predictions, references).score(groups)


def tokens(text: str) -> list[str]:
    """Return the words in lower case, and every Chinese, Japanese or Korean character by itself."""
    return TOKEN.findall(text.lower())


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, bit-parallel (Hyyrö 2004): a word a step, not a cell."""
    places: dict[str, int] = {}
    for place, word in enumerate(b):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(b)) - 1
    open_ = full
    for word in a:
        hit = open_ & places.get(word, 0)
        open_ = ((open_ + hit) | (open_ - hit)) & full
    return len(b) - open_.bit_count()


def _row(a: Sequence[str], b: Sequence[str]) -> tuple[float, float, float]:
    return _overlap(a, b, 1), _overlap(a, b, 2), _f1(common(a, b), len(a), len(b))


def _overlap(a: Sequence[str], b: Sequence[str], n: int) -> float:
    first, second = (Counter(zip(*(side[shift:] for shift in range(n)))) for side in (a, b))
    return _f1((first & second).total(), first.total(), second.total())


def _f1(shared: int, given: int, wanted: int) -> float:
    return 2 * shared / (given + wanted) if shared else 0.0


def _mean(sums: Numbers, *, column: int) -> Numbers:
    return 100 * share(sums[..., column], sums[..., -1])
