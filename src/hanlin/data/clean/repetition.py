"""Repetition: lines, paragraphs and phrases that come again and again (Gopher, arXiv:2112.11446, table A1).

    lines, paragraphs   share of those that stood before, and share of their characters
    top n-grams         share of characters in the one n-gram that is most frequent
    duplicate n-grams   share of characters in n-grams that stood before, each character counted once

An n-gram is of words; in Chinese and Japanese, which part no words, of characters, with sizes of their own. Shares are
sums over stretches of STRETCH units divided once, so that a novel is held to what an article is held to.
What duplicate (n+1)-grams cover, duplicate n-grams cover too: ordinary text is through after the shortest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hanlin.config import Config as Frozen
from hanlin.data.clean import characters
from hanlin.data.clean.contract import Dropped, Step
from hanlin.data.tally import Document

STRETCH = 1 << 13  # units; a web page has some 500 words, the longest book chapter some 10,000
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, and near 2^64 divided by the golden ratio: n-grams become numbers

Ids = npt.NDArray[np.uint64]
Sizes = npt.NDArray[np.int64]
Limits = tuple[tuple[int, float], ...]  # n -> the largest share


class Units(NamedTuple):
    """The words or characters of a text as numbers, and how many characters each holds."""

    ids: Ids
    sizes: Sizes

    def stretches(self) -> Iterator[Units]:
        """Yield the stretches that n-grams are counted in."""
        for at in range(0, len(self.ids), STRETCH):
            yield Units(self.ids[at : at + STRETCH], self.sizes[at : at + STRETCH])


class Config(Frozen):
    """How much may be repeated; a limit on n-grams is a pair, n and the largest share."""

    lines: float = Field(0.30, ge=0, le=1, description="Share of lines that stood before (Gopher).")
    line_characters: float = Field(0.20, ge=0, le=1, description="Share of characters in such lines (Gopher).")
    paragraphs: float = Field(0.30, ge=0, le=1, description="Share of paragraphs that stood before (Gopher).")
    paragraph_characters: float = Field(0.20, ge=0, le=1, description="Share of characters in such (Gopher).")
    top_words: Limits = Field(((2, 0.20), (3, 0.18), (4, 0.16)), description="Most frequent word n-gram (Gopher).")
    again_words: Limits = Field(
        ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)),
        description="Word n-grams that stood before (Gopher).",
    )
    # 934 paragraphs of the Chinese Wikipedia: 99 of 100 stay below 0.11 (top) and 0.26, 0.15, 0.11 (again), 999 of
    # 1,000 below 0.15, 0.19, 0.22 and 0.35, 0.26, 0.21; Gopher's shares for words would drop one in twenty.
    top_characters: Limits = Field(((4, 0.20), (6, 0.20), (8, 0.20)), description="The same in Chinese.")
    again_characters: Limits = Field(((8, 0.30), (12, 0.20), (16, 0.15)), description="The same in Chinese.")
    fewest_words: int = Field(50, ge=0, description="Words below which shares mean nothing (Gopher's shortest text).")
    fewest_characters: int = Field(100, ge=0, description="The same in Chinese: a song of 60 characters has a refrain.")


def build(config: Config) -> Step:
    """Return the step."""

    def step(document: Document) -> Document | Dropped:
        if len(document.text) < min(config.fewest_words, config.fewest_characters):
            return document
        if characters.is_cjk(document.text):
            units, fewest = _characters(document.text), config.fewest_characters
            top, again = config.top_characters, config.again_characters
        else:
            units, fewest = _words(document.text), config.fewest_words
            top, again = config.top_words, config.again_words
        if len(units.ids) < fewest:
            return document
        reason = _of_blocks(document.text, config) or _of_phrases(units, top, again)
        return Dropped(reason) if reason else document

    return step


def _of_blocks(text: str, config: Config) -> str:
    """Return whether lines or paragraphs are repeated too often, in a word, or nothing."""
    lines = [line for each in text.split("\n") if (line := each.strip())]
    if _repeated(lines, config.lines, config.line_characters):
        return "lines"
    if "\n\n" not in text:
        return ""
    paragraphs = [paragraph for each in text.split("\n\n") if (paragraph := each.strip())]
    return "paragraphs" if _repeated(paragraphs, config.paragraphs, config.paragraph_characters) else ""


def _repeated(blocks: list[str], most: float, most_characters: float) -> bool:
    """Return whether too many blocks stood before, or those that did hold too many characters."""
    once = set(blocks)
    again = len(blocks) - len(once)
    if not again:
        return False
    total = sum(map(len, blocks))
    return again > most * len(blocks) or total - sum(map(len, once)) > most_characters * total


def _words(text: str) -> Units:
    """Return the words of a text, the same number for the same word."""
    words = text.split()
    last = dict(zip(words, range(len(words))))  # word -> where it stands last
    ids = np.fromiter(map(last.__getitem__, words), dtype=np.uint64, count=len(words))
    return Units(ids, np.fromiter(map(len, words), dtype=np.int64, count=len(words)))


def _characters(text: str) -> Units:
    """Return the visible characters of a text, of which none is longer than another."""
    visible = characters.codes(text)[characters.kinds(text) != characters.SPACE].astype(np.uint64)
    return Units(visible, np.ones(len(visible), dtype=np.int64))


def _of_phrases(units: Units, top: Limits, again: Limits) -> str:
    """Return which n-grams are repeated too often, in a word, or nothing."""
    total = int(units.sizes.sum())
    stretches = list(units.stretches())
    if _too_often(stretches, total, sorted(top)):
        return "one phrase"
    least = min((most for _, most in again), default=1.0)
    for n, most in sorted(again):
        covered = sum(_again(each, n, least * total / len(stretches)) for each in stretches)
        if covered > most * total:
            return "phrases"
        if covered <= least * total:  # longer n-grams cover less
            break
    return ""


def _too_often(stretches: list[Units], total: int, limits: list[tuple[int, float]]) -> bool:
    """Return whether the most frequent n-gram of any size holds too many characters."""
    bound = float(total)
    for n, most in limits:
        if n * bound <= most * total:  # an n-gram is no more frequent than the shorter ones in it
            continue
        found = [_top(each, n) for each in stretches]
        if sum(size for _, size in found) > most * total:
            return True
        bound = sum(times * int(each.sizes.max()) for (times, _), each in zip(found, stretches))
    return False


def _grams(ids: Ids, n: int) -> Ids:
    """Return a number for each n-gram; two different ones share it once in some 10^10 documents."""
    grams = ids[: len(ids) - n + 1]
    for at in range(1, n):
        grams = grams * FACTOR + ids[at : len(ids) - n + 1 + at]
    return grams


def _top(units: Units, n: int) -> tuple[int, int]:
    """Return how often the most frequent n-gram comes and the characters it holds; 1 and 0 where none comes twice."""
    if len(units.ids) <= n:
        return 1, 0
    grams = _grams(units.ids, n)
    ordered = np.sort(grams)
    ends = np.concatenate((np.flatnonzero(ordered[1:] != ordered[:-1]), [len(ordered) - 1]))
    times = ends - np.concatenate(([-1], ends[:-1]))
    best = int(times.argmax())
    if times[best] < 2:
        return 1, 0
    at = int((grams == ordered[ends[best]]).argmax())
    return int(times[best]), int(times[best]) * int(units.sizes[at : at + n].sum())


def _again(units: Units, n: int, enough: float = 0.0) -> int:
    """Return the characters covered by n-grams that stood before in this stretch; 0 where at most `enough` can be."""
    if len(units.ids) <= n:
        return 0
    grams = _grams(units.ids, n)
    ordered = np.sort(grams)
    if int(np.count_nonzero(ordered[1:] == ordered[:-1])) * n * int(units.sizes.max()) <= enough:
        return 0
    order = np.argsort(grams, kind="stable")
    later = order[1:][grams[order[1:]] == grams[order[:-1]]]
    covered = np.zeros(len(units.ids) + 1, dtype=np.int64)  # +1 where cover begins, -1 where it ends
    np.add.at(covered, later, 1)
    np.add.at(covered, later + n, -1)
    return int(units.sizes[np.cumsum(covered[:-1]) > 0].sum())
