"""What a folder of shards holds, and whether its files are the ones that were written.

manifest.json   {schema, vocab, dtype, tokenizer_hash, report,
splits: {train: {documents, tokens, bytes, shards: [{file, tokens, documents, sha256}]}},
files: {every other file: sha256}}
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hanlin import files
from hanlin.config import Config, parse, read_json
from hanlin.errors import ConfigError, DataError, problem

NAME = "manifest.json"
SCHEMA = 1
AGAIN = "prepare the data again"


class Shard(Config):
    """One file of a split."""

    file: str
    tokens: int
    documents: int
    sha256: str


class Split(Config):
    """The files of a split and their sums."""

    shards: tuple[Shard, ...]
    documents: int
    tokens: int
    bytes: int  # UTF-8 bytes of the original texts


class Manifest(Config):
    """What a folder of shards holds, and the hash of every file in it."""

    version: int = Field(default=SCHEMA, alias="schema")
    vocab: int = Field(ge=1)
    dtype: Literal["uint16", "uint32"]
    tokenizer_hash: str
    splits: dict[str, Split]
    files: dict[str, str]  # every other file -> sha256
    report: dict[str, Any]

    @property
    def hash(self) -> str:
        """Return one hash of all tokens and of the tokenizer that made them; the report does not count."""
        plain = self.model_dump(mode="json", by_alias=True, exclude={"report", "files"})
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    @property
    def names(self) -> set[str]:
        """Return the names of all files in the folder."""
        return {NAME, *self.files, *(shard.file for split in self.splits.values() for shard in split.shards)}


def exists(folder: Path) -> bool:
    """Return whether the folder has a manifest, and so claims to hold shards."""
    return (folder / NAME).is_file()


def read(folder: Path) -> Manifest:
    """Return the manifest of a folder; DataError when there is none, or none that we can read."""
    path = folder / NAME
    if not path.is_file():
        do = f"make one: hanlin prepare CORPUS --output {folder}"
        raise DataError(problem(str(folder), f"no {NAME}", "expected a folder of shards", do=do))
    try:
        plain = read_json(path)
        if plain.get("schema") != SCHEMA:
            allowed = f"this Hanlin reads schema {SCHEMA}"
            raise DataError(problem(str(path), f"schema {plain.get('schema')!r}"[:80], allowed, do=AGAIN))
        manifest = parse(Manifest, plain, str(path))
    except ConfigError as error:
        raise DataError(*error.problems) from None
    for name, split in manifest.splits.items():
        tokens, documents = (sum(getattr(shard, each) for shard in split.shards) for each in ("tokens", "documents"))
        if (tokens, documents) != (split.tokens, split.documents):
            raise DataError(problem(str(path), f"the sums of '{name}' do not add up", do=AGAIN))
    return manifest


def checked(folder: Path, name: str, sha256: str | None) -> Path:
    """Return the path of a file inside `folder`; DataError unless it has the given hash (None: any)."""
    path = files.inside(folder, name)
    if path is None:
        raise DataError(problem(str(folder), f"file {name!r}"[:200], "missing, or outside the folder", do=AGAIN))
    try:
        found = files.sha256(path) if sha256 is not None else None
    except OSError as error:
        raise DataError(problem(str(path), f"not readable: {error.strerror}")) from None
    if found != sha256:
        raise DataError(problem(str(path), "damaged: not the bytes that were written", do=AGAIN))
    return path
