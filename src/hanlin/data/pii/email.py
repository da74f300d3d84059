"""E-mail addresses, also where the at sign is written `[at]` or ＠, and where no space sets them apart.

local part, read backwards from the sign   @   labels . labels . top
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hanlin.data.pii.contract import FOLDED, Place, View

RANK = 3
TAGGED = False
LOCAL = re.compile(r"[A-Za-z0-9À-ÿ!#$%&'*+/=?^_`{|}~.-]{1,64}")
LABEL = r"[A-Za-z0-9À-ÿ](?:[A-Za-z0-9À-ÿ-]{0,61}[A-Za-z0-9À-ÿ])?"
DOMAIN = re.compile(rf"(?:{LABEL}\.){{1,8}}(?:[A-Za-z]{{2,24}}|xn--[a-z0-9-]{{2,59}})(?![A-Za-z0-9À-ÿ_-])")
AT = re.compile(r" ?[\[({<] ?(?:at|AT|@) ?[\])}>] ?")
DOT = r" ?(?:[\[({<] ?(?:dot|DOT|\.) ?[\])}>]|\.) ?"
SPELLED = re.compile(rf"{LABEL}(?:{DOT}{LABEL}){{0,6}}{DOT}[A-Za-z]{{2,24}}(?![A-Za-z0-9_-])")
WORDS = re.compile(r"([A-Za-z0-9._-]{1,64}) at ([A-Za-z0-9-]{1,63}(?: dot [A-Za-z0-9-]{1,63}){1,4})(?![A-Za-z0-9])")
FILES = re.compile(r"(?:png|jpe?g|gif|svg|webp|bmp|ico|[jt]s|s?css|html?|json|ya?ml|md|py|txt|pdf|zip|gz)")  # no tops
SENTENCE = re.compile(r"(?<=[a-z0-9])\.[A-Z][a-z]*$")  # `bob@example.com.Thanks`


def find(view: View) -> Iterator[Place]:
    """Yield the addresses of a text."""
    text = view.text
    at = text.find("@")
    while at >= 0:
        yield from _around(text, at, at + 1, DOMAIN)
        at = text.find("@", at + 1)
    if any(sign in text for sign in ("at", "AT", "@]", "@)", "@}", "@>", "@ ")):
        for match in AT.finditer(text):
            yield from _around(text, match.start(), match.end(), SPELLED)
    if " dot " in text:
        for match in WORDS.finditer(text):
            yield match.span()


def _around(text: str, left: int, right: int, domain: re.Pattern[str]) -> Iterator[Place]:
    """Yield the address whose sign stands at `left:right`, if there is one."""
    local = LOCAL.match(text[max(0, left - 64) : left][::-1])
    host = domain.match(text, right)
    if not local or not host:
        return
    name = local[0][::-1].lstrip(".'`/=|?&{}")
    name = re.split(r"(?:mailto|[/=|?&{}])", name)[-1].lstrip(".'`-")
    end = host.end()
    sentence = SENTENCE.search(host[0])
    if sentence and "." in host[0][: sentence.start()]:
        end = right + sentence.start()
    top = text[right:end].rsplit(".", 1)[-1].lower()
    if (
        any(map(str.isalnum, name))
        and not name.endswith(".")
        and ".." not in name
        and not FILES.fullmatch(top)
        and name != "git"
    ):
        yield left - len(name), end


def fake(text: str, number: int, turn: int) -> str:
    """Return an address at example.com, with the at sign as it was written."""
    sign = next((mark for mark in ("＠", "@") if mark in text), None)
    spelled = AT.search(text.translate(FOLDED))
    if sign is None:
        sign = text[spelled.start() : spelled.end()] if spelled else " at "
    return f"person{number % 10**10}{sign}example.com"
