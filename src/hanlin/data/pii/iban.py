"""International bank account numbers (ISO 13616): a country's length and layout, and the remainder by 97."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hanlin.data.pii.contract import FOLDED, Place, View, dressed, needed

RANK = 5
TAGGED = False
NUMBER = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[ -]?[0-9]{2}(?:[ .\-]?[A-Za-z0-9]){11,30}")
SHORTEST = 15  # Norway


def find(view: View) -> Iterator[Place]:
    """Yield the account numbers of a text; words that follow one are left outside."""
    if not view.numbers:
        return
    check = needed("stdnum.iban", "python-stdnum")
    for match in view.matches(NUMBER):
        places = [match.start() + at for at, char in enumerate(match[0]) if char.isalnum()]
        for count in range(len(places), SHORTEST - 1, -1):
            end = places[count - 1] + 1
            whole = not view.text[end : end + 1].isalnum() or not view.text[end : end + 1].isascii()
            letters = "".join(view.text[place] for place in places[:count]).upper()
            if whole and check.is_valid(letters, check_country=False):
                yield match.start(), end
                break


def fake(text: str, number: int, turn: int) -> str:
    """Return a number of country XX, which ISO 3166 gives to nobody, with the check digits of one."""
    length = sum(char.isalnum() for char in text.translate(FOLDED))
    body = f"{number % 10 ** min(length - 4, 18):0{length - 4}d}"
    rest = int("".join(str(int(char, 36)) for char in f"{body}XX00")) % 97
    return dressed(text, f"XX{98 - rest:02d}{body}")
