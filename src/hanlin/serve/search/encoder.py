"""What makes the vectors of an index, and how it is known again: by the hash of everything a vector depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hanlin import api, files, hub
from hanlin.generate.embed import Embedded

PARTS = (
    *("config.json", "*.safetensors", "tokenizer*.json", "vocab*", "merges.txt"),
    *("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"),
)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """One vector of length 1 a text."""

    name: str  # a folder or a hub name
    hash: str
    embed: Callable[[Sequence[str]], Embedded]


def load(name: str, *, precision: str = "fp32") -> Encoder:
    """Open a model folder or hub name; HanlinError says why when it cannot be."""
    found = hub.fetch(name)
    model = api.load(str(found.folder), precision=precision)
    return Encoder(name=name, hash=fingerprint(found.folder), embed=model.embed)


def fingerprint(folder: Path) -> str:
    """Return a hash of the files that decide a text's vector."""
    found = hashlib.sha256()
    for path in sorted({path for part in PARTS for path in folder.glob(part)}):
        found.update(f"{path.relative_to(folder)} {files.sha256(path)}\n".encode())
    return found.hexdigest()
