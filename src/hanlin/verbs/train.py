"""Train a model by a recipe; the same command goes on where it stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside its functions, so that its --help is quick
    from hanlin.data.shards import Shards
    from hanlin.models.contract import Model
    from hanlin.report import Report
    from hanlin.text.tokenizer import Tokenizer
    from hanlin.train.loop import Examine, Job, Outcome
    from hanlin.train.recipe import Recipe

POSITIONAL = ("recipe",)
REST = "overrides"
EXAMINED_TOKENS = 65_536  # of the held-out text, scored on the way; `hanlin evaluate` scores all of it
SAMPLE_TOKENS = 32


class Config(Frozen):
    """What `hanlin train` is told."""

    recipe: str = Field(description="A shipped recipe's name, or the path of a .yaml file.")
    overrides: tuple[str, ...] = Field((), description="key=value, such as plan.steps=500.")
    output: str | None = Field(None, description="The run's folder; runs/<recipe> when left out.")
    fresh: bool = Field(False, description="Start over: empty the run's folder first.")


def run(config: Config) -> None:
    """Train, write the bundle, say what came of it."""
    import click

    from hanlin.train import recipe as recipes

    recipe = recipes.load(config.recipe, config.overrides)
    folder = Path(config.output or recipe.output or f"runs/{Path(config.recipe).stem}")
    click.echo(learn(recipe, folder, fresh=config.fresh))
    click.echo(f'made {folder}; next: hanlin evaluate {folder}   or: hanlin generate {folder} "..."')


def learn(recipe: Recipe, folder: Path, *, fresh: bool = False) -> str:
    """Run the recipe in its folder to the end, from wherever an earlier start left it; return one line of result."""
    from hanlin import runtime
    from hanlin.report import Report
    from hanlin.train import folder as folders
    from hanlin.train.loop import train

    plan = recipe.plan
    place = runtime.start(device=plan.device, precision=plan.precision, threads=plan.threads, seed=plan.seed)
    with folders.claimed(folder, recipe, fresh=fresh), Report(folder, tensorboard=recipe.tensorboard) as report:
        tokenizer, shards, held = _data(recipe, folder, report)
        model = _model(recipe, tokenizer)
        job = _job(recipe, folder, place, report, model, tokenizer, shards, held)
        outcome = train(job)
        return _finish(folder, job, outcome, tokenizer, shards)


def _data(recipe: Recipe, folder: Path, report: Report) -> tuple[Tokenizer, Shards, Shards | None]:
    """Return tokenizer, training and held-out shards; a corpus is prepared once, into the run's folder."""
    from hanlin.data import manifest, shards
    from hanlin.text.tokenizer import Tokenizer
    from hanlin.verbs import prepare

    source = Path(recipe.data.train)
    if not manifest.exists(source):
        source = folder / "data"
        if not manifest.exists(source):
            report.say(f"preparing {recipe.data.train}")
            for line in prepare.summary(prepare.prepare(_preparation(recipe, source))):
                report.say(line)
    tokenizer = Tokenizer.load(source)
    held = manifest.read(source).splits.get("valid")
    valid = shards.open(source, "valid", vocab=tokenizer.vocab) if held and held.documents else None
    return tokenizer, shards.open(source, "train", vocab=tokenizer.vocab), valid


def _preparation(recipe: Recipe, output: Path) -> Any:  # noqa: ANN401  # prepare.Config, imported inside
    """Return what `hanlin prepare` would be told for this recipe."""
    from hanlin.verbs import prepare

    data, wanted = recipe.data, recipe.tokenizer
    return prepare.Config(
        source=data.train,
        output=str(output),
        valid=data.valid,
        valid_fraction=data.valid_fraction,
        kind=wanted.kind,
        vocab=wanted.vocab,
        tokenizer=recipe.start or wanted.folder,
        field=data.field,
        limit_bytes=data.limit_bytes,
        seed=recipe.plan.seed,
    )


def _model(recipe: Recipe, tokenizer: Tokenizer) -> Model[Any]:
    """Return the model to train: fresh by its sizes, or opened from the folder it starts from."""
    from hanlin import bundle, hub
    from hanlin.errors import ConfigError, problem

    if recipe.start is not None:
        model = bundle.read_model(hub.fetch(recipe.start).folder)
    else:
        config: Any = recipe.model
        chosen = {"vocab": tokenizer.vocab, "context": recipe.plan.context}
        config = config.model_copy(update={k: v for k, v in chosen.items() if k not in config.model_fields_set})
        model = config.build(seed=recipe.plan.seed)
    problems = []
    if model.config.vocab < tokenizer.vocab:
        given = f"{model.config.vocab:,} is less than the {tokenizer.vocab:,} of the data's tokenizer"
        do = "leave it out, or prepare the data with the model's tokenizer"
        problems.append(problem("model.vocab", given, do=do))
    if model.config.context < recipe.plan.context:
        problems.append(problem("plan.context", f"{recipe.plan.context} exceeds the model's {model.config.context}"))
    if problems:
        raise ConfigError(*problems)
    return model


def _job(
    recipe: Recipe,
    folder: Path,
    place: Any,  # noqa: ANN401  # Runtime
    report: Report,
    model: Model[Any],
    tokenizer: Tokenizer,
    shards: Shards,
    held: Shards | None,
) -> Job:
    """Return the job with its recipe resolved; what was resolved once stays so."""
    from hanlin.checkpoint import Checkpoints
    from hanlin.data.batches import Packed
    from hanlin.train import budget
    from hanlin.train import folder as folders
    from hanlin.train.loop import Job

    plan = recipe.plan
    model = model.to(place.device)
    pad = tokenizer.special.pad or 0
    job = Job(
        model=model,
        objective=recipe.objective,
        source=Packed(shards, rows=plan.rows_a_step, context=plan.context, seed=plan.seed, pack=model.packs, pad=pad),
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        plan=plan,
        runtime=place,
        report=report,
        checkpoints=Checkpoints(folder / "checkpoints", keep=plan.keep, say=report.say),
        examine=_examine(held, tokenizer, plan.context, report) if held else None,
    )
    known = folders.resolved(folder)
    if known is None:
        steps = plan.steps or _steps(job, shards) or budget.steps_for(job, plan.minutes or 0)
        known = _resolve(recipe, steps, model.config)
        folders.keep(folder, known)
    belongs = folders.fingerprint(known, shards.manifest.hash)
    return replace(job, plan=known.plan, belongs=belongs)


def _steps(job: Job, shards: Shards) -> int | None:
    """Return the steps that the plan's epochs take, None when it gives none."""
    if job.plan.epochs is None:
        return None
    return max(1, math.ceil(job.plan.epochs * shards.total / (job.plan.rows_a_step * job.plan.context)))


def _resolve(recipe: Recipe, steps: int, model: Any) -> Recipe:  # noqa: ANN401  # a ModelConfig
    """Return the recipe with every number filled in."""
    every = recipe.plan.evaluate_every or max(1, steps // 10)
    filled = {"steps": steps, "epochs": None, "minutes": None, "evaluate_every": every}
    plan = recipe.plan.model_copy(update={**filled, "save_every": recipe.plan.save_every or every})
    return recipe.model_copy(update={"plan": plan, "model": None if recipe.start else model})


def _examine(held: Shards, tokenizer: Tokenizer, context: int, report: Report) -> Examine:
    """Return the function that scores a part of the held-out text and shows a sample, always the same way."""
    from hanlin.evaluation import harness
    from hanlin.generate import decode
    from hanlin.generate.sampling import Sampling

    documents = harness.portion(held, EXAMINED_TOKENS)

    def examine(model: Model[Any], step: int) -> dict[str, float]:
        count = sum(len(each) - 1 for each in documents)
        loss = float(harness.nats(model, documents, context=context).sum()) / max(1, count)
        first = [int(documents[step % len(documents)][0])]
        sampling = Sampling(temperature=0.8, limit=min(SAMPLE_TOKENS, context - 1), seed=step)
        answer = decode.answers(model, [first], sampling, stop_ids=frozenset(), tokenizer=tokenizer)[0]
        report.say(f"step {step}: valid_loss {loss:.4f} nats/token; sample: {' '.join(answer.text.split())!r}")
        return {"valid_loss": loss}

    return examine


def _finish(folder: Path, job: Job, outcome: Outcome, tokenizer: Tokenizer, shards: Shards) -> str:
    """Write bundle, picture and card; return one line of result."""
    from hanlin import bundle
    from hanlin.train import card

    progress = outcome.progress
    if outcome.early and progress.best_step is not None:
        job.model.load_state_dict(dict(job.checkpoints.read(progress.best_step).model))
    scores = {} if progress.best is None else {"valid_loss": {"value": progress.best, "unit": "nats/token"}}
    lineage = card.lineage(job, progress, shards.manifest.hash, tokenizer.hash)
    bundle.write(folder, job.model, tokenizer, lineage=lineage, scores=scores)
    job.report.picture()
    card.write(folder, job, progress, shards.manifest, scores)
    how = "stopped early, for want of improvement," if outcome.early else "done"
    valid = "" if progress.best is None else f", best valid_loss {progress.best:.4f} nats/token"
    return f"{how} at step {progress.step} of {job.plan.steps}{valid}"
