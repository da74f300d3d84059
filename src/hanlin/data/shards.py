"""Token ids on disk: written whole or not at all, and read through memory maps once every byte is accounted for.

    data/
      train-00000.safetensors    tokens (N,) uint16|uint32 · lengths (n,) int64 · sizes (n,) int64
      train-00001.safetensors    whole documents, about `shard_tokens` a file
      sources-train.jsonl.zst    where each document came from, a line each: [source, digest, group, repeat]
      valid-00000.safetensors …
      manifest.json              hashes, counts, vocab, tokenizer, the report; written last

`write` fills a folder beside the target and renames it at the end: a killed run leaves nothing half-written under
the target's name. `open` refuses what is damaged, foreign or does not fit the model, with all problems at once.

Letters: N tokens, n documents.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors.numpy import save

from hanlin.data import compressed
from hanlin.data.manifest import AGAIN, Manifest, Shard, Split, checked
from hanlin.data.manifest import NAME as MANIFEST
from hanlin.data.manifest import read as read_manifest
from hanlin.data.store.mapped import arrays
from hanlin.data.store.whole import replacing
from hanlin.errors import DataError, nearest, problem
from hanlin.files import sha256

SHARD_TOKENS = 16_000_000  # 32 MB at two bytes a token

Ids = NDArray[Any]  # uint16 or uint32
Counts = NDArray[np.int64]


class Entry(NamedTuple):
    """One tokenized document on its way to disk."""

    split: str  # a word in small letters: "train", "valid"
    ids: Sequence[int] | Ids
    size: int  # UTF-8 bytes of the original text
    source: str
    digest: str = ""  # of the text as it was read, in hex: `copies.digest`
    group: str = ""  # of the mixture it was chosen for
    repeat: int = 0  # 0 where the document is shown for the first time

    @property
    def origin(self) -> Origin:
        """Return where it comes from."""
        return Origin(self.source, self.digest, self.group, self.repeat)


class Origin(NamedTuple):
    """Where a document of a shard comes from; fields as in Entry."""

    source: str
    digest: str = ""
    group: str = ""
    repeat: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Shards:
    """The documents of one split, one after another, as memory-mapped token ids."""

    folder: Path
    split: str
    manifest: Manifest
    tokens: tuple[Ids, ...]  # one array a file
    lengths: Counts  # (n,) tokens of each document
    sizes: Counts  # (n,) UTF-8 bytes of each original text

    @cached_property
    def starts(self) -> Counts:
        """Return (n + 1,) where each document begins in the stream of all tokens, and where the last one ends."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def _edges(self) -> Counts:
        """Return where each file begins in the stream of all tokens."""
        return np.cumsum([0, *map(len, self.tokens)])[:-1]

    @property
    def documents(self) -> int:
        """Return n."""
        return len(self.lengths)

    @property
    def total(self) -> int:
        """Return N."""
        return int(self.starts[-1])

    def document(self, index: int) -> Ids:
        """Return the ids of one document, a view into its file; IndexError past the last."""
        index = range(self.documents)[index]
        file = max(int(np.searchsorted(self._edges, self.starts[index + 1])) - 1, 0)
        start, stop = self.starts[index : index + 2] - self._edges[file]
        return self.tokens[file][start:stop]

    def take(self, positions: Counts) -> Counts:
        """Return the ids at positions of the stream of all tokens, any shape, as int64."""
        if len(self.tokens) == 1:
            return self.tokens[0][positions].astype(np.int64)
        files = np.searchsorted(self._edges, positions, side="right") - 1
        taken = np.empty(positions.shape, np.int64)
        for file in np.unique(files):
            here = files == file
            taken[here] = self.tokens[file][positions[here] - self._edges[file]]
        return taken

    def sources(self) -> list[str]:
        """Return the source of each document."""
        return [origin.source for origin in self.origins()]

    def origins(self) -> list[Origin]:
        """Return where each document came from."""
        name = f"sources-{self.split}.jsonl.zst"
        with compressed.open(checked(self.folder, name, self.manifest.files.get(name, ""))) as lines:
            found = [json.loads(line) for line in lines]
        return [Origin(each) if isinstance(each, str) else Origin(*each) for each in found]  # a text: an older folder

    def spans(self, positions: Counts) -> Counts:
        """Return which document each position of the stream of all tokens belongs to; any shape."""
        return np.searchsorted(self.starts, positions, side="right") - 1


def write(
    folder: str | Path,
    entries: Iterable[Entry],
    *,
    vocab: int,
    tokenizer_hash: str,
    report: Callable[[], Mapping[str, Any]] = dict,
    also: Callable[[Path, Mapping[str, Split]], object] | None = None,
    shard_tokens: int = SHARD_TOKENS,
) -> Manifest:
    """Write entries, of any splits in any order, to `folder`, and return the manifest.

    `report` is asked once all entries are through; `also` may put more files into the folder, such as the tokenizer,
    and is told of the splits.
    A folder that is there already is replaced if everything in it is named by a manifest of ours. DataError when it
    is not, when an id is not below `vocab`, and when there are no entries; RunError when the disk is full.
    """
    folder = Path(os.path.realpath(folder))
    dtype: Literal["uint16", "uint32"] = "uint16" if vocab <= 1 << 16 else "uint32"
    with replacing(folder, lambda there: read_manifest(there).names) as partial:
        writers: dict[str, _Writer] = {}
        for entry in entries:
            if entry.split not in writers:
                writers[entry.split] = _Writer(partial, entry.split, vocab, dtype, shard_tokens)
            writers[entry.split].add(entry)
        if not writers:
            raise DataError(problem(str(folder), "no documents to write"))
        splits = {name: writer.close() for name, writer in writers.items()}
        if also:
            also(partial, splits)
        shards = {shard.file for split in splits.values() for shard in split.shards}
        others = sorted({path.name for path in partial.iterdir()} - shards)
        manifest = Manifest(
            vocab=vocab,
            dtype=dtype,
            tokenizer_hash=tokenizer_hash,
            splits=splits,
            files={name: sha256(partial / name) for name in others},
            report=dict(report()),
        )
        text = json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False)
        (partial / MANIFEST).write_bytes(text.encode(errors="backslashreplace"))
    return manifest


class _Writer:
    """Collects the documents of one split and writes a file whenever enough tokens have come."""

    def __init__(self, folder: Path, split: str, vocab: int, dtype: str, shard_tokens: int) -> None:
        assert re.fullmatch("[a-z]+", split), f"a split's name is part of file names: {split!r}"
        self.folder, self.split, self.vocab, self.dtype, self.shard_tokens = folder, split, vocab, dtype, shard_tokens
        self.waiting: list[tuple[Ids, int, Origin]] = []
        self.held = 0  # tokens waiting
        self.bytes = 0
        self.shards: list[Shard] = []

    def add(self, entry: Entry) -> None:
        ids = np.asarray(entry.ids, np.int64)
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.vocab:
            given = f"token ids from {ids.min()} to {ids.max()}"
            raise DataError(problem(entry.source, given, f"the vocab has 0 to {self.vocab - 1}"))
        self.waiting.append((ids.astype(self.dtype), entry.size, entry.origin))
        self.held += len(ids)
        self.bytes += entry.size
        if self.held >= self.shard_tokens:
            self.flush()

    def flush(self) -> None:
        ids, sizes, origins = zip(*self.waiting)
        columns = {"tokens": np.concatenate(ids), "lengths": _counts(map(len, ids)), "sizes": _counts(sizes)}
        file = f"{self.split}-{len(self.shards):05d}.safetensors"
        data = save(columns)
        (self.folder / file).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        self.shards.append(Shard(file=file, tokens=self.held, documents=len(ids), sha256=digest))
        lines = "".join(json.dumps(origin) + "\n" for origin in origins)
        with (self.folder / f"sources-{self.split}.jsonl.zst").open("ab") as out:  # frames follow one another
            out.write(zstandard.compress(lines.encode()))
        self.waiting, self.held = [], 0

    def close(self) -> Split:
        """Write what is left and return the account of the split."""
        if self.waiting:
            self.flush()
        return Split(
            shards=tuple(self.shards),
            documents=sum(shard.documents for shard in self.shards),
            tokens=sum(shard.tokens for shard in self.shards),
            bytes=self.bytes,
        )


def _counts(numbers: Iterable[int]) -> Counts:
    """Return numbers as an int64 array."""
    return np.fromiter(numbers, np.int64)


def open(folder: str | Path, split: str, *, vocab: int | None = None, verify: bool = True) -> Shards:
    """Return one split of a folder that `write` made; DataError with one line for everything that is wrong with it.

    `vocab` is the model's: the ids must fit. `verify=False` leaves the hashes and the ids unread, for a folder that
    was verified before.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if split not in manifest.splits:
        has = ", ".join(manifest.splits)
        raise DataError(problem(str(folder), f"no split '{split}'", f"it has: {has}", nearest(split, manifest.splits)))
    problems = []
    if vocab is not None and vocab < manifest.vocab:
        do = f"set model.vocab to {manifest.vocab}, or prepare the data again with the model's tokenizer"
        problems.append(problem(str(folder), f"a vocab of {manifest.vocab}", f"the model's is {vocab}", do=do))
    files = []
    for shard in manifest.splits[split].shards:
        try:
            files.append(_map(folder, shard, manifest, verify))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    tokens, lengths, sizes = zip(*files) if files else ((), (_counts(()),), (_counts(()),))
    return Shards(
        folder=folder,
        split=split,
        manifest=manifest,
        tokens=tokens,
        lengths=np.concatenate(lengths),
        sizes=np.concatenate(sizes),
    )


def _map(folder: Path, shard: Shard, manifest: Manifest, verify: bool) -> tuple[Ids, Counts, Counts]:
    """Return the tokens of a file, mapped, and its lengths and sizes; DataError unless all of it adds up."""
    path = checked(folder, shard.file, shard.sha256 if verify else None)
    found = arrays(path, {"tokens": manifest.dtype, "lengths": "int64", "sizes": "int64"})
    tokens, lengths, sizes = found["tokens"], found["lengths"], found["sizes"]
    fits = len(tokens) == shard.tokens and len(lengths) == len(sizes) == shard.documents
    adds_up = np.all((lengths >= 0) & (lengths <= len(tokens)) & (sizes >= 0)) and lengths.sum() == len(tokens)
    if not (fits and adds_up):
        raise DataError(problem(str(path), "its counts do not add up", do=AGAIN))
    if verify and len(tokens) and tokens.max() >= manifest.vocab:
        raise DataError(problem(str(path), f"token id {tokens.max()}", f"the vocab has 0 to {manifest.vocab - 1}"))
    return tokens, lengths, sizes
