"""Text that was never made into shards, as documents the harness can score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hanlin.data import localdocs
from hanlin.data.documents import Tally
from hanlin.text.tokenizer import Tokenizer


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
