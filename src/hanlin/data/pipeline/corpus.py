"""From a corpus to shards: parts are read and cleaned anywhere, decided on together, tokenized anywhere, put in order.

    cut ─> read × parts ─> vault ─ cover × parts ─> decide ─> tokenizer ─> tokenize × parts ─> mixture ─> shards, report
           └─ any process ┘  where pseudonyms         once      once      └── any process ──┘   in order, so that
                             are asked for                                                      nothing depends on who

What is under way lies beside the output, in `.NAME.work`: the same command goes on from there after a kill, and
another command, or a corpus that has changed, begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hanlin.data import documents
from hanlin.data.manifest import Manifest
from hanlin.data.pipeline import covering, guarding, pool, reading, tokenizing, writing
from hanlin.data.pipeline import parts as cutting
from hanlin.data.pipeline.decide import Rules, decide
from hanlin.data.pipeline.plan import Plan as Plan
from hanlin.data.store import resume

Watch = Callable[[str, int, int], None]  # what is being done, how many parts are done, of how many


class Run(NamedTuple):
    """How to do it: where, with how many processes, and who hears of it."""

    engine: str
    workers: int
    watch: Watch

    def each(self, what: str, task: Callable[[pool.T], None], items: Sequence[pool.T]) -> None:
        """Do a task for every item, anywhere."""
        for done in pool.run(self.engine, task, items, self.workers):
            self.watch(what, done, len(items))


def prepare(plan: Plan, output: Path, *, engine: str, workers: int, watch: Watch) -> Manifest:
    """Make the folder `output`; nothing is left of it when anything fails, and what was done is not done again.

    `workers` is how many processes work at a time, 0 for one a core.
    """
    covering.check(Path(plan.vault) if plan.vault else None, output, plan.anonymize)
    with resume.claimed(output) as folder:
        return _prepare(plan, output, folder, Run(engine, workers, watch))


def _prepare(plan: Plan, output: Path, folder: Path, run: Run) -> Manifest:
    """Do what is not done yet."""
    ready = tokenizing.ready(plan.tokenizer)
    work = plan.work(folder)
    known = guarding.check(work)
    tally = documents.Tally()
    parts = cutting.parts(
        {**({"valid": plan.valid} if plan.valid else {}), "train": plan.source}, plan.limit_bytes, tally
    )
    if run.engine == "local" and sum(piece.size for part in parts for piece in part.pieces) < cutting.SIZE:
        run = run._replace(workers=1)  # starting processes would take longer than the work
    vault = Path(plan.vault) if plan.vault else None
    more = [cutting.fingerprint(parts), ready and ready.hash, known, covering.known(vault)]
    question = {**plan.plain(), "mix": None}  # which changes nothing that is done before the end
    resume.begin(folder, [question, work.model_dump(mode="json"), *more])
    run.each("read", reading.read, [(work, part) for part in parts])
    reading.counted(work, parts, "read", tally)
    documents.require(plan.source, tally)
    if vault:
        covering.begin(work, parts, vault)
        run.each("cover", covering.cover, [(work, part.number) for part in parts])
        reading.counted(work, parts, "covered", tally)
    rules = Rules(valid_fraction=0 if plan.valid else plan.valid_fraction, near=plan.near, lines=plan.lines)
    decisions = decide(work.folder, parts, rules, tally)
    tokenizer = tokenizing.tokenizer(plan.tokenizer, work, decisions, ready, plan.source)
    kept = [
        tokenizing.Kept(work=work, part=part.number, tokenizer=str(folder / "tokenizer"), decision=str(decision))
        for part, decision in zip(parts, decisions, strict=True)
    ]
    run.each("tokenize", tokenizing.tokenize, kept)
    reading.counted(work, parts, "made", tally)
    job = writing.Job(work=work, parts=parts, tally=tally, known=known, mix=plan.mix, asked=plan.plain())
    mixture = writing.mixed(job)
    if vault:
        covering.keep(work, parts, vault)  # before the shards are there: never a pseudonym without the way back
    return writing.write(job, output, tokenizer, mixture)
