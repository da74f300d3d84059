"""Symbols: lists, menus, tables of numbers and hash signs are not prose (Gopher, arXiv:2112.11446, table A1).

Source code is not prose either: leave this step out where it is wanted.

Gopher's shares: at most one '#' or ellipsis for ten words, nine bullets in ten lines, three ellipses at the end of ten
lines; at least eight words in ten with a letter. Two things differ. A word of punctuation alone is no word, or text
with spaces around its commas would fail (Brown, WikiText). And Chinese has no words to count: there, letters must make
a share of all visible characters (999 of 1,000 lines: 0.60 or more in the Chinese Wikipedia, 0.71 in novels and verse).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from hanlin.config import Config as Frozen
from hanlin.data.clean import characters
from hanlin.data.clean.characters import DIGIT, HAN, KANA, LETTER, SPACE, SYMBOL, Kinds
from hanlin.data.clean.contract import Dropped, Step
from hanlin.data.tally import Document

BULLETS = tuple("•●○◦‣▪■□◆◇★☆※-*–—·")
ELLIPSES = ("...", "…")
FEWEST = 4  # lines: what a share of lines needs to mean anything


class Config(Frozen):
    """How many symbols prose may have."""

    ratio: float = Field(0.1, ge=0, description="'#' and ellipses for each word, at most (Gopher).")
    bullets: float = Field(0.9, ge=0, le=1, description="Share of lines that begin with a bullet, at most (Gopher).")
    ellipses: float = Field(0.3, ge=0, le=1, description="Share of lines that end with an ellipsis, at most (Gopher).")
    words: float = Field(0.8, ge=0, le=1, description="Share of words with a letter, at least (Gopher).")
    letters: float = Field(0.5, ge=0, le=1, description="Share of letters, at least, in Chinese and Japanese.")


def build(config: Config) -> Step:
    """Return the step."""

    def step(document: Document) -> Document | Dropped:
        text = document.text
        kinds = characters.kinds(text)
        counts = characters.counts(kinds)
        if _symbols(text) > config.ratio * characters.words(kinds):
            return Dropped("symbols")
        if characters.is_cjk(text, counts):
            enough = counts.letters >= config.letters * counts.visible
        else:
            enough = _share_with_letter(kinds) >= config.words
        if not enough:
            return Dropped("few letters")
        reason = _of_lines(text, config)
        return Dropped(reason) if reason else document

    return step


def _symbols(text: str) -> int:
    """Return the number of hash signs and ellipses; …… , as Chinese writes it, is one."""
    found = text.count("#") + text.count("...")
    return found if text.isascii() else found + text.count("…") - text.count("……")


def _share_with_letter(kinds: Kinds) -> float:
    """Return the share of words with a letter, among those with a letter, digit or symbol."""
    letter = (kinds == LETTER) | (kinds == HAN) | (kinds == KANA)
    told = letter | (kinds == DIGIT) | (kinds == SYMBOL)
    visible = kinds != SPACE
    starts = np.flatnonzero(visible & ~np.concatenate(([False], visible[:-1])))
    if not starts.size:
        return 0.0
    words = np.count_nonzero(np.logical_or.reduceat(told, starts))
    return float(np.count_nonzero(np.logical_or.reduceat(letter, starts)) / words) if words else 0.0


def _of_lines(text: str, config: Config) -> str:
    """Return what is wrong with too many lines, or nothing."""
    lines = [line.strip() for line in text.split("\n") if line and not line.isspace()]
    if len(lines) < FEWEST:
        return ""
    if sum([line.startswith(BULLETS) for line in lines]) > config.bullets * len(lines):
        return "bullets"
    if any(each in text for each in ELLIPSES):
        ending = sum([line.endswith(ELLIPSES) for line in lines])
        return "ellipses" if ending > config.ellipses * len(lines) else ""
    return ""
