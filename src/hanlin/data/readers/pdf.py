"""PDF: the text it carries, page after page; a scan carries none."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from hanlin.data.readers import contract
from hanlin.data.readers.contract import File
from hanlin.data.tally import Document, Unusable
from hanlin.errors import MissingExtra

ENDINGS = (".pdf",)
PAGES = 20_000


def read(file: File) -> Iterator[Document]:
    """Yield the one document that a PDF file is; pages are parted by a blank line."""
    try:
        import pypdf
    except ModuleNotFoundError:
        raise MissingExtra("pypdf", "documents") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what is wrong with a file is said in the tally
    stream = contract.whole(file)
    if not stream.read(1024).lstrip():
        raise Unusable("empty")
    try:
        pdf = pypdf.PdfReader(stream)
        if pdf.is_encrypted and not pdf.decrypt(""):
            raise Unusable("encrypted")
        pages = _pages(pdf)
    except Unusable:
        raise
    except Exception as error:  # a damaged file meets whatever line of pypdf comes first: KeyError, RecursionError …
        raise Unusable("damaged", f"damaged: {error}"[:200]) from None
    text = "\n\n".join(pages)
    if not text:
        raise Unusable("no text in it", do="a scan needs text recognition first")
    yield contract.document(text, file.name, {})


def _pages(pdf: object) -> list[str]:
    """Return the text of each page that has any."""
    pages, size = list[str](), 0
    for number, page in enumerate(pdf.pages):  # type: ignore[attr-defined]
        text = page.extract_text().strip()
        size += len(text)
        if number >= PAGES or size > contract.LONGEST:
            raise Unusable("too long", f"more than {PAGES:,} pages or {contract.LONGEST >> 20} Mi characters")
        if text:
            pages.append(text)
    return pages
