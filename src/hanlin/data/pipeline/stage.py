"""What is asked of every part of a corpus, and the files in which the answers wait: read and cleaned, then tokenized.

    part ─ read ─ clean ─┬─> texts-00007.jsonl.zst       text, source, meta: a row a document          reading.py
                         ├─> facts-00007.safetensors     what deciding needs, some 600 bytes a document
                         └─> read-00007.json             the account; written last: the part is done
    with pseudonyms        raw-00007.jsonl.zst ─ vault ─> texts, facts, covered-00007.json             covering.py
                … decide.py …
    texts ─ what is kept ─ tokenize ─┬─> tokens-00007.safetensors                                      tokenizing.py
                                     └─> made-00007.json the account; written last

A file appears whole or not at all, and the last one vouches for those before it: a killed run loses the parts that it
was working on, and nothing else. What is written depends on the part and on `Work` alone.

Letters: n documents of a part, N tokens.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors import safe_open

from hanlin import files
from hanlin.config import Config, read_json
from hanlin.data.tally import Document, Tally

LEVEL = 1  # of zstd: these files live as long as a run
DROPPED, TRAIN, VALID = 0, 1, 2
ENDINGS = {"texts": "jsonl.zst", "raw": "jsonl.zst", "leaks": "jsonl", "facts": "safetensors", "tokens": "safetensors"}

How = Literal["", "mask", "hash", "pseudonyms"]
Arrays = dict[str, NDArray[Any]]


class Work(Config):
    """What is done to every part, and where its results go."""

    folder: str
    field: str = "text"
    clean: tuple[Mapping[str, Any], ...] = ()  # as `clean.contract.record` writes steps
    near: bool = True  # make signatures
    lines: bool = True  # hash lines
    seed: int = 0
    anonymize: How = ""
    salt: str | None = None  # a file
    against: tuple[str, ...] = ()  # evaluation files
    against_remove: bool = False
    languages: bool = False  # tell languages, not scripts alone


class Held(NamedTuple):
    """A document between two stages."""

    document: Document
    digest: str  # of the text as it was read, in hex
    spans: tuple[tuple[int, int, str], ...] = ()  # personal data that waits for a pseudonym: begin, end, kind


def path(folder: Path | str, kind: str, number: int) -> Path:
    """Return where a file of a part lies."""
    return Path(folder) / f"{kind}-{number:05d}.{ENDINGS.get(kind, 'json')}"


def account(folder: str, kind: str, number: int) -> Tally:
    """Return what was counted while a part was read, or while its tokens were made."""
    return Tally.of(told(folder, kind, number)["tally"])


def told(folder: str, kind: str, number: int) -> Mapping[str, Any]:
    """Return all that the account of a part says."""
    found: Mapping[str, Any] = read_json(path(folder, kind, number))
    return found


def facts(folder: str, number: int, column: str) -> NDArray[Any]:
    """Return one column of the facts about a part (see reading.Gathered); the others stay on the disk."""
    return columns(path(folder, "facts", number), column)[column]


def columns(file: Path, *names: str) -> Arrays:
    """Return some columns of a file of arrays; the others stay on the disk."""
    with safe_open(file, framework="np") as found:
        return {name: found.get_tensor(name) for name in names}


def texts(folder: str, number: int) -> Iterator[Document]:
    """Yield the documents of a part as they are to be learned from."""
    return (each.document for each in held(folder, number))


def held(folder: str, number: int, kind: str = "texts") -> Iterator[Held]:
    """Yield the documents of a part, and what else is known of each."""
    with (
        path(folder, kind, number).open("rb") as packed,
        zstandard.ZstdDecompressor().stream_reader(packed) as stream,
    ):
        for line in io.BufferedReader(stream, 1 << 20):
            row = json.loads(line)
            spans = tuple((begin, end, kind) for begin, end, kind in row.get("spans", ()))
            yield Held(Document(text=row["text"], source=row["source"], meta=row["meta"]), row["digest"], spans)


def row(each: Held) -> bytes:
    """Return the line that `held` reads."""
    document = each.document
    plain: dict[str, Any] = {"text": document.text, "source": document.source, "meta": dict(document.meta)}
    plain["digest"] = each.digest
    if each.spans:
        plain["spans"] = each.spans
    return json.dumps(plain, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"


@contextmanager
def packing(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield a function that adds to a packed file, which gets its name once all is in it."""
    partial = path.with_name(f"{files.PARTIAL}{os.getpid()}-{path.name}")
    try:
        with (
            files.explained(path.parent),
            partial.open("wb") as packed,
            zstandard.ZstdCompressor(LEVEL).stream_writer(packed) as stream,
        ):
            yield stream.write
        with files.explained(path.parent):
            files.sync_file(partial)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def coded(names: Iterable[str]) -> NDArray[np.uint64]:
    """Return names of up to 8 letters as numbers, for a file of arrays."""
    return np.array([name.encode() for name in names], "S8").view(np.uint64)


def decoded(codes: NDArray[np.uint64]) -> list[str]:
    """Return the names that `coded` made numbers of."""
    return [name.decode() for name in np.ascontiguousarray(codes).view("S8").tolist()]
