"""Translations by n-grams shared with the reference: `bleu`, of 100, exactly sacrebleu's (Papineni 2002; Post 2018).

tokenize   "13a" for most languages, "zh" for Chinese, "char", "intl", "none"
signature  nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:…       belongs beside every figure: those of two
                                                                        tokenizers do not compare
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hanlin.errors import DataError, nearest, problem
from hanlin.metrics.contract import PERCENT, Estimate, Groups, Numbers, Rows, Sums
from hanlin.metrics.texts.exact import Answers, wanted

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

ORDERS = 4
TOKENIZERS = ("13a", "zh", "char", "intl", "none")


def rows(
    predictions: Sequence[str], references: Sequence[Answers], *, tokenize: str = "13a", lowercase: bool = False
) -> Rows:
    """Return (length, reference length, n-grams shared.., n-grams given..) of each row, sacrebleu's own counts."""
    counter = _bleu(tokenize, lowercase, effective_order=True)  # changes the score of a sentence, not its counts
    numbers = []
    for given, texts in zip(predictions, wanted(predictions, references)):
        found = counter.sentence_score(given, texts)
        numbers.append([found.sys_len, found.ref_len, *found.counts, *found.totals])
    measures = {"bleu": Sums(partial(_score, counter=counter), PERCENT)}
    return Rows(numbers=np.array(numbers, dtype=np.float64), measures=measures)


def score(
    predictions: Sequence[str],
    references: Sequence[Answers],
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
    groups: Groups = None,
) -> dict[str, Estimate]:
    """Return `bleu`, of 100; a row may have several references. DataError for a tokenizer that sacrebleu lacks.

    >>> round(score(["the cat sat on the mat"], ["the cat sat on a mat"])["bleu"].value, 1)
    53.7
    """
    return rows(predictions, references, tokenize=tokenize, lowercase=lowercase).score(groups)


def signature(tokenize: str = "13a", *, lowercase: bool = False, references: int = 1) -> str:
    """Return sacrebleu's one-line account of the settings; `references` a row."""
    counter = _bleu(tokenize, lowercase, effective_order=False)
    counter.num_refs = references
    return str(counter.get_signature())


def _bleu(tokenize: str, lowercase: bool, *, effective_order: bool) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in TOKENIZERS:
        said = f"tokenizer '{tokenize}'"
        raise DataError(problem("bleu", said, ", ".join(TOKENIZERS), nearest(tokenize, TOKENIZERS)))
    return BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=effective_order, force=True)


def _score(sums: Numbers, *, counter: BLEU) -> Numbers:
    """Return the score of each line of sums, by sacrebleu's formula with exponential smoothing."""
    found = []
    for line in sums.reshape(-1, 2 + 2 * ORDERS).round().astype(int).tolist():
        correct, total = line[2 : 2 + ORDERS], line[2 + ORDERS :]
        found.append(counter.compute_bleu(correct, total, line[0], line[1], smooth_method="exp").score)
    return np.array(found).reshape(sums.shape[:-1])
