"""In what language a document is, at two prices: by its script, a few passes of numpy, or told by clean/language.py.

"旧桥在春天封了" -> zh      "The old bridge" -> latin | en (told)      "1 + 1" -> none
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from hanlin.data.clean import characters, language

SAMPLE = 2000  # characters looked at, from the middle: a page begins and ends with its menus
DENSE = 4  # letters that a sign of a script without letters counts for
KANA = 0.05  # share of kana above which Han signs are Japanese
SCRIPTS = (  # first code point of each block, its script, what a letter counts
    *((0, "none", 0), (0x41, "latin", 1), (0x5B, "none", 0), (0x61, "latin", 1), (0x7B, "none", 0)),
    *((0xC0, "latin", 1), (0x370, "greek", 1), (0x400, "cyrillic", 1), (0x530, "other", 1), (0x590, "hebrew", 1)),
    *((0x600, "arabic", 1), (0x780, "other", 1), (0x900, "indic", 1), (0xE00, "thai", 1), (0xE80, "other", 1)),
    *((0x1E00, "latin", 1), (0x2000, "none", 0), (0x2E80, "zh", DENSE), (0x3000, "none", 0), (0x3041, "ja", DENSE)),
    *((0x3100, "zh", DENSE), (0xA000, "other", 1), (0xAC00, "ko", DENSE), (0xD7A4, "none", 0), (0xF900, "zh", DENSE)),
    *((0xFB00, "other", 1), (0xFF00, "none", 0), (0xFF66, "ja", DENSE), (0xFFA0, "none", 0), (0x20000, "zh", DENSE)),
)
END = 0x32000  # no letter from here on
NAMES = tuple(dict.fromkeys(name for _, name, _ in SCRIPTS))
WEIGHTS = np.array([max(weight for _, each, weight in SCRIPTS if each == name) for name in NAMES], np.float64)


def of(text: str, *, told: bool = False) -> str:
    """Return the ISO 639-1 code of a text where its script says it or it is `told`; else its script, or none."""
    if told:
        return language.language(text) or "none"
    begin = max(0, (len(text) - SAMPLE) // 2)
    codes = np.minimum(characters.codes(text[begin : begin + SAMPLE]), END)
    counts = np.bincount(_table().take(codes), minlength=len(NAMES)) * WEIGHTS
    zh, ja = NAMES.index("zh"), NAMES.index("ja")
    if counts[ja] > KANA * (counts[ja] + counts[zh]):
        counts[ja] += counts[zh]
        counts[zh] = 0
    return NAMES[int(counts.argmax())] if counts.any() else "none"


@cache
def _table() -> NDArray[np.uint8]:
    """Return the number of each code point's script; 200 KB, once a process."""
    table = np.zeros(END + 1, np.uint8)
    for start, name, _ in SCRIPTS:
        table[start:END] = NAMES.index(name)
    return table
