"""From a recipe to a job: resolve the plan, put the parts together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hanlin import runtime
from hanlin.checkpoint import Checkpoints
from hanlin.errors import ConfigError, problem
from hanlin.report import Report
from hanlin.text.tokenizer import Tokenizer
from hanlin.train import budget, folder
from hanlin.train.grow import grown
from hanlin.train.job import Examine, Job, Lesson
from hanlin.train.measure.ready import ready
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
    known = folder.resolved(place)
    machine = runtime.start(device=plan.device, threads=plan.threads, seed=plan.seed)
    fresh = model(recipe, tokenizer, lesson.heads).to(machine.device)
    precision = plan.precision if known is None else known.plan.precision
    if precision == "auto":
        precision = runtime.quicker(fresh.config.dim, machine.device, report.say)
    plan = plan.model_copy(update={"precision": precision})
    machine = replace(machine, dtype=runtime.DTYPES[precision])
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
        judge=lesson.judge,
    )
    if known is None:
        known = _resolve(recipe, made)
        folder.keep(place, known)
    source = grown(made.source, plan.grow, context=plan.context, steps=known.plan.steps or 1)
    belongs = folder.fingerprint(known, lesson.hash)
    return ready(replace(made, plan=known.plan, source=source, belongs=belongs), place)


def _resolve(recipe: Recipe, made: Job) -> Recipe:
    """Return the recipe with every number filled in, minutes measured and epochs counted."""
    plan = made.plan
    if plan.minutes is not None:
        steps, every = budget.forecast(made, plan.minutes)
    else:
        share = 1.0 if plan.grow is None else plan.grow.share(plan.rows_a_step)
        steps = plan.steps or max(1, round((plan.epochs or 0) * made.source.steps_per_epoch / share))
        every = plan.evaluate_every or max(1, steps // EXAMINATIONS)
    filled = {"steps": steps, "epochs": None, "minutes": None, "evaluate_every": every}
    known = plan.model_copy(update={**filled, "save_every": plan.save_every or every})
    return recipe.model_copy(update={"plan": known, "model": None if recipe.start else made.model.config})
