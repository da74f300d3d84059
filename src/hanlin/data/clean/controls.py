r"""Characters nobody sees: line ends by other names become \n, controls and stray zero-width characters go.

Kept: \n and tab; a joiner (U+200D) inside an emoji or after a letter of a script that shapes with it, and a non-joiner
(U+200C) after such a letter (Arabic and Persian, Indic, Mongolian); direction marks beside Hebrew or Arabic; the tags
(U+E0020 …) of a flag. Removed: other controls, byte-order marks, soft hyphens, zero-width spaces, direction overrides
(which make text read otherwise than it is, CVE-2021-42574), and code points that are no characters.
"""

from __future__ import annotations

import re

from hanlin.config import Config as Frozen
from hanlin.data.clean.contract import Step, rewritten
from hanlin.data.tally import Document

BREAKS = re.compile("\r\n|[\v\f\r\x1c-\x1e\x85\u2028\u2029]")
ALWAYS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u180e\u200b\u202a-\u202e\u2060-\u206f\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff"
)
SHAPED = "\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ufb50-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc"
PICTURE = "\xa9\xae\u2190-\u2bff\u3030\u303d\u3297\u3299\ufe0f\u20e3\U0001f000-\U0001faff"
RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc"
JUNK = re.compile(
    f"[{ALWAYS}]+"
    f"|(?<![{SHAPED}])\u200c"
    f"|(?<![{SHAPED}{PICTURE}])\u200d|(?<=[{PICTURE}])\u200d(?![{PICTURE}])"
    f"|(?<![{RIGHT_TO_LEFT}])[\u200e\u200f](?![{RIGHT_TO_LEFT}])"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"
)
ANY = re.compile(f"[{ALWAYS}\u200c-\u200f\u2028\u2029\U000e0000-\U000e007f]")  # a text without it is clean
ASCII = re.compile("[\x00-\x08\x0b-\x1f\x7f]")  # the same, for texts of ASCII alone


class Config(Frozen):
    """Nothing to choose."""


def build(config: Config) -> Step:
    """Return the step."""
    return _step


def _step(document: Document) -> Document:
    """Return the document without what nobody sees."""
    text = document.text
    if text.isprintable() or not (ASCII if text.isascii() else ANY).search(text):
        return document
    return rewritten(document, JUNK.sub("", BREAKS.sub("\n", text)))
