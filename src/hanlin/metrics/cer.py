"""How well characters were heard: character error rate, the measure for Chinese.

    cer = (substitutions + deletions + insertions) / characters of the references

Normalised as for wer (metrics/wer.py); then the space between two words is a character, as it can be heard wrongly,
but spaces around Chinese, Japanese and Korean characters are not, as nobody writes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hanlin.metrics.contract import FRACTION, Estimate, Groups, Rows, Sums, aligned
from hanlin.metrics.wer import ALONE, errors, normalized, rate

GAP = re.compile(f"(?<=[{ALONE}]) | (?=[{ALONE}])")
SPACE = "␣"  # stands for a space where units are parted by spaces
MEASURES = {"cer": Sums(rate, FRACTION)}


def rows(predictions: Sequence[str], references: Sequence[str]) -> Rows:
    """Return (errors, characters) of each utterance."""
    aligned(predictions, references)
    heard, said = ([_characters(each) for each in side] for side in (predictions, references))
    return Rows(numbers=errors(heard, said), measures=MEASURES)


def score(predictions: Sequence[str], references: Sequence[str], *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `cer`, a fraction that passes 1 where more is made up than was said.

    >>> round(score(["广州是房产"], ["广州市，房地产"])["cer"].value, 4)
    0.3333
    """
    return rows(predictions, references).score(groups)


def _characters(text: str) -> list[str]:
    return list(GAP.sub("", normalized(text)).replace(" ", SPACE))
