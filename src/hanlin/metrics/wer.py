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

from hanlin.errors import MissingExtra
from hanlin.metrics.contract import FRACTION, Estimate, Groups, Numbers, Rows, Sums, aligned, share

ALONE = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af\U00020000-\U0003ffff"  # one character, one word
)
APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")


def rows(predictions: Sequence[str], references: Sequence[str]) -> Rows:
    """Return (errors, words, exactly right, 1) of each utterance."""
    aligned(predictions, references)
    heard, said = ([normalized(each).split() for each in side] for side in (predictions, references))
    right = np.array([a == b for a, b in zip(heard, said)], dtype=np.float64)
    return Rows(numbers=np.column_stack((errors(heard, said), right, np.ones(len(right)))), measures=MEASURES)


def score(predictions: Sequence[str], references: Sequence[str], *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `wer`, a fraction that passes 1 where more is made up than was said, and `exact`, of transcripts.

    >>> found = score(["The cat sits down.", "TWO!"], ["the cat sat", "two"])
    >>> found["wer"].value, found["exact"].value
    (0.5, 0.5)
    """
    return rows(predictions, references).score(groups)


def rate(sums: Numbers) -> Numbers:
    """Return errors over units."""
    return share(sums[..., 0], sums[..., 1])


MEASURES = {"wer": Sums(rate, FRACTION), "exact": Sums(lambda sums: share(sums[..., 2], sums[..., 3]), FRACTION)}


def normalized(text: str) -> str:
    """Return text as it is compared, words parted by single spaces.

    >>> normalized("Don't  STOP，翰林院!")
    "don't stop 翰 林 院"
    """
    text = APOSTROPHE.sub("\0", unicodedata.normalize("NFKC", text).casefold())
    kept = (" " if unicodedata.category(each)[0] in "PSZC" and each != "\0" else each for each in text)
    words = re.sub(f"([{ALONE}])", r" \1 ", "".join(kept)).replace("\0", "'")
    return " ".join(words.split())


def errors(heard: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> Numbers:
    """Return (n, 2): the fewest changes that make what was heard of what was said, and the units that were said."""
    try:
        import jiwer
    except ImportError:
        raise MissingExtra("jiwer", "speech") from None
    found = np.zeros((len(said), 2))
    for row, (given, wanted) in enumerate(zip(heard, said)):
        found[row, 1] = len(wanted)
        if not given or not wanted:  # jiwer refuses empty references
            found[row, 0] = len(given) + len(wanted)
        else:
            each = jiwer.process_words(" ".join(wanted), " ".join(given))
            found[row, 0] = each.substitutions + each.deletions + each.insertions
    return found
