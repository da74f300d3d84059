"""SentencePiece models, read without the library and turned into a tokenizer.json.

    tokenizer.model ──read──> Model ──rules──> normalizer · pre_tokenizer · model · decoder
    spiece.model              pieces           charsmap     user-defined    Unigram  ▁ to space
                              normalisation    spaces       pieces apart    BPE      bytes to text

Unigram arXiv:1804.10959, BPE arXiv:1508.07909; the format is sentencepiece_model.proto of SentencePiece. What differs
from it, because `tokenizers` has no other way, is rare:

- Of two ways to cut that score alike, it takes the one that float32 makes better; `tokenizers` adds in float64.
- Its character map joins any characters; that of `tokenizers` sees one letter with its marks, and only below six bytes:
  half-width kana and decomposed Hangul are not composed, and a full-width letter loses its marks.
- It keeps user-defined pieces from the character map.
- Text that spells a control piece is cut after its first character (literal.py), there where the pieces say.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from hanlin.errors import TokenizerError, problem
from hanlin.text.folder import MOST, Json
from hanlin.text.literal import BYTES
from hanlin.text.protobuf import Field, fields

SPACE = "▁"


class Kind(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # <s> and the like: never found in text
    USER = 4  # found in text before anything else
    UNUSED = 5
    BYTE = 6


class Algorithm(IntEnum):
    """How a model cuts a text into pieces."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


class Piece(NamedTuple):
    """One entry of the vocabulary; its place is its id."""

    text: str
    score: float = 0.0
    kind: Kind = Kind.NORMAL


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a model file says; the defaults are the format's."""

    pieces: tuple[Piece, ...]
    algorithm: Algorithm = Algorithm.UNIGRAM
    byte_fallback: bool = False
    charsmap: bytes = b""  # a compiled table of what becomes of which characters
    prefix: bool = True  # a space is put before every text
    collapse: bool = True  # spaces at the ends go, runs become one
    escape: bool = True  # spaces are written ▁
    suffix: bool = False  # the space is put after the text instead

    def ids(self, kind: Kind) -> Mapping[str, int]:
        """Return the pieces of a kind and their ids."""
        return {piece.text: id for id, piece in enumerate(self.pieces) if piece.kind == kind}


def read(data: bytes, where: str) -> Model:
    """Return the model in a file's bytes; TokenizerError when it is damaged or asks for what we cannot do."""
    pieces: list[Piece] = []
    said: dict[str, Any] = {}
    for field in fields(data, where):
        if field.number == 1:
            pieces.append(_piece(field.data(), f"{where}: piece {len(pieces):,}"))
            if len(pieces) > MOST:
                raise TokenizerError(problem(where, f"more than {MOST:,} pieces", f"at most {MOST:,}"))
        elif field.number == 2:
            said |= _section(field, f"{where}: trainer_spec", TRAINER)
        elif field.number == 3:
            said |= _section(field, f"{where}: normalizer_spec", NORMALIZER)
    algorithm = said.pop("algorithm", 1)
    if algorithm not in (Algorithm.UNIGRAM, Algorithm.BPE, Algorithm.CHAR):
        raise TokenizerError(problem(f"{where}: model_type", f"{algorithm}", "1 (unigram), 2 (BPE) or 4 (characters)"))
    model = Model(pieces=tuple(pieces), algorithm=Algorithm(algorithm), **said)
    check(model, where)
    return model


TRAINER = {3: ("algorithm", Field.integer), 24: ("suffix", Field.flag), 35: ("byte_fallback", Field.flag)}
NORMALIZER = {
    2: ("charsmap", Field.data),
    3: ("prefix", Field.flag),
    4: ("collapse", Field.flag),
    5: ("escape", Field.flag),
}


def _section(section: Field, where: str, known: Mapping[int, tuple[str, Any]]) -> dict[str, Any]:
    """Return what a section says of the fields we know, by our names."""
    inner = [field for field in fields(section.data(), where) if field.number in known]
    return {known[field.number][0]: known[field.number][1](field) for field in inner}


def _piece(data: bytes, where: str) -> Piece:
    """Return one piece."""
    text, score, kind = "", 0.0, 1
    for field in fields(data, where):
        if field.number == 1:
            text = field.text()
        elif field.number == 2:
            score = field.single()
        elif field.number == 3:
            kind = field.integer()
    if not text or not math.isfinite(score) or not 1 <= kind <= 6:
        given = f"text {text!r}, score {score}, type {kind}"[:120]
        raise TokenizerError(problem(where, given, "a text, a finite score and a type from 1 to 6"))
    return Piece(text, score, Kind(kind))


def check(model: Model, where: str) -> None:
    """Raise a TokenizerError with a line for everything that `rules` cannot turn into a tokenizer."""
    problems = []
    texts = {piece.text for piece in model.pieces}
    if len(texts) < len(model.pieces):
        problems.append(problem(where, "two pieces are spelled alike", "an id for each"))
    if len(model.ids(Kind.UNKNOWN)) != 1:
        problems.append(problem(where, f"{len(model.ids(Kind.UNKNOWN))} unknown pieces", "one"))
    if model.byte_fallback and not texts.issuperset(BYTES):
        problems.append(problem(where, "byte_fallback without a piece for each byte", "<0x00> to <0xFF>"))
    if model.ids(Kind.UNUSED):
        problems.append(problem(where, f"{len(model.ids(Kind.UNUSED)):,} pieces of type 5 (unused)", "none"))
    if model.suffix:
        problems.append(problem(f"{where}: treat_whitespace_as_suffix", "true", "false"))
    if problems:
        raise TokenizerError(*problems)


def rules(model: Model) -> Json:
    """Return a tokenizer.json that cuts texts as the model does; what stands around a text is left to the caller."""
    own = (Kind.UNKNOWN, Kind.CONTROL)
    return {
        "version": "1.0",
        "added_tokens": [added(piece.text, id) for id, piece in enumerate(model.pieces) if piece.kind in own],
        "normalizer": {"type": "Sequence", "normalizers": list(_normalizers(model))},
        "pre_tokenizer": None if model.algorithm == Algorithm.UNIGRAM else _apart(model.ids(Kind.USER)),
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": list(_decoders(model))},
        "model": _unigram(model) if model.algorithm == Algorithm.UNIGRAM else _bpe(model),
    }


def added(content: str, id: int) -> Json:
    """Return a special token as tokenizer.json lists it."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, **flags, "special": True}


def _normalizers(model: Model) -> Iterator[Json]:
    """Yield what is done to a text, in order."""
    if model.charsmap:
        yield {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(model.charsmap).decode()}
    if model.collapse:
        yield replaced(Regex=r"\A +", by="")
        yield replaced(Regex=" {2,}", by=" ")
    space = SPACE if model.escape else " "
    if model.prefix:
        yield {"type": "Prepend", "prepend": " "}
    if model.escape:
        yield replaced(String=" ", by=SPACE)
    if model.collapse:
        yield replaced(Regex=rf"{space}+\z", by="")


def replaced(*, by: str, **pattern: str) -> Json:
    """Return the rule that replaces a String, or what a Regex matches."""
    return {"type": "Replace", "pattern": pattern, "content": by}


def _decoders(model: Model) -> Iterator[Json]:
    """Yield what turns pieces into text, in order."""
    if model.escape:
        yield replaced(String=SPACE, by=" ")
    yield from ({"type": "ByteFallback"}, {"type": "Fuse"})
    if model.prefix:
        yield {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def _apart(tokens: Iterable[str]) -> Json | None:
    """Return the rule that cuts user-defined pieces out of a text, the longest that fits at each place."""
    longest = sorted(tokens, key=lambda token: (-len(token), token))
    pattern = "|".join(re.sub(r"([^\w\s])", r"\\\1", token) for token in longest)
    return (
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} if longest else None
    )


def _unigram(model: Model) -> Json:
    """Return the pieces with their scores; a user-defined piece gets the score SentencePiece gives it on the way."""
    best = max((piece.score for piece in model.pieces if piece.kind == Kind.NORMAL), default=0.0)
    vocab = [
        [piece.text, len(piece.text.encode()) * best - 0.1 if piece.kind == Kind.USER else piece.score]
        for piece in model.pieces
    ]
    unknown = next(iter(model.ids(Kind.UNKNOWN).values()))
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": model.byte_fallback}


def _bpe(model: Model) -> Json:
    """Return the pieces, and as merges every way to make a piece of two, the best score first."""
    users = model.ids(Kind.USER)
    return {
        "type": "BPE",
        "unk_token": next(iter(model.ids(Kind.UNKNOWN))),
        "fuse_unk": True,
        "byte_fallback": model.byte_fallback,
        "ignore_merges": bool(users),  # a user-defined piece is a whole word by now, and no merges make it
        "vocab": {piece.text: id for id, piece in enumerate(model.pieces)},
        "merges": _merges(model) if model.algorithm == Algorithm.BPE else [],
    }


def _merges(model: Model) -> list[list[str]]:
    """Return the merges; SentencePiece joins any two neighbours whose text is a piece, by the score of that piece."""
    ids = model.ids(Kind.NORMAL)
    found = []
    for text, id in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append((-model.pieces[id].score, ids[left], ids[right], [left, right]))
    return [merge for *_, merge in sorted(found)]
