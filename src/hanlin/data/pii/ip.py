"""IP addresses, versions 4 and 6, told from version and section numbers by what stands around them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from hanlin.data.pii.contract import Place, View

RANK = 3
TAGGED = False
OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FOUR = re.compile(rf"[0-9](?<![0-9A-Za-z_.\-][0-9])(?:[0-9]{{1,2}})?(?:\.{OCTET}){{3}}(?![0-9A-Za-z_]|\.[0-9])")
SIX = re.compile(r"[0-9A-Fa-f:]{2,}+(?:\.[0-9]{1,3}){0,3}+")
LONG = re.compile(r"[0-9A-Fa-f]{4}:|::ffff:|(?:[0-9A-Fa-f]{1,4}:){7}", re.IGNORECASE)  # `a[1::2]` is a slice
VERSION = re.compile(
    r"(?:\b(?:v|ver|versions?|release|rev|revision|build|firmware|driver|patch|upgraded? to"
    r"|sections?|chapter|clause|appendix|figure|table|step|schema)\.? ?"
    r"|[§~^] ?|[=~<>!]= ?|[A-Za-z]/|[A-Za-z)\]]-|版本号?|固件|驱动|第|升级到|升级至|章节)[ :#v\"'「]{0,3}$",
    re.IGNORECASE,
)
ADDRESS = re.compile(
    r"\b(?:ip|ips|ipv4|addr|address|host|hosts|server|ping|from|gateway|dns|client|remote|peer|login|ssh|subnet)\b"
    r"|地址|主机|服务器|网关|来自|登录|来源",
    re.IGNORECASE,
)
OBJECTS = ("1.2.", "1.3.", "2.5.")  # object identifiers of ISO and X.500 begin so
AFTER = re.compile(r"节|章|版|条|款|小节")


def find(view: View) -> Iterator[Place]:
    """Yield the addresses of a text that may belong to somebody."""
    text = view.text
    for match in FOUR.finditer(text):
        start, end = match.span()
        if _usable(match[0]) and not view.said(VERSION, start, 16) and not AFTER.match(text, end):
            plain = len(match[0]) > 7 and not match[0].startswith(OBJECTS)
            if plain or view.said(ADDRESS, start, 24):  # `1.2.3.4` alone is more often a section
                yield start, end
    if text.count(":") > 1:
        yield from _six(text)


def _six(text: str) -> Iterator[Place]:
    """Yield the addresses of version 6."""
    for match in SIX.finditer(text):
        start, end = match.span()
        if text[end - 1] == ":" and not match[0].endswith("::"):
            end -= 1
        found = text[start:end]
        if found.count(":") < 2 or len(found) > 45 or not LONG.match(found):
            continue
        if _joined(text[start - 1 : start]) or _joined(text[end : end + 1]):
            continue
        if _usable(found):
            yield start, end


def _joined(char: str) -> bool:
    """Return whether a neighbour makes an address part of a longer word."""
    return char.isascii() and (char.isalnum() or char == "_")


def _usable(text: str) -> bool:
    """Return whether a text is an address, and one that says something of its owner."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or text.startswith(("255.", "0.")))


def fake(text: str, number: int, turn: int) -> str:
    """Return an address kept for documentation (RFC 5737, 3849), then for benchmarks (RFC 2544) or for nothing."""
    if ":" in text or "：" in text:
        return f"2001:db8::{number >> 16 & 0xFFFF:x}:{number & 0xFFFF:x}"
    if turn < 4:
        address = f"198.51.100.{number % 256}"
    elif turn < 16:
        address = f"198.{18 + (number >> 16) % 2}.{(number >> 8) % 256}.{number % 256}"
    else:
        address = f"{240 + (number >> 24) % 15}.{(number >> 16) % 256}.{(number >> 8) % 256}.{number % 256}"
    return address
