"""White space: none at line ends, at most two blank lines, one space for all spaces that only print differently.

The no-break and the typographic spaces become U+0020: they say how a line is set, not what it says. The ideographic
space (U+3000) stays inside a line and before it: it indents paragraphs and parts verses. Indentation and runs of
spaces stay: code and tables need them. White space before the first and after the last line goes.
"""

from __future__ import annotations

import re

from pydantic import Field

from hanlin.config import Config as Frozen
from hanlin.data.clean.contract import Step, rewritten
from hanlin.data.tally import Document

WIDTHS = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f]")
AT_END = " \t\u3000"


class Config(Frozen):
    """How much white space stays."""

    blank_lines: int = Field(2, ge=0, description="Blank lines that may follow each other.")


def build(config: Config) -> Step:
    """Return the step."""
    most = "\n" * (config.blank_lines + 1)
    more = re.compile(f"{most}\n+")

    def step(document: Document) -> Document:
        text = document.text if document.text.isascii() else WIDTHS.sub(" ", document.text)
        if any(f"{space}\n" in text for space in AT_END):
            text = "\n".join([line.rstrip(AT_END) for line in text.split("\n")])
        if f"{most}\n" in text:
            text = more.sub(most, text)
        return rewritten(document, _trimmed(text))

    return step


def _trimmed(text: str) -> str:
    """Return the text without blank lines before it and white space after it; its first line keeps its indentation."""
    text = text.rstrip()
    first = len(text) - len(text.lstrip())
    return text[text.rfind("\n", 0, first) + 1 :]
