"""How well characters were heard: character error rate, the measure for Chinese.

    cer = (substitutions + deletions + insertions) / characters of the references

Normalised as for wer (metrics/wer.py); then the space between two words is a character, as it can be heard wrongly,
but spaces around Chinese, Japanese and Korean characters are not, as nobody writes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hanlin.metrics.contract import Estimate, Numbers, bootstrap
from hanlin.metrics.wer import ALONE, errors, normalized, ratio

GAP = re.compile(f"(?<=[{ALONE}]) | (?=[{ALONE}])")
SPACE = "␣"  # stands for a space where units are parted by spaces


def cer(references: Sequence[str], hypotheses: Sequence[str]) -> Estimate:
    """Return the character error rate, a fraction that passes 1 where more is made up than was said.

    >>> cer(["广州市，房地产"], ["广州是房产"]).value.__round__(4)
    0.3333
    """
    return bootstrap(character_errors(references, hypotheses), ratio, unit="per character")


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> Numbers:
    """Return (n, 2): errors and reference characters of each utterance."""
    return errors([_characters(each) for each in references], [_characters(each) for each in hypotheses])


def _characters(text: str) -> list[str]:
    return list(GAP.sub("", normalized(text)).replace(" ", SPACE))
