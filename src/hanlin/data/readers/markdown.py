"""Markdown: a file is one document, its marks kept; a YAML head between `---` lines is left out, and noted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hanlin.data.readers import contract
from hanlin.data.readers.contract import File
from hanlin.data.tally import Document

ENDINGS = (".md", ".markdown")
HEAD = re.compile(r"---[ \t]*\r?\n(?:[A-Za-z_][^\n]*\n|[ \t#-][^\n]*\n|\r?\n){0,200}?(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)")


def read(file: File) -> Iterator[Document]:
    """Yield the one document that a Markdown file is."""
    text = contract.decode(contract.everything(file.stream))
    head = HEAD.match(text)
    if head:
        file.tally.note("markdown: head left out")
    yield contract.document(text[head.end() :] if head else text, file.name, {})
