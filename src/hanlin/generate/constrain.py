"""Answers that keep to a grammar: a JSON schema, a regular expression, or rules in Lark's syntax.

    Grammar ── Vocabulary.guide ──> Guide ── fork, one a row ──> mask ─ a token is chosen ─ take ─┐
               compiled once,                                     ^                               │
               within a budget                                    └──────── still open ───────────┘
                                                          ended: the answer is complete

llguidance follows the grammar byte by byte, by derivatives of regular expressions and an Earley parser, so nothing
backtracks: `(a+)+$` is as cheap as `a+`. What its budgets cannot hold, what is not implemented and what no answer can
satisfy is refused in one line. JSON is written without spaces between its parts.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hanlin.config import Config
from hanlin.errors import ConfigError, MissingExtra, problem
from hanlin.generate.endless import branches, endless

if TYPE_CHECKING:
    import llguidance

    from hanlin.text.tokenizer import Tokenizer

LONGEST = 256_000  # characters of a grammar
BRANCHES = 1_000  # of an anyOf, oneOf or allOf; an enum may have as many values as fit
BUDGET_S = 2.0  # a grammar that takes longer to compile is refused; the bounds below stop it long before
BOUNDS = {"max_grammar_size": 200_000, "initial_lexer_fuel": 1_000_000, "max_lexer_states": 50_000}
TRIED = 4  # tokens written on trial when a grammar is compiled: what breaks at once is refused at once
KEPT = 16  # compiled grammars a vocabulary remembers
TAIL = 8  # tokens of a prompt that tell whether any text stands before the answer

Kind = Literal["json_schema", "regex", "lark"]


class Grammar(Config):
    """What an answer has to look like; see `json_schema`, `regex` and `lark`, which make one."""

    kind: Kind
    text: str = Field(min_length=1)


def json_schema(schema: Mapping[str, Any] | bool) -> Grammar:
    """Return the grammar of JSON that a schema allows; keywords that cannot be kept are refused when compiled."""
    return Grammar(kind="json_schema", text=json.dumps(schema, ensure_ascii=False))


def regex(pattern: str) -> Grammar:
    """Return the grammar of texts that match a regular expression from end to end, in the syntax of Rust's `regex`."""
    return Grammar(kind="regex", text=pattern)


def lark(rules: str) -> Grammar:
    r"""Return the grammar that rules in Lark's syntax describe, beginning with `start`.

    >>> lark('start: "SELECT " COLUMN\nCOLUMN: "name" | "area"').kind
    'lark'
    """
    return Grammar(kind="lark", text=rules)


class Guide:
    """One answer's place in its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        """Look at what may come first."""
        self._matcher = matcher
        self.ended = False  # complete: nothing more may come
        self.broken = False  # past a budget, or nothing in the vocabulary fits: it will never be complete
        self._mask = b""
        self._look()

    def fork(self) -> Guide:
        """Return a guide at the same place that goes its own way."""
        new = object.__new__(Guide)
        new._matcher = self._matcher.deep_copy()
        new.ended, new.broken, new._mask = self.ended, self.broken, self._mask
        return new

    def mask(self, width: int) -> NDArray[np.bool_]:
        """Return (width,) booleans, True for each token that may come next."""
        found = np.zeros(width, dtype=np.bool_)
        bits = np.unpackbits(np.frombuffer(self._mask, dtype=np.uint8), bitorder="little")[:width]
        found[: len(bits)] = bits
        return found

    def take(self, token: int) -> None:
        """Go on by one token."""
        self._matcher.consume_token(token)
        self._look()

    def _look(self) -> None:
        """Find what may come next."""
        matcher = self._matcher
        if not matcher.is_stopped():
            self._mask = matcher.compute_bitmask()
        reason = matcher.stop_reason()
        self.broken = matcher.is_error() or reason not in ("NotStopped", "NoExtension", "EndOfSentence")
        self.ended = not self.broken and matcher.is_stopped()

    @property
    def said(self) -> str:
        """Return why it is broken."""
        told = self._matcher.get_error()
        return "nothing that this vocabulary can write fits it" if not told or "NoExtension" in told else told


def masks(guides: Sequence[Guide | None], width: int) -> NDArray[np.bool_] | None:
    """Return (rows, width) booleans, True where a token may come; None where nothing is asked of any row."""
    if all(guide is None for guide in guides):
        return None
    free = np.ones(width, dtype=np.bool_)
    return np.stack([free if each is None or each.ended or each.broken else each.mask(width) for each in guides])


class Vocabulary:
    """The bytes of each token, as grammars see them, and the grammars compiled for them; may be shared by threads."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        """Keep a tokenizer; nothing is computed before the first grammar."""
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self._made: llguidance.LLTokenizer | None = None
        self._drops = False  # the space that a text's first token brings is not shown
        self._known: OrderedDict[tuple[Grammar, bool], Guide] = OrderedDict()
        self._lock = threading.Lock()

    def guide(self, grammar: Grammar, prompt: Sequence[int]) -> Guide:
        """Return a guide for the answer to a prompt; ConfigError in one line for a grammar that cannot be used."""
        with self._lock:
            made = self._words()
            spaced = self._drops and not self.tokenizer.decode(prompt[-TAIL:])
            key = (grammar, spaced)
            if key not in self._known:
                self._known[key] = _compile(grammar, made, spaced)
            self._known.move_to_end(key)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
            return self._known[key].fork()

    def _words(self) -> llguidance.LLTokenizer:
        """Return the vocabulary as llguidance wants it."""
        if self._made is None:
            library = _library()
            words = spelled(self.tokenizer)
            self._drops = any(
                len(word) > 1 and word[:1] == b" " and not self.tokenizer.decode([id]).startswith(" ")
                for id, word in enumerate(words[:20_000])
            )
            hidden = {*self.stop_ids, *self.tokenizer.raw.get_added_tokens_decoder()}
            # A word that begins with FF is a special one to llguidance; no UTF-8 has that byte.
            words = [b"\xff<%d>" % id if id in hidden else word.split(b"\xff")[0] for id, word in enumerate(words)]
            stops = sorted(id for id in self.stop_ids if id < len(words)) or [len(words)]  # one that no model can say
            wrapper = library.TokenizerWrapper(_Words(self.tokenizer, [*words, b"\xff<end>"], stops[0], sorted(hidden)))
            self._made = library.LLTokenizer(wrapper, eos_token=stops)
        return self._made


class _Words:
    """What llguidance's TokenizerWrapper asks for."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes], stop: int, special: list[int]) -> None:
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.eos_token_id = stop
        self.special_token_ids = special
        self._ids = {word: id for id, word in enumerate(tokens) if word}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, text: bytes) -> list[int]:
        """Return the ids that spell a text which must come: the tokenizer's own, else the longest that fit."""
        try:
            ids = list(self.tokenizer.encode(text.decode(), added=False).ids)
        except UnicodeDecodeError:
            ids = []
        return ids if b"".join(self.tokens[id] for id in ids) == text else self._greedy(text)

    def _greedy(self, text: bytes) -> list[int]:
        """Return the longest tokens from the left; what no token begins with is left out with the rest."""
        found, at = [], 0
        while at < len(text):
            sizes = range(min(self._longest, len(text) - at), 0, -1)
            size = next((size for size in sizes if text[at : at + size] in self._ids), 0)
            if not size:
                break
            found.append(self._ids[text[at : at + size]])
            at += size
        return found


def spelled(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes of every token, empty where there is no such id.

    Where the vocabulary does not say, they are what the token adds to the text after an ordinary word.
    """
    words = [tokenizer.bytes_of(id) for id in range(tokenizer.vocab)]
    if None not in words:
        return [word or b"" for word in words]
    known = set(tokenizer.raw.get_vocab(with_added_tokens=True).values())
    plain = (id for id in sorted(known) if tokenizer.decode([id]).strip().isalpha())
    anchor = next(plain, None)
    if anchor is None:
        return [tokenizer.decode([id]).encode() for id in range(len(words))]
    before = tokenizer.decode([anchor])
    return [tokenizer.decode([anchor, id])[len(before) :].encode() for id in range(len(words))]


def _library() -> Any:  # noqa: ANN401  # the module
    try:
        import llguidance
    except ImportError:
        raise MissingExtra("llguidance", "structured") from None
    return llguidance


def _compile(grammar: Grammar, words: llguidance.LLTokenizer, spaced: bool) -> Guide:
    """Return a guide at the beginning; with `spaced`, one space may stand before everything else."""
    if len(grammar.text) > LONGEST:
        given = f"{len(grammar.text)} characters"
        raise ConfigError(problem("grammar", given, f"at most {LONGEST}", do="make it smaller"))
    library = _library()
    began = time.monotonic()
    bounds = library.LLParserLimits(**BOUNDS, verbose_errors=False)
    matcher = library.LLMatcher(words, _rules(grammar, spaced), log_level=0, limits=bounds)
    if matcher.is_error():
        raise ConfigError(_refusal(grammar, matcher.get_error()))
    guide = Guide(matcher)
    for reason in _tried(guide):
        raise ConfigError(_refusal(grammar, reason))
    took = time.monotonic() - began
    if took > BUDGET_S:
        raise ConfigError(_refusal(grammar, f"{took:.1f} s to compile; at most {BUDGET_S:g}"))
    return guide


def _rules(grammar: Grammar, spaced: bool) -> str:
    """Return a grammar as llguidance reads it; ConfigError for JSON that is none."""
    inner: dict[str, object] = {"name": "answer"}
    if grammar.kind == "json_schema":
        inner["json_schema"] = _schema(grammar)
    elif grammar.kind == "regex":
        inner["lark_grammar"] = f"start: /{_library().regex_to_lark(grammar.text)}/"
    else:
        inner["lark_grammar"] = grammar.text
    outer = [{"name": "spaced", "lark_grammar": 'start: " "? @answer'}] if spaced else []
    return json.dumps({"grammars": [*outer, inner]})


def _schema(grammar: Grammar) -> dict[str, object]:
    """Return a schema with our own choices; ConfigError for what is none, or nothing can satisfy."""
    try:
        schema = json.loads(grammar.text)
        without_end, wide = endless(schema), branches(schema)
    except (ValueError, RecursionError) as error:
        raise ConfigError(_refusal(grammar, str(error))) from None
    if without_end:
        raise ConfigError(_refusal(grammar, "nothing finite satisfies it"))
    if wide > BRANCHES:
        raise ConfigError(_refusal(grammar, f"{wide} branches; at most {BRANCHES}"))
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise ConfigError(_refusal(grammar, f"a schema is an object, not {type(schema).__name__}"))
    if "x-guidance" in schema:
        raise ConfigError(_refusal(grammar, "unknown keyword 'x-guidance'"))
    return {**schema, "x-guidance": {"whitespace_flexible": False}}


def _tried(guide: Guide) -> Iterator[str]:
    """Yield why a grammar breaks at once, if it does."""
    if guide.ended:
        yield "only the empty text fits"
    trial = guide.fork()
    for _ in range(TRIED):
        if trial.ended:
            return
        allowed = trial.mask(8 * len(trial._mask)).nonzero()[0]
        if trial.broken or not len(allowed):
            yield trial.said
            return
        trial.take(int(allowed[-1]))


def _refusal(grammar: Grammar, reason: str) -> str:
    """Return one line that names a grammar's problem."""
    lines: Iterable[str] = (line.strip() for line in reason.replace("<non-verbose/>", "").splitlines())
    told = " ".join(line for line in lines if line and set(line) != {"^"})
    names = {"json_schema": "JSON schema", "regex": "regular expression", "lark": "grammar"}
    return problem("grammar", f"this {names[grammar.kind]} cannot be used: {told[:300]}")
