"""Language: documents of the languages asked for, told apart without a network.

Chinese is told by its script, Han characters with hardly any kana or hangul: of 1,000 lines each of the Chinese
Wikipedia, novels, verse and Tang verse in traditional characters, 0.999 to 1.000 are right, where py3langid alone has
0.89 to 0.99 and fastText's lid.176.ftz 0.60 to 1.00. All else is told by py3langid (97 languages, the model inside the
package, no pickle): English lines 0.997 to 1.000, German captions 0.999.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hanlin.config import Config as Frozen
from hanlin.data.clean import characters
from hanlin.data.clean.contract import Dropped, Step
from hanlin.data.tally import Document
from hanlin.errors import MissingExtra

SAMPLE = 2000  # characters looked at, from the middle: a page begins and ends with its menus
KANA, HANGUL = 0.05, 0.05  # shares of the letters above which Han characters are Japanese or Korean


class Config(Frozen):
    """Which languages stay."""

    keep: tuple[str, ...] = Field(("zh", "en"), min_length=1, description="ISO 639-1 codes.")
    fewest: int = Field(20, ge=0, description="Letters below which nothing is told, and the document stays.")


def build(config: Config) -> Step:
    """Return the step; MissingExtra when py3langid is not installed."""
    _model()

    def step(document: Document) -> Document | Dropped:
        found = language(document.text, fewest=config.fewest)
        return document if found is None or found in config.keep else Dropped(f"in {found}")

    return step


def language(text: str, *, fewest: int = 20) -> str | None:
    """Return the ISO 639-1 code of the language of a text, or None when it has too few letters to tell."""
    begin = max(0, (len(text) - SAMPLE) // 2)
    sample = text[begin : begin + SAMPLE]
    counts = characters.counts(characters.kinds(sample))
    cjk = characters.is_cjk(sample, counts)
    if counts.letters < (fewest // 4 if cjk else fewest):  # a Han character tells as much as four letters
        return None
    if cjk:
        hangul = sum("\uac00" <= each <= "\ud7a3" for each in sample)
        if hangul > HANGUL * counts.letters:
            return "ko"
        return "ja" if counts.kana > KANA * counts.letters else "zh"
    return str(_model().classify(sample)[0])


def _model() -> Any:  # noqa: ANN401  # py3langid has no types
    """Return py3langid, which reads its model once a process."""
    try:
        import py3langid  # type: ignore[import-untyped,unused-ignore]
    except ModuleNotFoundError:
        raise MissingExtra("py3langid", "documents") from None
    return py3langid
