"""National identity numbers: a country's shape, its check digits, and where both are weak a word that names it.

China 17 digits + check · Hong Kong A123456(7) · Taiwan A123456789 · United States SSN · United Kingdom NINO, NHS
Canada SIN · Brazil CPF · Spain DNI/NIE · France NIR · Germany IdNr · Netherlands BSN · Poland PESEL
Sweden personnummer · Korea RRN · India Aadhaar
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import NamedTuple

from hanlin.data.pii.contract import COUNTED, FOLDED, Place, View, dressed, needed, only_digits

RANK = 5
TAGGED = False
APART = r"(?<![0-9A-Za-z])(?<![0-9][.,\-/])"
ENDS = r"(?![0-9A-Za-z]|[.\-/][0-9]|-[A-Za-z0-9])"
PROVINCES = {
    *range(11, 16),
    *range(21, 24),
    *range(31, 38),
    *range(41, 47),
    *range(50, 55),
    *range(61, 66),
    71,
    81,
    82,
    83,
}


class Shape(NamedTuple):
    """How a country writes its number: `words` that must stand before it where the shape alone would not do."""

    country: str
    pattern: re.Pattern[str]
    valid: Callable[[str], bool]
    words: re.Pattern[str] | None = None


def _shape(country: str, pattern: str, valid: Callable[[str], bool] | str, words: str = "") -> Shape:
    """Return a shape; `valid` is a test of our own or a module of python-stdnum."""
    if isinstance(valid, str):
        module = valid
        valid = lambda text: bool(needed(f"stdnum.{module}", "python-stdnum").is_valid(text))  # noqa: E731
    said = re.compile(rf"(?:{words})[^\n]{{0,20}}$", re.IGNORECASE) if words else None
    return Shape(country, re.compile(f"{APART}(?:{pattern}){ENDS}"), valid, said)


def _china(text: str) -> bool:
    """Return whether province, birthday and check digit (GB 11643, ISO 7064 mod 11-2) are right."""
    number = re.sub(r"[ -]", "", text).upper()
    return _born(number[:2], number[6:14]) and bool(needed("stdnum.iso7064.mod_11_2", "python-stdnum").is_valid(number))


def _china_old(text: str) -> bool:
    """Return whether province and birthday are right; the numbers of before 1999 have no check digit."""
    return _born(text[:2], f"19{text[6:12]}")


def _born(province: str, day: str) -> bool:
    """Return whether a province exists and a day can be a birthday."""
    try:
        born = date(int(day[:4]), int(day[4:6]), int(day[6:8]))
    except ValueError:
        return False
    return int(province) in PROVINCES and born.year >= 1900


def _hong_kong(text: str) -> bool:
    """Return whether the digit in brackets is right: weights 9 to 1 over letters and digits, mod 11."""
    letters = re.sub(r"[^0-9A-Z]", "", text.upper()).rjust(9)
    values = [36 if char == " " else int(char, 36) for char in letters]
    return sum(weight * value for weight, value in zip((9, 8, 7, 6, 5, 4, 3, 2, 1), values)) % 11 == 0


def _taiwan(text: str) -> bool:
    """Return whether the last digit is right: the letter as two digits, weights 1 9 8 … 1 1, mod 10."""
    first = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(text[0].upper()) + 10
    digits = [first // 10, first % 10, *map(int, text[1:])]
    return sum(weight * digit for weight, digit in zip((1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), digits)) % 10 == 0


def _united_kingdom(text: str) -> bool:
    """Return whether the prefix is in use: HMRC NIM39110."""
    return text[:2].upper() not in {"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"}


SHAPES = (
    _shape("cn", r"[1-8][0-9]{5}(?P<s>[ \-]?)(?:18|19|20)[0-9]{6}(?P=s)[0-9]{3}[0-9Xx]", _china),
    _shape("cn", r"[1-8][0-9]{14}", _china_old, "身份证|身份號|identity"),
    _shape("hk", r"[A-Z]{1,2}[0-9]{6} ?\([0-9A]\)", _hong_kong),
    _shape("hk", r"[A-Z]{1,2}[0-9]{6}[0-9A]", _hong_kong, "HKID|香港身份|身份證|身份证"),
    _shape("tw", r"[A-Z][12][0-9]{8}", _taiwan, "身分證|身份證|身分证|身份证|統一編號|national id"),
    _shape("us", r"[0-9]{3}(?P<u>[ \-])[0-9]{2}(?P=u)[0-9]{4}", "us.ssn"),
    _shape("us", r"[0-9]{9}", "us.ssn", r"\bssn\b|social security|社会安全|社安"),
    _shape(
        "uk",
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?P<g>[ \-]?)[0-9]{2}(?P=g)[0-9]{2}(?P=g)[0-9]{2}(?P=g)[A-D]",
        _united_kingdom,
    ),
    _shape("uk", r"[0-9]{3}[ \-]?[0-9]{3}[ \-]?[0-9]{4}", "gb.nhs", r"\bnhs\b"),
    _shape("ca", r"[0-9]{3}[ \-]?[0-9]{3}[ \-]?[0-9]{3}", "ca.sin", r"\bsin\b|social insurance|社会保险号"),
    _shape("br", r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", "br.cpf"),
    _shape("br", r"[0-9]{11}", "br.cpf", r"\bcpf\b"),
    _shape("es", r"[0-9]{8}[ \-]?[A-Za-z]", "es.dni", r"\b(?:dni|nif|d\.n\.i)\b"),
    _shape("es", r"[XYZ][ \-]?[0-9]{7}[ \-]?[A-Z]", "es.nie"),
    _shape("fr", r"[12] ?[0-9]{2} ?[0-9]{2} ?[0-9AB]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", "fr.nir"),
    _shape(
        "de", r"[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}", "de.idnr", r"\bidnr|steuer-?id|identifikationsnummer|tax id"
    ),
    _shape("nl", r"[0-9]{9}", "nl.bsn", r"\bbsn\b|burgerservice"),
    _shape("pl", r"[0-9]{11}", "pl.pesel", r"\bpesel\b"),
    _shape("se", r"(?:19|20)?[0-9]{6}[\-+][0-9]{4}", "se.personnummer", r"personnummer|personal identity|\bpnr\b"),
    _shape("kr", r"[0-9]{6}-[1-8][0-9]{6}", "kr.rrn"),
    _shape("in", r"[2-9][0-9]{3}[ \-]?[0-9]{4}[ \-]?[0-9]{4}", "in_.aadhaar", r"aadhaar|\buid(?:ai)?\b"),
)


def find(view: View) -> Iterator[Place]:
    """Yield the identity numbers of a text."""
    if not view.numbers:
        return
    for shape in SHAPES:
        for match in view.matches(shape.pattern):
            start = match.start()
            named = view.said(shape.words, start) if shape.words else not view.said(COUNTED, start)
            if (named or len(match[0]) > 16) and shape.valid(match[0]):
                yield match.span()


def fake(text: str, number: int, turn: int) -> str:
    """Return a number that was never given out: province 00 (China), area 000 (SSN), prefix QQ (NINO), else zeros."""
    letters = "".join(filter(str.isalnum, text.translate(FOLDED))).upper()
    if re.fullmatch(r"[0-9]{17}[0-9X]", letters):
        body = f"00{number % 10**4:04d}19000101{number // 10**4 % 1000:03d}"
        return dressed(text, body + needed("stdnum.iso7064.mod_11_2", "python-stdnum").calc_check_digit(body))
    if re.fullmatch(r"[A-Z]{2}[0-9]{6}[A-D]", letters):
        return dressed(text, f"QQ{number % 10**6:06d}{'ABCD'[number // 10**6 % 4]}")
    if len(letters) == 9 and letters.isdigit():
        return dressed(text, f"000{number % 10**6:06d}")
    count = len(only_digits(text))
    digits = iter(f"{number % 10 ** max(count - 3, 1):0{count}d}")
    return dressed(text, "".join(next(digits) if char.isdigit() else "X" for char in letters))
