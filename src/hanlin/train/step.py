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
from typing import Any

import torch
from torch import Tensor, nn

from hanlin.batch import Batch, move, take
from hanlin.models.contract import Model
from hanlin.objectives.contract import Objective
from hanlin.runtime import Runtime
from hanlin.train.plan import Plan


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
        self.refresh()

    def refresh(self) -> None:
        """Bring the twin to the model's present weights."""
        if self.work is not self.model:
            with torch.no_grad():
                torch._foreach_copy_(list(self.work.parameters()), list(self.model.parameters()))

    def advance(self, batch: Batch[Any], step: int, multiplier: float) -> dict[str, float]:
        """Take one step; return loss, grad_norm and rate. A gradient that is not finite changes nothing."""
        totals = self.gradients(batch, step)
        parameters = [each for each in self.model.parameters() if each.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.plan.clip or math.inf))
        if math.isfinite(norm) and math.isfinite(totals["loss"]):
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * multiplier
            self.optimizer.step()
            self.refresh()
        self.optimizer.zero_grad(set_to_none=True)
        return {**totals, "grad_norm": norm, "rate": self.optimizer.param_groups[0]["initial_lr"] * multiplier}

    def gradients(self, batch: Batch[Any], step: int) -> dict[str, float]:
        """Leave the step's gradient in the model's parameters and return the loss, with its parts when several."""
        self.work.train()
        size = max(1, batch.rows // self.plan.accumulate)
        portions = [take(batch, slice(at, at + size)) for at in range(0, batch.rows, size)]
        counts = [sum(each) for each in zip(*(self.objective.counts(portion) for portion in portions))]
        sums: dict[str, float] = {}
        for index, portion in enumerate(portions):
            torch.manual_seed(mix(self.runtime.seed, step, index))
            parts = self.objective(self.work, move(portion, self.runtime.device))
            scaled = [part.weight * part.total / max(1, count) for part, count in zip(parts, counts)]
            torch.stack(scaled).sum().backward()
            self._collect()
            for part, value in zip(parts, scaled):
                sums[part.name] = sums.get(part.name, 0.0) + float(value.detach())
        loss = sum(sums.values())
        return {"loss": loss, **(sums if len(sums) > 1 else {})}

    def _collect(self) -> None:
        """Add the twin's gradients to the model's, in fp32."""
        if self.work is self.model:
            return
        for ours, theirs in zip(self.model.parameters(), self.work.parameters()):
            if theirs.grad is not None:
                ours.grad = theirs.grad.float() if ours.grad is None else ours.grad.add_(theirs.grad)
                theirs.grad = None


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
