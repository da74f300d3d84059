"""Turn text into token shards: read, drop duplicates, hold out, train a tokenizer, tokenize, report."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside run, so that its --help is quick
    from hanlin.data.documents import Document, Tally
    from hanlin.data.manifest import Manifest
    from hanlin.data.shards import Entry, Shards
    from hanlin.report import Report
    from hanlin.text.tokenizer import Config as Wanted
    from hanlin.text.tokenizer import Tokenizer
    from hanlin.train.recipe import Recipe

POSITIONAL = ("source",)
BATCH = 256  # documents tokenized together, over all cores
TOKENIZER_BYTES = 30_000_000  # text that a tokenizer learns from; more changes few merges and takes minutes


class Config(Frozen):
    """What `hanlin prepare` is told."""

    source: str = Field(description="A .txt or .jsonl file (also .gz, .zst), a folder of them, or `localdocs`.")
    output: str = Field("data", description="The folder to make.")
    valid: str | None = Field(None, description="A corpus of its own to hold out, in place of a part of the source.")
    valid_fraction: float = Field(0.05, ge=0, lt=1, description="Share of the documents held out.")
    kind: str = Field("bpe", description="Tokenizer to train: bpe, characters or bytes.")
    vocab: int = Field(8192, gt=0, description="Size of the vocabulary to train.")
    tokenizer: str | None = Field(None, description="A folder whose tokenizer is used as it is; none is trained.")
    field: str = Field("text", description="Key of the text in jsonl rows.")
    limit_bytes: int | None = Field(None, gt=0, description="Read no more text than this.")
    seed: int = Field(0, ge=0, description="Which documents are held out.")


def run(config: Config) -> None:
    """Make the folder and say what is in it."""
    import click

    for line in summary(prepare(config)):
        click.echo(line)
    click.echo(f"made {config.output}; look: hanlin inspect {config.output}; next: hanlin train RECIPE data.train=...")


def prepare(config: Config) -> Manifest:
    """Make the folder: shards, tokenizer and report; nothing is left of it when anything fails."""
    from hanlin.data import shards
    from hanlin.data.documents import Tally
    from hanlin.text.tokenizer import build

    wanted = _wanted(config)  # before the corpus is read: a bad option is an answer at once
    ready = build(wanted, ()) if wanted.folder else None
    tally = Tally()
    with ExitStack() as stack:
        spool = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
        names = set[str]()
        for name, document in _documents(config, tally):
            names.add(name)
            row = {"split": name, "text": document.text, "source": document.source}
            spool.write(json.dumps(row, ensure_ascii=False) + "\n")
        _require_train(names, config.source)
        tokenizer = build(wanted, _texts(spool)) if ready is None else ready
        return shards.write(
            config.output,
            _entries(spool, tokenizer),
            vocab=tokenizer.vocab,
            tokenizer_hash=tokenizer.hash,
            report=tally.report,
            also=tokenizer.save,
        )


def material(recipe: Recipe, own: Path, report: Report) -> tuple[Tokenizer, Shards, Shards | None]:
    """Return tokenizer, training and held-out shards of a recipe; a corpus is prepared once, into `own`."""
    from hanlin.data import manifest, shards
    from hanlin.text.tokenizer import Tokenizer

    folder = Path(recipe.data.train)
    if manifest.exists(folder):
        _use_shards(recipe, folder, report)
    else:
        folder = own
    if not manifest.exists(folder):
        report.say(f"preparing {recipe.data.train}")
        for line in summary(prepare(_for(recipe, own))):
            report.say(line)
    tokenizer = Tokenizer.load(folder)
    held = manifest.read(folder).splits.get("valid")
    scored = held is not None and held.tokens > held.documents  # a document's first token is not scored
    valid = shards.open(folder, "valid", vocab=tokenizer.vocab) if scored else None
    if valid is None:
        report.say("no text is held out: the run is not examined on its way")
    return tokenizer, shards.open(folder, "train", vocab=tokenizer.vocab), valid


def _use_shards(recipe: Recipe, folder: Path, report: Report) -> None:
    """Say that shards bring their own tokenizer and held-out part; ConfigError where the recipe names another."""
    from hanlin.errors import ConfigError, problem

    if recipe.data.valid is not None:
        given = f"'{recipe.data.valid}' beside {folder}, which is tokenized already"
        raise ConfigError(problem("data.valid", given, do="leave it out, or use it with hanlin prepare --valid"))
    report.say(f"{folder} is tokenized already: its own tokenizer and held-out part are used")


def _for(recipe: Recipe, output: Path) -> Config:
    """Return what `hanlin prepare` would be told for a recipe."""
    from hanlin import hub

    data, wanted = recipe.data, recipe.tokenizer
    return Config(
        source=data.train,
        output=str(output),
        valid=data.valid,
        valid_fraction=data.valid_fraction,
        kind=wanted.kind,
        vocab=wanted.vocab,
        tokenizer=str(hub.fetch(recipe.start).folder) if recipe.start else wanted.folder,
        field=data.field,
        limit_bytes=data.limit_bytes,
        seed=recipe.plan.seed,
    )


def summary(manifest: Manifest) -> list[str]:
    """Return what was read, kept, dropped and written, a line each."""
    report = manifest.report
    lines = [f"read {report['read']:,} documents, kept {report['kept']:,} ({report['bytes']:,} bytes)"]
    for reason, dropped in report["dropped"].items():
        lines.append(f"dropped {dropped['count']:,}: {reason}, such as {dropped['examples'][0]}")
    for name, split in manifest.splits.items():
        rate = split.bytes / max(1, split.tokens)
        lines.append(f"{name}: {split.documents:,} documents, {split.tokens:,} tokens, {rate:.2f} bytes a token")
    return lines


def _documents(config: Config, tally: Tally) -> Iterator[tuple[str, Document]]:
    """Yield each document once, with the split it belongs to; what is held out is read first and never learned from."""
    from hanlin.data import dedup, localdocs
    from hanlin.data.split import split

    fraction = 0.0 if config.valid else config.valid_fraction

    def everything() -> Iterator[Document]:
        if config.valid:
            yield from localdocs.corpus(config.valid, tally, field=config.field)
            held.append(tally.kept)
        yield from localdocs.corpus(config.source, tally, field=config.field, limit_bytes=config.limit_bytes)

    held: list[int] = []  # filled when the held-out corpus is through
    for document in dedup.exact(everything(), tally):
        name = "valid" if config.valid and not held else split(document, fraction, config.seed)
        yield name, document


def _wanted(config: Config) -> Wanted:
    """Return what is asked of the tokenizer, checked."""
    from hanlin.config import parse
    from hanlin.text import tokenizer

    made: Mapping[str, Any] = {"kind": config.kind, "vocab": config.vocab}
    return parse(tokenizer.Config, {"from": config.tokenizer} if config.tokenizer else made, "tokenizer")


def _require_train(names: set[str], source: str) -> None:
    """Refuse a corpus of which nothing is left to learn from."""
    from hanlin.errors import DataError, problem

    if "train" not in names:
        do = "use more text, or a smaller valid_fraction"
        raise DataError(problem(source, "nothing is left to learn from: every document is held out", do=do))


def _texts(spool: IO[str]) -> Iterator[str]:
    """Yield the texts of the training split alone, TOKENIZER_BYTES of them."""
    left = TOKENIZER_BYTES
    for row in _rows(spool):
        if row["split"] == "train" and left > 0:
            left -= len(row["text"])
            yield row["text"]


def _rows(spool: IO[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of the spool from its beginning."""
    spool.seek(0)
    for line in spool:
        yield json.loads(line)


def _entries(spool: IO[str], tokenizer: Tokenizer) -> Iterator[Entry]:
    """Yield every row of the spool tokenized, in order."""
    from hanlin.data.shards import Entry

    for rows in _batches(_rows(spool)):
        for row, ids in zip(rows, tokenizer.documents([each["text"] for each in rows])):
            yield Entry(row["split"], ids, len(row["text"].encode()), row["source"])


def _batches(rows: Iterator[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """Yield rows in lists of BATCH."""
    batch: list[dict[str, str]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
