"""The end: tokenized documents in order, each as often as the mixture says, with the account of everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hanlin import files
from hanlin.config import dump
from hanlin.data import shards
from hanlin.data.manifest import Manifest, Split
from hanlin.data.pipeline import mixing, tokenizing
from hanlin.data.pipeline.mixing import Mix, Mixture
from hanlin.data.pipeline.parts import Part
from hanlin.data.pipeline.stage import TRAIN, VALID, Work
from hanlin.data.report import account, page
from hanlin.data.tally import Tally
from hanlin.text.tokenizer import Tokenizer

SPLITS = {TRAIN: "train", VALID: "valid"}


class Job(NamedTuple):
    """All that was found out before the shards are written."""

    work: Work
    parts: Sequence[Part]
    tally: Tally
    known: Mapping[str, str]  # file that was needed -> its hash
    mix: Mix | None
    asked: Mapping[str, Any]


def mixed(job: Job) -> Mixture | None:
    """Return how often to show each document, where a mixture was asked for."""
    if job.mix is None:
        return None
    return mixing.mixture(job.work.folder, job.parts, job.mix, job.work.seed, job.tally)


def write(job: Job, output: Path, tokenizer: Tokenizer, mixture: Mixture | None) -> Manifest:
    """Write the folder of shards, whole or not at all."""
    extra = account.extra(job.work, job.parts, job.known, mixture)

    def also(folder: Path, splits: Mapping[str, Split]) -> None:
        tokenizer.save(folder)
        dtype: Any = "uint16" if tokenizer.vocab <= 1 << 16 else "uint32"
        named = {"vocab": tokenizer.vocab, "dtype": dtype, "tokenizer_hash": tokenizer.hash}
        data = Manifest(**named, splits=dict(splits), files={}, report={}).hash
        made = (splits, tokenizer.hash, data)
        found = account.account(job.work, job.parts, job.tally, extra, job.asked, made)
        files.write_json(folder / "report.json", dump(found))
        html = page.page(found, f"What was made of {job.asked['source']}")
        files.write(folder / "report.html", html.encode(errors="backslashreplace"))
        if job.work.against:
            listed = "".join(account.leaks(job.work, job.parts))
            files.write(folder / account.LEAKS, listed.encode())

    return shards.write(
        output,
        _entries(job, mixture),
        vocab=tokenizer.vocab,
        tokenizer_hash=tokenizer.hash,
        report=lambda: {**job.tally.report(), **extra},
        also=also,
    )


def _entries(job: Job, mixture: Mixture | None) -> Iterator[shards.Entry]:
    """Yield every tokenized document in order, then again those that are shown twice, and so on."""
    most = max((int(times.max()) for times in mixture.times if len(times)), default=1) if mixture else 1
    for turn in range(most):
        for number, part in enumerate(job.parts):
            times = mixture.times[number].tolist() if mixture else None
            if times is not None and max(times, default=0) <= turn:
                continue
            for place, each in enumerate(tokenizing.made(job.work.folder, part.number)):
                if times is None or times[place] > turn:
                    yield _entry(each, job.mix, turn)


def _entry(made: tokenizing.Made, mix: Mix | None, turn: int) -> shards.Entry:
    """Return a document of a shard."""
    group = "" if mix is None else mixing.name(made.source) if mix.by == "source" else made.language
    return shards.Entry(SPLITS[made.split], made.ids, made.size, made.source, made.digest, group, turn)
