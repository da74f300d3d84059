"""From a recipe to a job: resolve the plan, put the parts together."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from hanlin import runtime
from hanlin.checkpoint import Checkpoints
from hanlin.data.batches import Packed
from hanlin.data.shards import Shards
from hanlin.models.contract import ModelConfig
from hanlin.report import Report
from hanlin.text.tokenizer import Tokenizer
from hanlin.train import budget, folder
from hanlin.train.job import Examine, Job
from hanlin.train.model import model
from hanlin.train.recipe import Recipe

EXAMINATIONS = 10  # how often a run is scored and saved when the plan does not say


def job(
    recipe: Recipe,
    place: Path,
    report: Report,
    tokenizer: Tokenizer,
    shards: Shards,
    examine: Examine | None,
) -> Job:
    """Return the job of a run's folder, its plan resolved; what an earlier start resolved stays so."""
    plan = recipe.plan
    machine = runtime.start(device=plan.device, precision=plan.precision, threads=plan.threads, seed=plan.seed)
    fresh = model(recipe, tokenizer).to(machine.device)
    pad = tokenizer.special.pad or 0
    made = Job(
        model=fresh,
        objective=recipe.objective,
        source=Packed(shards, rows=plan.rows_a_step, context=plan.context, seed=plan.seed, pack=fresh.packs, pad=pad),
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        plan=plan,
        runtime=machine,
        report=report,
        checkpoints=Checkpoints(place / "checkpoints", keep=plan.keep, say=report.say),
        examine=examine,
    )
    known = folder.resolved(place)
    if known is None:
        known = _resolve(recipe, _steps(made, shards.total), fresh.config)
        folder.keep(place, known)
    return replace(made, plan=known.plan, belongs=folder.fingerprint(known, shards.manifest.hash))


def _steps(made: Job, tokens: int) -> int:
    """Return the steps that the plan asks for, in whichever way it does."""
    plan = made.plan
    if plan.steps is not None:
        return plan.steps
    if plan.epochs is not None:
        return max(1, math.ceil(plan.epochs * tokens / (plan.rows_a_step * plan.context)))
    assert plan.minutes is not None, "a plan has one of the three"
    return budget.steps_for(made, plan.minutes, examinations=EXAMINATIONS)


def _resolve(recipe: Recipe, steps: int, config: ModelConfig) -> Recipe:
    """Return the recipe with every number filled in."""
    every = recipe.plan.evaluate_every or max(1, steps // EXAMINATIONS)
    filled = {"steps": steps, "epochs": None, "minutes": None, "evaluate_every": every}
    plan = recipe.plan.model_copy(update={**filled, "save_every": recipe.plan.save_every or every})
    return recipe.model_copy(update={"plan": plan, "model": None if recipe.start else config})
