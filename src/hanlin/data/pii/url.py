"""URLs that carry a user and a password: `scheme://user:password@host:port`, without the path behind."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hanlin.data.pii.contract import Place, View

RANK = 6
TAGGED = False
SCHEME = re.compile(r"[A-Za-z0-9+.-]{2,24}")
HOST = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)(?::[0-9]{1,5})?"
REST = re.compile(rf"([!-~]{{0,256}}?):([!-~]{{1,256}})@{HOST}")
TOKEN = re.compile(rf"(?=[!-~]{{0,256}}?[0-9])([A-Za-z0-9_-]{{16,256}})@{HOST}")
AUTHORITY = re.compile(r"[^\x00-\x20/?#<>\"'`\\|,;\x7f-\U0010ffff]+(?<![.:)\]])")
HOLES = re.compile(r"[<>{}$]|\*\*\*")


def find(view: View) -> Iterator[Place]:
    """Yield the URLs with credentials; holes such as `${USER}` are none."""
    text = view.text
    at = text.find("://")
    while at >= 0:
        place = _around(text, at)
        if place:
            yield place
        at = text.find("://", at + 3)


def _around(text: str, at: int) -> Place | None:
    """Return the place of the URL whose `://` stands at `at`."""
    scheme = SCHEME.match(text[max(0, at - 24) : at][::-1])
    authority = AUTHORITY.match(text, at + 3, at + 600)
    if not scheme or not authority:
        return None
    match = REST.match(authority[0]) or TOKEN.match(authority[0])
    if not match or HOLES.search(match[0]):
        return None
    name = scheme[0][::-1].lstrip("+-.0123456789")
    return (at - len(name), at + 3 + len(match[0])) if name else None


def fake(text: str, number: int, turn: int) -> str:
    """Return a URL of the same scheme at example.com."""
    scheme = re.split(r"[:：]", text, maxsplit=1)[0]
    return f"{scheme}://user{number % 10**10}:EXAMPLE@example.com"
