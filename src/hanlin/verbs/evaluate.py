"""Score a model on text it has not seen: perplexity and bits per byte, with intervals by document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside its functions, so that its --help is quick
    from hanlin.evaluation.harness import Documents, Scores
    from hanlin.text.tokenizer import Tokenizer

POSITIONAL = ("model",)


class Config(Frozen):
    """What `hanlin evaluate` is told."""

    model: str = Field(description="A model folder, or a hub name.")
    data: str | None = Field(None, description="Text to score; the held-out part of the run when left out.")
    field: str = Field("text", description="Key of the text in jsonl rows.")
    context: int | None = Field(None, gt=0, description="Tokens a window reads; the model's context when left out.")
    overlap: int = Field(0, ge=0, description="Tokens of each window that are read again for what is before them.")
    precision: str = Field("fp32", description="Number type to compute in: fp32 or bf16.")
    json_: bool = Field(False, alias="json", description="Print JSON alone.")


def run(config: Config) -> None:
    """Print the scores, as lines or as JSON."""
    import click

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
        data = _held_out(folder, opened.tokenizer)
    report = Report(folder)
    report.start(int(sum(max(0, each - 1) for each in data.lengths)), unit="token", title="evaluate")
    try:
        return harness.examine(
            opened.model, data, context=config.context, overlap=config.overlap, advance=report.advance
        )
    finally:
        report.close()


def _held_out(folder: Path, tokenizer: Tokenizer) -> Documents:
    """Return the held-out shards of the run that made the folder."""
    from hanlin.data import manifest, shards
    from hanlin.errors import DataError, problem
    from hanlin.text.tokenizer import Tokenizer
    from hanlin.train import folder as folders

    recipe = folders.resolved(folder)
    if recipe is None:
        raise DataError(problem(str(folder), "not a run of ours: it has no held-out text", do="name a file: --data"))
    places = [Path(recipe.data.train), folder / "data"]
    found = next((each for each in places if manifest.exists(each)), None)
    if found is None or "valid" not in manifest.read(found).splits:
        raise DataError(problem(str(folder), "nothing was held out from this run", do="name a file: --data"))
    if Tokenizer.load(found).hash != tokenizer.hash:
        given = "prepared again since, with another tokenizer"
        raise DataError(problem(str(found), given, do="name a file of text: --data"))
    return shards.open(found, "valid", vocab=tokenizer.vocab)
