"""Index a folder of documents, and find passages in it by words, by meaning, or by both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside its functions, so that its --help is quick
    from hanlin.serve.search.encoder import Encoder
    from hanlin.serve.search.index import Index

POSITIONAL = ("action", "place", "text")
SHOWN = 300  # characters of a passage


class Config(Frozen):
    """What `hanlin search` is told: `index FOLDER --output INDEX`, or `query INDEX "text"`."""

    action: Literal["index", "query"] = Field(description="index or query.")
    place: str = Field(description="Of index: a file, a folder, or localdocs. Of query: an index.")
    text: str = Field("", description="Of query: what to look for.")
    output: str | None = Field(None, description="Of index: the index's folder, made or brought up to date.")
    model: str | None = Field(None, description="An encoder's folder or hub name; the index's own when left out.")
    field: str = Field("text", description="Key of the text in rows.")
    limit_bytes: int | None = Field(None, gt=0, description="Of index: read no more text than this.")
    fresh: bool = Field(False, description="Of index: build it anew.")
    way: Literal["hybrid", "dense", "words"] | None = Field(None, description="hybrid, dense or words.")
    limit: int = Field(10, gt=0, description="Passages to show.")
    rerank: str | None = Field(None, description="A model that rates pairs, to read the best passages again.")
    precision: str = Field("fp32", description="Number type to compute in: fp32 or bf16.")
    json_: bool = Field(False, alias="json", description="Print JSON, a line a passage.")

    def problems(self) -> list[str]:
        """Return what is missing for the action."""
        if self.action == "index":
            return [] if self.output else ["index: no output; say --output INDEX"]
        return [] if self.text.strip() else ["query: nothing to look for; say it after the index"]


def run(config: Config) -> None:
    """Build or update the index, or print what was found."""
    if config.action == "index":
        _index(config)
    else:
        _query(config)


def _index(config: Config) -> None:
    """Bring the index to the state of the folder and say what changed."""
    import click

    from hanlin.data import localdocs
    from hanlin.data.tally import Tally
    from hanlin.report import Report
    from hanlin.serve.search import index

    assert config.output is not None
    folder, tally = Path(config.output), Tally()
    known = (folder / index.META).is_file() and not config.fresh
    made = _encoder(config.model or (index.meta_of(folder).model if known else None), config.precision)
    documents = localdocs.corpus(config.place, tally, field=config.field, limit_bytes=config.limit_bytes)
    report = Report(folder)
    report.start(None, unit="passage", title="index")
    try:
        changes = index.update(folder, documents, made, fresh=config.fresh, advance=report.advance)
    finally:
        report.stop()
    for reason, count in tally.dropped.items():
        click.echo(f"left out {count:,} x {reason}, first {tally.examples[reason][0]}")
    if changes.truncated:
        click.echo(f"{changes.truncated:,} tokens of passages are beyond what the model reads")
    what = ", ".join(f"{getattr(changes, each):,} {each}" for each in ("added", "changed", "deleted", "unchanged"))
    click.echo(f"made {folder}: documents {what}; {changes.passages:,} passages read")
    if made is None:
        click.echo("it finds words alone; --model ENCODER --fresh adds meaning")
    click.echo(f'next: hanlin search query {folder} "..."   or: hanlin ask {folder} "..."')


def _query(config: Config) -> None:
    """Print the passages found."""
    import click

    from hanlin.serve.search import ask

    found = opened(Path(config.place), config.model, config.precision)
    read = ask.rater(config.rerank) if config.rerank else None
    hits = found.search(config.text, way=config.way, limit=config.limit, read=read)
    if config.json_:
        for hit in hits:
            click.echo(json.dumps(vars(hit), ensure_ascii=False))
        return
    for number, hit in enumerate(hits, 1):
        shown = " ".join(hit.text.split())
        shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
        click.echo(f"{number}. {hit.source}:{hit.start}-{hit.stop}  {hit.score:.4f}\n   {shown}")
    if not hits:
        click.echo("nothing found")
    click.echo(f'next: hanlin ask {config.place} "..."')


def opened(folder: Path, model: str | None, precision: str) -> Index:
    """Return an index with the model named, or the one it was built by."""
    from hanlin.serve.search import index

    return index.open_(folder, _encoder(model or index.meta_of(folder).model, precision))


def _encoder(model: str | None, precision: str) -> Encoder | None:
    """Return the encoder of a name, None for none."""
    from hanlin.serve.search import encoder

    return None if model is None else encoder.load(model, precision=precision)
