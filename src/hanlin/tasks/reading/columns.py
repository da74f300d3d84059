"""Tagged sentences in columns, a word a line, and a blank line after each sentence: .conll, .bio, .bmes, .conllu, .txt.

EU       NNP  B-NP  B-ORG        word first, tag last; -DOCSTART- begins a document
rejects  VBZ  B-VP  O
                                 in .conllu the word is the second column, the tag (universal part of speech) the fourth
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from hanlin.tasks import rows
from hanlin.tasks.contract import Raw
from hanlin.tasks.reading.schemes import OUTSIDE, scheme_of

DOCUMENT = "-DOCSTART-"


def columns(text: IO[str], where: str) -> Iterator[Raw]:
    """Yield the sentences of a file in columns; of one column, without tags."""
    yield from sentences(text, word=0, tag=-1)


def conllu(text: IO[str], where: str) -> Iterator[Raw]:
    """Yield the sentences of Universal Dependencies; lines of several words, or of none, are left out as it says."""
    kept = (line if _counted(line) else "#\n" for line in text)
    yield from sentences(kept, word=1, tag=3, comment="#")


def columns_or_lines(text: IO[str], where: str) -> Iterator[Raw]:
    """Yield sentences where a .txt file is in columns whose last holds O, B-X, …; else a plain text a line."""
    lines = text.readlines()
    cells = [line.split() for line in lines if line.strip() and not line.startswith(DOCUMENT)]
    last = {each[-1] for each in cells}
    alike = len({len(each) for each in cells}) == 1 and len(cells[0]) > 1
    if alike and OUTSIDE in last and scheme_of(last) != "plain":
        yield from sentences(lines, word=0, tag=-1)
        return
    for number, line in enumerate(lines, 1):
        yield Raw(number=number, values={"text": line.rstrip("\r\n")})


READERS: Mapping[str, Callable[[IO[str], str], Iterator[Raw]]] = {
    **dict.fromkeys(("conll", "bio", "iob", "bmes", "bioes"), columns),
    "conllu": conllu,
    "txt": columns_or_lines,
}


def read(path: Path) -> Iterator[Raw]:
    """Yield the rows of a table, or the sentences of a file in columns, in order."""
    return rows.read(path, READERS)


def sentences(lines: Iterable[str], *, word: int, tag: int, comment: str = "") -> Iterator[Raw]:
    """Yield one row a sentence, its number that of its first line; unequal columns are the row's error."""
    cells: list[list[str]] = []
    start, document = 0, 0
    for number, line in enumerate([*lines, ""], 1):
        if comment and line.startswith(comment):
            continue
        found = line.split("\t" if comment else None)
        if line.strip() and found[0] != DOCUMENT:
            start = start if cells else number
            cells.append([each.strip() for each in found])
            continue
        if cells:
            yield _sentence(start, cells, word, tag, document)
            cells = []
        document += bool(line.strip())


def _sentence(number: int, cells: list[list[str]], word: int, tag: int, document: int) -> Raw:
    """Return one sentence."""
    width = len(cells[0])
    odd = next((place for place, each in enumerate(cells) if len(each) != width), None)
    if odd is not None or width <= word:
        place = odd or 0
        return Raw(number=number, values={}, error=f"{len(cells[place])} columns in line {place + 1}, not {width}")
    values: dict[str, object] = {"text": [each[word] for each in cells]}
    if width > max(1, tag):
        values["tags"] = [each[tag] for each in cells]
    if document:
        values["document"] = str(document)
    return Raw(number=number, values=values)


def _counted(line: str) -> bool:
    """Return whether a line is a sentence's end or a word of its own: not 3-4 (a contraction), not 3.1 (left out)."""
    return not line.strip() or line.split("\t")[0].isdigit()
