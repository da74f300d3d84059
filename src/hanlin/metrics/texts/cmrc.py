"""Chinese answers by CMRC 2018's own rule: `exact_match` and `f1`, of 100 (Cui 2019, 1810.07366).

    "1998年,Python 诞生"  ─ lower case, no Chinese punctuation ─>  1998 │ 年 │ , │ python │ 诞 │ 生

    f1   of the longest stretch that both segmentations share, without a gap (the paper's evaluator says "lcs" and
         means a common string, not a subsequence); the best over the answers

Chinese characters stand alone. What lies between is cut by the Treebank's rules: at spaces, before and after marks
and brackets, a comma not before a digit, the last full stop, an English 's. Of the 16,516 answers of
CMRC, DRCD and XQuAD here 20 come out otherwise than NLTK's, which rewrites quotation marks as opening or closing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hanlin.metrics.contract import Estimate, Groups, Rows
from hanlin.metrics.texts.exact import Answers, wanted
from hanlin.metrics.texts.squad import judged

DROPPED = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
ALONE = "\u4e00-\u9fa5"
SIGN = rf"[{ALONE};@#$%&?!()\[\]{{}}<>\"«»“”‘„—–]"
MARK = rf"{SIGN}|,(?!\d)|\.\.+|\.(?=\s*(?:$|[{ALONE}]))|'(?:s|m|d|ll|re|ve)?(?![^\s{ALONE}])"
PIECE = re.compile(rf"{MARK}|(?:(?!{MARK})\S)+")


def rows(predictions: Sequence[str], references: Sequence[Answers]) -> Rows:
    """Return (exact, f1, …, 1) of each question, the columns of `squad.rows`."""
    return judged(predictions, wanted(predictions, references), judge)


def score(predictions: Sequence[str], references: Sequence[Answers], *, groups: Groups = None) -> dict[str, Estimate]:
    """Return `exact_match` and `f1`, of 100.

    >>> round(score(["北京大学。"], [["在北京大学"]])["f1"].value, 1)
    88.9
    """
    return rows(predictions, references).score(groups)


def segments(text: str) -> list[str]:
    """Return the Chinese characters, and the words and marks between them, that the rule compares.

    >>> segments("1998年,Python 诞生。")
    ['1998', '年', ',', 'python', '诞', '生']
    """
    return PIECE.findall(plain(text))


def plain(text: str) -> str:
    """Return the text in lower case, without the punctuation that the rule drops."""
    return text.lower().strip().translate(DROPPED)


def judge(given: str, wanted: str) -> tuple[float, float]:
    """Return (exact, f1) of two texts; of two that are empty, no answer where none is wanted, both 1."""
    if not given and not wanted:
        return 1.0, 1.0
    a, b = segments(given), segments(wanted)
    shared = _longest(a, b)
    return float(plain(given) == plain(wanted)), 2 * shared / (len(a) + len(b)) if shared else 0.0


def _longest(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest stretch that stands in both."""
    longest, before = 0, [0] * (len(b) + 1)
    for piece in a:
        now = [0] * (len(b) + 1)
        for place, other in enumerate(b):
            if piece == other:
                now[place + 1] = before[place] + 1
        longest, before = max(longest, *now), now
    return longest
