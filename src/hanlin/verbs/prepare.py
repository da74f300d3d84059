"""Turn text into token shards: read, clean, make private, drop duplicates, hold out, tokenize, mix, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside run, so that its --help is quick
    from hanlin.data.manifest import Manifest
    from hanlin.data.shards import Shards
    from hanlin.report import Report
    from hanlin.text.tokenizer import Tokenizer
    from hanlin.train.recipe import Recipe

POSITIONAL = ("source",)


class Config(Frozen):
    """What `hanlin prepare` is told."""

    source: str = Field(description="Text: a file or archive, a folder, a pattern such as 'x/*.txt', or localdocs.")
    output: str = Field("data", description="The folder to make.")
    valid: str | None = Field(None, description="A corpus of its own to hold out, in place of a part of the source.")
    valid_fraction: float = Field(0.05, ge=0, lt=1, description="Share of the documents held out.")
    kind: str = Field("bpe", description="Tokenizer to train: bpe, unigram, wordpiece, characters or bytes.")
    vocab: int = Field(8192, gt=0, description="Size of the vocabulary to train.")
    no_fallback: bool = Field(False, description="Characters that were never seen are <|unk|>, not bytes.")
    tokenizer: str | None = Field(None, description="A folder whose tokenizer is used as it is; none is trained.")
    field: str = Field("text", description="Key or column of the text in rows; several by commas: the first there is.")
    clean: tuple[str, ...] = Field((), description="A cleaning step, or `default` for all; may be given several times.")
    near: float | None = Field(None, ge=0.7, le=1, description="Drop documents that are this alike, such as 0.8.")
    lines: int | None = Field(None, ge=1, description="Remove lines that stand in more documents than this.")
    limit_bytes: int | None = Field(None, gt=0, description="Read no more text than this.")
    anonymize: Literal["", "mask", "hash", "pseudonyms"] = Field(
        "", description="Replace personal data: by its kind (mask), by secret marks (hash), or by pseudonyms."
    )
    vault: str | None = Field(None, description="The file that can undo pseudonyms; keep it apart from the text.")
    salt_file: str | None = Field(
        None, description="A secret file of 16 random bytes or more, for hash and pseudonyms."
    )
    against: str | None = Field(None, description="Evaluation files, by commas: list which documents hold their rows.")
    against_remove: bool = Field(False, description="Take those passages, or documents, out.")
    mix: str | None = Field(None, description="Shares of the training text: en=2,zh=1; sub-folders, or file names.")
    temperature: float = Field(1.0, ge=0, le=1, description="Flatten the shares: weight, or tokens, to this power.")
    mix_by: Literal["source", "language"] = Field("source", description="What is mixed.")
    repeats: float = Field(4.0, ge=1, description="How often a document is shown at most, for a mixture.")
    seed: int = Field(0, ge=0, description="Which documents are held out.")
    workers: int = Field(0, ge=0, description="Processes; 0 is one a core.")
    engine: str = Field("local", description="Where they run: local, or ray.")


def run(config: Config) -> None:
    """Make the folder and say what is in it."""
    import click

    with _bar() as watch:
        manifest = prepare(config, watch)
    for line in summary(manifest):
        click.echo(line)
    click.echo(f"made {config.output}; look: hanlin inspect {config.output}; next: hanlin train RECIPE data.train=...")
    click.echo(f"the report: {Path(config.output) / 'report.html'}")


def prepare(config: Config, watch: Callable[[str, int, int], None] = lambda *_: None) -> Manifest:
    """Make the folder: shards, tokenizer and report; `watch` hears what is being done and how far it is."""
    from hanlin.config import parse
    from hanlin.data.clean.contract import DEFAULT
    from hanlin.data.pipeline import corpus, mixing
    from hanlin.text.tokenizer import Config as Making

    made: Mapping[str, Any] = {"kind": config.kind, "vocab": config.vocab, "fallback": not config.no_fallback}
    plan = corpus.Plan(
        source=config.source,
        valid=config.valid,
        valid_fraction=config.valid_fraction,
        field=config.field,
        limit_bytes=config.limit_bytes,
        clean=tuple(step for given in config.clean for step in (DEFAULT if given == "default" else (given,))),
        near=config.near,
        lines=config.lines,
        tokenizer=parse(Making, {"from": config.tokenizer} if config.tokenizer else made, "tokenizer"),
        seed=config.seed,
        anonymize=config.anonymize,
        vault=config.vault,
        salt=config.salt_file,
        against=tuple(each.strip() for each in (config.against or "").split(",") if each.strip()),
        against_remove=config.against_remove,
        mix=mixing.asked(config.mix, config.temperature, config.mix_by, config.repeats),
    )
    return corpus.prepare(plan, Path(config.output), engine=config.engine, workers=config.workers, watch=watch)


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows, on standard error, how many parts of a corpus are done and how long the rest will take."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def watch(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{what} parts")
            bar.update(tasks[what], completed=done, total=of)

        yield watch


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
        with _ends(recipe) as held_out:
            for line in summary(prepare(_for(recipe, own).model_copy(update=held_out))):
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


@contextmanager
def _ends(recipe: Recipe) -> Iterator[dict[str, str]]:
    """Yield the two corpora in place of one where the end of each document is held out, `data.hold: end`."""
    import tempfile

    from hanlin.data import ends
    from hanlin.train import recipe as recipes

    data = recipe.data
    if data.hold == "documents" or data.valid is not None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="hanlin-") as scratch:
        chosen = {"fraction": data.valid_fraction, "field": data.field, "limit_bytes": data.limit_bytes}
        sides = ends.hold_out(recipes.corpus(data), Path(scratch), **chosen)  # type: ignore[arg-type]
        yield {"field": "text", **{name: str(path) for name, path in sides.items()}}


def _for(recipe: Recipe, output: Path) -> Config:
    """Return what `hanlin prepare` would be told for a recipe."""
    from hanlin import hub
    from hanlin.train import recipe as recipes

    data, wanted = recipe.data, recipe.tokenizer
    return Config(
        source=recipes.corpus(data),
        output=str(output),
        valid=data.valid,
        valid_fraction=data.valid_fraction,
        kind=wanted.kind,
        vocab=wanted.vocab,
        no_fallback=not wanted.fallback,
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
    lines += _also(report)
    for name, split in manifest.splits.items():
        rate = split.bytes / max(1, split.tokens)
        lines.append(f"{name}: {split.documents:,} documents, {split.tokens:,} tokens, {rate:.2f} bytes a token")
    return lines


def _also(report: Mapping[str, Any]) -> list[str]:
    """Return what was done about personal data, evaluation files and shares, a line each."""
    lines = []
    if personal := report.get("personal"):
        found = ", ".join(f"{count:,} {kind}" for kind, count in personal["found"].items()) or "none"
        lines.append(f"personal data ({personal['how']}): {found}")
    if against := report.get("against"):
        done = "taken out" if against["removed"] else "listed in contaminated.jsonl; --against-remove takes them out"
        lines.append(f"{against['documents']:,} documents hold {against['rows']:,} rows of evaluation files: {done}")
    for name, group in report.get("mixture", {}).items():
        lines.append(f"mixture: {name} {group['share']:.1%} asked for, shown {group['repeats']:.2f} times")
    return lines
