"""Length: a document of a few words teaches little.

Words are runs of letters and digits; where words are not parted by spaces, each Han or kana character counts as one.
Gopher keeps documents of 50 to 100,000 words (arXiv:2112.11446, table A1), which would drop every quatrain and every
novel. Four lines of five characters are 20 words: the fewest by default, and there is no most.
"""

from __future__ import annotations

from pydantic import Field

from hanlin.config import Config as Frozen
from hanlin.data.clean import characters
from hanlin.data.clean.contract import Dropped, Step
from hanlin.data.tally import Document


class Config(Frozen):
    """How long a document is."""

    fewest: int = Field(20, ge=0, description="Words, and Han or kana characters, at least.")
    most: int | None = Field(None, gt=0, description="Words, and Han or kana characters, at most.")
    min_characters: int = Field(0, ge=0, description="Characters at least, white space included.")
    max_characters: int | None = Field(None, gt=0, description="Characters at most, white space included.")


def build(config: Config) -> Step:
    """Return the step."""

    def step(document: Document) -> Document | Dropped:
        length = len(document.text)
        if length < config.min_characters:
            return Dropped(f"fewer than {config.min_characters:,} characters")
        if config.max_characters is not None and length > config.max_characters:
            return Dropped(f"more than {config.max_characters:,} characters")
        if config.most is None and length > 100 * config.fewest and _enough(document.text, config.fewest):
            return document
        words = characters.words(characters.kinds(document.text))
        if words < config.fewest:
            return Dropped(f"fewer than {config.fewest:,} words")
        if config.most is not None and words > config.most:
            return Dropped(f"more than {config.most:,} words")
        return document

    return step


def _enough(text: str, fewest: int) -> bool:
    """Return whether the beginning of a long text has enough words already."""
    return characters.words(characters.kinds(text[: 100 * fewest])) > fewest
