"""How well a model foresees documents: every token once, in windows it can read.

document    t t t t t t t t t t t t t t     nothing predicts the first token
window 1    r s s s s s s                   r: read only; s: scored once, by what the window reads before it
window 2            r r r s s s s           here context 6, overlap 2: a window reads the last scored token and
window 3                    r r r s s s     `overlap` more again, so that what it scores first has a past

documents ─ windows ─ score (batched by length) ─ summed nats a document ─ Scores
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hanlin.errors import ConfigError, problem
from hanlin.generate.score import Ids, score
from hanlin.metrics.contract import Estimate
from hanlin.metrics.perplexity import bits_per_byte, perplexity
from hanlin.models.contract import Model

POOL = 16  # batches' worth of windows that are sorted by length together: more waste less, and hold more


class Documents(Protocol):
    """Tokenized documents with the size of their text, as data/shards.py opens them."""

    @property
    def documents(self) -> int:
        """Return how many there are."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the number of tokens of each."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Return the UTF-8 bytes of each original text."""

    def document(self, index: int) -> NDArray[Any]:
        """Return the tokens of one document, its first token included."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a language model scores on a set of documents; the names are the fixed keys of every results file."""

    perplexity: Estimate
    bits_per_byte: Estimate
    documents: int
    tokens: int  # scored: all but each document's first
    bytes: int  # of the original text

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def examine(
    model: Model[Any],
    data: Documents,
    *,
    context: int | None = None,
    overlap: int = 0,
    tokens_per_batch: int = 8192,
    advance: Callable[[int], None] = lambda tokens: None,
) -> Scores:
    """Return perplexity by token and bits per byte of text, with intervals from redrawing documents.

    Everything a document has after its first token counts, its EOS too: where to end is part of the text. `context`
    is the model's unless given; `advance` is told how many more tokens are done.
    """
    found = nats(
        model,
        (data.document(index) for index in range(data.documents)),
        context=model.config.context if context is None else context,
        overlap=overlap,
        tokens_per_batch=tokens_per_batch,
        advance=advance,
    )
    tokens = np.maximum(np.asarray(data.lengths, dtype=np.int64) - 1, 0)
    sizes = np.asarray(data.sizes, dtype=np.int64)
    return Scores(
        perplexity=perplexity(found, tokens),
        bits_per_byte=bits_per_byte(found, sizes),
        documents=data.documents,
        tokens=int(tokens.sum()),
        bytes=int(sizes.sum()),
    )


def portion(data: Documents, tokens: int) -> list[Ids]:
    """Return documents spread evenly over the set that hold at most `tokens` tokens, the last one cut to fit."""
    every = max(1, int(np.sum(data.lengths)) // tokens)
    chosen: list[Ids] = []
    for index in np.flatnonzero(np.asarray(data.lengths) >= 2)[::every]:  # one token alone has nothing to score
        left = tokens - sum(map(len, chosen))
        if left >= 2:
            chosen.append(data.document(index)[:left])
    return chosen


class Window(NamedTuple):
    """A piece of a document that is read at once."""

    document: int
    ids: Ids
    prefix: int  # tokens that are read only


def nats(
    model: Model[Any],
    documents: Iterable[Ids],
    *,
    context: int,
    overlap: int = 0,
    tokens_per_batch: int = 8192,
    advance: Callable[[int], None] = lambda tokens: None,
) -> NDArray[np.float64]:
    """Return (n,) the summed negative log-likelihood, in nats, of every token of each document but its first.

    Windows read at most `context` tokens; with an overlap of half the context each token has half of it before it,
    at twice the cost. Documents may come from anywhere: a few batches' worth is held at a time.
    """
    if not 0 <= overlap < context <= model.config.context:
        given, allowed = f"context {context}, overlap {overlap}", "0 <= overlap < context <= the model's"
        raise ConfigError(problem("windows", given, f"{allowed} {model.config.context}"))
    totals: list[float] = []
    for pool in _pools(_cut(documents, context, overlap, totals), POOL * tokens_per_batch):
        prefix = [window.prefix for window in pool]
        found = score(model, [window.ids for window in pool], prefix=prefix, tokens_per_batch=tokens_per_batch)
        for window, part in zip(pool, found):
            totals[window.document] -= float(part.sum())
        advance(sum(map(len, found)))
    return np.array(totals)


def windows(length: int, context: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, stop, prefix): ids[start:stop] is one window, its first `prefix` tokens are read only.

    >>> list(windows(14, context=6, overlap=2))
    [(0, 7, 1), (4, 11, 3), (8, 14, 3)]
    """
    start, prefix, done = 0, 1, 1
    while done < length:
        done = min(length, start + context + 1)
        yield start, done, prefix
        start, prefix = done - 1 - overlap, overlap + 1


def _cut(documents: Iterable[Ids], context: int, overlap: int, totals: list[float]) -> Iterator[Window]:
    """Yield the windows of all documents, opening a total for each document met."""
    for number, ids in enumerate(documents):
        totals.append(0.0)
        for start, stop, prefix in windows(len(ids), context, overlap):
            yield Window(number, ids[start:stop], prefix)


def _pools(pieces: Iterable[Window], tokens: int) -> Iterator[list[Window]]:
    """Yield the windows in lists of about `tokens` tokens."""
    pool: list[Window] = []
    held = 0
    for window in pieces:
        pool.append(window)
        held += len(window.ids)
        if held >= tokens:
            yield pool
            pool, held = [], 0
    if pool:
        yield pool
