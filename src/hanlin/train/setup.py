"""From a recipe to a job: resolve the plan, put the parts together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hanlin import registry, runtime
from hanlin.checkpoint import Checkpoints
from hanlin.data.batches import BatchSource
from hanlin.data.shards import Shards
from hanlin.errors import ConfigError, problem
from hanlin.models.contract import Model
from hanlin.objectives.contract import Pretrains, Reading
from hanlin.report import Report
from hanlin.text.tokenizer import Tokenizer
from hanlin.train import budget, folder
from hanlin.train.job import Examine, Job, Lesson
from hanlin.train.model import model
from hanlin.train.recipe import Recipe

EXAMINATIONS = 10  # how often a run of known length is scored and saved when the plan does not say


def job(
    recipe: Recipe,
    place: Path,
    report: Report,
    tokenizer: Tokenizer,
    lesson: Lesson,
    examine: Examine | None,
) -> Job:
    """Return the job of a run's folder, its plan resolved; what an earlier start resolved stays so."""
    plan = recipe.plan
    if plan.patience is not None and examine is None:
        do = "raise data.valid_fraction, or name data.valid"
        raise ConfigError(problem("plan.patience", f"{plan.patience}", "needs held-out text to judge by", do=do))
    machine = runtime.start(device=plan.device, precision=plan.precision, threads=plan.threads, seed=plan.seed)
    fresh = model(recipe, tokenizer, lesson.heads).to(machine.device)
    made = Job(
        model=fresh,
        objective=lesson.objective,
        source=lesson.batches(fresh),
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
        known = _resolve(recipe, made)
        folder.keep(place, known)
    return replace(made, plan=known.plan, belongs=folder.fingerprint(known, lesson.hash))


def from_text(recipe: Recipe, tokenizer: Tokenizer, shards: Shards) -> Lesson:
    """Return the lesson of plain text: the recipe's objective makes questions and answers of it."""
    plan, objective, split = recipe.plan, recipe.objective, shards.manifest.splits["train"]
    if not isinstance(objective, Pretrains):
        do = "choose one that learns from text, or give a task"
        raise ConfigError(
            problem("objective", registry.name_of("objectives", type(objective)), "needs labelled rows", do=do)
        )

    def batches(made: Model[Any]) -> BatchSource:
        cut = Reading(
            tokenizer=tokenizer, rows=plan.rows_a_step, context=plan.context, seed=plan.seed, packs=made.packs
        )
        return objective.source(shards, cut)

    return Lesson(
        objective=objective,
        heads=objective.heads(tokenizer.vocab),
        batches=batches,
        hash=shards.manifest.hash,
        size=f"{split.documents:,} documents, {split.tokens:,} tokens",
    )


def _resolve(recipe: Recipe, made: Job) -> Recipe:
    """Return the recipe with every number filled in, minutes measured and epochs counted."""
    plan = recipe.plan
    if plan.minutes is not None:
        steps, every = budget.forecast(made, plan.minutes)
    else:
        steps = plan.steps or max(1, round((plan.epochs or 0) * made.source.steps_per_epoch))
        every = plan.evaluate_every or max(1, steps // EXAMINATIONS)
    filled = {"steps": steps, "epochs": None, "minutes": None, "evaluate_every": every}
    known = plan.model_copy(update={**filled, "save_every": plan.save_every or every})
    return recipe.model_copy(update={"plan": known, "model": None if recipe.start else made.model.config})
