"""THE loop: batches in, learned weights out; everything it needs is handed to it.

    restore ─> for every step:  batch(step) ─ advance ─ log ─ [examine ─ best? enough?] ─ [save] ─ [stop?]
                                    │            │                  │
                                 pure function   train/step.py      a function from the verb, so that the loop
                                 of the step                        knows nothing of scoring or sampling

A run killed at any instant and started again ends with the same bits as one never killed: the batch, the rate and the
random draws are functions of the step, and everything else is in the checkpoint.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from hanlin.batch import Batch
from hanlin.checkpoint import State
from hanlin.errors import CheckpointError, Stopped, problem
from hanlin.optim.contract import load_state, save_state
from hanlin.train.guard import Stop, check
from hanlin.train.job import Job, Outcome, Progress
from hanlin.train.measure.profile import Look
from hanlin.train.plan import Plan
from hanlin.train.step import Learner, named


def train(job: Job) -> Outcome:
    """Learn until the plan's steps are done or improvement ends; Stopped after a signal, its state saved."""
    steps = job.plan.steps
    assert steps is not None, "the plan is resolved before the loop"
    learner = Learner(job.model, job.optimizer.build(job.model), job.objective, job.plan, job.runtime)
    progress = restore(job, learner)
    began = saved = time.perf_counter()
    numbers: dict[str, float] = {}
    look = Look(job.report.folder, job.report.say) if job.plan.profile else None
    job.report.start(steps, progress.step, title="train")
    try:
        with Stop() as stop:
            while progress.step < steps and not _enough(progress, job.plan):
                with look.step() if look else nullcontext():
                    numbers = _step(job, learner, progress, steps)
                last = progress.step == steps or _enough(progress, job.plan)
                due = last or progress.step % (job.plan.save_every or steps) == 0 or _late(job.plan, saved)
                if due or stop.code is not None or progress.best_step == progress.step:
                    save(job, learner, progress)
                    saved = time.perf_counter()
                if stop.code is not None and not last:
                    raise Stopped(stop.code, f"stopped and saved at step {progress.step} of {steps}")
    finally:
        job.report.stop()
    early = progress.step < steps
    return Outcome(progress, early, time.perf_counter() - began, numbers)


def _step(job: Job, learner: Learner, progress: Progress, steps: int) -> dict[str, float]:
    """Take one step, examine where due, and write its one row of numbers."""
    began = time.perf_counter()
    batch = job.source.batch(progress.step)
    multiplier = job.schedule(progress.step, steps)
    numbers = learner.advance(batch, progress.step, multiplier)
    progress.bad = check(numbers, progress.step, progress.bad)
    progress.step += 1
    seconds = time.perf_counter() - began
    if job.examine is not None and (progress.step % (job.plan.evaluate_every or steps) == 0 or progress.step == steps):
        numbers |= _examine(job, learner, progress)
    job.report.log(progress.step, numbers)
    speed = _size(batch) / seconds
    share = {"share_of_peak": speed * job.flops / job.peak} if job.peak else {}
    job.report.time(progress.step, {"seconds": seconds, "tokens_per_second": speed, **share})
    job.report.advance(1, note=f"loss {numbers['loss']:.3f}")
    return numbers


def _examine(job: Job, learner: Learner, progress: Progress) -> dict[str, float]:
    """Score the model as it stands and keep account of the best."""
    assert job.examine is not None
    with learner.examined() as model:
        numbers = job.examine(model, progress.step)
    found = numbers[job.judge.name]
    progress.valid = found if math.isfinite(found) else None
    if math.isfinite(found) and (progress.best is None or job.judge.better(found, progress.best)):
        progress.best, progress.best_step, progress.waited = found, progress.step, 0
    else:
        progress.waited += 1
    return numbers


def _enough(progress: Progress, plan: Plan) -> bool:
    """Return whether early stopping ends the run."""
    return plan.patience is not None and progress.waited >= plan.patience


def _late(plan: Plan, saved: float) -> bool:
    """Return whether the last save is longer ago than the plan bears; what is saved when changes no bit of a run."""
    return plan.save_minutes is not None and time.perf_counter() - saved >= 60 * plan.save_minutes


def _size(batch: Batch[Any]) -> int:
    """Return the tokens of a batch, padding aside."""
    return int(batch.layout.real.sum()) if batch.layout is not None else batch.tokens.shape[0] * batch.tokens.shape[1]


def save(job: Job, learner: Learner, progress: Progress) -> None:
    """Write a checkpoint of this very step; the rows of numbers up to it are on disk before it is."""
    job.report.flush()
    progress.belongs = job.belongs
    state = State(
        step=progress.step,
        model=named(learner.model),
        optimizer=save_state(learner.optimizer, learner.model),
        facts=asdict(progress),
        average=learner.average,
        carry={str(index): each for index, each in enumerate(learner.carry)},
    )
    job.checkpoints.save(state, best=progress.best_step)


def restore(job: Job, learner: Learner) -> Progress:
    """Load the newest whole checkpoint into the learner, or begin at step 0; rows of numbers past it are dropped."""
    state = job.checkpoints.latest()
    if state is None:
        job.report.rewind(0)
        return Progress()
    progress = Progress(**state.facts)
    if progress.belongs != job.belongs:
        given = "belongs to other data, or another tokenizer or recipe"
        raise CheckpointError(problem(str(job.checkpoints.folder), given, do="choose another output, or --fresh"))
    learner.model.load_state_dict(dict(state.model))
    load_state(learner.optimizer, learner.model, state.optimizer)
    for name, each in learner.average.items():
        each.copy_(state.average[name])
    learner.refresh()
    learner.carry = [state.carry[str(index)].to(job.runtime.device) for index in range(len(state.carry))]
    job.report.rewind(progress.step)
    job.report.say(f"going on from step {progress.step}")
    return progress
