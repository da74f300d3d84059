"""The facts about the documents of one part: all that deciding needs of them, some 600 bytes each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hanlin.data.clean import scripts
from hanlin.data.duplicates import copies, lines, minhash
from hanlin.data.pipeline import stage
from hanlin.data.pipeline.stage import Arrays, Work
from hanlin.data.split import share
from hanlin.data.tally import Document


class Gathered:
    """The facts about the documents of a part, as they come by."""

    def __init__(self, work: Work) -> None:
        """Begin with none."""
        self.work = work
        self.digests: list[bytes] = []
        self.sizes: list[int] = []
        self.shares: list[float] = []
        self.languages: list[str] = []
        self.signatures: list[NDArray[np.uint16]] = []
        self.lines: list[NDArray[np.uint64]] = []

    def add(self, document: Document) -> None:
        """Take in one more document."""
        self.digests.append(copies.digest(document.text))
        self.sizes.append(len(document.text.encode()))
        self.shares.append(share(document, self.work.seed))
        self.languages.append(scripts.of(document.text, told=self.work.languages))
        if self.work.near:
            self.signatures.append(minhash.signature(document.text))
        self.lines.append(lines.hashes(document.text) if self.work.lines else np.empty(0, np.uint64))

    def arrays(self) -> Arrays:
        """Return the columns.

        digests (n, 2) of each text · sizes (n,) in UTF-8 bytes · shares (n,) in [0, 1): below valid_fraction it is held
        out · languages (n,), as stage.coded · signatures (n, 256) or (n, 0) · lines: hashes of all documents' lines,
        one after another, and ends (n,) where each document's end.
        """
        count, width = len(self.sizes), minhash.SIZE if self.work.near else 0
        found: dict[str, Any] = {
            "digests": np.frombuffer(b"".join(self.digests), np.uint64).reshape(count, 2).copy(),
            "sizes": np.array(self.sizes, np.int64),
            "shares": np.array(self.shares, np.float64),
            "languages": stage.coded(self.languages),
            "signatures": np.stack(self.signatures) if self.signatures else np.empty((count, width), np.uint16),
            "lines": np.concatenate([*self.lines, np.empty(0, np.uint64)]),
            "ends": np.cumsum([len(each) for each in self.lines], dtype=np.int64),
        }
        return found
