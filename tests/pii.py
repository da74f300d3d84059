"""A labelled set of personal data, made from a seed: sentences of our own, values with right check digits, look-alikes.

SENTENCES[half, language]   "call {phone}, order {no_order}"     tune and score share no sentence
FORMATS[half][slot]         how a value is written               and, where a kind has several, few formats
cases(...)                  Case(text, spans (start, end, kind), language)
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pii_sentences import SENTENCES
from pii_values import FORMATS

Found = Iterable[tuple[int, int, str]]

LANGUAGES = ("en", "zh")
KINDS = ("email", "phone", "card", "iban", "national_id", "ip", "url", "secret")
KIND_OF = {
    **{kind: kind for kind in KINDS},
    **dict.fromkeys(("cn_id", "ssn", "nino", "hk_id", "cpf", "sin"), "national_id"),
    **dict.fromkeys(("key", "random", "password", "pem", "jwt"), "secret"),
}


class Case(NamedTuple):
    """One labelled text."""

    text: str
    spans: tuple[tuple[int, int, str], ...]
    language: str


def cases(half: str, language: str, *, seed: int = 0, each: int = 120) -> list[Case]:
    """Return texts that hold at least `each` values of every kind."""
    draw = random.Random(f"{seed} {half} {language}")
    counts: Counter[str] = Counter()
    made: list[Case] = []
    while any(counts[kind] < each for kind in KINDS):
        for sentence in SENTENCES[half, language]:
            case = _filled(sentence, half, language, draw)
            counts.update(kind for _, _, kind in case.spans)
            made.append(case)
    return made


def _filled(sentence: str, half: str, language: str, draw: random.Random) -> Case:
    """Return a sentence with a value in each slot."""
    parts: list[str] = []
    spans: list[tuple[int, int, str]] = []
    length = 0
    for index, piece in enumerate(re.split(r"(?<!\{)\{(\w+)\}(?!\})", sentence)):
        text = value(piece, half, language, draw) if index % 2 else piece.replace("{{", "{").replace("}}", "}")
        if index % 2 and piece in KIND_OF:
            spans.append((length, length + len(text), KIND_OF[piece]))
        parts.append(text)
        length += len(text)
    return Case("".join(parts), tuple(spans), language)


def value(slot: str, half: str, language: str, draw: random.Random) -> str:
    """Return a value for a slot, in one of the formats of this half."""
    makers = FORMATS[half].get(f"{slot} {language}") or FORMATS[half].get(slot) or FORMATS["both"][slot]
    return draw.choice(makers)(draw)


def errors(found: Callable[[str], Found], each: list[Case]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (missed|wrong, kind, piece, text) for what `found` does not get exactly right."""
    for case in each:
        spans = set(found(case.text))
        for sort, rest in (("missed", set(case.spans) - spans), ("wrong", spans - set(case.spans))):
            for start, end, kind in sorted(rest):
                yield sort, kind, case.text[start:end], case.text
