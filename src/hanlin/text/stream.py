"""From ids back to text, exactly, whole or one id at a time.

    ids     301       8       12      77
    bytes   " 你"     E5 A5   BD      "<0x21>" -> 21
    push    " 你"     ""      "好"    "!"             a character comes out once, and whole

Byte-level and byte-fallback vocabularies say which bytes each token stands for. We keep those bytes in a table, join
them, and read the whole as UTF-8, so pieces joined equal the text decoded at once, for any ids, by construction.
Other vocabularies (WordPiece, Metaspace) are decoded by the library, looking back over a few ids.

Ids that have no token stand for nothing, as in `tokenizers` and `transformers`: a model's table of embeddings may be
padded past its vocabulary.
"""

from __future__ import annotations

import codecs
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from hanlin.text.folder import guarded

BROKEN = "\N{REPLACEMENT CHARACTER}"
LONGEST = 8  # ids the library's decoder waits for before it shows a broken character; UTF-8 needs at most 4


class Stream(ABC):
    """Turns ids into text as they come; the pieces joined are the text of all ids decoded at once."""

    @abstractmethod
    def push(self, id: int) -> str:
        """Take one more id and return the characters it completes, often none."""

    @abstractmethod
    def finish(self) -> str:
        """Return what is left, a broken character shown as U+FFFD; the stream takes no more ids."""


class Decoder(ABC):
    """How one vocabulary is turned back into text."""

    @abstractmethod
    def decode(self, ids: Iterable[int], special: bool) -> str:
        """Return the text of all ids; special tokens are shown only when asked for."""

    @abstractmethod
    def stream(self, special: bool) -> Stream:
        """Return a fresh stream."""

    @abstractmethod
    def bytes_of(self, id: int) -> bytes | None:
        """Return the bytes that one id stands for, None where only its company tells."""


def decoder(raw: tokenizers.Tokenizer) -> Decoder:
    """Return the table of bytes where the vocabulary has one, else the library's own decoder."""
    added = raw.get_added_tokens_decoder()
    hidden = frozenset(id for id, token in added.items() if token.special)
    rule = _rule(_steps(json.loads(raw.to_str())["decoder"]))
    if rule is None:
        return Library(raw, frozenset(raw.get_vocab(with_added_tokens=True).values()), hidden)
    table = {id: rule.read(token) for token, id in raw.get_vocab(with_added_tokens=False).items()}
    # An added token stands for its own text: the library reads 'é' as the byte E9, and shows it broken.
    new = {id: token.content for id, token in added.items() if id not in table}
    table |= {id: content.encode() if rule.level else rule.read(content) for id, content in new.items()}
    return Bytes(table, hidden, rule.lead, rule.leads)


def alphabet() -> dict[str, int]:
    """Return the character that stands for each byte in byte-level vocabularies: a printable one for itself."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a token spells its bytes."""

    level: bool  # byte-level: one character of `alphabet` a byte
    replacements: tuple[tuple[str, str], ...] = ()  # such as ('▁', ' ')
    fallback: bool = False  # `<0xNN>` is a byte
    lead: str = " "  # this, at most `leads` times, is dropped from the front of the text
    leads: int = 0

    def read(self, token: str) -> bytes:
        """Return the bytes that a token stands for."""
        if self.level:
            codes = [_ALPHABET.get(character) for character in token]
            return token.encode() if None in codes else bytes(code for code in codes if code is not None)
        for old, new in self.replacements:
            token = token.replace(old, new)
        if self.fallback and re.fullmatch("<0x[0-9A-Fa-f]{2}>", token):
            return bytes.fromhex(token[3:5])
        return token.encode()


_ALPHABET = alphabet()


def _steps(spec: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the steps of a tokenizer.json's decoder, nested sequences laid out flat."""
    if spec is None:
        return []
    if spec["type"] == "Sequence":
        return [step for inner in spec["decoders"] for step in _steps(inner)]
    return [spec]


def _rule(steps: Sequence[Mapping[str, Any]]) -> Rule | None:
    """Return the rule that the steps amount to, or None when they are more than a table can say."""
    kinds = " ".join(step["type"] for step in steps)
    if kinds == "ByteLevel":
        return Rule(level=True)
    if not kinds or not re.fullmatch("(Replace ?)*(ByteFallback ?)?(Fuse ?(Strip)?)?", kinds):
        return None
    replaces = [step for step in steps if step["type"] == "Replace"]
    strip: Mapping[str, Any] = steps[-1] if kinds.endswith("Strip") else {"content": " ", "start": 0, "stop": 0}
    if strip["stop"] or any("String" not in step["pattern"] for step in replaces):
        return None
    return Rule(
        level=False,
        replacements=tuple((step["pattern"]["String"], step["content"]) for step in replaces),
        fallback="ByteFallback" in kinds,
        lead=strip["content"],
        leads=strip["start"],
    )


@dataclass(frozen=True)
class Bytes(Decoder):
    """Decodes by the bytes of each token."""

    table: Mapping[int, bytes]
    hidden: frozenset[int]  # special tokens
    lead: str
    leads: int

    def decode(self, ids: Iterable[int], special: bool) -> str:
        """Return the text of all ids."""
        shown = (self.table.get(id, b"") for id in ids if special or id not in self.hidden)
        return ByteStream(self, special).read(b"".join(shown), final=True)

    def stream(self, special: bool) -> Stream:
        """Return a fresh stream."""
        return ByteStream(self, special)

    def bytes_of(self, id: int) -> bytes | None:
        """Return the bytes that one id stands for; an id without a token has none."""
        return self.table.get(id, b"")


class ByteStream(Stream):
    """Reads bytes as UTF-8 as they come, a character when it is whole."""

    def __init__(self, source: Bytes, special: bool) -> None:
        """Start at the beginning of a text."""
        self.source = source
        self.special = special
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.leads = source.leads

    def push(self, id: int) -> str:
        """Take one more id and return the characters it completes."""
        if id in self.source.hidden and not self.special:
            return ""
        return self.read(self.source.table.get(id, b""))

    def finish(self) -> str:
        """Return what is left."""
        return self.read(b"", final=True)

    def read(self, data: bytes, final: bool = False) -> str:
        """Return the characters that `data` completes, less the leading space that encoding put there."""
        text = self.utf8.decode(data, final)
        while self.leads and text.startswith(self.source.lead):
            text = text[len(self.source.lead) :]
            self.leads -= 1
        if text:
            self.leads = 0
        return text


@dataclass(frozen=True)
class Library(Decoder):
    """Decodes by what `tokenizers` makes of the file's decoder."""

    raw: tokenizers.Tokenizer
    known: frozenset[int]
    hidden: frozenset[int]  # special tokens

    def decode(self, ids: Iterable[int], special: bool) -> str:
        """Return the text of all ids."""
        with guarded("ids"):
            return self.raw.decode([id for id in ids if self.shows(id, special)], skip_special_tokens=False)

    def shows(self, id: int, special: bool) -> bool:
        """Say whether an id stands for any text."""
        return id in self.known and (special or id not in self.hidden)

    def stream(self, special: bool) -> Stream:
        """Return a fresh stream."""
        return LibraryStream(self, special)

    def bytes_of(self, id: int) -> None:
        """Return None: the library spaces and joins tokens by what stands before them."""


class LibraryStream(Stream):
    """Decodes the new ids after the ones before them, and returns the difference."""

    def __init__(self, source: Library, special: bool) -> None:
        """Start at the beginning of a text."""
        self.source = source
        self.special = special
        self.before: list[int] = []  # the last ids shown: what comes next is spaced and joined in their company
        self.held: list[int] = []  # ids not yet shown

    def push(self, id: int) -> str:
        """Take one more id and return the characters it completes."""
        if not self.source.shows(id, self.special):
            return ""
        self.held.append(id)
        text = self.source.decode(self.before + self.held, self.special)
        return "" if text.endswith(BROKEN) and len(self.held) < LONGEST else self._show(text)

    def finish(self) -> str:
        """Return what is left."""
        return self._show(self.source.decode(self.before + self.held, self.special)) if self.held else ""

    def _show(self, text: str) -> str:
        shown = len(self.source.decode(self.before, self.special))
        self.before, self.held = self.held, []
        return text[shown:]
