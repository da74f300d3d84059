"""Say which of two models answers labelled rows better, with the interval of the difference on the same rows."""

from __future__ import annotations

from pydantic import Field

from hanlin.config import Config as Frozen

POSITIONAL = ("first", "second")


class Config(Frozen):
    """What `hanlin compare` is told."""

    first: str = Field(description="A model folder trained for a task, or a hub name.")
    second: str = Field(description="Another, of the same task.")
    data: str = Field(description="Labelled rows.")
    columns: tuple[str, ...] = Field((), description="field=column, where the usual names do not say.")
    precision: str = Field("fp32", description="Number type to compute in: fp32 or bf16.")


def run(config: Config) -> None:
    """Print both models' scores, and the paired difference of how right they are row by row."""
    import click

    from hanlin.errors import ConfigError, problem
    from hanlin.metrics.paired import paired
    from hanlin.registry import name_of
    from hanlin.verbs import evaluate

    sides = []
    for model in (config.first, config.second):
        asked = evaluate.Config(model=model, data=config.data, columns=config.columns, precision=config.precision)
        predictor, found = evaluate.answered(asked)
        sides.append((predictor.task, found))
        scores = ", ".join(f"{name} {each.value:.4f}" for name, each in found.scores.items())
        click.echo(f"{model}: {scores}")
    one, other = (task for task, _ in sides)
    names = [name_of("tasks", type(task)) for task, _ in sides]
    if names[0] != names[1] or one.main != other.main:
        raise ConfigError(problem(config.second, f"made for {names[1]}", f"{config.first} is made for {names[0]}"))
    rows = [task.statistics(found.examples, found.predictions) for task, found in sides]
    result = paired(rows[1], rows[0], one.main)
    gap = result.difference
    verdict = (
        "no difference shown"
        if gap.low <= 0 <= gap.high
        else f"{[config.first, config.second][gap.value > 0]} is better"
    )
    interval = f"95 % interval {gap.low:+.4f} to {gap.high:+.4f}, p {result.p:.3f}"
    click.echo(f"{one.main}: second - first {gap.value:+.4f}, {interval}")
    click.echo(f"on {gap.n:,} rows: {verdict}")
