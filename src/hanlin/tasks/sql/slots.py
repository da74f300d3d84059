"""Texts of a database that a question names, taken out of it: what remains repeats from question to question.

    what is the biggest city in new york        {state_name: [new york, …], city_name: [new york, …]}
    what is the biggest city in value0 ( city_name state_name )          value0 = new york

The columns that hold the text are named beside it, for they tell a state from a river. The longest text wins, words are
never cut. Only columns that queries compare with texts are looked at: "red river" is a lowest point, but what is asked
for is the river "red". Where words have no spaces between them, as in Chinese, any place in the text may begin one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from hanlin.metrics.texts.rouge import ALONE
from hanlin.tasks.sql.database import Table
from hanlin.tasks.sql.form import literal
from hanlin.tasks.sql.grammar import SLOT, SLOTS

SHORTEST = 3  # characters of a text that is looked for; two of Chinese
BESIDE = 6  # columns that are named
BEFORE, AFTER = rf"(?<![^\W{ALONE}])", rf"(?![^\W{ALONE}])"  # no letter of a script with spaces


def known(tables: Sequence[Table], named: Collection[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return text in lower case -> (the text, the columns that hold it), for the texts that are looked for."""
    held: dict[str, tuple[str, set[str]]] = {}
    for table in tables:
        for column, values in table.values.items():
            for each in values if column in named else ():
                wide = sum(2 if re.match(f"[{ALONE}]", sign) else 1 for sign in each)
                if wide >= SHORTEST and any(sign.isalpha() for sign in each):
                    held.setdefault(each.lower(), (each, set()))[1].add(column)
    return {key: (text, tuple(sorted(columns))[:BESIDE]) for key, (text, columns) in held.items()}


class Slots:
    """Finds the texts of a database in questions."""

    def __init__(self, tables: Sequence[Table], named: Collection[str]) -> None:
        """Prepare for the texts of some columns, those that questions name."""
        self.known = known(tables, named)
        longest = sorted(self.known, key=lambda each: (-len(each), each))
        self._any = re.compile("|".join(map(_pattern, longest))) if longest else None

    def taken(self, question: str) -> tuple[str, tuple[str, ...]]:
        """Return a question with its texts taken out, and the texts in order."""
        found: list[str] = []

        def out(match: re.Match[str]) -> str:
            text, columns = self.known[match[0]]
            if text not in found:
                if len(found) == SLOTS:
                    return match[0]
                found.append(text)
            return f"{SLOT}{found.index(text)} ( {' '.join(columns)} )"

        low = question.lower()
        return (low if self._any is None else self._any.sub(out, low)), tuple(found)


def _pattern(text: str) -> str:
    """Return what finds a text: as whole words, where its script has words."""
    first, last = (re.match(f"[{ALONE}]", sign) is None for sign in (text[0], text[-1]))
    return BEFORE * first + re.escape(text) + AFTER * last


def count(source: str) -> int:
    """Return how many slots a question has once its texts are taken out.

    >>> count("is value0 ( name ) in value1 ( land ), like value0 ( name )?")
    2
    """
    return len({*re.findall(rf"{SLOT}\d(?= \()", source)})


def emptied(form: str, texts: Sequence[str]) -> str:
    """Return a form whose literals that a question names are slots."""
    places = {literal(text).lower(): f"{SLOT}{at}" for at, text in reversed([*enumerate(texts)])}
    return re.sub(r"'(?:[^']|'')*'", lambda match: places.get(match[0].lower(), match[0]), form)


def filled(form: str, texts: Sequence[str]) -> str | None:
    """Return a form with its slots filled; None where there is one that the question has no text for."""
    pieces: Mapping[str, str] = {f"{SLOT}{at}": literal(text) for at, text in enumerate(texts)}
    parts = re.split(rf"('(?:[^']|'')*'|\b{SLOT}\d+\b)", form)
    if any(re.fullmatch(rf"{SLOT}\d+", each) and each not in pieces for each in parts):
        return None
    return "".join(pieces.get(each, each) for each in parts)
