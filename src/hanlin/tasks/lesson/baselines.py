"""What a score has to beat: the commonest answer, and a linear model over TF-IDF weighted words.

    text ─ grams ─> words and pairs of words; Chinese characters, two and three of them ─ TF-IDF ─> linear model

Either takes seconds, and on short texts the second is often hard to beat (Wang and Manning 2012). Chinese needs no
word segmentation this way. scikit-learn computes both; without it the first alone is given, and that is said.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np

MAJORITY, LINEAR = "majority", "TF-IDF + linear"
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af"  # Han, kana and hangul: no spaces needed
PIECES = re.compile(rf"[{HAN}]+|[^\W{HAN}]+|[^\w\s]")
EXTRA = "pip install 'hanlin[baselines]' adds TF-IDF + linear"
Answer = Any  # what an example's label is: a name, several, or a number


def grams(text: str) -> list[str]:
    """Return words and pairs of neighbours, lower-cased; of Chinese one to three characters.

    >>> grams("So good 很好")
    ['很', '很好', '好', 'so', 'good', 'so good']
    """
    found: list[str] = []
    words: list[str] = []
    for piece in PIECES.findall(text.lower()):
        if re.match(f"[{HAN}]", piece):
            found += [
                piece[at : at + size] for at in range(len(piece)) for size in (1, 2, 3) if at + size <= len(piece)
            ]
        else:
            words.append(piece)
    return [*found, *words, *(f"{one} {two}" for one, two in pairwise(words))]


def answers(
    train: Sequence[tuple[Sequence[str], Answer]], asked: Sequence[Sequence[str]]
) -> dict[str, Sequence[Answer]]:
    """Return each baseline's answers to texts (one, or a pair), learned from texts with answers, by its name.

    An answer is a name, a tuple of names or a number; all of them are of one kind. Without scikit-learn there is the
    majority alone.
    """
    labels = [label for _, label in train]
    found: dict[str, Sequence[Answer]] = {MAJORITY: [_usual(labels)] * len(asked)}
    if find_spec("sklearn") is not None:
        found[LINEAR] = _linear([_marked(texts) for texts, _ in train], labels, [_marked(each) for each in asked])
    return found


def _usual(labels: Sequence[Answer]) -> Answer:
    """Return the mean of numbers; the names that more than half the rows have; the commonest name."""
    if isinstance(labels[0], float):
        return float(np.mean(labels))
    if isinstance(labels[0], tuple):
        counts = Counter(name for each in labels for name in each)
        return tuple(sorted(name for name, count in counts.items() if 2 * count > len(labels)))
    return Counter(labels).most_common(1)[0][0]


def _marked(texts: Sequence[str]) -> list[str]:
    """Return the grams of a text, or of a pair, the second's told from the first's, and those they share."""
    sides = [grams(text) for text in texts]
    if len(sides) == 1:
        return sides[0]
    shared = {*sides[0]} & {*sides[1]}
    return [*sides[0], *(f"2 {each}" for each in sides[1]), *(f"both {each}" for each in shared)]


def _linear(train: list[list[str]], labels: Sequence[Answer], asked: list[list[str]]) -> list[Answer]:
    """Return the answers of a linear model: logistic regression, one for each of several names, ridge for numbers."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    same: Callable[[list[str]], list[str]] = lambda given: given  # noqa: E731  # cut into grams already
    words = TfidfVectorizer(analyzer=same, sublinear_tf=True, min_df=2 if len(train) > 1000 else 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of solvers that could go on for longer
        table, wanted = words.fit_transform(train), words.transform(asked)
        if isinstance(labels[0], float):
            return [float(each) for each in Ridge(alpha=1.0).fit(table, list(labels)).predict(wanted)]
        model = LogisticRegression(C=10.0, max_iter=100)
        if isinstance(labels[0], tuple):
            names = MultiLabelBinarizer()
            fitted = OneVsRestClassifier(model).fit(table, names.fit_transform(labels))
            return [tuple(sorted(each)) for each in names.inverse_transform(fitted.predict(wanted))]
        return [str(each) for each in model.fit(table, list(labels)).predict(wanted)]
