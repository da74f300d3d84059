"""How well words were heard: word error rate, and the share of transcripts without any error.

    wer = (substitutions + deletions + insertions) / words of the references

Normalised before both, reference and hypothesis alike: NFKC, case folded, punctuation and symbols replaced by spaces
(an apostrophe between letters stays: "don't" is one word), white space made one space. A Chinese, Japanese or Korean
character is a word of its own, as there are no spaces to go by, so a wer of Chinese is its cer.
Alignment by jiwer; one row is one utterance, and intervals come from redrawing utterances.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from hanlin.errors import DataError, MissingExtra, problem
from hanlin.metrics.contract import Estimate, Numbers, bootstrap

ALONE = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af\U00020000-\U0003ffff"  # one character, one word
)
APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> Estimate:
    """Return the word error rate, a fraction that passes 1 where more is made up than was said.

    >>> round(wer(["the cat sat"], ["The cat sits down."]).value, 4)
    0.6667
    """
    return bootstrap(word_errors(references, hypotheses), ratio, unit="per word")


def exact(references: Sequence[str], hypotheses: Sequence[str]) -> Estimate:
    """Return the share of transcripts that are exactly right once normalised.

    >>> exact(["Seven!", "two"], ["seven", "too"]).value
    0.5
    """
    _check(references, hypotheses)
    same = [normalized(a) == normalized(b) for a, b in zip(references, hypotheses)]
    return bootstrap(np.stack([np.array(same, dtype=np.float64), np.ones(len(same))], 1), ratio, unit="transcripts")


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> Numbers:
    """Return (n, 2): errors and reference words of each utterance."""
    return errors([normalized(each).split() for each in references], [normalized(each).split() for each in hypotheses])


def normalized(text: str) -> str:
    """Return text as it is compared, words parted by single spaces.

    >>> normalized("Don't  STOP，翰林院!")
    "don't stop 翰 林 院"
    """
    text = APOSTROPHE.sub("\0", unicodedata.normalize("NFKC", text).casefold())
    kept = (" " if unicodedata.category(each)[0] in "PSZC" and each != "\0" else each for each in text)
    words = re.sub(f"([{ALONE}])", r" \1 ", "".join(kept)).replace("\0", "'")
    return " ".join(words.split())


def errors(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> Numbers:
    """Return (n, 2): the fewest changes between two lists of units, and the units of the reference."""
    try:
        import jiwer
    except ImportError:
        raise MissingExtra("jiwer", "speech") from None
    _check(references, hypotheses)
    found = np.zeros((len(references), 2))
    for row, (said, heard) in enumerate(zip(references, hypotheses)):
        found[row, 1] = len(said)
        if not said or not heard:  # jiwer refuses empty references
            found[row, 0] = len(said) + len(heard)
        else:
            each = jiwer.process_words(" ".join(said), " ".join(heard))
            found[row, 0] = each.substitutions + each.deletions + each.insertions
    if len(found) and not found[:, 1].any():
        raise DataError(problem("score", "no reference holds a word", do="look for the column of the text"))
    return found


def _check(references: Sequence[object], hypotheses: Sequence[object]) -> None:
    if len(references) != len(hypotheses):
        given = f"{len(references):,} references, {len(hypotheses):,} hypotheses"
        raise DataError(problem("score", given, "as many of each"))


def ratio(sums: Numbers) -> Numbers:
    """Return errors a unit, of summed rows; a redraw that holds no unit has none to err on."""
    return sums[..., 0] / np.maximum(sums[..., 1], 1.0)
