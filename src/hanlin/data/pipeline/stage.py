"""What is done to each part of a corpus on its own, in any process: read and clean it, and later make tokens of it.

    part ─ read ─ clean ─┬─> texts-00007.jsonl.zst       text, source, meta: a row a document
                         ├─> facts-00007.safetensors     what deciding needs, some 600 bytes a document
                         └─> read-00007.json             the account; written last: the part is done
                … decide.py …
    texts ─ what is kept ─ tokenize ─┬─> tokens-00007.safetensors
                                     └─> made-00007.json the account; written last

A file appears whole or not at all, and the last one vouches for those before it: a killed run loses the parts that it
was working on, and nothing else. What is written depends on the part and on `Work` alone.

Letters: n documents of a part, N tokens.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save

from hanlin import files
from hanlin.config import Config, read_json
from hanlin.data import documents, localdocs
from hanlin.data.clean import contract as cleaning
from hanlin.data.duplicates import copies, lines, minhash
from hanlin.data.pipeline.parts import Part
from hanlin.data.split import share
from hanlin.data.tally import Document, Tally
from hanlin.text.tokenizer import Tokenizer

LEVEL = 1  # of zstd: these files live as long as a run
BATCH = 256  # documents tokenized together

DROPPED, TRAIN, VALID = 0, 1, 2

Arrays = dict[str, NDArray[Any]]


class Work(Config):
    """What is done to every part, and where its results go."""

    folder: str
    field: str = "text"
    clean: tuple[Mapping[str, Any], ...] = ()  # as `clean.contract.record` writes steps
    near: bool = True  # make signatures
    lines: bool = True  # hash lines
    seed: int = 0


class Kept(Config):
    """What to make tokens of."""

    work: Work
    part: int
    tokenizer: str  # a folder
    decision: str  # a file that decide.py wrote


def path(folder: Path | str, kind: str, number: int) -> Path:
    """Return where a file of a part lies."""
    endings = {"texts": "jsonl.zst", "facts": "safetensors", "tokens": "safetensors", "read": "json", "made": "json"}
    return Path(folder) / f"{kind}-{number:05d}.{endings[kind]}"


def read(given: tuple[Work, Part]) -> None:
    """Read and clean one part, unless that was done."""
    work, part = given
    if path(work.folder, "read", part.number).exists():
        return
    tally = Tally()
    facts = Gathered(work)
    steps = cleaning.steps(work.clean)
    with files.explained(Path(work.folder)), _packed(path(work.folder, "texts", part.number)) as write:
        for document in cleaning.clean(_documents(work, part, tally), steps, tally):
            row = {"text": document.text, "source": document.source, "meta": dict(document.meta)}
            write(json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass") + b"\n")
            facts.add(document)
    files.write(path(work.folder, "facts", part.number), save(facts.arrays()))
    files.write_json(path(work.folder, "read", part.number), tally.plain())


def account(folder: str, kind: str, number: int) -> Tally:
    """Return what was counted while a part was read, or while its tokens were made."""
    return Tally.of(read_json(path(folder, kind, number)))


def facts(folder: str, number: int, column: str) -> NDArray[Any]:
    """Return one column of the facts about a part (see Gathered); the others stay on the disk."""
    with safe_open(path(folder, "facts", number), framework="np") as file:
        found: NDArray[Any] = file.get_tensor(column)
    return found


def texts(folder: str, number: int) -> Iterator[Document]:
    """Yield the documents of a part as cleaning left them."""
    with (
        path(folder, "texts", number).open("rb") as packed,
        zstandard.ZstdDecompressor().stream_reader(packed) as stream,
    ):
        for line in io.BufferedReader(stream, 1 << 20):
            row = json.loads(line)
            yield Document(text=row["text"], source=row["source"], meta=row["meta"])


def tokenize(given: Kept) -> None:
    """Make tokens of what is kept of one part, unless that was done."""
    folder, number = given.work.folder, given.part
    if path(folder, "made", number).exists():
        return
    tokenizer = Tokenizer.load(given.tokenizer)
    tally, rows = Tally(), Rows()
    for batch in _batches(_kept(given, tally)):
        ids = tokenizer.documents([document.text for _, document in batch])
        for (split, document), tokens in zip(batch, ids, strict=True):
            rows.add(split, document, tokens)
    with files.explained(Path(folder)):
        files.write(path(folder, "tokens", number), save(rows.arrays()))
    files.write_json(path(folder, "made", number), tally.plain())


def learned_bytes(folder: str, number: int, decision: Path) -> int:
    """Return how much text of a part is to be learned from."""
    return int(facts(folder, number, "sizes")[load_file(decision)["split"] == TRAIN].sum())


def sample(folder: str, number: int, decision: Path, share: float) -> Iterator[str]:
    """Yield a share of the texts of a part that are to be learned from, chosen by their digests."""
    drawn = facts(folder, number, "digests")[:, 0] >> np.uint64(11) < share * 2**53
    wanted = drawn & (load_file(decision)["split"] == TRAIN)
    for document, chosen in zip(texts(folder, number), wanted.tolist(), strict=True):
        if chosen:
            yield document.text


def made(folder: str, number: int) -> Iterator[Made]:
    """Yield the tokenized documents of a part."""
    found = load_file(path(folder, "tokens", number))
    sources = found["sources"].tobytes().decode().splitlines()
    ends = found["lengths"].cumsum()
    for split, size, end, length, source in zip(
        found["splits"].tolist(),
        found["sizes"].tolist(),
        ends.tolist(),
        found["lengths"].tolist(),
        sources,
        strict=True,
    ):
        yield Made(split, found["tokens"][end - length : end], size, json.loads(source))


class Made(NamedTuple):
    """A tokenized document."""

    split: int  # TRAIN or VALID
    ids: NDArray[np.uint32]
    size: int  # UTF-8 bytes
    source: str


def _kept(given: Kept, tally: Tally) -> Iterator[tuple[int, Document]]:
    """Yield split and document of what was decided to keep, without repeated lines."""
    decision = load_file(given.decision)
    seen = dict(zip(decision["repeated"].tolist(), decision["seen"].tolist()))
    cleaner = lines.Cleaner(decision["repeated"], seen=seen)
    for document, split in zip(texts(given.work.folder, given.part), decision["split"].tolist(), strict=True):
        if split != DROPPED:
            yield from ((split, left) for left in cleaner.clean([document], tally))


def _batches(kept: Iterable[tuple[int, Document]]) -> Iterator[list[tuple[int, Document]]]:
    """Yield documents in lists of BATCH."""
    waiting = iter(kept)
    while batch := list(islice(waiting, BATCH)):
        yield batch


class Rows:
    """Tokenized documents, as they come by."""

    def __init__(self) -> None:
        """Begin with none."""
        self.tokens: list[NDArray[np.uint32]] = []
        self.sizes: list[int] = []
        self.splits: list[int] = []
        self.sources: list[str] = []

    def add(self, split: int, document: Document, ids: Sequence[int]) -> None:
        """Take in one more document."""
        self.tokens.append(np.array(ids, np.uint32))
        self.sizes.append(len(document.text.encode()))
        self.splits.append(split)
        self.sources.append(json.dumps(document.source))

    def arrays(self) -> Arrays:
        """Return the columns that `made` reads."""
        return {
            "tokens": np.concatenate(self.tokens) if self.tokens else np.empty(0, np.uint32),
            "lengths": np.array([len(each) for each in self.tokens], np.int64),
            "sizes": np.array(self.sizes, np.int64),
            "splits": np.array(self.splits, np.int64),
            "sources": np.frombuffer("\n".join(self.sources).encode(), np.uint8).copy(),
        }


def _documents(work: Work, part: Part, tally: Tally) -> Iterator[Document]:
    """Yield the documents of a part as they stand in its files."""
    if part.corpus is not None:
        yield from localdocs.corpus(part.corpus, tally, field=work.field, limit_bytes=part.limit_bytes)
    for piece in part.pieces:
        yield from documents.of(piece, tally, field=work.field)


@contextmanager
def _packed(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield a function that adds to a packed file, which gets its name once all is in it."""
    partial = path.with_name(f"{files.PARTIAL}{os.getpid()}-{path.name}")
    try:
        with partial.open("wb") as packed, zstandard.ZstdCompressor(LEVEL).stream_writer(packed) as stream:
            yield stream.write
        files.sync_file(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class Gathered:
    """The facts about the documents of a part, as they come by."""

    def __init__(self, work: Work) -> None:
        """Begin with none."""
        self.work = work
        self.digests: list[bytes] = []
        self.sizes: list[int] = []
        self.shares: list[float] = []
        self.signatures: list[NDArray[np.uint16]] = []
        self.lines: list[NDArray[np.uint64]] = []

    def add(self, document: Document) -> None:
        """Take in one more document."""
        self.digests.append(copies.digest(document.text))
        self.sizes.append(len(document.text.encode()))
        self.shares.append(share(document, self.work.seed))
        if self.work.near:
            self.signatures.append(minhash.signature(document.text))
        self.lines.append(lines.hashes(document.text) if self.work.lines else np.empty(0, np.uint64))

    def arrays(self) -> Arrays:
        """Return the columns.

        digests (n, 2) of each text · sizes (n,) in UTF-8 bytes · shares (n,) in [0, 1): below valid_fraction it is held
        out · signatures (n, 256) or (n, 0) · lines: hashes of all documents' lines, one after another, and ends (n,)
        where each document's end.
        """
        count, width = len(self.sizes), minhash.SIZE if self.work.near else 0
        return {
            "digests": np.frombuffer(b"".join(self.digests), np.uint64).reshape(count, 2).copy(),
            "sizes": np.array(self.sizes, np.int64),
            "shares": np.array(self.shares, np.float64),
            "signatures": np.stack(self.signatures) if self.signatures else np.empty((count, width), np.uint16),
            "lines": np.concatenate([*self.lines, np.empty(0, np.uint64)]),
            "ends": np.cumsum([len(each) for each in self.lines], dtype=np.int64),
        }
