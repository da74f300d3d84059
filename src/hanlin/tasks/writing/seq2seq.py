"""What all tasks share whose answers are written: a source is read, tokens follow until the end.

    source text ─ ids ───────────────────────── Row.source ─ encode ─> memory ─┐
    target text ─ opening t1 t2 …               Row.ids      in training       ├─ beam search ─> Written
                  └────── t1 t2 … end           Row.targets                    │
                          opening ─────────────────────────────────────────────┘ in answering

An answer opens as its model does (T5 with PAD, BART with EOS and BOS, others with BOS), which the trainer tells the
task once, before the first step. A source that does not fit is refused, or with `cut` cut and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, final

import torch
from pydantic import Field

from hanlin.batch import IGNORE, Batch, Tokens
from hanlin.config import Config
from hanlin.errors import DataError, problem
from hanlin.generate.beam import Beam, search
from hanlin.generate.constrain import Grammar
from hanlin.generate.sources import first
from hanlin.models.contract import Encodes, Model, ModelConfig, require
from hanlin.objectives import seq2seq
from hanlin.tasks.contract import Opens, Row
from hanlin.text.tokenizer import Tokenizer

Nats = seq2seq.Config  # what such tasks minimise


@dataclass(frozen=True, kw_only=True)
class Written:
    """One answer as it was written."""

    text: str
    complete: bool  # it ended by itself, not at the limit
    score: float  # log-probability over length ** length_penalty


class Answers(Config, Opens):
    """How answers are written and learned, whatever is read: fields and methods that a task takes over."""

    beams: int = Field(4, ge=1, le=16)
    length_penalty: float = 1.0  # above 0 favours long answers
    limit: int = Field(128, gt=0)  # tokens of an answer
    no_repeat: int = Field(0, ge=0)  # no n-gram of this size twice in an answer; 0 is off
    smoothing: float = Field(0.0, ge=0, lt=1)  # of the targets
    sampled: float = Field(0.0, ge=0, le=1)  # share of the model's own guesses that training reads
    opening: tuple[int, ...] = ()  # tokens that an answer begins with; from the model where left out

    def opened(self, config: ModelConfig) -> Self:
        """Return the task with the model's opening, where it says one."""
        return self.model_copy(update={"opening": config.opening}) if config.opening else self

    @final
    def loss(self) -> seq2seq.Config:
        """Return the nats of the answers."""
        return seq2seq.Config(smoothing=self.smoothing, sampled=self.sampled)

    @final
    def shifted(
        self, text: str | None, tokenizer: Tokenizer, context: int
    ) -> tuple[tuple[int, ...], list[int] | None, int]:
        """Return what is read of an answer, what is learned from it at each place, and how many tokens were cut off.

        Without a text it is the opening, and nothing is learned.
        """
        opening = self._opening(tokenizer)
        if text is None:
            return opening, None, 0
        said = [*tokenizer.encode(text, added=False).ids, _end(tokenizer)]
        room = max(1, context - len(opening) + 1)
        return (*opening, *said[:room][:-1]), [*opening[1:], *said[:room]], max(0, len(said) - room)

    @final
    def write(
        self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer, grammar: Grammar | None = None
    ) -> list[Written]:
        """Return the best answer to each source of a batch; the answers that the batch may hold are not looked at."""
        assert batch.source is not None, "a batch of sources"
        memory = require(model, Encodes).encode(batch.source)  # type: ignore[type-abstract]  # as in decode
        opening, end = self._opening(tokenizer), _end(tokenizer)
        beam = Beam(
            beams=self.beams,
            length_penalty=self.length_penalty,
            limit=max(1, min(self.limit, model.config.context - len(opening))),
            no_repeat=self.no_repeat,
            suppress=model.config.never,
            suppress_first=model.config.never_first,
            grammar=grammar,
        )
        stops = frozenset([end])
        given = tokenizer if grammar is not None else None
        found = search(model, [opening] * batch.rows, beam, stop_ids=stops, tokenizer=given, memory=memory)
        best = {answer.prompt: answer for answer in reversed(found)}
        written = []
        for row in range(batch.rows):
            answer = best.get(row)  # none where a grammar left nothing to write
            ids = [] if answer is None else [each for each in answer.ids if each != end]
            complete = answer is not None and answer.finish == "stop"
            score = 0.0 if answer is None or answer.score is None else answer.score
            written.append(Written(text=tokenizer.decode(ids).strip(), complete=complete, score=score))
        return written

    def _opening(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Return the tokens that an answer begins with."""
        return self.opening or (first(tokenizer),)


class Writer(Answers):
    """How answers to a text are written and learned."""

    cut: bool = False  # sources that do not fit are cut and counted; else refused

    @final
    def written_rows(
        self, asked: Sequence[tuple[str, str | None]], tokenizer: Tokenizer, context: int, notes: Sequence[Any] = ()
    ) -> list[Row]:
        """Return a row for each (source, target); targets where all have one, "" a target that nothing is learned from.

        DataError names the first source that has more than `context` tokens, and how many there are.
        """
        sources = tokenizer.encode_batch([source for source, _ in asked], context=context)
        long = [place for place, each in enumerate(sources) if each.truncated]
        if long and not self.cut:
            place = long[0]
            tokens = len(sources[place].ids) + sources[place].truncated
            given = f"a source of {tokens:,} tokens ({len(long):,} of {len(asked):,} rows are too long)"
            where = f"row {place + 1} ({asked[place][0][:40]!r})"
            do = "raise plan.context, or task.cut=true"
            raise DataError(problem(where, given, f"at most {context:,}", do=do))
        learned = all(target is not None for _, target in asked)
        found = []
        for number, (read, (_, target)) in enumerate(zip(sources, asked)):
            ids, targets, lost = self.shifted(target or "" if learned else None, tokenizer, context)
            if not target and targets is not None:
                targets = [IGNORE] * len(ids)
            note = notes[number] if notes else None
            found.append(
                Row(
                    example=number,
                    ids=ids,
                    targets=targets,
                    source=read.ids,
                    note=note,
                    truncated=read.truncated + lost,
                )
            )
        return found


def picked(batch: Batch[Any], places: Sequence[int]) -> Batch[Any]:
    """Return some rows of a batch of sources, without their answers."""
    source = batch.source
    assert isinstance(source, Tokens), "sources are text"
    rows = torch.tensor(places, device=source.ids.device)
    layout = source.layout
    if layout is not None:
        layout = replace(layout, segments=layout.segments[rows], starts=layout.starts[rows])
    return Batch(tokens=batch.tokens[rows], source=Tokens(ids=source.ids[rows], layout=layout))


def _end(tokenizer: Tokenizer) -> int:
    """Return the token that ends an answer."""
    special = tokenizer.special
    return _named((special.eos, special.sep, special.pad), "no EOS, SEP or PAD token to end an answer with")


def _named(ids: Sequence[int | None], given: str) -> int:
    found = next((each for each in ids if each is not None), None)
    if found is None:
        raise DataError(problem("tokenizer", given, do="train it with one"))
    return found
