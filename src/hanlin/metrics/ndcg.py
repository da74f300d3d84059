"""How well documents are ranked for queries: `ndcg@10`, `recall@100`, `mrr@10`, `map`, each the mean over queries.

ranked  d3 d1 d7 …      gains {d1: 2, d9: 1}        (whatever has no gain above 0 is not relevant)

ndcg    Σ gain / log₂(place + 1), over the best possible ranking's (Järvelin 2002; gains linear, as trec_eval)
recall  relevant documents among the first k, of all that are relevant
mrr     1 / place of the first relevant one
map     mean over the relevant documents of the precision at their place; 0 for one not ranked
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from hanlin.errors import DataError, problem
from hanlin.metrics.contract import FRACTION, Estimate, Groups, Numbers, Rows, Sums, aligned, share

Ranking = Sequence[str]  # document ids, the best first
Gains = Mapping[str, float]  # document id -> gain


def rows(
    predictions: Sequence[Ranking],
    references: Sequence[Gains],
    *,
    at: int = 10,
    recall_at: int = 100,
    binary: bool = False,
) -> Rows:
    """Return (nDCG, recall, reciprocal place, average precision, 1) of each query; `binary` makes every gain 1.

    DataError names a query that has no relevant document, or whose ranking names a document twice.
    """
    aligned(predictions, references)
    numbers = []
    for row, (ranked, judged) in enumerate(zip(predictions, references)):
        gains = {name: 1.0 if binary else float(gain) for name, gain in judged.items() if not gain <= 0}
        if not np.isfinite(list(gains.values())).all():
            raise DataError(problem(f"query {row}", "a gain is NaN or infinite"))
        if not gains:
            raise DataError(problem(f"query {row}", "no relevant document", do="leave it out"))
        if len(set(ranked)) < len(ranked):
            raise DataError(problem(f"query {row}", "a document is ranked twice", do="keep the better place"))
        places = [place for place, name in enumerate(ranked, 1) if name in gains]
        numbers.append(
            [
                _gained([gains.get(name, 0.0) for name in ranked[:at]]) / _gained(sorted(gains.values())[::-1][:at]),
                sum(place <= recall_at for place in places) / len(gains),
                1 / places[0] if places and places[0] <= at else 0.0,
                sum(found / place for found, place in enumerate(places, 1)) / len(gains),
                1.0,
            ]
        )
    keys = (f"ndcg@{at}", f"recall@{recall_at}", f"mrr@{at}", "map")
    measures = {key: Sums(partial(_mean, column=column), FRACTION) for column, key in enumerate(keys)}
    return Rows(numbers=np.array(numbers), measures=measures)


def score(
    predictions: Sequence[Ranking],
    references: Sequence[Gains],
    *,
    at: int = 10,
    recall_at: int = 100,
    binary: bool = False,
    groups: Groups = None,
) -> dict[str, Estimate]:
    """Return `ndcg@10`, `recall@100`, `mrr@10` and `map`, fractions; the cut is part of the key.

    >>> round(score([["b", "a"]], [{"a": 1}])["ndcg@10"].value, 3)
    0.631
    """
    return rows(predictions, references, at=at, recall_at=recall_at, binary=binary).score(groups)


def _gained(gains: Sequence[float]) -> float:
    """Return the discounted gain of a ranking."""
    return float(np.sum(np.array(gains) / np.log2(np.arange(2, len(gains) + 2))))


def _mean(sums: Numbers, *, column: int) -> Numbers:
    return share(sums[..., column], sums[..., -1])
