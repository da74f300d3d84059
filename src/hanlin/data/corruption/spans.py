"""Span corruption, how T5 is pre-trained: runs of tokens give way to sentinels, and are the answer.

    ids       a  b  c  d  e  f  g  h  i
    inputs    a  b  <0>     e  f  g <1> i          a sentinel for each hidden run
    targets   <0> c  d <1>  h  end                 each run after its sentinel, then what ends the answer

Raffel et al., arXiv 1910.10683, section 3.1.4: 15 % of the tokens, runs of 3 on average, cut at random.

Letters: n tokens, h hidden tokens, k runs.
"""

from __future__ import annotations

import numpy as np

from hanlin.data.corrupt import Ints, uniform


def shares(count: int, rate: float, mean: float) -> tuple[int, int]:
    """Return how many of `count` tokens are hidden, at least one and not all of several, and in how many runs."""
    hidden = min(max(round(count * rate), 1), max(count - 1, 1))
    return hidden, max(1, min(round(hidden / mean), hidden, max(count - hidden, 1)))


def room(context: int, rate: float, mean: float) -> int:
    """Return the most tokens whose inputs fit into `context`."""

    def inputs(count: int) -> int:
        hidden, runs = shares(count, rate, mean)
        return count - hidden + runs

    return max(count for count in range(1, 2 * context + 1) if inputs(count) <= context)


def spans(
    ids: Ints, bits: np.random.PCG64, *, rate: float, mean: float, sentinels: Ints, end: int
) -> tuple[Ints, Ints]:
    """Return (inputs, targets) of one text (n,); `sentinels` are used in their order, `end` closes the targets.

    Runs beyond the number of sentinels stay as they are: there are never more runs than sentinels.
    """
    hidden, runs = shares(len(ids), rate, mean)
    runs = min(runs, len(sentinels))
    gone, kept = (_parts(total, runs, bits) for total in (hidden, len(ids) - hidden))
    inputs, targets, at = [], [], 0
    for number, (stay, leave) in enumerate(zip(kept, gone)):
        mark = sentinels[number : number + 1]
        inputs += [ids[at : at + stay], mark]
        targets += [mark, ids[at + stay : at + stay + leave]]
        at += stay + leave
    return np.concatenate(inputs), np.concatenate([*targets, np.array([end])])


def _parts(total: int, parts: int, bits: np.random.PCG64) -> Ints:
    """Return `parts` numbers that add up to `total`, none of them 0 where that can be; every way is as likely."""
    if total < parts:
        return np.array([total, *[0] * (parts - 1)])
    cuts = np.sort(np.argsort(uniform(bits, total - 1), kind="stable")[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
