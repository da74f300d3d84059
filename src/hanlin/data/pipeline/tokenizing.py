"""The last stage: tokens of what was decided to keep of one part, each document with where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from hanlin import files
from hanlin.config import Config
from hanlin.data.duplicates import lines
from hanlin.data.pipeline import stage
from hanlin.data.pipeline.stage import DROPPED, TRAIN, Arrays, Held, Work
from hanlin.data.tally import Tally
from hanlin.errors import DataError, problem
from hanlin.text import tokenizer as tokenizers
from hanlin.text.tokenizer import Tokenizer

BATCH = 256  # documents tokenized together


TOKENIZER_BYTES = 30_000_000  # of text that a tokenizer learns from; more changes few merges and takes minutes


class Kept(Config):
    """What to make tokens of."""

    work: Work
    part: int
    tokenizer: str  # a folder
    decision: str  # a file that decide.py wrote


class Chosen(NamedTuple):
    """A document that stays: its split, its language as the facts have it, and itself."""

    split: int
    language: int
    held: Held


class Made(NamedTuple):
    """A tokenized document."""

    split: int  # TRAIN or VALID
    ids: NDArray[Any]  # uint16 or uint32
    size: int  # UTF-8 bytes
    source: str
    digest: str  # of the text as it was read
    language: str


def tokenize(given: Kept) -> None:
    """Make tokens of what is kept of one part, unless that was done."""
    folder, number = given.work.folder, given.part
    if stage.path(folder, "made", number).exists():
        return
    tokenizer = _loaded(given.tokenizer, (Path(given.tokenizer) / "tokenizer.json").stat().st_mtime_ns)
    tally, rows = Tally(), Rows(np.dtype(np.uint16 if tokenizer.vocab <= 1 << 16 else np.uint32))
    for batch in _batches(_kept(given, tally)):
        ids = tokenizer.documents([each.held.document.text for each in batch])
        for each, tokens in zip(batch, ids, strict=True):
            rows.add(each, tokens)
    files.write(stage.path(folder, "tokens", number), save(rows.arrays()))
    files.write_json(stage.path(folder, "made", number), {"tally": tally.plain()})


@lru_cache(maxsize=1)
def _loaded(folder: str, time_ns: int) -> Tokenizer:
    """Return a tokenizer, the same for all parts that a process works on: what each keeps for speed is never freed."""
    return Tokenizer.load(folder)


def ready(asked: tokenizers.Config) -> Tokenizer | None:
    """Return the tokenizer that is used as it is, where one is named."""
    return tokenizers.build(asked, ()) if asked.folder else None


def tokenizer(
    asked: tokenizers.Config, work: Work, decisions: Sequence[Path], ready: Tokenizer | None, where: str
) -> Tokenizer:
    """Return the tokenizer that was given, that an earlier run trained, or train one on a share of the training split.

    It lies in the folder of work then. DataError when nothing is left to learn from.
    """
    learned = sum(learned_bytes(work.folder, number, path) for number, path in enumerate(decisions))
    if not learned:
        do = "use more text, or a smaller valid_fraction"
        raise DataError(problem(where, "nothing is left to learn from: every document is held out", do=do))
    folder = Path(work.folder) / "tokenizer"
    if ready is not None:
        ready.save(folder)
        return ready
    if not (folder / "special_tokens_map.json").exists():  # written last
        share = min(1.0, TOKENIZER_BYTES / learned)
        texts = (text for number, path in enumerate(decisions) for text in sample(work.folder, number, path, share))
        tokenizers.build(asked, texts).save(folder)
    return Tokenizer.load(folder)


def learned_bytes(folder: str, number: int, decision: Path) -> int:
    """Return how much text of a part is to be learned from."""
    return int(stage.facts(folder, number, "sizes")[load_file(decision)["split"] == TRAIN].sum())


def sample(folder: str, number: int, decision: Path, share: float) -> Iterator[str]:
    """Yield a share of the texts of a part that are to be learned from, chosen by their digests."""
    drawn = stage.facts(folder, number, "digests")[:, 0] >> np.uint64(11) < share * 2**53
    wanted = drawn & (load_file(decision)["split"] == TRAIN)
    for document, chosen in zip(stage.texts(folder, number), wanted.tolist(), strict=True):
        if chosen:
            yield document.text


def made(folder: str, number: int) -> Iterator[Made]:
    """Yield the tokenized documents of a part."""
    found = load_file(stage.path(folder, "tokens", number))
    edges = [0, *found["lengths"].cumsum().tolist()]
    for split, size, begin, end, (source, digest), language in zip(
        found["splits"].tolist(),
        found["sizes"].tolist(),
        edges[:-1],
        edges[1:],
        _named(found),
        stage.decoded(found["languages"]),
        strict=True,
    ):
        yield Made(split, found["tokens"][begin:end], size, source, digest, language)


class Outline(NamedTuple):
    """What is known of the tokenized documents of a part without their tokens, in order."""

    splits: NDArray[np.int64]
    lengths: NDArray[np.int64]
    sizes: NDArray[np.int64]
    languages: list[str]
    sources: list[str]
    digests: list[str]


def outline(folder: str, number: int) -> Outline:
    """Return what is known of a part's tokenized documents; the tokens stay on the disk."""
    names = ("splits", "lengths", "sizes", "languages", "sources")
    found = stage.columns(stage.path(folder, "tokens", number), *names)
    named = list(_named(found))
    return Outline(
        splits=found["splits"],
        lengths=found["lengths"],
        sizes=found["sizes"],
        languages=stage.decoded(found["languages"]),
        sources=[source for source, _ in named],
        digests=[digest for _, digest in named],
    )


def _named(found: Arrays) -> Iterator[tuple[str, str]]:
    """Yield source and digest of each document."""
    for line in found["sources"].tobytes().decode().splitlines():
        source, digest = json.loads(line)
        yield source, digest


def _kept(given: Kept, tally: Tally) -> Iterator[Chosen]:
    """Yield what was decided to keep, without repeated lines."""
    folder, number = given.work.folder, given.part
    decision, spoken = load_file(given.decision), stage.facts(folder, number, "languages").tolist()
    seen = dict(zip(decision["repeated"].tolist(), decision["seen"].tolist()))
    cleaner = lines.Cleaner(decision["repeated"], seen=seen)
    for held, split, language in zip(stage.held(folder, number), decision["split"].tolist(), spoken, strict=True):
        if split != DROPPED:
            for left in cleaner.clean([held.document], tally):
                yield Chosen(split, language, held._replace(document=left))


def _batches(kept: Iterable[Chosen]) -> Iterator[list[Chosen]]:
    """Yield documents in lists of BATCH."""
    waiting = iter(kept)
    while batch := list(islice(waiting, BATCH)):
        yield batch


class Rows:
    """Tokenized documents, as they come by."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        """Begin with none; tokens are kept as small as they can be."""
        self.dtype = dtype
        self.tokens: list[NDArray[Any]] = []
        self.sizes: list[int] = []
        self.splits: list[int] = []
        self.languages: list[int] = []
        self.sources: list[str] = []

    def add(self, each: Chosen, ids: Sequence[int]) -> None:
        """Take in one more document."""
        self.tokens.append(np.array(ids, self.dtype))
        self.sizes.append(len(each.held.document.text.encode()))
        self.splits.append(each.split)
        self.languages.append(each.language)
        self.sources.append(json.dumps([each.held.document.source, each.held.digest]))

    def arrays(self) -> Arrays:
        """Return the columns that `made` reads, and let go of the tokens."""
        lengths = np.array([len(each) for each in self.tokens], np.int64)
        tokens = np.concatenate([np.empty(0, self.dtype), *self.tokens])
        self.tokens.clear()
        return {
            "tokens": tokens,
            "lengths": lengths,
            "sizes": np.array(self.sizes, np.int64),
            "splits": np.array(self.splits, np.int64),
            "languages": np.array(self.languages, np.uint64),
            "sources": np.frombuffer("\n".join(self.sources).encode(), np.uint8).copy(),
        }
