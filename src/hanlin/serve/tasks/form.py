"""A form with one file (multipart/form-data, RFC 7578), read strictly.

Content-Type: …; boundary=B        --B  headers  body  --B  headers  body  --B--
                                        name="file"; filename=…  ─> Form.file
                                        name="model"             ─> Form.fields, text in UTF-8
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import python_multipart as multipart

from hanlin.errors import problem
from hanlin.serve.refusal import Refused

FIELDS = 32  # parts of a form
LONGEST = 4_096  # bytes of a text field, and of the headers of a part
LISTS = "[]"  # what the names of fields end in that may stand several times


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a form holds."""

    fields: Mapping[str, str | tuple[str, ...]]
    file: bytes


@dataclass
class _Part:
    """A part as it comes."""

    headers: list[tuple[bytearray, bytearray]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    name: str = ""
    file: bool = False


class _Reading:
    """Gathers the parts that the parser finds."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.whole = False

    def begin(self) -> None:
        if len(self.parts) == FIELDS:
            raise _refused("more parts than any form has", f"at most {FIELDS}")
        self.parts.append(_Part())

    def header_begin(self) -> None:
        self.parts[-1].headers.append((bytearray(), bytearray()))

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].headers[-1][0].extend(data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].headers[-1][1].extend(data[start:end])

    def headers_finished(self) -> None:
        part = self.parts[-1]
        headers = [(bytes(name).lower(), bytes(value)) for name, value in part.headers]
        if any(name == b"content-transfer-encoding" for name, _ in headers):  # RFC 7578, 4.7: not used any more
            raise _refused("a part with Content-Transfer-Encoding", "bytes as they are")
        said = [value for name, value in headers if name == b"content-disposition"]
        kind, options = multipart.multipart.parse_options_header(said[0]) if len(said) == 1 else (b"", {})
        if kind != b"form-data" or not options.get(b"name"):
            raise _refused("a part without a name", "Content-Disposition: form-data; name=…")
        part.name, part.file = options[b"name"].decode("utf-8"), b"filename" in options

    def body(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        part.body += memoryview(data)[start:end]
        if not part.file and len(part.body) > LONGEST:
            name = _shown(part.name)
            raise Refused(400, problem(name, "too long", f"at most {LONGEST:,} bytes"), param=name)

    def end(self) -> None:
        self.whole = True


def read_form(data: bytes, content_type: str) -> Form:
    """Return the fields of a form and its file named `file`; Refused (400) where a part is damaged or missing."""
    reading = _Reading()
    _, options = multipart.multipart.parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise _refused("no boundary in Content-Type", "multipart/form-data; boundary=…")
    try:
        parser = multipart.MultipartParser(
            boundary,
            {
                "on_part_begin": reading.begin,
                "on_header_begin": reading.header_begin,
                "on_header_field": reading.header_field,
                "on_header_value": reading.header_value,
                "on_headers_finished": reading.headers_finished,
                "on_part_data": reading.body,
                "on_end": reading.end,
            },
            max_header_size=LONGEST,
        )
        parser.write(data)
        parser.finalize()
        if not reading.whole:
            raise _refused("cut off before its last boundary", "--boundary-- at its end")
        return _gathered(reading.parts)
    except (multipart.exceptions.FormParserError, UnicodeDecodeError) as error:
        raise _refused(f"not a form: {error}"[:200]) from None


def _gathered(parts: list[_Part]) -> Form:
    """Return the parts by name."""
    files = [part for part in parts if part.file]
    if [part.name for part in files] != ["file"]:
        given = ", ".join(_shown(part.name) for part in files) or "none"
        raise Refused(400, problem("file", f"files of the form: {given}", "one, by the name of 'file'"), param="file")
    fields: dict[str, str | tuple[str, ...]] = {}
    for part in parts:
        if part.file:
            continue
        text = part.body.decode("utf-8")
        if "\0" in text or "\0" in part.name:
            raise _refused("text with a NUL character")
        before = fields.get(part.name, ())
        if part.name.endswith(LISTS):
            fields[part.name] = (*before, text)
        elif before != ():
            raise Refused(400, problem(_shown(part.name), "stands twice"), param=_shown(part.name))
        else:
            fields[part.name] = text
    return Form(fields=fields, file=bytes(files[0].body))


def _shown(name: str) -> str:
    return ascii(name[:60])[1:-1]


def _refused(given: str, allowed: str = "") -> Refused:
    return Refused(400, problem("body", given, allowed))
