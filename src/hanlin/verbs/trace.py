"""Which shards hold a document, and which models saw it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from hanlin.config import Config as Frozen

POSITIONAL = ("data",)


class Config(Frozen):
    """What `hanlin trace` is told."""

    data: str = Field(description="A folder of shards.")
    source: str | None = Field(None, description="Where the document stood: a.jsonl:12, or a.jsonl for all its rows.")
    text: str | None = Field(None, description="A file that holds the document's text as it stood in the corpus.")
    hash: str | None = Field(None, description="The hash of its text, as an earlier trace printed it.")
    models: str | None = Field(None, description="A folder below which to look for models that learned from the data.")


def run(config: Config) -> None:
    """Print every place, and every model."""
    import click

    for line in lines(config):
        click.echo(line)


def lines(config: Config) -> list[str]:
    """Return what to print; ConfigError when no document, or more than one, is named."""
    from hanlin.data import manifest
    from hanlin.data.store import trace
    from hanlin.errors import ConfigError, problem

    given = [each for each in (config.source, config.text, config.hash) if each is not None]
    if len(given) != 1:
        raise ConfigError(problem("trace", f"{len(given)} documents named", "one of --source, --text, --hash"))
    folder = Path(config.data)
    hash = manifest.read(folder).hash
    wanted = _digest(Path(config.text)) if config.text is not None else given[0]
    places = list(trace.find(folder, wanted))
    found = [
        f"{each.shard}: document {each.document:,} of {each.split}, tokens {each.start:,} to {each.stop:,}: "
        f"{each.origin.source}, repeat {each.origin.repeat}, text {each.origin.digest}"
        for each in places
    ]
    if not places:
        found.append(f"not in {folder}: {wanted}; what was dropped and why: {folder / 'report.html'}")
    found.append(f"these shards: {hash}")
    if config.models is not None:
        seen = trace.learned(Path(config.models), hash)
        found += [f"{model} learned from these shards" for model in seen]
        if not seen:
            found.append(f"no model below {config.models} names these shards")
    return found


def _digest(path: Path) -> str:
    """Return the hash of the text in a file; DataError when it cannot be read."""
    from hanlin.data.store import trace
    from hanlin.errors import DataError, problem

    try:
        return trace.digest(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(problem(str(path), f"not readable: {error}")) from None
