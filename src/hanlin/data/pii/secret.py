"""Keys, tokens and passwords: by their issuer's prefix, as a private-key block, or by being assigned to such a name.

    AKIA…  ghp_…  xoxb-…  sk-…  eyJ….eyJ….…          the prefix says it
    -----BEGIN … PRIVATE KEY----- … -----END …        the block, line breaks and all
    api_key = "…"   密码：…   Authorization: Bearer …   the name before says it; the span is the value alone

Prefixes are those their issuers publish.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from hanlin.data.pii.contract import Place, View

RANK = 6
TAGGED = False
ISSUED = {
    **dict.fromkeys(("AKIA", "ASIA"), r"[A-Z0-9]{16}"),  # AWS
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"[A-Za-z0-9]{36,255}"),  # GitHub
    "github_pat_": r"[A-Za-z0-9_]{50,255}",
    "glpat-": r"[A-Za-z0-9_-]{20,64}",  # GitLab
    **dict.fromkeys(("xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-", "xapp-"), r"[A-Za-z0-9-]{10,250}"),  # Slack
    "hooks.slack.com/services/": r"T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{16,32}",
    "sk-": r"(?=[A-Za-z_-]{0,200}[0-9])[A-Za-z0-9_-]{20,200}",  # OpenAI, Anthropic, DeepSeek and their like
    **dict.fromkeys(("sk_live_", "sk_test_", "rk_live_", "rk_test_"), r"[A-Za-z0-9]{16,128}"),  # Stripe
    "AIza": r"[A-Za-z0-9_-]{35}",  # Google
    "GOCSPX-": r"[A-Za-z0-9_-]{28}",
    "hf_": r"[A-Za-z0-9]{30,64}",  # Hugging Face
    "npm_": r"[A-Za-z0-9]{36}",
    "pypi-": r"[A-Za-z0-9_-]{50,255}",
    "SG.": r"[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}",  # SendGrid
    "LTAI": r"[A-Za-z0-9]{12,26}",  # Aliyun
    "AKID": r"[A-Za-z0-9]{28,36}",  # Tencent Cloud
    "eyJ": r"[A-Za-z0-9_-]{6,4096}\.eyJ[A-Za-z0-9_-]{4,8192}\.[A-Za-z0-9_-]{8,2048}",  # JWT, RFC 7519
}
PREFIXED = {head: re.compile(rf"{re.escape(head)}(?:{body})(?![A-Za-z0-9])") for head, body in ISSUED.items()}
BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
LONGEST_KEY = 20_000  # characters
OPEN = re.compile(r"(?:\s*[A-Za-z0-9+/=]{16,80}){1,200}")  # a block that was cut off
VALUE = re.compile(
    r"(?:[:=]|[是为][:=]?|is\b(?<![A-Za-z0-9]is)|Bearer|Basic|--?(?<![A-Za-z0-9]-)(?<![A-Za-z0-9]--)[a-z][a-z-]{2,24})[>\s]{0,3}[\"'`“「]?"
    r"(?P<value>[A-Za-z0-9!#$%@^_~+](?:[A-Za-z0-9!#$%*+./?@^_~\-]|=(?![A-Za-z0-9])|&(?![A-Za-z_]+=)){5,512}(?<![.,?]))"
)
NAMED = re.compile(
    r"(?:api[_ -]?key|access[_ -]?key|secret(?:[_ -]?key)?|private[_ -]?key|encryption[_ -]?key|signing[_ -]?key"
    r"|auth(?:entication)?[_ -]?(?:key|token)|token|credentials?|密钥|秘钥|令牌|授权码|私钥)"
    r"[A-Za-z0-9_ -]{0,16}[\"'`”」\])]*\s{0,3}$",
    re.IGNORECASE,
)
PASSWORD = re.compile(
    r"(?:pass(?:word|wd|phrase|code)?|pwd|密码|口令)[A-Za-z0-9_ -]{0,12}[\"'`”」\])]*\s{0,3}$", re.IGNORECASE
)
AUTHORIZED = re.compile(r"authorization[\"']?\s{0,3}[:=]?\s{0,3}[\"']?$", re.IGNORECASE)
DUMMY = re.compile(
    r"example|placeholder|changeme|your[_-]|xxxx|\*\*\*|\.\.\.|^\$|^(?:https?|ftp|file)://|^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$",
    re.IGNORECASE,
)
NAME = re.compile(r"^[a-z]+(?:[_./-][a-z]+)*(?:[_./-]?(?:v?\d{1,2}))?$|^[A-Z]?[a-z]+(?:[A-Z][a-z]+)*$|^[0-9.:/-]+$")
RANDOM_BITS = 3.0  # a character; English words have 2 to 3 at these lengths, random hexadecimal 3.4, base64 4 and more
TOKEN_LENGTH = 16


def find(view: View) -> Iterator[Place]:
    """Yield the keys, tokens and passwords of a text."""
    text = view.text
    for head, pattern in PREFIXED.items():
        if head in text:
            yield from (match.span() for match in pattern.finditer(text) if _apart(text, match.start()))
    if "PRIVATE KEY" in text:
        yield from _blocks(text)
    for match in VALUE.finditer(text):
        place = _assigned(view, match)
        if place:
            yield place


def _apart(text: str, start: int) -> bool:
    """Return whether a key does not begin inside a word."""
    before = text[start - 1 : start] if start else ""
    return not (before.isascii() and (before.isalnum() or before in "_-"))


def _blocks(text: str) -> Iterator[Place]:
    """Yield the private-key blocks, also those whose end is missing."""
    begins = [*BEGIN.finditer(text), None]
    for begin, after in pairwise(begins):
        assert begin is not None
        limit = min(after.start() if after else len(text), begin.end() + LONGEST_KEY)
        end = END.search(text, begin.end(), limit) or OPEN.match(text, begin.end(), limit)
        if end:
            yield begin.start(), end.end()


def _assigned(view: View, match: re.Match[str]) -> Place | None:
    """Return the place of a value given to the name of a secret, where it looks like one."""
    value, at = match["value"], match.start()
    if DUMMY.search(value) or view.text[match.end() : match.end() + 1] in tuple("([{"):
        return None
    random = len(value) >= TOKEN_LENGTH and _random(value)
    if match[0].startswith(("Bearer", "Basic")):
        return match.span("value") if random or view.said(AUTHORIZED, at, 24) else None
    if match[0].startswith("-"):  # `--password value`: the option is the name
        at += len(match[0].split(maxsplit=1)[0])
    password = _mixed(value) and view.said(PASSWORD, at, 40)
    token = random and not NAME.match(value) and view.said(NAMED, at, 48)
    return match.span("value") if password or token else None


def _random(text: str) -> bool:
    """Return whether a text has digits, letters and the entropy of something drawn at random."""
    counts = Counter(text).values()
    bits = -sum(count / len(text) * math.log2(count / len(text)) for count in counts)
    return bits >= RANDOM_BITS and any(map(str.isdigit, text)) and any(map(str.isalpha, text))


def _mixed(text: str) -> bool:
    """Return whether a text mixes letters with digits, or either with signs, as passwords must."""
    letters, digits = any(map(str.isalpha, text)), any(map(str.isdigit, text))
    signs = any(char in "!#$%&*+=?@^~" for char in text)
    return letters and (digits or signs)


def fake(text: str, number: int, turn: int) -> str:
    """Return the issuer's prefix, EXAMPLE and a number, as long as the text where that has room for them."""
    if text.startswith("-----"):
        return f"-----BEGIN PRIVATE KEY-----\nEXAMPLE{number:020d}\n-----END PRIVATE KEY-----"
    head = next((head for head in sorted(ISSUED, key=len, reverse=True) if text.startswith(head)), "")
    return f"{head}EXAMPLE{number % 10**18:0{max(len(text) - len(head) - 7, 6)}d}"
