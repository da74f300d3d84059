"""Texts by runs of characters shared with the reference: `chrf`, of 100, exactly sacrebleu's (Popović 2015).

Runs of 1 to 6 characters, spaces left out; F with recall twice as heavy as precision. No tokenizer, so Chinese and
German need nothing of their own. With several references a row counts its best one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from hanlin.metrics.contract import PERCENT, Estimate, Groups, Numbers, Rows, Sums
from hanlin.metrics.texts.exact import Answers, wanted

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF


def rows(predictions: Sequence[str], references: Sequence[Answers]) -> Rows:
    """Return (given, wanted, shared) runs of each length, 18 numbers a row, sacrebleu's own counts."""
    counter = _chrf()
    texts = wanted(predictions, references)
    # This and what _score calls are sacrebleu's own contract of a metric; nothing public shows chrF's counts.
    numbers = counter._extract_corpus_statistics(predictions, list(zip_longest(*texts)))
    measures = {"chrf": Sums(partial(_score, counter=counter), PERCENT)}
    return Rows(numbers=np.array(numbers, dtype=np.float64), measures=measures)


def score(predictions: Sequence[str], references: Sequence[Answers], *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `chrf`, of 100.

    >>> round(score(["我喜欢猫"], ["我喜欢狗"])["chrf"].value, 1)
    47.9
    """
    return rows(predictions, references).score(groups)


def signature(*, references: int = 1) -> str:
    """Return sacrebleu's one-line account of the settings; `references` a row."""
    counter = _chrf()
    counter.num_refs = references
    return str(counter.get_signature())


def _chrf() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def _score(sums: Numbers, *, counter: CHRF) -> Numbers:
    lines = sums.reshape(-1, sums.shape[-1]).round().astype(int).tolist()
    return np.array([counter._compute_score_from_stats(line).score for line in lines]).reshape(sums.shape[:-1])
