"""Text that was never made into shards, as documents the harness can score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hanlin.data import localdocs, manifest, shards
from hanlin.data.documents import Tally
from hanlin.data.shards import Shards
from hanlin.errors import DataError, problem
from hanlin.text.tokenizer import Tokenizer
from hanlin.train import folder as folders


@dataclass(frozen=True, eq=False)
class Texts:
    """Documents tokenized in memory, with the sizes of their texts."""

    ids: list[NDArray[np.int64]]
    lengths: NDArray[np.int64]
    sizes: NDArray[np.int64]  # UTF-8 bytes

    @property
    def documents(self) -> int:
        """Return how many there are."""
        return len(self.ids)

    def document(self, index: int) -> NDArray[Any]:
        """Return the ids of one."""
        return self.ids[index]


def read(name: str, tokenizer: Tokenizer, field: str) -> Texts:
    """Return the documents of a file or folder, tokenized as for training; DataError when there are none."""
    texts = [each.text for each in localdocs.corpus(name, Tally(), field=field)]
    ids = [np.array(each, dtype=np.int64) for each in tokenizer.documents(texts)]
    return Texts(ids, np.array([len(each) for each in ids]), np.array([len(text.encode()) for text in texts]))


def held_out(folder: Path, tokenizer: Tokenizer) -> Shards:
    """Return the held-out shards of the run that made the folder."""
    recipe = folders.resolved(folder)
    if recipe is None:
        raise DataError(problem(str(folder), "not a run of ours: it has no held-out text", do="name a file: --data"))
    places = [Path(recipe.data.train), folder / "data"]
    found = next((each for each in places if manifest.exists(each)), None)
    if found is None or "valid" not in manifest.read(found).splits:
        raise DataError(problem(str(folder), "nothing was held out from this run", do="name a file: --data"))
    if Tokenizer.load(found).hash != tokenizer.hash:
        given = "prepared again since, with another tokenizer"
        raise DataError(problem(str(found), given, do="name a file of text: --data"))
    return shards.open(found, "valid", vocab=tokenizer.vocab)
