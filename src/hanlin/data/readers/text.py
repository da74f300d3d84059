"""Plain text: a file is one document."""

from __future__ import annotations

from collections.abc import Iterator

from hanlin.data.readers import contract
from hanlin.data.readers.contract import File
from hanlin.data.tally import Document

ENDINGS = (".txt", ".text")


def read(file: File) -> Iterator[Document]:
    """Yield the one document that a text file is."""
    text = contract.decode(contract.everything(file.stream))
    yield contract.document(text, file.name, {})
