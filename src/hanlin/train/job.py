"""What a run is made of, where it stands, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hanlin.checkpoint import Checkpoints
from hanlin.data.batches import BatchSource
from hanlin.models.contract import Model
from hanlin.models.sentences import Pooling
from hanlin.objectives.contract import Objective
from hanlin.optim.contract import OptimizerConfig
from hanlin.optim.schedules import Schedule
from hanlin.report import Report
from hanlin.runtime import Runtime
from hanlin.train.plan import Plan

Examine = Callable[[Model[Any], int], dict[str, float]]  # (model, step) -> numbers, the judge's among them


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The number, found by examination, that says which weights are better."""

    name: str = "valid_loss"
    unit: str = "nats/token"
    higher: bool = False  # is better

    def better(self, new: float, old: float) -> bool:
        """Return whether `new` beats `old`."""
        return new > old if self.higher else new < old


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a finished model."""

    scores: Mapping[str, Any]  # by name: value, low, high, n, unit
    task: str = "generate"
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the task, what it learned included
    labels: tuple[str, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()  # for people: what else was scored on the same rows
    pooling: Pooling | None = None  # of a model that makes one vector a text


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a run is to learn, whether from plain text or from a task's rows."""

    objective: Objective
    heads: Mapping[str, int]  # that the model needs, name -> outputs
    batches: Callable[[Model[Any]], BatchSource]
    hash: str  # of the data
    size: str  # of the data, in words for people
    judge: Judge = Judge()
    verdict: Callable[[Model[Any]], Verdict] | None = None  # the last examination, of the weights that are kept


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything the loop needs. `plan` is resolved: steps, evaluate_every and save_every are numbers."""

    model: Model[Any]
    objective: Objective
    source: BatchSource
    optimizer: OptimizerConfig
    schedule: Schedule
    plan: Plan
    runtime: Runtime
    report: Report
    checkpoints: Checkpoints
    examine: Examine | None = None
    judge: Judge = Judge()
    belongs: str = ""  # a fingerprint of data and recipe; a checkpoint with another one is refused
    flops: float = 0.0  # that learning from a token takes
    peak: float | None = None  # FLOPs a second that this machine reaches; None: not measured


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    bad: int = 0  # steps in a row without a finite gradient
    best: float | None = None  # the best of the judge's numbers
    best_step: int | None = None
    waited: int = 0  # evaluations since the best
    valid: float | None = None  # the judge's at the last examination; None where it was no number
    belongs: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    progress: Progress
    early: bool  # stopped for want of improvement
    seconds: float
    numbers: dict[str, float] = field(default_factory=dict)  # of the last step
