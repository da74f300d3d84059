"""Answers by SQuAD's own rule: `exact_match` and `f1`, of 100 (Rajpurkar 2016, 1606.05250; 2018, 1806.03822).

    "The Eiffel Tower!"  ─ lower case, no punctuation, no a/an/the, single spaces ─>  "eiffel tower"

    exact_match   equal to any of the answers        f1   words shared with the best of them, as a bag

A question without an answer wants "": any other answer scores 0, as does "" where there is one.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hanlin.metrics.contract import PERCENT, Estimate, Groups, Numbers, Rows, Sums, aligned, share
from hanlin.metrics.texts.exact import Answers, allowed

ARTICLES = re.compile(r"\b(a|an|the)\b")
MARKS = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Abstention:
    """What is won by not answering when in doubt, most daring first: answering only where doubt <= `thresholds`.

    `answered` is the fraction of questions answered; `exact_match` and `f1` are of all questions, of 100. `best` is
    the place of the highest f1, the earliest of equals.
    """

    thresholds: Numbers
    answered: Numbers
    exact_match: Numbers
    f1: Numbers
    best: int


def rows(predictions: Sequence[str], references: Sequence[Answers]) -> Rows:
    """Return (exact, f1, has an answer, both × that, 1) of each question; "" or [] is a question without an answer."""
    lists = [[answer for answer in wanted if normal(answer)] for wanted in allowed(predictions, references)]
    return judged(predictions, lists, _judge)


def score(predictions: Sequence[str], references: Sequence[Answers], *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `exact_match` and `f1`, of 100; where some questions have no answer, `…_answerable`, `…_unanswerable` too.

    >>> round(score(["the Eiffel Tower"], [["Eiffel tower, Paris", "a tower"]])["f1"].value, 1)
    80.0
    """
    return rows(predictions, references).score(groups)


def abstention(
    predictions: Sequence[str],
    references: Sequence[Answers],
    doubts: Sequence[float] | NDArray[np.floating],
    *,
    judge: Callable[[str, str], tuple[float, float]] | None = None,
) -> Abstention:
    """Return the scores at every threshold, where `doubts` grow with the chance that there is no answer.

    `judge(given, wanted)` -> (exact, f1) takes the place of SQuAD's rule.
    """
    aligned(doubts, references)
    doubt = np.asarray(doubts, dtype=np.float64)
    lists = [[answer for answer in wanted if normal(answer)] for wanted in allowed(predictions, references)]
    sides = (predictions, [""] * len(predictions))
    answers, silence = (judged(given, lists, judge or _judge).numbers[:, :2] for given in sides)
    order = np.argsort(-doubt, kind="stable")
    gains = np.concatenate([np.zeros((1, 2)), np.cumsum((silence - answers)[order], 0)]) + answers.sum(0)
    last = np.flatnonzero(np.append(np.diff(doubt[order]) != 0, True)) + 1  # after all questions of one doubt
    cuts = np.concatenate([[0], last])
    levels = np.concatenate([doubt[order[cuts[:-1]]], [-np.inf]])
    exact, f1 = 100 * gains[cuts].T / len(doubt)
    return Abstention(levels, 1 - cuts / len(doubt), exact, f1, int(f1.argmax()))


def judged(
    predictions: Sequence[str], lists: Sequence[Sequence[str]], judge: Callable[[str, str], tuple[float, float]]
) -> Rows:
    """Return the rows of `judge(given, wanted)` -> (exact, f1), each the best over a row's answers; none wants ""."""
    found = []
    for given, answers in zip(predictions, lists):
        both = [judge(given, answer) for answer in answers or [""]]
        exact, f1 = (max(column) for column in zip(*both))
        found.append([exact, f1, bool(answers), exact * bool(answers), f1 * bool(answers), 1])
    numbers = np.array(found, dtype=np.float64)
    measures = {"exact_match": Sums(_exact, PERCENT), "f1": Sums(_f1, PERCENT)}
    if 0 < numbers[:, 2].sum() < len(numbers):
        measures["exact_match_answerable"] = Sums(lambda s: 100 * share(s[..., 3], s[..., 2]), PERCENT)
        measures["f1_answerable"] = Sums(lambda s: 100 * share(s[..., 4], s[..., 2]), PERCENT)
        measures["f1_unanswerable"] = Sums(lambda s: 100 * share(s[..., 1] - s[..., 4], s[..., 5] - s[..., 2]), PERCENT)
    return Rows(numbers=numbers, measures=measures)


def normal(text: str) -> str:
    """Return the text as SQuAD compares it.

    >>> normal("The  Eiffel-Tower, a tower.")
    'eiffeltower tower'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(MARKS)).split())


def _judge(given: str, wanted: str) -> tuple[float, float]:
    given, wanted = normal(given), normal(wanted)
    exact = float(given == wanted)
    words, others = given.split(), wanted.split()
    if not words or not others:
        return exact, float(words == others)
    shared = sum((Counter(words) & Counter(others)).values())
    return exact, 2 * shared / (len(words) + len(others))


def _exact(sums: Numbers) -> Numbers:
    return 100 * share(sums[..., 0], sums[..., -1])


def _f1(sums: Numbers) -> Numbers:
    return 100 * share(sums[..., 1], sums[..., -1])
