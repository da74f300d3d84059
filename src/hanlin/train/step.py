"""One optimizer step: forward and backward in the run's number type, state in fp32.

    fp32 weights ──copy──> bf16 twin ─ forward, backward ─ bf16 gradients ──add──> fp32 gradients ─ clip ─ optimizer
         ^──────────────────────────────────────────────────────────────────────────────────────────────┘

The loss is summed over all portions and divided once by the count of the whole step, which is known before the first
forward. What a step draws at random follows from (seed, step, portion), so nothing random needs saving.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hanlin.batch import Batch, move, take
from hanlin.errors import AbilityError, ConfigError, problem
from hanlin.models.contract import Decodes, Model, require
from hanlin.nn.cache import StateCache
from hanlin.objectives.contract import Loss, Objective
from hanlin.objectives.joint import Joint
from hanlin.runtime import Runtime
from hanlin.train.plan import Plan
from hanlin.train.portions import portions


class Learner:
    """A model with its optimizer, and the one way they change."""

    def __init__(
        self, model: Model[Any], optimizer: torch.optim.Optimizer, objective: Objective, plan: Plan, runtime: Runtime
    ) -> None:
        """Keep the parts; `work` is what computes: the model itself in fp32, else its twin in the run's type."""
        self.model = model
        self.optimizer = optimizer
        self.objective = objective
        self.plan = plan
        self.runtime = runtime
        self.work = model if runtime.dtype == torch.float32 else copy.deepcopy(model).to(runtime.dtype)
        self.carry: list[Tensor] = []  # states (rows, W), a layer each, that the next step's rows go on from
        self._ended: list[Tensor] = []  # where the present step's rows ended; kept when the step is taken
        self._room: dict[nn.Parameter, Tensor] = {}  # for fp32 gradients: fresh memory takes longer than adding
        self.average: dict[str, Tensor] = {}  # of the weights, fp32, where the plan asks for it
        if plan.ema is not None:
            self.average = {name: each.detach().clone() for name, each in model.named_parameters()}
        if plan.compile:
            _check_compiler(runtime.device)
            self.work.compile()
        self.refresh()

    def refresh(self) -> None:
        """Bring the twin to the model's present weights; those that stand still are there since it was made."""
        if self.work is not self.model:
            moving = [pair for pair in zip(self.work.parameters(), self.model.parameters()) if pair[1].requires_grad]
            with torch.no_grad():
                torch._foreach_copy_([each for each, _ in moving], [each for _, each in moving])

    def advance(self, batch: Batch[Any], step: int, multiplier: float) -> dict[str, float]:
        """Take one step; return loss, grad_norm and rate. A gradient that is not finite changes nothing."""
        totals = self.gradients(batch, step)
        parameters = [each for each in self.model.parameters() if each.grad is not None]
        norm = float(self._clip(parameters))
        if math.isfinite(norm) and math.isfinite(totals["loss"]):
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * multiplier
            self.optimizer.step()
            self.refresh()
            self.carry = self._ended
            self._follow(step)
        self.optimizer.zero_grad(set_to_none=True)
        return {**totals, "grad_norm": norm, "rate": self.optimizer.param_groups[0]["initial_lr"] * multiplier}

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        """Return the gradient's length; one that is longer than the plan bears is cut to that."""
        norm = nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        if self.plan.clip and norm > self.plan.clip:
            nn.utils.clip_grads_with_norm_(parameters, self.plan.clip, norm)
        return norm

    def _follow(self, step: int) -> None:
        """Move the average towards the weights, at first quickly, so that it forgets where they started."""
        if self.plan.ema is not None:
            keep = min(self.plan.ema, (1 + step) / (10 + step))  # a window of a tenth of the run, until ema's is less
            weights = [each.detach() for each in self.model.parameters()]
            torch._foreach_lerp_(list(self.average.values()), weights, 1 - keep)

    @contextmanager
    def examined(self) -> Iterator[Model[Any]]:
        """Yield the model to be scored, in evaluation mode: with the averaged weights, where there are any."""
        ours: list[Tensor] = [each.detach() for each in self.work.parameters()]
        kept = [each.clone() for each in ours] if self.average else []
        # Scoring has many shapes, and each would be compiled anew.
        plainly = torch.compiler.set_stance("force_eager") if self.plan.compile else nullcontext()
        self.work.eval()
        try:
            if kept:
                torch._foreach_copy_(ours, list(self.average.values()))
            with plainly:
                yield self.work
        finally:
            if kept:
                torch._foreach_copy_(ours, kept)

    def gradients(self, batch: Batch[Any], step: int) -> dict[str, float]:
        """Leave the step's gradient in the model's parameters and return the loss, with its parts when several."""
        self.work.train()
        cuts = portions(batch, count=self.plan.accumulate, most=self.plan.portion)
        parted = [take(batch, rows) for rows in cuts]
        counts = [sum(each) for each in zip(*(self.objective.counts(portion) for portion in parted))]
        sums: dict[str, float] = {}
        states: list[list[Tensor]] = []
        learned: Callable[..., Loss] = self.objective
        if isinstance(self.objective, Joint) and len(parted) > 1:
            placed_whole = move(batch, self.runtime.device)
            learned = self.objective.linked(
                self.work,
                placed_whole,
                [take(placed_whole, rows) for rows in cuts],
                lambda index: self._draw(step, index),
            )
        for index, portion in enumerate(parted):
            self._draw(step, index)
            placed = self._going_on(move(portion, self.runtime.device), cuts[index].start)
            parts = learned(self.work, placed)
            states += [placed.cache.states] if placed.cache else []
            scaled = [part.weight * part.total / max(1, count) for part, count in zip(parts, counts)]
            torch.stack(scaled).sum().backward()
            self._collect()
            for part, value in zip(parts, scaled):
                sums[part.name] = sums.get(part.name, 0.0) + float(value.detach())
        loss = sum(sums.values())
        self._ended = [torch.cat(each).detach() for each in zip(*states)]
        return {"loss": loss, **(sums if len(sums) > 1 else {})}

    def _draw(self, step: int, index: int) -> None:
        """Begin what a portion draws at random."""
        torch.manual_seed(mix(self.runtime.seed, step, index))

    def _going_on(self, portion: Batch[Any], first: int) -> Batch[Any]:
        """Return the portion with the state that its rows, `first` and on, ended the step before with.

        What was learned is not carried back past the step: truncated back-propagation through time (Williams and Peng
        1990).
        """
        if portion.continues is None:
            return portion
        cache = require(self.work, Decodes).new_cache(portion.rows, portion.tokens.shape[1])  # type: ignore[type-abstract]
        if not isinstance(cache, StateCache):
            do = "set objective.streams: false, or choose a recurrent model"
            raise AbilityError(problem(type(self.work).__name__, "carries no state from step to step", do=do))
        for index, each in enumerate(self.carry):
            mine = each[first : first + portion.rows]
            cache.states[index] = torch.where(portion.continues[:, None], mine, cache.states[index])
        return replace(portion, cache=cache)

    def _collect(self) -> None:
        """Add the twin's gradients to the model's, in fp32."""
        if self.work is self.model:
            return
        for ours, theirs in zip(self.model.parameters(), self.work.parameters()):
            if theirs.grad is None:
                continue
            if ours.grad is None:
                if ours not in self._room:
                    self._room[ours] = torch.empty_like(ours)
                ours.grad = self._room[ours].copy_(theirs.grad)
            else:
                ours.grad.add_(theirs.grad)
            theirs.grad = None


def _check_compiler(device: torch.device) -> None:
    """Refuse to compile where there is nothing to compile with: torch writes C++ for a CPU."""
    known = [each for each in (os.environ.get("CXX"), "g++", "c++", "clang++") if each]
    if device.type == "cpu" and not any(shutil.which(each) for each in known):
        do = "install g++ or clang++, or leave it out"
        raise ConfigError(problem("plan.compile", "no C++ compiler is found", do=do))


def mix(*numbers: int) -> int:
    """Return a seed that depends on all the numbers, far apart for near ones.

    >>> mix(0, 1) == mix(0, 1), mix(0, 1) == mix(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def named(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's parameters by name, as tensors to save."""
    return {name: each.detach() for name, each in model.named_parameters()}
