"""From minutes to steps: a short measurement on copies, before step 0, so that the run itself stays reproducible."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

from hanlin.models.contract import Model
from hanlin.train.job import Job
from hanlin.train.step import Learner

WARM = 3  # steps before the clock starts: allocators, thread pools
FEWEST, LONGEST_S, PART = 3, 5.0, 0.02  # steps timed: three, then on for 2 % of the budget, at most five seconds
SHARE = 0.1  # of the time, at most, that examinations take where the plan does not say how often
MOST = 10  # examinations, where the plan does not say how often
SHARE_OF_CORES = 0.6  # that a run has on a quiet machine, at the least: its threads wait for work, they do not sleep


def forecast(job: Job, minutes: float) -> tuple[int, int]:
    """Return (steps, steps between examinations) that fit into `minutes`, at least one of each.

    Everything is measured on copies; the job's model is left as it was.
    """
    seconds = minutes * 60
    a_step, model = _seconds_a_step(job, min(LONGEST_S, PART * seconds))
    a_look = _seconds_a_look(job, model)
    if job.plan.grow is not None:
        a_step *= job.plan.grow.share(job.plan.rows_a_step)  # the plan's own sizes were timed
    if job.plan.evaluate_every is not None:
        every = job.plan.evaluate_every
        return max(1, int(seconds / (a_step + a_look / every))), every
    looks = max(1, min(MOST, int(SHARE * seconds / a_look))) if a_look else MOST
    steps = max(1, int((seconds - looks * a_look) / a_step))
    return steps, -(-steps // looks)


def _seconds_a_step(job: Job, window_s: float) -> tuple[float, Model[Any]]:
    """Return the median time of a step, timed for about `window_s`, and the copy that took it.

    A machine that is busy with other things is named: a plan made then is too short for a quiet one.
    """
    model = copy.deepcopy(job.model)
    learner = Learner(model, job.optimizer.build(model), job.objective, job.plan, job.runtime)
    times: list[float] = []
    used = time.process_time()
    while len(times) < WARM + FEWEST or sum(times[WARM:]) < window_s:
        step = len(times)
        began = time.perf_counter()
        learner.advance(job.source.sample(step), step, 0.0)
        times.append(time.perf_counter() - began)
    share = (time.process_time() - used) / max(1e-9, sum(times) * job.runtime.threads)
    if job.runtime.device.type == "cpu" and share < SHARE_OF_CORES:
        given = f"the timed steps had {share:.0%} of this run's {job.runtime.threads} cores: the machine is busy"
        job.report.say(f"{given}, so fewer steps are planned; start again with --fresh when it is quiet")
    return statistics.median(times[WARM:]), learner.work


def _seconds_a_look(job: Job, model: Model[Any]) -> float:
    """Return the time of one examination, 0 where there is none."""
    if job.examine is None:
        return 0.0
    began = time.perf_counter()
    job.examine(model.eval(), 0)
    return time.perf_counter() - began
