"""Whether 80 % sure means right 8 times of 10: `ece`, `brier`, `nll`; and the temperature that mends it.

ece     Σ over bins of |right − sure| / n, by how sure the first choice is, 15 bins (Naeini 2015; Guo 2017)
brier   mean over rows of Σ over labels (p − truth)², 0 to 2 (Brier 1950)
nll     mean nats of the true label

logits / T ─ softmax ─> p       T > 1 tempers a model that is too sure; the order of labels never changes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hanlin.errors import DataError, problem
from hanlin.metrics.contract import FRACTION, Counts, Estimate, Groups, Numbers, Rows, Sums, aligned, mean, share

BINS = 15
COLDEST, HOTTEST = 0.01, 100.0  # where a temperature is sought
FLOOR = 1e-12  # the least probability whose logarithm is taken: one certain mistake must not make the mean infinite

Targets = Sequence[int] | NDArray[np.integer]


def rows(predictions: Numbers, references: Targets, *, bins: int = BINS) -> Rows:
    """Return (Brier, nats, sure.., right.., 1) of each row, from probabilities (n, labels) and true labels (n,)."""
    chances, truth = _checked(predictions, references, "probabilities")
    if (chances < 0).any() or not np.allclose(chances.sum(1), 1, atol=1e-3):
        bad = int(np.flatnonzero((chances < 0).any(1) | ~np.isclose(chances.sum(1), 1, atol=1e-3))[0])
        raise DataError(problem(f"row {bad}", f"probabilities sum to {chances[bad].sum():g}", "1, none negative"))
    every = np.arange(len(truth))
    sure = chances.max(1)
    right = chances.argmax(1) == truth
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    binned = np.zeros((2, len(truth), bins))
    binned[0, every, place], binned[1, every, place] = sure, right
    hot = np.zeros_like(chances)
    hot[every, truth] = 1
    brier, nats = ((chances - hot) ** 2).sum(1), -np.log(np.maximum(chances[every, truth], FLOOR))
    numbers = np.concatenate([np.stack([brier, nats], 1), *binned, np.ones((len(truth), 1))], 1)
    measures = {
        "ece": Sums(partial(_gap, bins=bins), FRACTION),
        "brier": Sums(mean, "squared"),
        "nll": Sums(_nats, "nats a row"),
    }
    return Rows(numbers=numbers, measures=measures)


def score(predictions: Numbers, references: Targets, *, bins: int = BINS, groups: Groups = None) -> dict[str, Estimate]:
    """Return `ece`, `brier` and `nll` of probabilities (n, labels) for true labels (n,); 0 is best.

    >>> round(score(np.array([[0.8, 0.2], [0.8, 0.2]]), [0, 1])["ece"].value, 3)
    0.3
    """
    return rows(predictions, references, bins=bins).score(groups)


def temperature(logits: Numbers, references: Targets | Numbers) -> float:
    """Return the T in [0.01, 100] at which logits / T give the rows the least nats; 1.0 changes nothing.

    `references` is (n,), the true labels of a softmax, or (n, labels) of 0 and 1, for a sigmoid each. In log T the
    curve has one valley (each row is convex in 1 / T), so it is found by golden section, to one part in 10⁸. DataError
    where the rows do not fit; use rows that training never saw, or T tells how well it remembers.
    """
    if np.ndim(references) == 2:
        values, truth = np.asarray(logits, dtype=np.float64), np.asarray(references, dtype=np.float64)
        aligned(values, truth)
        _finite(values, "logits")
        signs = np.where(truth > 0.5, 1.0, -1.0)
        return _valley(lambda log_t: float(np.logaddexp(0, -signs * values * np.exp(-log_t)).sum()))
    values, labels = _checked(logits, references, "logits")
    behind = values - values[np.arange(len(labels)), labels][:, None]  # each label's lead over the true one
    return _valley(lambda log_t: float(np.logaddexp.reduce(behind * np.exp(-log_t), axis=1).sum()))


def _valley(nats: Callable[[float], float]) -> float:
    """Return exp of the place between log COLDEST and log HOTTEST where the one valley of `nats` lies."""
    low, high = float(np.log(COLDEST)), float(np.log(HOTTEST))
    golden = (5**0.5 - 1) / 2
    inner, outer = high - golden * (high - low), low + golden * (high - low)
    cost = [nats(inner), nats(outer)]
    while high - low > 1e-8:
        if cost[0] <= cost[1]:
            high, outer, inner = outer, inner, outer - golden * (outer - low)
            cost = [nats(inner), cost[0]]
        else:
            low, inner, outer = inner, outer, inner + golden * (high - inner)
            cost = [cost[1], nats(outer)]
    return float(np.exp((low + high) / 2))


def _checked(values: Numbers, references: Targets | Numbers, what: str) -> tuple[Numbers, Counts]:
    aligned(values, references)
    table, truth = np.asarray(values, dtype=np.float64), np.asarray(references)
    _finite(table, what)
    if table.ndim != 2 or truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= table.shape[1]:
        given = f"{what} {table.shape}, labels {truth.dtype} from {truth.min()} to {truth.max()}"
        raise DataError(
            problem("calibration", given, f"{what} (rows, labels), and whole numbers from 0 for the labels")
        )
    return table, truth.astype(np.int64)


def _finite(table: Numbers, what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(table).reshape(len(table), -1).all(1))
    if len(bad):
        raise DataError(problem(what, f"NaN or infinity in {len(bad):,} of {len(table):,} rows, the first is {bad[0]}"))


def _gap(sums: Numbers, *, bins: int) -> Numbers:
    sure, right = sums[..., 2 : 2 + bins], sums[..., 2 + bins : 2 + 2 * bins]
    return share(np.abs(sure - right).sum(-1), sums[..., -1])


def _nats(sums: Numbers) -> Numbers:
    return mean(sums[..., 1:])
