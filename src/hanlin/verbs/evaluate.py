"""Score a model on what it has not seen: text by perplexity and bits per byte, labelled rows by their task's scores."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside its functions, so that its --help is quick
    from hanlin.evaluation.harness import Documents, Scores
    from hanlin.evaluation.rows import Answered
    from hanlin.metrics.contract import Estimate
    from hanlin.tasks.predict import Predictor

POSITIONAL = ("model",)


class Config(Frozen):
    """What `hanlin evaluate` is told."""

    model: str = Field(description="A model folder, or a hub name.")
    data: str | None = Field(
        None, description="Text, or a task's labelled rows; the held-out part of the run when left out."
    )
    field: str = Field("text", description="Key of the text in jsonl rows.")
    context: int | None = Field(None, gt=0, description="Tokens a window reads; the model's context when left out.")
    overlap: int = Field(0, ge=0, description="Tokens of each window that are read again for what is before them.")
    columns: tuple[str, ...] = Field((), description="field=column of rows, where the usual names do not say.")
    errors: bool = Field(False, description="Of rows, also what was taken for what, and the rows answered worst.")
    slice: str | None = Field(None, description="Of rows, also the score for each value of this column.")
    precision: str = Field("fp32", description="Number type to compute in: fp32 or bf16.")
    json_: bool = Field(False, alias="json", description="Print JSON alone.")


def run(config: Config) -> None:
    """Print the scores, as lines or as JSON."""
    import click

    from hanlin import bundle, hub

    if bundle.read_card(hub.fetch(config.model).folder).get("task", "generate") != "generate":
        _run_rows(config)
        return
    scores = evaluate(config)
    if config.json_:
        click.echo(json.dumps(scores.to_dict(), ensure_ascii=False))
        return
    for name in ("bits_per_byte", "perplexity"):
        each = getattr(scores, name)
        interval = f"95 % interval {each.low:.4f} to {each.high:.4f} over {each.n:,} documents"
        click.echo(f"{name:14} {each.value:8.4f}   {interval}")
    click.echo(f"scored {scores.tokens:,} tokens, {scores.bytes:,} bytes of text")
    click.echo(f'next: hanlin generate {config.model} "..."')


def _run_rows(config: Config) -> None:
    """Print the scores of a task's labelled rows, and with `errors` where it went wrong."""
    import click

    from hanlin.tasks.contract import Signs

    predictor, found = answered(config)
    signed = predictor.task.signature() if isinstance(predictor.task, Signs) else ""
    scores = {name: vars(each) for name, each in found.scores.items()}
    if config.json_:
        parts = {value: each and vars(each) for value, _, each in _slices(config, predictor, found)}
        told = {"scores": scores, "rows": len(found.examples), **({"slices": parts} if config.slice else {})}
        told |= {"signature": signed} if signed else {}
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    for name, each in found.scores.items():
        interval = f"95 % interval {each.low:.4f} to {each.high:.4f} over {each.n:,}"
        click.echo(f"{name:16} {each.value:8.4f}   {interval}")
    if signed:
        click.echo(f"{predictor.task.main}: {signed}")
    cut = f"; {found.truncated:,} tokens did not fit and were cut" if found.truncated else ""
    click.echo(f"scored {len(found.examples):,} rows{cut}")
    if config.errors:
        for line in _errors(predictor, found):
            click.echo(line)
    for value, count, part in _slices(config, predictor, found):
        score = "undefined" if part is None else f"{part.value:.4f}   {part.low:.4f} to {part.high:.4f}"
        click.echo(f"{config.slice} = {value}: {predictor.task.main} {score} over {count:,}")
    click.echo(f"next: hanlin predict {config.model} --input ROWS.jsonl")


def _slices(config: Config, predictor: Predictor[Any, Any], found: Answered) -> list[tuple[str, int, Estimate | None]]:
    """Return the main score for each value of the column asked for; [] where none is."""
    from hanlin.evaluation import rows

    return rows.slices(predictor, found, config.slice) if config.slice else []


def _errors(predictor: Predictor[Any, Any], found: Answered) -> list[str]:
    """Return what was taken for what, and the worst rows, a line each."""
    from hanlin.evaluation import rows

    taken = rows.confusions(predictor, found)
    lines = [f"{count:6,} x '{wanted}' taken for '{given}'" for wanted, given, count in taken]
    for each in rows.worst(predictor, found):
        lines.append(f"row {each.number} ({each.mark:.3f}): {each.question} -> {each.given}, not {each.wanted}")
    return lines


def answered(config: Config) -> tuple[Predictor[Any, Any], Answered]:
    """Return a task's predictor and its answers to the labelled rows."""
    from hanlin.evaluation import rows
    from hanlin.tasks import rows as task_rows

    columns = task_rows.columns(config.columns)
    return rows.of_model(config.model, config.data, columns, config.precision)


def evaluate(config: Config) -> Scores:
    """Return the scores."""
    from hanlin import bundle, hub, runtime
    from hanlin.evaluation import harness, texts
    from hanlin.report import Report

    place = runtime.start(precision=config.precision)
    folder = hub.fetch(config.model).folder
    opened = bundle.read(folder, dtype=place.dtype, device=str(place.device))
    if config.data:
        data: Documents = texts.read(config.data, opened.tokenizer, config.field)
    else:
        data = texts.held_out(folder, opened.tokenizer)
    report = Report(folder)
    report.start(int(sum(max(0, each - 1) for each in data.lengths)), unit="token", title="evaluate")
    try:
        return harness.examine(
            opened.model, data, context=config.context, overlap=config.overlap, advance=report.advance
        )
    finally:
        report.close()
