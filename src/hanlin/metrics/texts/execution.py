"""Whether a query finds what the right query finds: `exec_accuracy`, a fraction.

    given   SELECT …   ─ run ─>  rows | None where it failed or was cut
    wanted  SELECT …   ─ run ─>  rows        the same rows as often; in the same order only under ORDER BY

Columns keep their order. A wanted result without rows tells nothing (any wrong query that finds nothing would be
right), so such rows are left out: `told` says which stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from hanlin.errors import DataError, problem
from hanlin.metrics.contract import FRACTION, Estimate, Groups, Rows, Sums, aligned, grouping, mean

Result = Sequence[Sequence[Hashable]]  # what a query found: rows of cells
DIGITS = 9  # of a real number that must agree: sums in another order differ in the last ones
QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)
MEASURES = {"exec_accuracy": Sums(mean, FRACTION)}


def rows(predictions: Sequence[Result | None], references: Sequence[Result], *, ordered: Sequence[bool]) -> Rows:
    """Return (right, 1) of each row that `told` keeps; `ordered`: does the wanted query say ORDER BY?"""
    aligned(predictions, references)
    aligned(ordered, references)
    kept = told(references)
    if not kept.any():
        raise DataError(problem("exec_accuracy", f"all {len(kept):,} wanted results are empty", "at least one row"))
    right = [
        given is not None and _same(given, wanted, by)
        for given, wanted, by, keep in zip(predictions, references, ordered, kept)
        if keep
    ]
    return Rows(numbers=np.stack([np.array(right, dtype=np.float64), np.ones(len(right))], 1), measures=MEASURES)


def score(
    predictions: Sequence[Result | None],
    references: Sequence[Result],
    *,
    ordered: Sequence[bool],
    groups: Groups = None,
) -> dict[str, Estimate]:
    """Return `exec_accuracy`, a fraction; `n` counts the rows (or groups) whose wanted result is not empty.

    >>> score([[(1,), (2,)], None], [[(2,), (1,)], [(3,)]], ordered=[False, False])["exec_accuracy"].value
    0.5
    """
    found = rows(predictions, references, ordered=ordered)
    return found.score(None if groups is None else grouping(groups, len(references))[told(references)].tolist())


def told(references: Sequence[Result]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return (n,): True where the wanted query found anything."""
    return np.array([len(wanted) > 0 for wanted in references], dtype=bool)


def order_counts(sql: str) -> bool:
    """Return whether a query orders its own result: ORDER BY outside of brackets, quotes and comments.

    >>> order_counts("SELECT a FROM t ORDER BY a"), order_counts("SELECT a FROM (SELECT a FROM t ORDER BY a)")
    (True, False)
    """
    depth = 0
    for piece in re.finditer(r"[()]|\border\s+by\b", QUOTED.sub(" '' ", sql), re.IGNORECASE):
        depth += {"(": 1, ")": -1}.get(piece[0], 0)
        if piece[0] not in "()" and depth == 0:
            return True
    return False


def _same(given: Result, wanted: Result, ordered: bool) -> bool:
    first, second = ([tuple(_cell(cell) for cell in line) for line in side] for side in (given, wanted))
    return first == second if ordered else Counter(first) == Counter(second)


def _cell(cell: Hashable) -> Hashable:
    """Return a cell as it is compared: 1 and 1.0 alike, reals to DIGITS, text never equal to a number."""
    return float(f"{cell:.{DIGITS}g}") if isinstance(cell, float) else cell
