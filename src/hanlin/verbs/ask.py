"""Answer a question from an index of documents, with the place where the answer stands, or say "not found"."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from hanlin.config import Config as Frozen

POSITIONAL = ("index", "question")


class Config(Frozen):
    """What `hanlin ask` is told."""

    index: str = Field(description="An index made by `hanlin search index`.")
    question: str = Field(description="What to answer.")
    model: str | None = Field(None, description="A bundle trained to answer, or a language model; else best sentence.")
    encoder: str | None = Field(None, description="The encoder of the index, where it lies elsewhere now.")
    least: float | None = Field(None, ge=0, le=1, description="How sure an answer must be, from 0 to 1.")
    passages: int = Field(5, gt=0, description="Passages to look into.")
    precision: str = Field("fp32", description="Number type of the encoder: fp32 or bf16.")
    json_: bool = Field(False, alias="json", description="Print JSON alone.")


def run(config: Config) -> None:
    """Print the answer, its place and its passage, or "not found"."""
    import click

    from hanlin.errors import ConfigError, problem
    from hanlin.serve.search.ask import Asker
    from hanlin.verbs import search

    if not config.question.strip():
        raise ConfigError(problem("question", "empty"))
    asker = Asker(search.opened(Path(config.index), config.encoder, config.precision), config.model, least=config.least)
    found = asker(config.question, passages=config.passages)
    if config.json_:
        click.echo(json.dumps({"found": found is not None, **(vars(found) if found else {})}, ensure_ascii=False))
    elif found is None:
        click.echo("not found")
        click.echo(f'next: hanlin search query {config.index} "..." shows the nearest passages')
    else:
        click.echo(found.text)
        click.echo(f"{found.source}:{found.start}-{found.stop}  sure {found.sure:.2f}")
        click.echo("   " + " ".join(found.passage.split()))
