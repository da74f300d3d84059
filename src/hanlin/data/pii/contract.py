"""What every kind of personal data says of itself, and the text as its recognisers see it.

    "电话１３８ …"  ──fold──>  View.text  "电话138 …"        one character for one: offsets stay those of the original
                               View.numbers  ▁▁▁▁█████▁▁▁    stretches near six digits; most prose has none

A kind is a file of this folder with

    RANK                            which of two findings of the same length stands: the higher
    TAGGED                          True where only a tagger can find the kind
    find(view) -> (start, end) …    where the kind stands in the text
    fake(text, number, turn)        a stranger's value in the shape of `text`, out of a range that nobody owns;
                                    `turn` counts the fakes that were taken already
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from hanlin.errors import MissingExtra

Place = tuple[int, int]  # start and end, in characters

SPACES = "\u00a0\u2002\u2003\u2004\u2005\u2007\u2009\u202f\u3000"
HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2212"
FOLDED: dict[int, str | int] = {
    **{0xFF01 + index: 0x21 + index for index in range(94)},  # full-width ASCII
    **{ord(space): " " for space in SPACES},
    **{ord(hyphen): "-" for hyphen in HYPHENS},
}
SIX_DIGITS = re.compile(r"[0-9](?:[ .\-()/]{0,2}[0-9]){5}")
AROUND = 64  # characters on both sides of six digits: no number with its label is longer
COUNTED = re.compile(
    r"(?:\b(?:order|invoice|ref|reference|ticket|tracking|serial|batch|parcel|case|sku|item|part|build|isbn|issn|doi)"
    r"|订单|单号|编号|序列号|流水|工号|学号|合同|批次|发票|快递|运单)[^0-9\n]{0,12}$",
    re.IGNORECASE,
)  # words before a number that only counts things


class Span(NamedTuple):
    """One piece of personal data: `text` stands at `start:end` of the original."""

    start: int
    end: int
    kind: str
    text: str


class View:
    """A text with full-width characters, odd spaces and hyphens folded to ASCII, character for character."""

    def __init__(self, text: str) -> None:
        """Fold the text."""
        self.text = text if text.isascii() else text.translate(FOLDED)

    @cached_property
    def numbers(self) -> list[Place]:
        """The stretches around six or more digits in a row, in order, none overlapping."""
        stretches: list[Place] = []
        for match in SIX_DIGITS.finditer(self.text):
            low, high = max(0, match.start() - AROUND), match.end() + AROUND
            if stretches and low <= stretches[-1][1]:
                low = stretches.pop()[0]
            stretches.append((low, high))
        return stretches

    def matches(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Yield the matches of `pattern` near numbers; a match may begin inside the one before it."""
        for low, high in self.numbers:
            match = pattern.search(self.text, low, high)
            while match:
                yield match
                match = pattern.search(self.text, match.start() + 1, high)

    def said(self, words: re.Pattern[str], start: int, reach: int = 32) -> bool:
        """Return whether `words` stand in the `reach` characters before `start`."""
        return words.search(self.text[max(0, start - reach) : start]) is not None


class Kind(Protocol):
    """A file of this folder."""

    RANK: int
    TAGGED: bool

    def find(self, view: View) -> Iterable[Place]:
        """Yield where the kind stands."""

    def fake(self, text: str, number: int, turn: int) -> str:
        """Return another value in the shape of `text`."""


@cache
def kinds() -> dict[str, Kind]:
    """Return kind -> its file, for every file of this folder that defines `fake`."""
    names = (
        file.stem for file in sorted(Path(__file__).parent.glob("*.py")) if "\ndef fake(" in file.read_text("utf-8")
    )
    return {name: cast(Kind, importlib.import_module(f"hanlin.data.pii.{name}")) for name in names}


@cache
def needed(module: str, package: str) -> Any:  # noqa: ANN401  # a module of a library that may be absent
    """Import a library of the extra `privacy`; MissingExtra when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtra(package, "privacy") from None


def same_value(text: str) -> str:
    """Return a text without what two spellings of one value differ in: width, spaces, in numbers brackets and hyphens.

    >>> same_value("(138) 0013-8000")
    '13800138000'
    """
    plain = text.translate(FOLDED).replace(" ", "")
    return plain if any(map(str.isalpha, plain)) else re.sub(r"[()\-]", "", plain)


def only_digits(text: str) -> str:
    """Return the digits of a text, full-width ones as ASCII."""
    return "".join(filter(str.isdigit, text.translate(FOLDED)))


def dressed(text: str, letters: str) -> str:
    """Return `text` with its letters and digits replaced, in order, by `letters`; width and punctuation stay.

    >>> dressed("(０10) 6552", "0001234")
    '(００0) 1234'
    """
    rest = iter(letters)
    return "".join(_wide(next(rest, "0"), char) if char.translate(FOLDED).isalnum() else char for char in text)


def _wide(letter: str, like: str) -> str:
    """Return an ASCII letter as wide as another."""
    return chr(ord(letter) + 0xFEE0) if 0xFF01 <= ord(like) <= 0xFF5E else letter
