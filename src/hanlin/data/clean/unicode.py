"""Unicode NFC: one spelling for each character (UAX 15), so that a tokenizer sees é once.

NFC and not NFKC: NFKC would turn ２ into 2, ﬁ into fi, ² into 2 and the ideographic space into a plain one.
"""

from __future__ import annotations

import unicodedata

from hanlin.config import Config as Frozen
from hanlin.data.clean.contract import Step, rewritten
from hanlin.data.tally import Document


class Config(Frozen):
    """Nothing to choose."""


def build(config: Config) -> Step:
    """Return the step."""
    return _step


def _step(document: Document) -> Document:
    """Return the document in NFC."""
    if document.text.isascii() or unicodedata.is_normalized("NFC", document.text):
        return document
    return rewritten(document, unicodedata.normalize("NFC", document.text))
