"""What to make of a corpus: all that a person may ask for, and what of it is done to every part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hanlin.config import Config, dump
from hanlin.data.clean import contract as cleaning
from hanlin.data.pipeline import stage
from hanlin.data.pipeline.mixing import Mix
from hanlin.text import tokenizer as tokenizers


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
    anonymize: stage.How = ""
    vault: str | None = None
    salt: str | None = None  # a file
    against: tuple[str, ...] = ()
    against_remove: bool = False
    mix: Mix | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return dump(self)

    def work(self, folder: Path) -> stage.Work:
        """Return what is done to every part."""
        return stage.Work(
            folder=str(folder.resolve()),
            field=self.field,
            clean=tuple(cleaning.record(cleaning.steps(self.clean))),
            near=self.near is not None,
            lines=self.lines is not None,
            seed=self.seed,
            anonymize=self.anonymize,
            salt=self.salt,
            against=self.against,
            against_remove=self.against_remove,
            languages=self.mix is not None and self.mix.by == "language",
        )
