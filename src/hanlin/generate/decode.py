"""The decoding loop: prompts in, one event a row and step out, so that streams and whole answers are one thing.

    prompts ─ prefill (ragged, once) ─ each row n times ─┬─> choose ─> a Step a row ─> the caller
                                                         └── forward one token <──┘ finished rows leave

A row ends with "stop" (a stop id, a stop string, the end of its grammar) or "length" (its limit, or its grammar's
budget). A stop id counts as a token, without text. A model that reads a source goes on from its start id, after
`memory`: one row a prompt, which all its answers share.

Letters: B rows, T tokens, D dim, V vocab.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from hanlin.errors import ConfigError, problem
from hanlin.generate.constrain import Grammar, Guide, Vocabulary, masks
from hanlin.generate.prefill import evaluating as evaluating
from hanlin.generate.prefill import pick, prefill, shared, unreadable
from hanlin.generate.sampling import Choice, History, Sampling, Settings, choose
from hanlin.generate.stops import Until
from hanlin.models.contract import Decodes, Memory, Model, require
from hanlin.nn.cache import Cache
from hanlin.runtime import thin

if TYPE_CHECKING:
    from hanlin.text.stream import Stream
    from hanlin.text.tokenizer import Tokenizer

Finish = Literal["stop", "length"]
TAIL = 8  # tokens of a prompt that its answer's text is read after; a character has 4 bytes at most
Top = tuple[tuple[int, float], ...]  # (id, log-probability), likeliest first


class Step(NamedTuple):
    """What one row gained in one step."""

    prompt: int  # which prompt, counted from 0
    n: int  # which of its answers, counted from 0
    id: int | None  # None: limit 0, nothing was drawn
    text: str  # what can be shown now; a row's pieces join to its whole text
    logprob: float | None = None  # logprob and top where the row's Sampling asks for them
    top: Top | None = None
    finish: Finish | None = None  # on a row's last step


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One whole continuation."""

    prompt: int
    n: int
    ids: tuple[int, ...]  # everything drawn, a stop id at the end included
    text: str
    finish: Finish
    logprobs: tuple[float, ...] | None = None
    tops: tuple[Top, ...] | None = None
    score: float | None = None  # of a beam: its log-probability over length ** length_penalty


def generate(
    model: Model[Any],
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | Sequence[Sampling],
    *,
    stop_ids: frozenset[int],
    tokenizer: Tokenizer | None = None,
    memory: Memory | None = None,
) -> Iterator[Step]:
    """Yield one Step for every row and step, rows in order of prompt and n, until every row has finished.

    `sampling` is one for all prompts or one a prompt. Without a tokenizer the text stays empty. What cannot be done
    is a ConfigError at the call, before the first step.
    """
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    _check(model, prompts, each, tokenizer, memory)
    guides = guided(prompts, [one.grammar for one in each], stop_ids, tokenizer)
    rows = [
        Row(
            index,
            n,
            one,
            stop_ids,
            None if tokenizer is None else after(prompts[index], tokenizer),
            None if guide is None else guide.fork(),
        )
        for index, (one, guide) in enumerate(zip(each, guides))
        for n in range(one.n)
    ]
    return _steps(model, prompts, rows, memory)


def answers(
    model: Model[Any],
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | Sequence[Sampling],
    *,
    stop_ids: frozenset[int],
    tokenizer: Tokenizer | None = None,
    memory: Memory | None = None,
) -> list[Answer]:
    """Return the whole answers in order of prompt and n; see `generate`."""
    steps: dict[tuple[int, int], list[Step]] = {}
    for step in generate(model, prompts, sampling, stop_ids=stop_ids, tokenizer=tokenizer, memory=memory):
        steps.setdefault((step.prompt, step.n), []).append(step)
    return [_join(steps[row]) for row in sorted(steps)]


def _join(steps: list[Step]) -> Answer:
    """Return the answer that all steps of one row make."""
    finish = steps[-1].finish
    assert finish is not None
    logprobs = tuple(step.logprob for step in steps if step.logprob is not None)
    tops = tuple(step.top for step in steps if step.top is not None)
    return Answer(
        prompt=steps[0].prompt,
        n=steps[0].n,
        ids=tuple(step.id for step in steps if step.id is not None),
        text="".join(step.text for step in steps),
        finish=finish,
        logprobs=logprobs or None,
        tops=tops or None,
    )


def after(prompt: Sequence[int], tokenizer: Tokenizer) -> Stream:
    """Return a stream of what follows a prompt: SentencePiece drops a text's first space, but not an answer's."""
    stream = tokenizer.stream()
    for token in prompt[-TAIL:]:
        stream.push(token)
    return stream


def guided(
    prompts: Sequence[Sequence[int]],
    grammars: Sequence[Grammar | None],
    stop_ids: frozenset[int],
    tokenizer: Tokenizer | None,
) -> list[Guide | None]:
    """Return a guide for each prompt that has a grammar; ConfigError for one that cannot be used."""
    if tokenizer is None or all(grammar is None for grammar in grammars):
        return [None] * len(prompts)
    words = vocabulary(tokenizer, stop_ids)
    return [None if one is None else words.guide(one, prompt) for one, prompt in zip(grammars, prompts)]


@lru_cache(maxsize=4)
def vocabulary(tokenizer: Tokenizer, stop_ids: frozenset[int]) -> Vocabulary:
    """Return a tokenizer's vocabulary as grammars see it, made once."""
    return Vocabulary(tokenizer, stop_ids)


class Row:
    """One answer in the making: its tokens go in, its steps come out."""

    def __init__(
        self,
        prompt: int,
        n: int,
        sampling: Sampling,
        stop_ids: frozenset[int],
        stream: Stream | None,
        guide: Guide | None = None,
    ) -> None:
        """Begin the n-th answer to a prompt; without a stream it has no text, without a guide no grammar."""
        self.prompt = prompt
        self.n = n
        self.sampling = sampling
        self.stop_ids = stop_ids
        self.stream = stream
        self.guide = guide
        self.until = Until(sampling.stop)
        self.drawn = 0
        self.finish: Finish | None = None if sampling.limit else "length"

    def take(self, token: int, logprob: float | None = None, top: Top | None = None) -> Step:
        """Return the step that `token` makes."""
        self.drawn += 1
        text = ""
        if token in self.stop_ids:
            self.finish = "stop"
        elif self.stream is not None:
            text = self.until.push(self.stream.push(token))
        if self.guide is not None and self.finish is None:
            self.guide.take(token)
            self.finish = "stop" if self.guide.ended else "length" if self.guide.broken else None
        if self.drawn == self.sampling.limit and self.finish is None:
            self.finish = "length"
        if self.finish is not None and not self.until.done and self.stream is not None:
            text += self.until.push(self.stream.finish())
            text += self.until.finish()
        if self.until.done:
            self.finish = "stop"
        return Step(self.prompt, self.n, token, text, logprob, top, self.finish)


@dataclass
class _Batch:
    """The rows in the loop, and what is kept for each of them in the same order."""

    rows: list[Row]
    settings: Settings
    cache: Cache
    history: History | None  # where a choice looks back
    memory: Memory | None

    def gather(self, source: Tensor) -> None:
        """Make row i of what is kept what row `source[i]` was."""
        if self.memory is not None:
            self.memory = shared(self.memory, source, len(self.cache.lengths))
        self.cache.reorder(source)
        self.history = None if self.history is None else self.history.take(source)


@torch.inference_mode()
def _steps(
    model: Model[Any], prompts: Sequence[Sequence[int]], rows: list[Row], memory: Memory | None
) -> Iterator[Step]:
    """Yield the steps of all rows: the loop."""
    for row in rows:
        if row.finish is not None:
            yield Step(row.prompt, row.n, None, "", finish=row.finish)
    rows = [row for row in rows if row.finish is None]
    if not rows:
        return
    with evaluating(model):
        batch, logits = _begin(model, prompts, rows, memory)
        for step in itertools.count():
            choice = choose(logits, batch.settings, step, batch.history, allowed(batch.rows, logits))
            yield from taken(batch.rows, choice)
            if all(row.finish is not None for row in batch.rows):
                return
            ids = _leave(batch, choice.ids, step + 1)
            if batch.history is not None:
                batch.history.add(ids)
            with thin(len(ids), model.dtype, model.device):
                logits = model.logits(model(ids[:, None], memory=batch.memory, cache=batch.cache)[:, 0])


def _begin(
    model: Model[Any], prompts: Sequence[Sequence[int]], rows: list[Row], memory: Memory | None
) -> tuple[_Batch, Tensor]:
    """Read each prompt once and give every row a copy of what was read; return the logits (B, V) that follow."""
    used = sorted({row.prompt for row in rows})
    read = [prompts[prompt] for prompt in used]
    if memory is not None and len(used) < len(prompts):
        memory = pick(memory, torch.tensor(used, device=model.device))
    longest = max(len(prompts[row.prompt]) + row.sampling.limit for row in rows)
    cache, logits = prefill(model, read, longest, memory)
    looks_back = any(row.sampling.penalizes for row in rows)
    history = History.of(read, logits.shape[1], model.device) if looks_back else None
    batch = _Batch(rows, _settings(rows, model.device), cache, history, memory)
    if len(rows) == len(used):
        return batch, logits
    source = torch.tensor([used.index(row.prompt) for row in rows], device=model.device)
    batch.gather(source)
    return batch, logits[source]


def _leave(batch: _Batch, ids: Tensor, drawn: int) -> Tensor:
    """Take finished rows out of the batch and return the ids (B,) of the others, after `drawn` tokens each.

    Leaving copies the cache, so finished rows stay until they are a quarter, but never past their own limit: there
    the cache and the positions end.
    """
    gone = [row for row in batch.rows if row.finish is not None]
    if 4 * len(gone) < len(batch.rows) and all(drawn < row.sampling.limit for row in gone):
        return ids
    kept = [index for index, row in enumerate(batch.rows) if row.finish is None]
    source = torch.tensor(kept, device=ids.device)
    batch.rows = [batch.rows[index] for index in kept]
    batch.settings = _settings(batch.rows, ids.device)
    batch.gather(source)
    return ids[source]


def allowed(rows: Sequence[Row], logits: Tensor) -> Tensor | None:
    """Return (B, V) booleans, True where a row's grammar has a token next; None where no row has one."""
    found = masks([row.guide for row in rows], logits.shape[1])
    return None if found is None else torch.from_numpy(found).to(logits.device)


def _settings(rows: Sequence[Row], device: torch.device) -> Settings:
    return Settings.of([row.sampling for row in rows], [row.n for row in rows], device)


def taken(rows: Sequence[Row], choice: Choice) -> Iterator[Step]:
    """Yield the step of every row that had not finished."""
    ids = choice.ids.tolist()
    if choice.logprobs is None or choice.top_ids is None or choice.top_logprobs is None:
        for row, token in zip(rows, ids):
            if row.finish is None:
                yield row.take(token)
        return
    tops = zip(choice.top_ids.tolist(), choice.top_logprobs.tolist())
    for row, token, logprob, top in zip(rows, ids, choice.logprobs.tolist(), tops):
        wanted = row.sampling.logprobs
        if row.finish is None and wanted is None:
            yield row.take(token)
        elif row.finish is None:
            yield row.take(token, logprob, tuple(zip(*(each[:wanted] for each in top))))


def _check(
    model: Model[Any],
    prompts: Sequence[Sequence[int]],
    each: Sequence[Sampling],
    tokenizer: Tokenizer | None,
    memory: Memory | None,
) -> None:
    """Raise ConfigError with every reason why these prompts cannot be continued like this."""
    require(model, Decodes)  # type: ignore[type-abstract]  # mypy cannot take a class as an ability
    vocab = model.config.vocab
    problems = unreadable(model, prompts, [one.limit for one in each], memory)
    if len(each) != len(prompts):
        problems.append(problem("sampling", f"{len(each)} for {len(prompts)} prompts", "one for all, or one a prompt"))
    for index, one in enumerate(each):
        where = f"prompt {index}"
        if one.stop and tokenizer is None:
            problems.append(problem(where, "stop strings without a tokenizer", do="pass the model's tokenizer"))
        if one.grammar is not None and tokenizer is None:
            problems.append(problem(where, "a grammar without a tokenizer", do="pass the model's tokenizer"))
        foreign = [token for token in one.logit_bias if token >= vocab]
        if foreign:
            problems.append(problem(where, f"logit_bias for token {foreign[0]}", f"the model's vocab is {vocab}"))
    if problems:
        raise ConfigError(*problems)
