"""Two correlations of labels that no majority can flatter: `matthews` and Cohen's `kappa`, both 1 at best, 0 by chance.

matthews = (c n − Σ g w) / √((n² − Σ g²) (n² − Σ w²))      c hits of n rows; g rows given, w rows wanting a label
kappa    = (c n − Σ g w) / (n² − Σ g w)                    (Gorodkin 2004; Cohen 1960)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from hanlin.metrics.contract import Draws, Estimate, Groups, Numbers, Rows, share
from hanlin.metrics.labels.confusion import Label, coded, margins

UNIT = "correlation"


def rows(predictions: Sequence[Label], references: Sequence[Label]) -> Rows:
    """Return each row's given and wanted label as numbers."""
    named, codes = coded(predictions, references)
    of: dict[str, Callable[..., Numbers]] = {"matthews": _matthews, "kappa": _kappa}
    measures = {key: Draws(partial(value, size=len(named)), UNIT) for key, value in of.items()}
    return Rows(numbers=codes.astype(np.float64), measures=measures)


def score(predictions: Sequence[Label], references: Sequence[Label], *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `matthews` and `kappa`, from −1 to 1; 0 where either side has a single label.

    >>> round(score([1, 1, 0, 1], [1, 1, 0, 0])["matthews"].value, 3)
    0.577
    """
    return rows(predictions, references).score(groups)


def _matthews(counts: Numbers, numbers: Numbers, *, size: int) -> Numbers:
    hits, given, wanted = margins(counts, numbers, size)
    n = counts.sum(1)
    agreed = hits.sum(1) * n - (given * wanted).sum(1)
    return share(agreed, np.sqrt(n**2 - (given**2).sum(1)) * np.sqrt(n**2 - (wanted**2).sum(1)))


def _kappa(counts: Numbers, numbers: Numbers, *, size: int) -> Numbers:
    hits, given, wanted = margins(counts, numbers, size)
    n, chance = counts.sum(1), (given * wanted).sum(1)
    return share(hits.sum(1) * n - chance, n**2 - chance)
