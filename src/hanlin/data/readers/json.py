"""JSON: a list of rows, read one at a time however long it is, or one object that is a row itself."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping

from hanlin.data.readers import contract
from hanlin.data.readers.contract import File
from hanlin.data.tally import Document, Unusable

ENDINGS = (".json",)
PIECE = 1 << 16  # bytes read at once, doubled while a row does not end
NEAR = 16  # characters: an error this near to the end of what was read may be the cut's and not the file's
SPACE = re.compile(r"[ \t\r\n]*+")


def read(file: File) -> Iterator[Document]:
    """Yield the documents of the rows."""
    return contract.rows(file, enumerate(_rows(_Text(file), file.field), 1))


class _Text:
    """The text of a file from where reading stands: `rest[at:]`, and more on request."""

    def __init__(self, file: File) -> None:
        self._stream = file.stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.rest, self.at, self.ended = "", 0, False

    def more(self) -> bool:
        """Read as much again as is held, and return whether there was any."""
        held = self.rest[self.at :]
        data = self._stream.read(max(PIECE, len(held)))
        if b"\0" in data or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            contract.decode(data)  # says what it is instead
        try:
            self.rest, self.at = held + self._decoder.decode(data, final=not data), 0
        except UnicodeDecodeError:
            raise Unusable("not UTF-8") from None
        if len(self.rest) > contract.LONGEST:
            contract.bounded(self.rest.encode())
        self.ended = not data
        return not self.ended

    def next(self) -> str:
        """Return the next character that is no white space, "" at the end, without passing over it."""
        while True:
            self.at = SPACE.match(self.rest, self.at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if self.at < len(self.rest):
                return self.rest[self.at]
            if not self.more():
                return ""

    def value(self) -> object:
        """Pass over one value and return it; Unusable when there is none."""
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self.rest, self.at)
                if end < len(self.rest) or self.ended:  # else a number may go on
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self.rest) - NEAR
                if self.ended or not cut:
                    raise Unusable("not JSON", f"not JSON: {error.msg}") from None
            except (ValueError, RecursionError):  # more digits, or deeper, than Python reads
                raise Unusable("not JSON") from None
            self.more()


def _rows(text: _Text, field: str) -> Iterator[Mapping[str, object]]:
    """Yield the rows; Unusable at the first place that is not JSON, for nobody can tell where the next row begins."""
    first = text.next()
    if not first:
        raise Unusable("empty")
    if first != "[":
        yield _row(text.value(), field)
    else:
        text.at += 1
        while text.next() != "]":
            yield _row(text.value(), field)
            if text.next() == ",":
                text.at += 1
            elif text.next() != "]":
                raise Unusable("not JSON", "not JSON: a list that does not end")
        text.at += 1
    if text.next():
        raise Unusable("not JSON", "not JSON: more than one value", do="rows a line belong into .jsonl")


def _row(value: object, field: str) -> Mapping[str, object]:
    """Return a row; what is none becomes one without fields, which is counted with its number."""
    return value if isinstance(value, dict) else {}
