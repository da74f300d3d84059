"""Batches of questions for encoders: what step s asks is a function of (seed, s), as in data/batches.py.

    documents ─ pieces of at most T less the frame ─ packed into rows ─ an epoch: the rows in a new order, asked anew
    row       [CLS] p p p [SEP] [CLS] q q [SEP] _        segments 1 1 1 1 1 2 2 2 2 0
    pairs     [CLS] a a [SEP] b b [SEP]                  kinds    0 0 0 0 1 1 1; half the b's are from another document

Which pieces share a row is drawn once, for neighbours do not matter; what is hidden, where pairs are cut and what
follows is drawn for each step.

Letters: B rows of a step, T context, n documents, P pieces, V vocab.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hanlin.batch import IGNORE, Batch, Layout
from hanlin.data.batches import BatchSource
from hanlin.data.corrupt import Ints, Pieces, grouped, hide, split, uniform
from hanlin.data.shards import Shards
from hanlin.errors import ConfigError, DataError, problem
from hanlin.text.tokenizer import Tokenizer

OPEN = 8  # rows that wait for a piece that fits: more leave less padding, and take longer to pack
HAN = ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # Chinese characters


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked."""

    rate: float = 0.15  # of the tokens are hidden; 0: none
    whole: bool = True  # words are hidden as a whole
    ngrams: bool = False  # and Chinese characters one to four together
    pairs: bool = False  # does the second half follow the first?


@dataclass(frozen=True, kw_only=True)
class Follows:
    """Whether pairs belong together: (B, T), at a pair's first token 0 if so and 1 if not, IGNORE elsewhere."""

    answers: Tensor


class Masked(BatchSource):
    """Packed rows of framed pieces with words hidden, and pairs where asked.

    ConfigError when the tokenizer lacks the tokens this takes; DataError when there is too little text.
    """

    def __init__(
        self, shards: Shards, tokenizer: Tokenizer, asks: Questions, *, rows: int, context: int, seed: int
    ) -> None:
        """Cut documents into pieces and pack them; nothing is read yet but lengths and one document."""
        self.shards, self.asks, self.rows, self.context, self.seed = shards, asks, rows, context, seed
        self.pieces = pieces(tokenizer)
        self.others = np.flatnonzero(~self.pieces.special)
        special = tokenizer.special
        self.first = special.cls if special.cls is not None else special.bos
        self.last = special.sep if special.sep is not None else special.eos
        self.pad, self.mask = special.pad or 0, special.mask if special.mask is not None else -1
        framed = int(self.first is not None) + (2 if asks.pairs else 1) * int(self.last is not None)
        _require(self, framed)
        self._cut(context - framed)
        self.filled = fit(self.sizes + framed, context, np.random.PCG64(np.random.SeedSequence([seed])))
        self.steps_per_epoch = -(-len(self.filled) // rows)
        self.tokens_per_step = rows * context
        self._order: dict[int, Ints] = {}  # of the last two epochs

    def _cut(self, room: int) -> None:
        """Find the pieces: of which document, from where in the stream of all tokens, how long."""
        shards, least = self.shards, 2 if self.asks.pairs else 1
        longest = shards.document(int(np.argmax(shards.lengths))) if shards.documents else np.zeros(0, np.int64)
        inner = np.flatnonzero(~self.pieces.special[longest.astype(np.int64)])
        head, tail = (int(inner[0]), len(longest) - int(inner[-1]) - 1) if len(inner) else (0, 0)
        lengths = np.maximum(shards.lengths - head - tail, 0)
        counts = -(-lengths // room)
        document = np.repeat(np.arange(shards.documents), counts)
        place = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * room
        sizes = np.minimum(room, lengths[document] - place)
        kept = sizes >= least
        self.document, self.sizes = document[kept], sizes[kept]
        self.starts = (shards.starts[document] + head + place)[kept]
        documents = len(np.unique(self.document))
        if documents < least:
            given, allowed = f"{documents} documents of {least} tokens or more", f"at least {least}"
            raise DataError(problem(f"{shards.folder} {shards.split}", given, allowed, do="use more text"))

    def batch(self, step: int) -> Batch[Any]:
        """Return the questions and answers of a step."""
        bits = np.random.PCG64(np.random.SeedSequence([self.seed, step, 1]))
        shape = (self.rows, self.context)
        tokens, answers = np.full(shape, self.pad), np.full(shape, IGNORE)
        segments, kinds = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        widest = 0
        for row, members in enumerate(self._members(step)):
            column = 0
            for number, piece in enumerate(members, start=1):
                ids, second, answer = self._framed(piece, bits)
                here = slice(column, column + len(ids))
                tokens[row, here], segments[row, here] = ids, number
                kinds[row, column + second : here.stop] = 1
                answers[row, column] = answer
                column = here.stop
            widest = max(widest, column)
        tokens, segments, kinds, answers = (each[:, :widest] for each in (tokens, segments, kinds, answers))
        targets = None
        if self.asks.rate:
            tokens, targets = hide(
                tokens,
                self._units(tokens, segments, bits),
                bits,
                rate=self.asks.rate,
                mask=self.mask,
                others=self.others,
            )
        return Batch(
            tokens=torch.from_numpy(np.ascontiguousarray(tokens)),
            targets=None if targets is None else torch.from_numpy(targets),
            layout=Layout.of(torch.from_numpy(np.ascontiguousarray(segments))),
            kinds=torch.from_numpy(np.ascontiguousarray(kinds)) if self.asks.pairs else None,
            labels=Follows(answers=torch.from_numpy(np.ascontiguousarray(answers))) if self.asks.pairs else None,
        )

    def _members(self, step: int) -> list[list[int]]:
        """Return the pieces of each row of a step."""
        found = []
        for number in range(step * self.rows, (step + 1) * self.rows):
            epoch, place = divmod(number, len(self.filled))
            if epoch not in self._order:
                bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch, 0]))
                self._order[epoch] = shuffled(len(self.filled), bits)
                while len(self._order) > 2:
                    del self._order[next(iter(self._order))]
            found.append(self.filled[int(self._order[epoch][place])])
        return found

    def _framed(self, piece: int, bits: np.random.PCG64) -> tuple[list[int], int, int]:
        """Return a piece's ids in their frame, where the second half begins, and whether it is a stranger's."""
        first = [self.first] if self.first is not None else []
        last = [self.last] if self.last is not None else []
        ids = self._read(piece)
        if not self.asks.pairs:
            whole = [*first, *ids.tolist(), *last]
            return whole, len(whole), IGNORE
        where, strange, which, part = uniform(bits, 4)
        units = self.pieces.units(ids[None])[0]
        cut = split(np.concatenate([[True], units[1:] != units[:-1]]), where)
        begin, end, answer = ids[:cut], ids[cut:], 0
        if strange >= 0.5:
            end, answer = self._read(self._stranger(piece, which, part))[: len(end)], 1
        before = [*first, *begin.tolist(), *last]
        return [*before, *end.tolist(), *last], len(before), answer

    def _stranger(self, piece: int, which: float, part: float) -> int:
        """Return a piece of another document, any document as likely as another."""
        documents, begins, counts = np.unique(self.document, return_index=True, return_counts=True)
        own = int(np.searchsorted(documents, self.document[piece]))
        other = (own + 1 + int(which * (len(documents) - 1))) % len(documents)
        return int(begins[other]) + int(part * counts[other])

    def _read(self, piece: int) -> Ints:
        """Return the ids of a piece."""
        return self.shards.take(self.starts[piece] + np.arange(self.sizes[piece]))

    def _units(self, tokens: Ints, segments: Ints, bits: np.random.PCG64) -> Ints:
        """Return what is hidden together, -1 for what never is."""
        units = self.pieces.units(tokens)
        if not self.asks.whole:
            units = np.where(units < 0, -1, np.arange(units.size).reshape(units.shape))
        if self.asks.ngrams:
            units = grouped(units, self.pieces.han[tokens], bits)
        return np.where(segments > 0, units, -1)


def _require(source: Masked, framed: int) -> None:
    """Raise ConfigError for what the tokenizer or the context lacks."""
    problems = []
    do = "choose tokenizer.kind: wordpiece, or an encoder's tokenizer"
    if source.asks.rate and source.mask < 0:
        problems.append(problem("tokenizer", "has no mask token", do=do))
    if source.asks.pairs and source.last is None:
        problems.append(problem("tokenizer", "has no token that separates pairs", do=do))
    least = framed + (2 if source.asks.pairs else 1)
    if source.context < least:
        problems.append(problem("plan.context", f"{source.context}", f"at least {least}"))
    if problems:
        raise ConfigError(*problems)


def shuffled(count: int, bits: np.random.PCG64) -> Ints:
    """Return 0 … count - 1 in a random order."""
    order: Ints = np.argsort(bits.random_raw(count), kind="stable")
    return order


def fit(sizes: Ints, room: int, bits: np.random.PCG64) -> list[list[int]]:
    """Return rows of pieces that fit `room`, in random order, each put into the first open row with space for it."""
    closed: list[list[int]] = []
    waiting: list[tuple[int, list[int]]] = []  # (space left, pieces)
    for piece in shuffled(len(sizes), bits).tolist():
        size = int(sizes[piece])
        at = next((at for at, (left, _) in enumerate(waiting) if left >= size), None)
        if at is not None:
            left, row = waiting[at]
            row.append(piece)
            waiting[at] = (left - size, row)
            continue
        if len(waiting) == OPEN:
            closed.append(waiting.pop(min(range(OPEN), key=lambda each: waiting[each][0]))[1])
        waiting.append((room - size, [piece]))
    return [*closed, *(row for _, row in waiting)]


def pieces(tokenizer: Tokenizer) -> Pieces:
    """Return what each token is to its word, as its spelling says: `##`, a space or bytes that go on."""
    vocab = tokenizer.vocab
    special = {id for id, each in tokenizer.raw.get_added_tokens_decoder().items() if each.special}
    special |= {id for id in asdict(tokenizer.special).values() if id is not None}
    tokens = [tokenizer.raw.id_to_token(id) for id in range(vocab)]
    marked = any(token is not None and token.startswith("##") and len(token) > 2 for token in tokens)
    found = np.zeros((4, vocab), dtype=np.bool_)
    for id, token in enumerate(tokens):
        if token is None or id in special:
            found[2, id] = True
        elif marked:
            found[:, id] = token.startswith("##"), True, False, _han(token)
        else:
            raw = tokenizer.bytes_of(id)
            found[:, id] = _spelled(token.replace("▁", " ").encode() if raw is None else raw)
    joins, opens, never, han = found
    return Pieces(joins=joins, opens=opens, special=never, han=han)


def _spelled(raw: bytes) -> tuple[bool, bool, bool, bool]:
    """Return whether a token of these bytes joins a word, leaves it open, is special (never), is Chinese."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:  # a part of a character
        return 0x80 <= raw[0] < 0xC0, True, False, False
    inside = [each.isalnum() and not _han(each) for each in (text[:1], text[-1:])]
    return inside[0], inside[1], False, _han(text)


def _han(text: str) -> bool:
    """Return whether a text is Chinese characters alone."""
    return bool(text) and all(any(low <= ord(each) <= high for low, high in HAN) for each in text)
