"""Lanes of a model that reads a source: each has its own memory, and those that write look at theirs in one batch.

    source ids, part by part ──> the last one ─ encode ─> memory of the lane ─ opening ─> its first choice
    lanes that write             one batch; memories side by side, the shorter ones padded

Side by side, memories are made anew when a lane comes or goes. What layers made of them is kept, not computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hanlin.batch import Tokens
from hanlin.generate.prefill import joined
from hanlin.models.contract import Encodes, Memory, Model
from hanlin.nn.cache import Cache
from hanlin.nn.lanes import Forward, Part, RowLanes


class SourceLanes(RowLanes):
    """RowLanes whose prompts are sources; an answer begins with the model's opening."""

    def __init__(self, pool: Cache, model: Model[Any], opening: Sequence[int]) -> None:
        """Take over an empty cache."""
        super().__init__(pool)
        self._model = model
        self._opening = torch.tensor([list(opening)], device=model.device)
        self._sources: list[list[int]] = [[] for _ in self.held]  # as far as they have come
        self._memories: list[Memory | None] = [None] * len(self.held)
        self._together_read: list[Memory | None] = []  # what the lanes that wrote last had read
        self._side_by_side: Memory | None = None  # the same as one

    def run(self, forward: Forward, ids: Sequence[int]) -> list[Tensor]:
        """Return the hidden states (C, D) that choices follow, as Lanes do."""
        memories = self._memories[: self._together]
        if [id(each) for each in memories] != [id(each) for each in self._together_read]:
            self._together_read = memories
            self._side_by_side = joined([each for each in memories if each is not None]) if memories else None
        return super().run(forward, ids)

    def go_on(self, forward: Forward, lane: int, tokens: Tensor, **more: Any) -> Tensor:  # noqa: ANN401  # the model's
        """Return what the lanes from `lane` on say, all that write or one that begins."""
        return super().go_on(forward, lane, tokens, **{"memory": self._side_by_side, **more})

    def take(self, forward: Forward, part: Part, tokens: Tensor) -> list[Tensor]:
        """Let a lane take in a part of its source; behind the last, read all of it and begin the answer."""
        self._sources[part.lane] += tokens.tolist()
        if not part.last:
            return []
        assert isinstance(self._model, Encodes), "has a source"
        source = torch.tensor([self._sources[part.lane]], device=tokens.device)
        memory = self._memories[part.lane] = self._model.encode(Tokens(ids=source))
        return [self.go_on(forward, part.lane, self._opening, memory=memory)[:, -1]]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Make lane `target` what lane `source` is."""
        super().copy(source, target, tokens)
        self._sources[target], self._memories[target] = self._sources[source], self._memories[source]

    def swap(self, one: int, other: int) -> None:
        """Exchange two lanes."""
        super().swap(one, other)
        self._sources[one], self._sources[other] = self._sources[other], self._sources[one]
        self._memories[one], self._memories[other] = self._memories[other], self._memories[one]

    def clear(self, lane: int) -> None:
        """Forget what a lane holds."""
        super().clear(lane)
        self._sources[lane], self._memories[lane] = [], None
        self._together_read, self._side_by_side = [], None
