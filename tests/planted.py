"""Near duplicates of real text, planted: what an editor, a scraper or another site does to a page.

passages ─┬─ copies(passage, seed) ──> one edited copy of each kind, to be found
          └─ strangers(passages) ────> texts with much in common, not to be found
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？\n]*\s*")
WORD = re.compile(r"[A-Za-z]+|[\u4e00-\u9fff]")
SOURCES = {
    "en": ("lm/brown/train.jsonl.gz", "lm/wiki_en/train.txt"),
    "zh": (
        "lm/zh_classics/hongloumeng.train.txt.gz",
        "lm/zh_classics/shuihuzhuan.train.txt.gz",
        "lm/zh_wiki/train.txt.gz",
    ),
}
SIZES = {"en": (1200, 4000), "zh": (500, 1600)}  # characters of a passage
HEADS = {
    "en": "Home | News | Sport | Weather\nPublished on 3 May 2021 by our own correspondent\n\n",
    "zh": "首页 | 新闻 | 体育 | 天气\n2021年5月3日 本报记者报道\n\n",
}
FEET = {
    "en": "\n\nShare this page. All rights reserved. Subscribe to our letter.\n",
    "zh": "\n\n分享本页。版权所有，未经许可不得转载。\n",
}
SWAPPED = str.maketrans("，。！？；：“”‘’（）", ",.!?;:「」『』()")
CURLED = str.maketrans({"'": "’", '"': "”", "-": "—", ",": "，", "`": "‘"})


def passages(folder: Path, language: str, limit: int = 10**6) -> Iterator[str]:
    """Yield passages of real text, each of a length drawn from SIZES, no two of which share a sentence."""
    draw = random.Random(language)
    for name in SOURCES[language]:
        text = _text(folder / "data" / name)
        start = 0
        while start < len(text) and limit:
            size = draw.randint(*SIZES[language])
            if start + size <= len(text):
                yield text[start : start + size]
                limit -= 1
            start += size


def _text(path: Path) -> str:
    """Return the text of a source, documents and all, as one string."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = data.decode().splitlines(keepends=True)
    return "".join(json.loads(line)["text"] if ".jsonl" in path.name else line for line in lines)


def copies(text: str, language: str, seed: int) -> Iterator[tuple[str, str]]:
    """Yield (kind of edit, edited copy) for each kind."""
    for kind, edit in EDITS.items():
        yield kind, edit(text, language, random.Random(f"{kind} {seed}"))


def _exact(text: str, language: str, draw: random.Random) -> str:
    return text


def _typos(text: str, language: str, draw: random.Random) -> str:
    """Change one letter in 110, one Chinese character in 60."""
    letters = list(text)
    pool = sorted(set(WORD.findall(text))) if language == "zh" else list("abcdefghijklmnopqrstuvwxyz")
    for place in draw.sample(range(len(letters)), len(letters) // (110 if language == "en" else 60)):
        letters[place] = draw.choice(pool)
    return "".join(letters)


def _words(text: str, language: str, draw: random.Random) -> str:
    """Put another word of the text in the place of one word in 30, of one Chinese character in 60."""
    found = list(WORD.finditer(text))
    every = 30 if language == "en" else 60
    for match in sorted(draw.sample(found, len(found) // every), key=lambda each: -each.start()):
        text = text[: match.start()] + draw.choice(found).group() + text[match.end() :]
    return text


def _deleted(text: str, language: str, draw: random.Random) -> str:
    """Leave out sentences, up to 12 % of the text."""
    sentences, left = SENTENCE.findall(text), 0.12 * len(text)
    for place in draw.sample(range(len(sentences)), len(sentences)):
        if len(sentences[place]) <= left:
            left -= len(sentences[place])
            sentences[place] = ""
    return "".join(sentences)


def _inserted(text: str, language: str, draw: random.Random) -> str:
    """Put in a sentence of some 12 % of the text's length, made of its own words."""
    found, added = WORD.findall(text), ""
    while len(added) < 0.12 * len(text):
        added += draw.choice(found) + (" " if language == "en" else "")
    sentences = SENTENCE.findall(text)
    sentences.insert(draw.randrange(len(sentences) + 1), added.strip() + (". " if language == "en" else "。"))
    return "".join(sentences)


def _framed(text: str, language: str, draw: random.Random) -> str:
    """Put a site's head before the text and its foot behind, cut to 12 % of the text."""
    room = int(0.06 * len(text))
    return HEADS[language][:room] + text + FEET[language][:room]


def _wrapped(text: str, language: str, draw: random.Random) -> str:
    """Break lines at another width."""
    width = draw.randint(40, 90)
    if language == "zh":
        flat = "".join(text.split())
        return "\n".join(flat[at : at + width] for at in range(0, len(flat), width))
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def _punctuated(text: str, language: str, draw: random.Random) -> str:
    """Write the punctuation another way, and letters in capitals."""
    return text.translate(SWAPPED if language == "zh" else CURLED).upper()


def _truncated(text: str, language: str, draw: random.Random) -> str:
    """Lose the last 13 %."""
    return text[: int(0.87 * len(text))]


EDITS: dict[str, Callable[[str, str, random.Random], str]] = {
    "exact copy": _exact,
    "typos": _typos,
    "replaced words": _words,
    "deleted sentences": _deleted,
    "an inserted sentence": _inserted,
    "head and foot": _framed,
    "re-wrapped lines": _wrapped,
    "punctuation and case": _punctuated,
    "truncated tail": _truncated,
}


def strangers(texts: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (kind, texts no two of which are near duplicates) for each kind; they share less than 0.6."""
    yield "one book, other passages", texts
    frame, rest = "".join(texts[:8]), texts[8:]
    sides = [int(1.1 * len(text)) for text in rest]  # 2.2 / (2.2 + 2): 0.52 of what two such pages hold is the frame
    yield "one frame, other contents", [frame[:side] + text + frame[-side:] for text, side in zip(rest, sides)]
    pairs = list(zip(texts[::2], texts[1::2]))
    grown = [some[len(some) // 5 :] + other[: int(0.45 * len(some))] for some, other in pairs]  # 0.8 / 1.45: 0.55
    yield "most of another text, and more", [text for some, more in zip(texts[::2], grown) for text in (some, more)]
