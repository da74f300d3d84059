"""Telephone numbers: written as a country writes them, or with a word that says so, and valid by that country's plan.

    +CC …            valid anywhere                             phonenumbers.parse(…, None)
    1xx xxxx xxxx    a Chinese mobile, in any grouping
    0xx-xxxx xxxx    a land line of China or Britain, grouped
    (nxx) nxx-xxxx   North America, grouped
    anything else    after `phone`, `电话`, …; tried in REGIONS

What follows as extension belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hanlin.data.pii.contract import COUNTED, Place, View, dressed, needed, only_digits

RANK = 2
TAGGED = False
SHAPES = re.compile(
    r"(?<![0-9+])(?<![0-9][.\-])(?:"
    r"(?P<abroad>(?:\+|00(?=[1-9])|011[ \-])\(?[0-9]{1,3}\)?(?:[ .\-()/]{0,3}[0-9]){6,12})"
    r"|(?P<mobile>(?:\(?86\)?[ \-]{0,2})?1[3-9][0-9](?P<s>[ \-.]?)(?:[0-9]{4}(?P=s)[0-9]{4}|[0-9]{3}(?P=s)[0-9]{5}))"
    r"|(?P<landline>(?:\(0[0-9]{2,4}\) ?|(?<![0-9] )0[0-9]{2,4}[ \-]{1,3})[0-9]{3,4}[ \-]?[0-9]{3,4})"
    r"|(?P<service>[48]00[ \-][0-9]{3}[ \-][0-9]{4}|[48]00[ \-][0-9]{4}[ \-][0-9]{3})"
    r"|(?P<america>(?:1[ .\-])?(?:\([2-9][0-9]{2}\)[ \-]?|(?<![0-9] )[2-9][0-9]{2}[ .\-])[2-9][0-9]{2}[ .\-][0-9]{4})"
    r"|(?P<loose>(?<![0-9][ )])\(?[0-9](?:[ \-()]{0,2}[0-9]){5,14})"
    r")(?![0-9]|[.\-][0-9])"
)
BEFORE = re.compile(
    r"(?:\b(?:tel|telephone|phone|mobile|mob|cell|cellphone|fax|whatsapp|sms|hotline)s?\b"
    r"|电话|手机|座机|传真|热线|致电|拨打|號碼|電話|手機|来电|短信)[^0-9\n]{0,16}$"
    r"|\b(?:call|text|dial|ring|reach|contact)(?: [a-z]{1,8}){0,2}:? $"
    r"|(?:联系|微信)[^0-9\n]{0,6}$",
    re.IGNORECASE,
)
EXTENSION = re.compile(r" ?(?:,? ?ext(?:ension)?\.? ?|x ?|转 ?|分机号? ?|- ?)[0-9]{1,5}(?![0-9A-Za-z]|[.\-][0-9])")
DECIMAL = re.compile(r"\+?[0-9]+\.[0-9]+")
REGIONS: dict[str, tuple[str, ...]] = {
    "abroad": (),
    "mobile": ("CN", "US"),
    "landline": ("CN", "GB"),
    "service": ("CN",),
    "america": ("US",),
    "loose": ("CN", "US", "GB", "HK", "TW", "SG", "MO", "JP", "KR", "IN", "AU", "DE", "FR", "CA", "BR", "IT", "ES"),
}


def find(view: View) -> Iterator[Place]:
    """Yield the telephone numbers of a text."""
    done = 0
    for match in view.matches(SHAPES):
        start, end = match.span()
        start += match[0].startswith("(") and ")" not in match[0]
        if start < done or _inside_word(view, start) or DECIMAL.fullmatch(match[0]):
            continue
        said = view.said(BEFORE, start)
        if said or not (match["loose"] or view.said(COUNTED, start)):
            shape = next(name for name, found in match.groupdict().items() if found and name in REGIONS)
            regions = (*REGIONS[shape], *(REGIONS["loose"] if said else ()))
            done = _valid(view.text, start, end, regions)
            if done:
                done = _extended(view.text, done)
                yield start, done


def _inside_word(view: View, start: int) -> bool:
    """Return whether a letter runs into the number, other than from a word like `Tel`."""
    before = view.text[start - 1 : start] if start else ""
    return before.isascii() and (before.isalpha() or before == "_") and not view.said(BEFORE, start)


def _valid(text: str, start: int, end: int, regions: Sequence[str]) -> int:
    """Return where the longest valid number that begins at `start` ends, cut only between groups; 0: nowhere."""
    for _ in range(4):
        after = text[end : end + 1]
        apart = not (after.isascii() and after.isalpha()) or EXTENSION.match(text, end)
        if apart and _dialled(text[start:end], regions):
            return end
        cut = re.search(r"[0-9](?=[ .\-()/]+[0-9]+$)", text[start:end])
        if not cut:
            break
        end = start + cut.end()
    return 0


def _dialled(text: str, regions: Sequence[str]) -> bool:
    """Return whether a number is valid abroad or in one of `regions`."""
    numbers = needed("phonenumbers", "phonenumbers")
    abroad = re.sub(r"^(?:00|011[ \-])", "+", text)
    for region in (None,) if abroad.startswith("+") else dict.fromkeys(regions):
        try:
            if numbers.is_valid_number(numbers.parse(abroad, region)):
                return True
        except numbers.NumberParseException:
            continue
    return False


def _extended(text: str, end: int) -> int:
    """Return the end of a number with its extension."""
    found = EXTENSION.match(text, end)
    return found.end() if found else end


def fake(text: str, number: int, turn: int) -> str:
    """Return a number that rings nowhere: 555-01xx in North America, else after a prefix no plan gives out."""
    digits = only_digits(text)
    body, code = digits, ""
    american = not re.fullmatch(r"1[3-9]\d{9}", digits) or re.match(r"1[ .\-]", text)
    if "+" in text or "＋" in text or digits.startswith("00"):
        body, code = _split(digits.removeprefix("00"), "00" if digits.startswith("00") else "")
    if code in {"1", "001"} or (not code and american and re.fullmatch(r"1?[2-9]\d{9}", digits)):
        lead = "1" if not code and len(digits) == 11 else ""
        area = 200 + number // 100 % 700
        made = f"{code}{lead}{area}55501{number % 100:02d}"
    elif re.fullmatch(r"1[3-9]\d{9}", body[-11:]):
        made = f"{digits[:-11]}1611{number % 10**7:07d}"  # no operator's, and 611 no American area
    else:
        room = max(len(body) - 3, 3)
        made = f"{code}000{number % 10**room:0{room}d}"
    return dressed(text, made.ljust(len(digits), "0"))


def _split(digits: str, dialled: str) -> tuple[str, str]:
    """Return the national number and the country's code with what was dialled before it."""
    codes = needed("phonenumbers", "phonenumbers").COUNTRY_CODE_TO_REGION_CODE
    length = next((size for size in (1, 2, 3) if int(digits[:size] or 0) in codes), 0)
    return digits[length:], dialled + digits[:length]
