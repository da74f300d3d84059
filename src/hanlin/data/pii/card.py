"""Payment cards: a brand's first digits and length, in a card's groups, and the check digit right.

Brands: https://en.wikipedia.org/wiki/Payment_card_number, section on issuer identification numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hanlin.data.pii.contract import COUNTED, Place, View, dressed, needed, only_digits

RANK = 4
TAGGED = False
NUMBER = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9][.,\-])"
    r"(?:[0-9]{4}(?P<a>[ .\-]?)[0-9]{4}(?P=a)[0-9]{4}(?P=a)[0-9]{1,4}(?:(?P=a)[0-9]{1,3})?"  # 4-4-4-4(-3)
    r"|[0-9]{4}(?P<b>[ \-]?)[0-9]{6}(?P=b)[0-9]{4,5}"  # American Express, Diners
    r"|[0-9]{6}[ \-][0-9]{10,13}"  # UnionPay
    r"|[0-9]{13,19})(?![0-9A-Za-z]|[.\-][0-9])"
)
BRANDS = re.compile(
    r"4\d{15}"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:30[0-5]\d|3095|36\d{2}|3[89]\d{2})\d{10}"  # Diners
    r"|(?:6011|65\d{2}|64[4-9]\d)\d{12}(?:\d{3})?"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14,17}|81\d{14}"  # UnionPay
    r"|220[0-4]\d{12}"  # Mir
    r"|(?:50(?:18|20|38)|5893|6304|67(?:59|6[1-3]))\d{8,15}"  # Maestro
)
SAID = re.compile(r"(?:card|visa|mastercard|amex|credit|debit|卡号|卡|账户)[^0-9\n]{0,16}$", re.IGNORECASE)
CODE = re.compile(r"[ .\-][0-9]{1,4}$")  # `4111 1111 1111 1111 123`: the security code, the next column
GAPS = re.compile(r"[ .\-]")
TESTS = ("4242424242424242", "378282246310005", "30569309025904", "6200000000000000003")


def find(view: View) -> Iterator[Place]:
    """Yield the card numbers of a text."""
    if not view.numbers:
        return
    luhn = needed("stdnum.luhn", "python-stdnum")
    for match in view.matches(NUMBER):
        for found in (match[0], CODE.sub("", match[0])):
            digits = GAPS.sub("", found)
            if BRANDS.fullmatch(digits) and luhn.is_valid(digits):
                start = match.start()
                if view.said(SAID, start) or not view.said(COUNTED, start):
                    yield start, start + len(found)
                break


def fake(text: str, number: int, turn: int) -> str:
    """Return a number that processors publish for tests, then ones that begin with 0, which no brand has."""
    digits = only_digits(text)
    known = [test for test in TESTS if len(test) == len(digits)]
    if known and turn == 0:
        return dressed(text, known[0])
    body = f"0{number % 10 ** (len(digits) - 2):0{len(digits) - 2}d}"
    return dressed(text, body + needed("stdnum.luhn", "python-stdnum").calc_check_digit(body))
