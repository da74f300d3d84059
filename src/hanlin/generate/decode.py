"""The decoding loop: prompts in, one event a row and step out, so that streams and whole answers are one thing.

    prompts ─ prefill (ragged, once) ─ each row n times ─┬─> choose ─> a Step a row ─> the caller
                                                         └── forward one token <──┘ finished rows leave

A row ends with "stop" (a stop id, a stop string) or "length" (its limit). A stop id counts as a token, without text.

Letters: B rows, T tokens, D dim, V vocab.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from hanlin.batch import Layout, move
from hanlin.errors import ConfigError, problem
from hanlin.generate.sampling import Choice, History, Sampling, Settings, choose
from hanlin.generate.stops import Until
from hanlin.models.contract import Decodes, Memory, Model, require
from hanlin.nn.cache import Cache
from hanlin.nn.thin import thin

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
    _check(model, prompts, each, tokenizer)
    rows = [
        Row(index, n, one, stop_ids, None if tokenizer is None else after(prompts[index], tokenizer))
        for index, one in enumerate(each)
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


class Row:
    """One answer in the making: its tokens go in, its steps come out."""

    def __init__(
        self, prompt: int, n: int, sampling: Sampling, stop_ids: frozenset[int], stream: Stream | None
    ) -> None:
        """Begin the n-th answer to a prompt; without a stream it has no text."""
        self.prompt = prompt
        self.n = n
        self.sampling = sampling
        self.stop_ids = stop_ids
        self.stream = stream
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
        self.cache.reorder(source)
        self.history = None if self.history is None else self.history.take(source)
        self.memory = None if self.memory is None else _pick(self.memory, source)


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
            choice = choose(logits, batch.settings, step, batch.history)
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
    if memory is not None:
        memory = _pick(memory, torch.tensor(used, device=model.device))
    longest = max(len(prompts[row.prompt]) + row.sampling.limit for row in rows)
    assert isinstance(model, Decodes), "checked at the call"
    cache = model.new_cache(len(used), longest)
    tokens, layout = _right_padded(read, model.device)
    hidden = model(tokens, layout=layout, memory=memory, cache=cache)
    last = torch.tensor([len(prompt) - 1 for prompt in read], device=model.device)
    logits = model.logits(hidden[torch.arange(len(read), device=model.device), last])
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


def _right_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Layout | None]:
    """Return tokens (B, T) and their layout, None where all are equally long."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], device=device)
    if all(len(prompt) == longest for prompt in prompts):
        return tokens, None
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    layout = Layout.of((torch.arange(longest) < lengths[:, None]).long())
    return tokens, move(layout, device)


def _pick(memory: Memory, rows: Tensor) -> Memory:
    """Return the memory of some rows; what was made from its states is made again when asked for."""
    layout = memory.layout
    if layout is not None:
        layout = replace(layout, segments=layout.segments[rows], starts=layout.starts[rows])
    carry = None if memory.carry is None else memory.carry[rows]
    return Memory(states=memory.states[rows], layout=layout, carry=carry)


@contextmanager
def evaluating(model: Model[Any]) -> Iterator[None]:
    """Switch dropout off inside, and back on afterwards if it was on."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def _check(
    model: Model[Any], prompts: Sequence[Sequence[int]], each: Sequence[Sampling], tokenizer: Tokenizer | None
) -> None:
    """Raise ConfigError with every reason why these prompts cannot be continued like this."""
    require(model, Decodes)  # type: ignore[type-abstract]  # mypy cannot take a class as an ability
    vocab, context = model.config.vocab, model.config.context
    problems = []
    if len(each) != len(prompts):
        problems.append(problem("sampling", f"{len(each)} for {len(prompts)} prompts", "one for all, or one a prompt"))
    for index, (prompt, one) in enumerate(zip(prompts, each)):
        where = f"prompt {index}"
        if not len(prompt):
            problems.append(problem(where, "no tokens", "at least one, and this tokenizer adds no BOS", do="give text"))
        elif not 0 <= min(prompt) <= max(prompt) < vocab:
            given = f"token {max(prompt) if min(prompt) >= 0 else min(prompt)}"
            problems.append(problem(where, given, f"the model's vocab is {vocab}", do="use the model's own tokenizer"))
        if len(prompt) + one.limit > context:
            given = f"prompt {len(prompt)} tokens + limit {one.limit} > context {context}"
            problems.append(problem(where, given, do="shorten the prompt or lower the limit"))
        if one.stop and tokenizer is None:
            problems.append(problem(where, "stop strings without a tokenizer", do="pass the model's tokenizer"))
        foreign = [token for token in one.logit_bias if token >= vocab]
        if foreign:
            problems.append(problem(where, f"logit_bias for token {foreign[0]}", f"the model's vocab is {vocab}"))
    if problems:
        raise ConfigError(*problems)
