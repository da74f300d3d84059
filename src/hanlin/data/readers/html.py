"""Web pages: the main text, without menus and notices.

By trafilatura (Barbaresi 2021, doi:10.18653/v1/2021.acl-demo.15). Where it finds no main text, the whole page's text
is taken, and noted. Bytes are read in the encoding the page declares, else as UTF-8.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from hanlin.data.readers import contract
from hanlin.data.readers.contract import File
from hanlin.data.tally import Document, Unusable
from hanlin.errors import MissingExtra

ENDINGS = (".html", ".htm", ".xhtml")
LARGEST = 1 << 24  # bytes of one page: its tree takes some 20 times that
DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([\w-]{1,40})""", re.IGNORECASE)
CHINESE = {"gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030"}  # as browsers read them: encoding.spec.whatwg.org


def read(file: File) -> Iterator[Document]:
    """Yield the one document that a page is."""
    try:
        import trafilatura
        from lxml import etree, html  # type: ignore[import-untyped,unused-ignore]
    except ImportError:  # also where a part of it is missing
        raise MissingExtra("trafilatura", "documents") from None
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # what is wrong with a file is said in the tally
    page = _decode(contract.everything(file.stream, LARGEST)).encode()
    try:
        tree = html.document_fromstring(page, parser=html.HTMLParser(encoding="utf-8"))
    except etree.LxmlError:  # nothing in it that a page is made of
        raise Unusable("empty") from None
    text = trafilatura.extract(tree, include_comments=False)
    if not text:
        file.tally.note("html: no main text found, the whole page taken")
        text = trafilatura.html2txt(html.document_fromstring(page, parser=html.HTMLParser(encoding="utf-8")))
    if not text:
        raise Unusable("no text in it")
    yield contract.document(text, file.name, {})


def _decode(data: bytes) -> str:
    """Return a page as text, in the encoding it declares or in UTF-8."""
    declared = DECLARED.search(data, 0, 4096)
    name = declared.group(1).decode().lower() if declared else "utf-8"
    if name in {"utf-8", "utf8"}:
        return contract.decode(data)
    try:
        return data.decode(CHINESE.get(name, name))
    except LookupError:
        return contract.decode(data)
    except UnicodeDecodeError as error:
        raise Unusable("not in the encoding it declares", f"not {name} at byte {error.start}") from None
