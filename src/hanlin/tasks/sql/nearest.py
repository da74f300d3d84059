"""The nearest question's query: what a parser has to be better than.

A question is answered by the query of the training question whose words are most like its own (cosine of tf-idf), the
database's texts in it exchanged for its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from hanlin.metrics.texts.rouge import tokens


class Nearest:
    """Questions and the forms of their queries, slots in place of texts."""

    def __init__(self, questions: Sequence[str], forms: Sequence[str]) -> None:
        """Weigh the words of the questions."""
        self.forms = list(forms)
        counts = [Counter(tokens(each)) for each in questions]
        held = Counter(word for each in counts for word in each)
        self.weights = {word: math.log((1 + len(counts)) / (1 + times)) + 1 for word, times in held.items()}
        self.vectors = [self._vector(each) for each in counts]

    def __call__(self, question: str) -> str:
        """Return the form of the nearest question, the first where several are as near."""
        asked = self._vector(Counter(tokens(question)))
        near = [sum(weight * each.get(word, 0.0) for word, weight in asked.items()) for each in self.vectors]
        return self.forms[max(range(len(near)), key=near.__getitem__)]

    def _vector(self, words: Counter[str]) -> dict[str, float]:
        found = {word: times * self.weights.get(word, 1.0) for word, times in words.items()}
        size = math.sqrt(sum(each * each for each in found.values())) or 1.0
        return {word: each / size for word, each in found.items()}
