"""From minutes to steps: a short measurement on copies, before step 0, so that the run itself stays reproducible."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch

from hanlin.models.contract import Model
from hanlin.train.job import Job
from hanlin.train.step import Learner

WARM, TIMED = 2, 4  # steps before the clock starts (allocators, thread pools), and steps timed


def steps_for(job: Job, minutes: float, *, examinations: int) -> int:
    """Return how many steps fit into `minutes` with so many examinations on the way, at least one.

    Everything is measured on copies; the job's model is left as it was.
    """
    seconds = minutes * 60
    per_step, model = _seconds_a_step(job)
    if job.examine is not None:
        began = time.perf_counter()
        job.examine(model.eval(), 0)
        seconds -= (time.perf_counter() - began) * examinations
    return max(1, int(seconds / per_step))


def _seconds_a_step(job: Job) -> tuple[float, Model[Any]]:
    """Return the median time of a step, and the copy that took it."""
    model = copy.deepcopy(job.model)
    learner = Learner(model, job.optimizer.build(model), job.objective, job.plan, job.runtime)
    times = []
    for step in range(WARM + TIMED):
        began = time.perf_counter()
        learner.advance(job.source.batch(step), step, 0.0)
        times.append(time.perf_counter() - began)
    return float(torch.tensor(times[WARM:]).median()), learner.work
