"""Traditional Chinese in simplified characters (OpenCC, its tables inside the package), word by word where it matters.

乾坤 stays and 乾燥 becomes 干燥. A text without Han characters, and one that is simplified already, stays as it is.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hanlin.config import Config as Frozen
from hanlin.data.clean.contract import Step, rewritten
from hanlin.data.tally import Document
from hanlin.errors import MissingExtra


class Config(Frozen):
    """Where the text is from."""

    origin: Literal["t2s", "tw2s", "tw2sp", "hk2s"] = Field(
        "t2s", description="OpenCC's table: t2s any, tw2s Taiwan, tw2sp with Taiwan's words, hk2s Hong Kong."
    )


def build(config: Config) -> Step:
    """Return the step; MissingExtra when OpenCC is not installed."""
    try:
        import opencc
    except ModuleNotFoundError:
        raise MissingExtra("opencc", "documents") from None
    converter = opencc.OpenCC(config.origin)

    def step(document: Document) -> Document:
        if document.text.isascii():
            return document
        return rewritten(document, converter.convert(document.text))

    return step
