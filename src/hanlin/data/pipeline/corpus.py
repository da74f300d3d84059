"""From a corpus to shards: parts are read and cleaned anywhere, decided on together, tokenized anywhere, put in order.

    cut ─> read × parts ─> decide ─> tokenizer ─> tokenize × parts ─> shards, manifest, report
           └─ any process ┘  once       once      └── any process ──┘   in order, so that nothing depends on who worked

What is under way lies beside the output, in `.NAME.work`: the same command goes on from there after a kill, and
another command, or a corpus that has changed, begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hanlin.config import Config, dump
from hanlin.data import documents, shards
from hanlin.data.clean import contract as cleaning
from hanlin.data.manifest import Manifest
from hanlin.data.pipeline import parts as cutting
from hanlin.data.pipeline import pool, resume, stage
from hanlin.data.pipeline.decide import Rules, decide
from hanlin.data.pipeline.parts import Part
from hanlin.data.pipeline.stage import Kept, Work
from hanlin.errors import DataError, problem
from hanlin.text import tokenizer as tokenizers
from hanlin.text.tokenizer import Tokenizer

TOKENIZER_BYTES = 30_000_000  # of text that a tokenizer learns from; more changes few merges and takes minutes
SPLITS = {stage.TRAIN: "train", stage.VALID: "valid"}
Watch = Callable[[str, int, int], None]  # what is being done, how many parts are done, of how many


class Plan(Config):
    """What to make of a corpus."""

    source: str
    valid: str | None
    valid_fraction: float
    field: str
    limit_bytes: int | None
    clean: tuple[str, ...]  # names of steps, in order
    near: float | None
    lines: int | None
    tokenizer: tokenizers.Config
    seed: int


def prepare(plan: Plan, output: Path, *, engine: str, workers: int, watch: Watch) -> Manifest:
    """Make the folder `output`; nothing is left of it when anything fails, and what was done is not done again."""
    with resume.claimed(output) as folder:
        return _prepare(plan, output, folder, engine, workers, watch)


def _prepare(plan: Plan, output: Path, folder: Path, engine: str, workers: int, watch: Watch) -> Manifest:
    """Do what is not done yet."""
    ready = tokenizers.build(plan.tokenizer, ()) if plan.tokenizer.folder else None
    steps = cleaning.steps(plan.clean)
    tally = documents.Tally()
    parts = cutting.parts(
        {**({"valid": plan.valid} if plan.valid else {}), "train": plan.source}, plan.limit_bytes, tally
    )
    if engine == "local" and sum(piece.size for part in parts for piece in part.pieces) < cutting.SIZE:
        workers = 1  # starting processes would take longer than the work
    work = Work(
        folder=str(folder),
        field=plan.field,
        clean=tuple(cleaning.record(steps)),
        near=plan.near is not None,
        lines=plan.lines is not None,
        seed=plan.seed,
    )
    resume.begin(folder, [dump(plan), dump(work), cutting.fingerprint(parts), ready and ready.hash])
    for done in pool.run(engine, stage.read, [(work, part) for part in parts], workers):
        watch("read", done, len(parts))
    for part in parts:
        tally.merge(stage.account(work.folder, "read", part.number))
    if not tally.kept:
        raise DataError(*documents.nothing(plan.source, tally))
    rules = Rules(valid_fraction=0 if plan.valid else plan.valid_fraction, near=plan.near, lines=plan.lines)
    decisions = decide(work.folder, parts, rules, tally)
    learned = sum(stage.learned_bytes(work.folder, part.number, path) for part, path in zip(parts, decisions))
    if not learned:
        do = "use more text, or a smaller valid_fraction"
        raise DataError(problem(plan.source, "nothing is left to learn from: every document is held out", do=do))
    tokenizer = ready or _tokenizer(plan, folder, parts, decisions, min(1.0, TOKENIZER_BYTES / learned))
    if ready is not None:
        tokenizer.save(folder / "tokenizer")
    kept = [
        Kept(work=work, part=part.number, tokenizer=str(folder / "tokenizer"), decision=str(decision))
        for part, decision in zip(parts, decisions, strict=True)
    ]
    for done in pool.run(engine, stage.tokenize, kept, workers):
        watch("tokenize", done, len(parts))
    for part in parts:
        tally.merge(stage.account(work.folder, "made", part.number))
    return shards.write(
        output,
        _entries(work.folder, parts),
        vocab=tokenizer.vocab,
        tokenizer_hash=tokenizer.hash,
        report=lambda: {**tally.report(), "clean": cleaning.record(steps)} if steps else tally.report(),
        also=tokenizer.save,
    )


def _tokenizer(plan: Plan, folder: Path, parts: Sequence[Part], decisions: Sequence[Path], share: float) -> Tokenizer:
    """Return the tokenizer that an earlier run trained, or train one on a share of the training split."""
    if not (folder / "tokenizer" / "special_tokens_map.json").exists():  # written last
        each = zip(parts, decisions, strict=True)
        texts = (text for part, path in each for text in stage.sample(str(folder), part.number, path, share))
        tokenizers.build(plan.tokenizer, texts).save(folder / "tokenizer")
    return Tokenizer.load(folder / "tokenizer")


def _entries(folder: str, parts: Sequence[Part]) -> Iterator[shards.Entry]:
    """Yield every tokenized document, in order."""
    for part in parts:
        for made in stage.made(folder, part.number):
            yield shards.Entry(SPLITS[made.split], made.ids, made.size, made.source)
