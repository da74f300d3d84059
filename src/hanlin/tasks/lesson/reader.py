"""How rows become tokens: the tokenizer of a run, the rows as a model reads them, and a hash of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hanlin import files, hub
from hanlin.config import dump
from hanlin.errors import DataError, problem
from hanlin.tasks import contract
from hanlin.tasks.contract import Example, Row, Task
from hanlin.text import tokenizer as tokenizers
from hanlin.text.tokenizer import Config, Tokenizer


def tokenizer(start: str | None, wish: Config, texts: Sequence[str], folder: Path) -> Tokenizer:
    """Return the tokenizer of the model to start from, or one made of the training texts, once, in the run's folder."""
    if start is not None:
        return Tokenizer.load(hub.fetch(start).folder)
    own = folder / "data"
    if (own / "tokenizer.json").exists():
        return Tokenizer.load(own)
    made = tokenizers.build(wish, texts)
    with files.explained(folder), files.filling(own) as partial:
        made.save(partial)
    return Tokenizer.load(own)


def encoded(task: Task[Any, Any], examples: Sequence[Any], reader: Tokenizer, context: int, where: str) -> list[Row]:
    """Return the rows of a file's examples; DataError, such as of a label that training never sees, names the file."""
    try:
        return task.encode(examples, reader, context) if examples else []
    except DataError as error:
        raise DataError(*(problem(where, each) for each in error.problems)) from None


def hashed(task: Task[Any, Any], examples: Sequence[Example], learned: int, reader: Tokenizer) -> str:
    """Return a hash of everything that is learned from and held out, and how it is read."""
    found = hashlib.sha256(json.dumps([contract.saved(task), learned, reader.hash]).encode())
    for each in examples:
        found.update(json.dumps(dump(each), sort_keys=True, default=str).encode(errors="surrogatepass") + b"\n")
    return found.hexdigest()
