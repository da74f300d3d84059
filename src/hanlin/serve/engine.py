"""Carries out a scheduler's plans: one forward a step over every row, whatever its length.

    lanes   0 1 2 3 │ 4 5 │ 6 …          writing rows come first, so that attention takes them together;
            writing │ read│ free          a row that leaves is replaced by the last one, never by a gap

Letters: B rows that choose a token, T tokens of the step, D dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hanlin.generate import sources
from hanlin.generate.constrain import Guide
from hanlin.generate.decode import Row, Step, after, allowed, taken
from hanlin.generate.sampling import Choice, History, Sampling, Settings, choose
from hanlin.generate.source_lanes import SourceLanes
from hanlin.models.contract import Decodes, Model, require
from hanlin.nn.lanes import Part, lanes_of
from hanlin.runtime import thin
from hanlin.serve.scheduler import Key, Plan
from hanlin.text.tokenizer import Tokenizer


class Engine:
    """A model with places for `slots` rows of at most `length` tokens each."""

    def __init__(
        self, model: Model[Any], tokenizer: Tokenizer, stop_ids: frozenset[int], *, slots: int, length: int
    ) -> None:
        """Reserve the cache; AbilityError for a model that cannot write step by step."""
        self.opening = sources.opening(model, tokenizer) if sources.reads(model) else None  # None: prompts go on
        self.model = model
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self.slots = slots
        self.length = length
        self.reset()

    @staticmethod
    def needs(model: Model[Any], slots: int, length: int) -> int:
        """Return the bytes of a cache for `slots` rows of `length` tokens; sources take about two more of them.

        What a lane has read is kept as it came and once more side by side with the others.
        """
        one = require(model, Decodes).new_cache(1, 1)  # type: ignore[type-abstract]  # mypy: a class as an ability
        return slots * lanes_of(one).size(length) * (3 if sources.reads(model) else 1)

    @property
    def shares(self) -> bool:
        """Return whether a row may begin as the first part of another."""
        return self._lanes.cuttable

    def reset(self) -> None:
        """Forget every row."""
        self._decoder = require(self.model, Decodes)  # type: ignore[type-abstract]  # mypy: a class as an ability
        with torch.inference_mode():
            pool = self._decoder.new_cache(self.slots, self.length)
        self._lanes = lanes_of(pool) if self.opening is None else SourceLanes(pool, self.model, self.opening)
        self._prompts: dict[Key, Sequence[int]] = {}
        self._rows: dict[Key, Row] = {}
        self._order: list[Key] = []  # lane -> row
        self._writing = 0  # so many of them, from the front, write
        self._last: list[int] = []  # the token that each writing row feeds next
        self._settings: Settings | None = None  # of the writing rows, while these stay the same
        self._history: History | None = None  # a row a lane, from the first time that a penalty asks for it

    def open(self, key: Key, prompt: Sequence[int], sampling: Sampling, guide: Guide | None = None) -> None:
        """Make a row known, before the first plan that names it; its answer keeps to a copy of the guide."""
        self._prompts[key] = prompt
        stream = after(self.opening or prompt, self.tokenizer)
        own = None if guide is None else guide.fork()
        self._rows[key] = Row(key.job, key.n, sampling, self.stop_ids, stream, own)

    @torch.inference_mode()
    def close(self, key: Key) -> None:
        """Forget a row; an unknown one is no error."""
        if key in self._order:
            self._leave(self._order.index(key))
        self._rows.pop(key, None)
        self._prompts.pop(key, None)

    @torch.inference_mode()
    def step(self, plan: Plan) -> list[tuple[Key, Step]]:
        """Return what every row gained; rows whose step says `finish` are closed."""
        for source, target, tokens in plan.copies:
            self._join(target)
            self._lanes.copy(self._order.index(source), self._order.index(target), tokens)
        for read in plan.reads:
            if read.key not in self._order:
                self._join(read.key)
        logits = self._forward(plan)
        if logits is None:
            return []
        return self._gain(self._choose(logits))

    def _join(self, key: Key) -> None:
        """Give a row the first free lane."""
        self._order.append(key)

    def _forward(self, plan: Plan) -> Tensor | None:
        """Read and write one step; return the logits (B, V) of the rows that choose now, in the order of lanes."""
        assert set(plan.writes) == set(self._order[: self._writing]), "every writing row writes"
        alone = [Part(self._order.index(read.key), read.stop - read.start, read.last) for read in plan.reads]
        ids = list(self._last)
        for read in plan.reads:
            ids += self._prompts[read.key][read.start : read.stop]
        self._lanes.coming(self._writing, alone)
        with thin(len(ids), self.model.dtype, self.model.device):
            chosen = self._lanes.run(self.model, ids)
        for read in plan.reads:
            if read.last:
                self._promote(read.key)
        with thin(self._writing, self.model.dtype, self.model.device):
            logits = [self.model.logits(each) for each in chosen]
        return torch.cat(logits) if len(logits) > 1 else logits[0] if logits else None

    def _promote(self, key: Key) -> None:
        """Move a row that has read its prompt behind the writing ones."""
        lane, place = self._order.index(key), self._writing
        if lane != place:
            self._lanes.swap(lane, place)
            self._order[lane], self._order[place] = self._order[place], self._order[lane]
        self._writing += 1
        self._last.append(-1)  # chosen next
        self._settings = None
        if self._history is not None:
            self._remember(place)

    def _choose(self, logits: Tensor) -> Choice:
        """Return the next token of every writing row."""
        rows = [self._rows[key] for key in self._order[: self._writing]]
        if self._settings is None:
            self._settings = Settings.of([row.sampling for row in rows], [row.n for row in rows], logits.device)
        history = self._looked_at(rows, logits)
        drawn = torch.tensor([row.drawn for row in rows], device=logits.device)
        choice = choose(logits, self._settings, drawn, history, allowed(rows, logits))
        if history is not None:
            history.add(choice.ids)
        return choice

    def _looked_at(self, rows: list[Row], logits: Tensor) -> History | None:
        """Return the history (B, V) of the writing rows where any of them looks back."""
        if not any(row.sampling.penalizes for row in rows):
            self._history = None
            return None
        if self._history is None:
            self._history = History.of([()] * self.slots, logits.shape[1], logits.device)
            for lane in range(self._writing):
                self._remember(lane)
        return History(seen=self._history.seen[: self._writing], counts=self._history.counts[: self._writing])

    def _remember(self, lane: int) -> None:
        """Begin the history of one lane with its prompt: a row that looks back has had one since its first token."""
        assert self._history is not None, "asked for"
        self._history.seen[lane] = False
        self._history.counts[lane] = 0
        self._history.seen[lane, torch.tensor(list(self.opening or self._prompts[self._order[lane]]))] = True

    def _gain(self, choice: Choice) -> list[tuple[Key, Step]]:
        """Hand every row its token; close those that have ended."""
        keys = self._order[: self._writing]
        steps = list(zip(keys, taken([self._rows[key] for key in keys], choice), strict=True))
        self._last = choice.ids.tolist()
        for key, step in steps:
            if step.finish is not None:
                self.close(key)
        return steps

    def _leave(self, lane: int) -> None:
        """Free a lane: the last writing row takes the place of a writing one, the last of all the hole that is left."""
        if lane < self._writing:
            self._writing -= 1
            self._settings = None
            self._last[lane] = self._last[-1]
            self._last.pop()
            self._move(self._writing, lane)
            lane = self._writing
        self._move(len(self._order) - 1, lane)
        self._order.pop()
        self._lanes.clear(len(self._order))

    def _move(self, source: int, target: int) -> None:
        """Put the row of one lane into another."""
        if source == target:
            return
        self._lanes.copy(source, target, self._lanes.held[source])
        self._order[target] = self._order[source]
        if self._history is not None:
            self._history.seen[target] = self._history.seen[source]
            self._history.counts[target] = self._history.counts[source]
