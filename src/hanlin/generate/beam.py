"""Beam search: the likeliest whole answers, several kept open at a time.

    K open beams ── forward ── log-probabilities added ── best 2K of K·V ─┬─ the best K that go on ──> K open beams
                                                                          └─ among the first K, those that end:
                                                                             kept, if among the K best ended so far

An ended beam's score is its log-probability over length ** length_penalty (0 compares sums, 1 means). The rules,
those for stopping early too, are those of transformers' `generate(num_beams=K)`: the same tokens come out. A prompt
leaves when nothing can improve it; its beams share one row of memory. The cache is only reordered, never recomputed.

Letters: P prompts still open, K beams, C candidates, V vocab.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from hanlin.config import Config
from hanlin.errors import ConfigError, problem
from hanlin.generate.constrain import Grammar, Guide, masks
from hanlin.generate.decode import Answer, Finish, after, guided
from hanlin.generate.prefill import evaluating, prefill, shared, unreadable
from hanlin.models.contract import Decodes, Memory, Model, require
from hanlin.runtime import thin

if TYPE_CHECKING:
    from hanlin.text.tokenizer import Tokenizer

Id = Field(None, ge=0)


class Beam(Config):
    """How beam search continues a prompt."""

    beams: int = Field(4, ge=1, le=128)
    n: int = Field(1, ge=1, le=128)  # the best so many are returned
    limit: int = Field(100, ge=1)  # new tokens
    least: int = Field(0, ge=0)  # new tokens before a stop id may come
    length_penalty: float = 1.0  # above 0 favours long answers, below 0 short ones
    early: bool | Literal["never"] = False  # True: K ended are enough; "never": stop only when no beam could be better
    no_repeat: int = Field(0, ge=0)  # no n-gram of this size twice, the prompt's included; 0 is off
    suppress: tuple[int, ...] = ()  # never written
    suppress_first: tuple[int, ...] = ()  # never the first new token
    first: int | None = Id  # the first new token, whatever the model says
    last: int | None = Id  # the token at the limit, whatever the model says
    grammar: Grammar | None = None

    def problems(self) -> list[str]:
        """Return what is impossible together."""
        return [problem("n", f"{self.n}", f"at most beams ({self.beams})")] if self.n > self.beams else []


class _Ended(NamedTuple):
    """One whole hypothesis."""

    score: float
    ids: tuple[int, ...]
    finish: Finish


@dataclass
class _Search:
    """One prompt's search."""

    prompt: int
    ids: tuple[int, ...]
    open: list[tuple[int, ...]]  # what each of the K beams has written
    guides: list[Guide | None]
    ended: list[_Ended] = field(default_factory=list)  # best first, K at most
    closed: bool = False


def search(
    model: Model[Any],
    prompts: Sequence[Sequence[int]],
    beam: Beam,
    *,
    stop_ids: frozenset[int],
    tokenizer: Tokenizer | None = None,
    memory: Memory | None = None,
) -> list[Answer]:
    """Return the `n` best answers to each prompt, best first, in order of prompts.

    Fewer than `n` come back only where there are fewer: a limit of 1 over a tiny vocabulary, a narrow grammar.
    ConfigError names everything that cannot be done.
    """
    _check(model, prompts, beam, tokenizer, memory)
    if not prompts:
        return []
    guides = guided(prompts, [beam.grammar] * len(prompts), stop_ids, tokenizer)
    searches = [
        _Search(index, tuple(prompt), [()] * beam.beams, [guide] * beam.beams)
        for index, (prompt, guide) in enumerate(zip(prompts, guides))
    ]
    _run(model, searches, beam, stop_ids, memory)
    found = []
    for each in searches:
        for n, ended in enumerate(each.ended[: beam.n]):
            text = "" if tokenizer is None else _text(each.ids, ended, stop_ids, tokenizer)
            found.append(
                Answer(prompt=each.prompt, n=n, ids=ended.ids, text=text, finish=ended.finish, score=ended.score)
            )
    return found


@torch.inference_mode()
def _run(
    model: Model[Any], searches: list[_Search], beam: Beam, stop_ids: frozenset[int], memory: Memory | None
) -> None:
    """Carry every search to its end: the loop."""
    width = beam.beams
    with evaluating(model):
        longest = max(len(each.ids) for each in searches) + beam.limit
        cache, logits = prefill(model, [each.ids for each in searches], longest, memory)
        copies = torch.arange(len(searches), device=model.device).repeat_interleave(width)
        cache.reorder(copies)
        logits = logits[copies]
        sums = torch.full((len(searches), width), -math.inf, device=model.device)
        sums[:, 0] = 0.0  # all beams are alike at first: only one of them counts
        for drawn in range(beam.limit):
            scores = _scores(logits, searches, beam, stop_ids, drawn)
            kept, source, ids = _advance(searches, scores, sums, beam, stop_ids, drawn)
            if not ids:
                return
            searches, sums = [searches[place] for place in kept], sums[kept]
            rows = torch.tensor(source, device=model.device)
            if memory is not None:
                memory = shared(memory, torch.tensor(_heads(kept, width), device=model.device), len(cache.lengths))
            if source != list(range(len(cache.lengths))):
                cache.reorder(rows)
            tokens = torch.tensor(ids, device=model.device)[:, None]
            with thin(len(ids), model.dtype, model.device):
                logits = model.logits(model(tokens, memory=memory, cache=cache)[:, 0])


def _heads(kept: list[int], width: int) -> list[int]:
    """Return a row of its own prompt for each row that stays: beams change places only within a prompt."""
    return [place * width + beam for place in kept for beam in range(width)]


def _scores(logits: Tensor, searches: Sequence[_Search], beam: Beam, stop_ids: frozenset[int], drawn: int) -> Tensor:
    """Return log-probabilities (P·K, V), -inf for what may not come; what is forced is certain."""
    scores = logits.float().log_softmax(1)
    rows = [(each, place) for each in searches for place in range(beam.beams)]
    never = [*beam.suppress, *(stop_ids if drawn < beam.least else ()), *(() if drawn else beam.suppress_first)]
    scores[:, [each for each in never if each < scores.shape[1]]] = -math.inf
    if beam.no_repeat:
        for row, (each, place) in enumerate(rows):
            scores[row, _repeats((*each.ids, *each.open[place]), beam.no_repeat)] = -math.inf
    allowed = masks([each.guides[place] for each, place in rows], scores.shape[1])
    if allowed is not None:
        scores = scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), -math.inf)
    forced = beam.first if drawn == 0 and beam.first is not None else beam.last if drawn == beam.limit - 1 else None
    if forced is not None:
        scores = torch.full_like(scores, -math.inf)
        scores[:, forced] = 0.0
    return scores


def _repeats(ids: tuple[int, ...], size: int) -> list[int]:
    """Return the tokens that would write an n-gram again."""
    if len(ids) + 1 < size:
        return []
    tail = ids[len(ids) - size + 1 :]
    return [ids[at + size - 1] for at in range(len(ids) - size + 1) if ids[at : at + size - 1] == tail]


def _advance(
    searches: Sequence[_Search], scores: Tensor, sums: Tensor, beam: Beam, stop_ids: frozenset[int], drawn: int
) -> tuple[list[int], list[int], list[int]]:
    """Take one step in every search, `sums` (P, K) in place.

    Returns which searches stay open and, for all of their beams, the row each one continues and the token it adds.
    """
    vocab = scores.shape[1]
    every = (sums[..., None] + scores.view(len(searches), -1, vocab)).flatten(1)
    best = every.topk(min(beam.beams * max(2, 1 + len(stop_ids)), every.shape[1]), dim=1)
    kept: list[int] = []
    source: list[int] = []
    ids: list[int] = []
    for at, (each, totals, places) in enumerate(zip(searches, best.values.tolist(), best.indices.tolist())):
        candidates = [(total, *divmod(place, vocab)) for total, place in zip(totals, places) if total > -math.inf]
        going = _take(each, candidates, beam, stop_ids, drawn + 1)
        if each.closed:
            continue
        kept.append(at)
        # Where fewer than K go on, the rest of the beams is empty: it repeats one that counts for nothing.
        empty = beam.beams - len(going)
        sums[at] = torch.tensor([total for total, _, _ in going] + [-math.inf] * empty)
        for _, row, token in [*going, *going[:1] * empty]:
            source.append(at * beam.beams + row)
            ids.append(token)
    return kept, source, ids


def _take(
    search: _Search,
    candidates: list[tuple[float, int, int]],
    beam: Beam,
    stop_ids: frozenset[int],
    length: int,
) -> list[tuple[float, int, int]]:
    """Keep what ends among the best K candidates (sum, beam, token), return the best K that go on."""
    going: list[tuple[float, int, int]] = []
    guides: list[Guide | None] = []
    ended = []
    for place, (total, row, token) in enumerate(candidates):
        guide = _guided(search.guides[row], token, stop_ids)
        done = token in stop_ids or (guide is not None and guide.ended)
        if not done and length < beam.limit and not (guide is not None and guide.broken):
            if len(going) < beam.beams:
                going.append((total, row, token))
                guides.append(guide)
        elif place < beam.beams:
            ids = (*search.open[row], token)
            ended.append(_Ended(total / length**beam.length_penalty, ids, "stop" if done else "length"))
    search.ended = sorted([*search.ended, *ended], key=lambda one: -one.score)[: beam.beams]
    empty = beam.beams - len(going)
    search.open = [(*search.open[row], token) for _, row, token in [*going, *going[:1] * empty]]
    search.guides = [*guides, *guides[:1] * empty]
    search.closed = not going or _closed(search, going[0][0], beam, length)
    return going


def _guided(guide: Guide | None, token: int, stop_ids: frozenset[int]) -> Guide | None:
    """Return the guide after one more token."""
    if guide is None or token in stop_ids:
        return guide
    new = guide.fork()
    new.take(token)
    return new


def _closed(search: _Search, best: float, beam: Beam, length: int) -> bool:
    """Return whether K have ended and none that is open, the best at sum `best`, is expected to do better.

    The best open beam is taken to end now or, with "never", where its score would be best.
    """
    if len(search.ended) < beam.beams:
        return False
    if beam.early is True:
        return True
    reach = beam.limit if beam.early == "never" and beam.length_penalty > 0 else length
    return best / reach**beam.length_penalty <= search.ended[-1].score


def _text(prompt: Sequence[int], ended: _Ended, stop_ids: frozenset[int], tokenizer: Tokenizer) -> str:
    """Return what an answer reads after its prompt."""
    stream = after(prompt, tokenizer)
    return "".join(stream.push(token) for token in ended.ids if token not in stop_ids) + stream.finish()


def _check(
    model: Model[Any],
    prompts: Sequence[Sequence[int]],
    beam: Beam,
    tokenizer: Tokenizer | None,
    memory: Memory | None,
) -> None:
    """Raise ConfigError with every reason why these prompts cannot be continued like this."""
    require(model, Decodes)  # type: ignore[type-abstract]  # mypy cannot take a class as an ability
    problems = unreadable(model, prompts, [beam.limit] * len(prompts), memory)
    if beam.grammar is not None and tokenizer is None:
        problems.append(problem("grammar", "given without a tokenizer", do="pass the model's tokenizer"))
    vocab = model.config.vocab
    named = {
        "first": beam.first,
        "last": beam.last,
        "suppress": max(beam.suppress, default=None),
        "suppress_first": max(beam.suppress_first, default=None),
    }
    for name, token in named.items():
        if token is not None and token >= vocab:
            problems.append(problem(name, f"token {token}", f"the model's vocab is {vocab}"))
    if problems:
        raise ConfigError(*problems)
