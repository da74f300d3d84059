"""Train a model by a recipe; the same command goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside its functions, so that its --help is quick
    from hanlin.train.recipe import Recipe

POSITIONAL = ("recipe",)
REST = "overrides"


class Config(Frozen):
    """What `hanlin train` is told."""

    recipe: str = Field(description="A shipped recipe's name, or the path of a .yaml file.")
    overrides: tuple[str, ...] = Field((), description="key=value, such as plan.steps=500.")
    output: str | None = Field(None, description="The run's folder; runs/<recipe> when left out.")
    fresh: bool = Field(False, description="Start over: empty the run's folder first.")
    seeds: int = Field(1, gt=0, description="Of a task: runs with other seeds, of which the median is kept.")


def run(config: Config) -> None:
    """Train, write the bundle, say what came of it."""
    import click

    from hanlin.train import card
    from hanlin.train import recipe as recipes

    recipe = recipes.load(config.recipe, config.overrides)
    folder = Path(config.output or recipe.output or f"runs/{Path(config.recipe).stem}")
    if config.seeds > 1:
        click.echo(learn_seeds(recipe, folder, config.seeds, fresh=config.fresh))
    else:
        click.echo(learn(recipe, folder, fresh=config.fresh))
    use = card.uses(folder)
    click.echo(f"made {folder}; next: {'   or: '.join(reversed(use))}")


def learn_seeds(recipe: Recipe, folder: Path, count: int, *, fresh: bool = False) -> str:
    """Run a task's recipe with `count` seeds, keep the median run's bundle in the folder; return the scores, a line."""
    import click

    from hanlin.tasks.lesson import seeds

    main = seeds.claim(folder, recipe, fresh=fresh)
    runs = {recipe.plan.seed + at: folder / seeds.FOLDER / str(recipe.plan.seed + at) for at in range(count)}
    for seed, each in runs.items():
        click.echo(f"seed {seed}", err=True)
        learn(recipe.model_copy(update={"plan": recipe.plan.model_copy(update={"seed": seed})}), each)
    return seeds.gather(folder, runs, main)


def learn(recipe: Recipe, folder: Path, *, fresh: bool = False) -> str:
    """Run the recipe in its folder to the end, from wherever an earlier start left it; return the result in lines."""
    from hanlin.evaluation.watch import watching
    from hanlin.report import Report
    from hanlin.train import card, setup, text
    from hanlin.train.folder import claimed
    from hanlin.train.loop import train
    from hanlin.verbs import prepare

    with claimed(folder, recipe, fresh=fresh), Report(folder, tensorboard=recipe.tensorboard) as report:
        if recipe.task is not None:
            from hanlin.tasks import learn as tasks

            rows = tasks.material(recipe, folder, report.say)
            job = setup.job(recipe, folder, report, rows.tokenizer, rows.lesson, rows.examine)
            result = card.finish(folder, job, train(job), rows.tokenizer, rows.lesson)
            return "\n".join([result, *rows.told(folder)])
        tokenizer, shards, held = prepare.material(recipe, folder / "data", report)
        examine = watching(recipe.objective, held, tokenizer, recipe.plan.context, report.say) if held else None
        lesson = text.lesson(recipe, tokenizer, shards)
        job = setup.job(recipe, folder, report, tokenizer, lesson, examine)
        return card.finish(folder, job, train(job), tokenizer, lesson)
