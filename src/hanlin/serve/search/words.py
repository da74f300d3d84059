"""Search by words: which passages hold the rare words of a query, and how densely (BM25).

    score = Σ idf(t) · tf · (k1 + 1) / (tf + k1 · (1 - b + b · length / mean length))     over the query's words t
    idf(t) = ln(1 + (n - df + 0.5) / (df + 0.5))

Robertson and Zaragoza 2009. Words are compared in small letters, without the English -s. Chinese, which does not
part words, is compared by pairs of neighbouring characters; a query of one character finds that character.

Letters: n passages, V words, P postings: pairs of a word and a passage that holds it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from hanlin import files

K1, B = 1.2, 0.75
HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese kana among them
WORD = re.compile(rf"([{HAN}]+)|[^\W_{HAN}]+")
FILE = "words.safetensors"


def terms(text: str, *, asked: bool = False) -> list[str]:
    """Return the words of a passage, or of a query.

    >>> terms("Wings, the theories of 大语言模型", asked=True)
    ['wing', 'the', 'theory', 'of', '大语', '语言', '言模', '模型']
    """
    found: list[str] = []
    for match in WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        run = match[0]
        if match[1] is None:
            found.append(_stem(run))
            continue
        found += [run[at : at + 2] for at in range(len(run) - 1)]
        if not asked or len(run) == 1:
            found += run
    return found


def _stem(word: str) -> str:
    """Return a word without the English plural's ending (Harman 1991)."""
    if len(word) > 4 and word.endswith("ies") and word[-4] not in "ae":
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("es") and word[-3] not in "aeo":
        return word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "ius" else word


@dataclass(frozen=True, kw_only=True, eq=False)
class Words:
    """Which passages hold each word, and how often."""

    vocab: tuple[str, ...]
    starts: NDArray[np.int64]  # (V + 1,) where each word's postings begin
    rows: NDArray[np.int32]  # (P,)
    counts: NDArray[np.int32]  # (P,)
    lengths: NDArray[np.int32]  # (n,) words of each passage

    @classmethod
    def of(cls, texts: Iterable[str]) -> Words:
        """Return the words of passages, in their order."""
        numbers: dict[str, int] = {}
        words, rows, counts, lengths = list[int](), list[int](), list[int](), list[int]()
        for row, text in enumerate(texts):
            held = Counter(terms(text))
            lengths.append(held.total())
            words += [numbers.setdefault(term, len(numbers)) for term in held]
            counts += held.values()
            rows += [row] * len(held)
        order = np.argsort(np.array(words, np.int64), kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(np.array(words, np.int64), minlength=len(numbers)))])
        return cls(
            vocab=tuple(numbers),
            starts=starts.astype(np.int64),
            rows=np.array(rows, np.int32)[order],
            counts=np.array(counts, np.int32)[order],
            lengths=np.array(lengths, np.int32),
        )

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Return the place of each word."""
        return {term: number for number, term in enumerate(self.vocab)}

    def idf(self, term: str) -> float:
        """Return how much a word tells: much where few passages hold it, and most where none does."""
        number = self.numbers.get(term)
        held = 0 if number is None else int(self.starts[number + 1] - self.starts[number])
        return float(np.log1p((len(self.lengths) - held + 0.5) / (held + 0.5)))

    def scores(self, query: str) -> NDArray[np.float64]:
        """Return (n,): how well each passage answers the query's words; 0 where it holds none of them."""
        found = np.zeros(len(self.lengths))
        norm = K1 * (1 - B + B * self.lengths / max(1e-9, float(self.lengths.mean()))) if len(found) else found
        for term, times in Counter(terms(query, asked=True)).items():
            number = self.numbers.get(term)
            if number is not None:
                held = slice(self.starts[number], self.starts[number + 1])
                rows, counts = self.rows[held], self.counts[held]
                found[rows] += times * self.idf(term) * counts * (K1 + 1) / (counts + norm[rows])
        return found

    def save(self, folder: Path, version: int) -> None:
        """Write the words of a table's version into an index's folder, atomically."""
        held: dict[str, NDArray[Any]] = {
            "vocab": np.frombuffer("\n".join(self.vocab).encode() or b"\n", np.uint8),
            "starts": self.starts,
            "rows": self.rows,
            "counts": self.counts,
            "lengths": self.lengths,
        }
        files.write(folder / FILE, save(held, {"version": str(version)}))


def load(folder: Path, version: int) -> Words | None:
    """Return the words written for a table's version, None where they are of another: they are made anew then."""
    if not (folder / FILE).is_file():
        return None
    with safe_open(folder / FILE, "numpy") as file:
        if (file.metadata() or {}).get("version") != str(version):
            return None
        vocab, starts, rows, counts, lengths = (
            file.get_tensor(name) for name in ("vocab", "starts", "rows", "counts", "lengths")
        )
    names = tuple(vocab.tobytes().decode().split("\n")) if len(starts) > 1 else ()
    return Words(vocab=names, starts=starts, rows=rows, counts=counts, lengths=lengths)
