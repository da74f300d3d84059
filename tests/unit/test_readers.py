"""Readers: one table of formats and one set of promises for each, then what is special to one format."""

import gzip
import io
import json
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from hanlin import registry
from hanlin.data import documents
from hanlin.data.documents import Document, Tally
from hanlin.data.readers import contract
from hanlin.errors import DataError, MissingExtra

TEXTS = ["The cat sat on the mat.", "学而时习之，\n不亦说乎？"]


def read(path: Path, **options) -> tuple[list[Document], Tally]:
    tally = Tally()
    found = list(documents.read(path, tally, **options))
    assert tally.read == tally.kept + sum(tally.dropped.values()), "everything looked at is accounted for"
    return found, tally


def refused(path: Path, *expected: str, **options) -> None:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert all(line.startswith(str(path)) and "\n" not in line for line in caught.value.problems)
    for words in expected:
        assert words in str(caught.value)


def table(**columns) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, row_group_size=100)
    return buffer.getvalue()


def pdf(*texts: str) -> bytes:
    """A PDF of one page a text, in Helvetica."""
    count = len(texts)
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(count))
    bodies = [b"<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Count {count}/Kids[{kids}]>>".encode()]
    bodies.append(b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
    for number, text in enumerate(texts):
        fonts = "/Resources<</Font<</F 3 0 R>>>>"
        page = f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]{fonts}/Contents {5 + 2 * number} 0 R>>"
        drawn = f"BT /F 12 Tf 50 700 Td ({text}) Tj ET".encode()
        bodies += [page.encode(), b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn)]
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    return data + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(bodies) + 1, start)


def page(*texts: str) -> bytes:
    body = "".join(f"<p>{text}</p>" for text in texts)
    menu = "<nav><ul><li><a href='/'>Home</a></li></ul></nav>"
    head = "<head><meta charset='utf-8'><title>t</title></head>"
    return f"<html>{head}<body>{menu}<article>{body}</article></body></html>".encode()


LONG = "Cats have slept on mats for longer than people have written about it, and nobody knows why they began."
QUOTED = TEXTS[1].replace("\n", "\r\n")
FORMATS: dict[str, tuple[bytes, list[str]]] = {
    ".txt": (TEXTS[1].encode(), [TEXTS[1]]),
    ".md": (b"---\ntitle: cats\ntags:\n  - a\n---\n# Cats\n\n---\n", ["# Cats\n\n---\n"]),
    ".jsonl": ("".join(json.dumps({"text": each}) + "\n" for each in TEXTS).encode(), TEXTS),
    ".json": (json.dumps([{"n": 1, "text": each} for each in TEXTS], indent=1).encode(), TEXTS),
    ".csv": (f'n,text\n1,{TEXTS[0]}\n2,"{QUOTED}"\n'.encode(), TEXTS),
    ".tsv": (b'n\ttext\n1\tsay "cat"\n2\t"\n', ['say "cat"', '"']),
    ".parquet": (table(n=[1, 2], text=TEXTS), TEXTS),
    ".html": (page(LONG, LONG[::-1]), [f"{LONG}\n{LONG[::-1]}"]),
    ".pdf": (pdf("One page.", "Another."), ["One page.\n\nAnother."]),
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def test_every_reader_is_in_the_table() -> None:
    """Guards against a format that no test reads; archives have a file of their own."""
    endings = {
        ending for name in registry.names("data.readers") for ending in registry.load("data.readers", name).ENDINGS
    }
    same = {".text", ".markdown", ".ndjson", ".htm", ".xhtml", ".zip", ".tar", ".tgz"}
    assert endings == FORMATS.keys() | same
    assert contract.formats().startswith(".csv .htm ")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("ending", FORMATS)
def test_formats(tmp_path: Path, ending: str, packing: str) -> None:
    """Guards against a format that loses text, and against one that cannot be unpacked as a stream."""
    data, texts = FORMATS[ending]
    path = tmp_path / f"a{ending}{packing}"
    path.write_bytes(PACKINGS[packing](data))
    found, tally = read(path)
    assert [document.text for document in found] == texts
    assert tally.dropped == {}
    assert all(document.source.startswith(path.name) for document in found)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("junk", ["empty", "random", "cut", "NUL"])
def test_junk(tmp_path: Path, ending: str, junk: str) -> None:
    """Guards against a traceback: alone one line, in a folder a counted drop, and the rest is read."""
    data = FORMATS[ending][0]
    noise = bytes(range(255, 0, -1)) * 9
    path = tmp_path / f"a{ending}"
    path.write_bytes({"empty": b"", "random": noise, "cut": data[: len(data) // 2], "NUL": b"\0" * 999}[junk])
    (tmp_path / "good.txt").write_text("good")
    if junk != "cut":
        refused(path)
    found, tally = read(tmp_path)
    assert found[-1].text == "good"
    assert tally.dropped or junk == "cut"


def test_field_is_chosen_only_where_there_is_no_choice(tmp_path: Path) -> None:
    """Guards against a guess between two columns, and against one that nobody is told of."""
    rows = [{"n": 1, "story": "one"}, {"n": 2, "story": "two"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text("n,story\n1,one\n2,two\n")
    (tmp_path / "a.parquet").write_bytes(table(n=[1, 2], story=["one", "two"]))
    found, tally = read(tmp_path)
    assert [document.text for document in found] == ["one", "two"] * 4
    assert tally.notes == {"text taken from 'story'": 4}
    assert tally.report()["notes"] == tally.notes
    for name, data in {
        "b.jsonl": b'{"title": "t", "story": "s"}\n',
        "b.json": b'[{"title": "t", "story": "s"}]',
        "b.csv": b"title,story\nt,s\n",
        "b.parquet": table(title=["t"], story=["s"]),
    }.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, "no field 'text', but: title, story")
        refused(tmp_path / name, "no field 'stori'", field="stori")
        assert read(tmp_path / name, field="story")[0][0].text == "s"


def test_a_field_of_lines(tmp_path: Path) -> None:
    """Guards against verse that is kept as a list of lines and lost."""
    (tmp_path / "a.jsonl").write_text('{"text": ["床前明月光", "疑是地上霜"]}\n{"text": []}\n{"text": ["a", 1]}\n')
    (tmp_path / "b.parquet").write_bytes(table(text=[["one", "two"]]))
    found, tally = read(tmp_path)
    assert [document.text for document in found] == ["床前明月光\n疑是地上霜", "one\ntwo"]
    assert tally.dropped == {"field 'text' is not text": 2}


def test_groups_come_along(tmp_path: Path) -> None:
    """Guards against a column-wise reader that forgets what a split keeps together."""
    (tmp_path / "a.parquet").write_bytes(table(text=["one"], group=["g"], other=["o"]))
    (tmp_path / "b.csv").write_text("text,group\none,g\n")
    assert [document.meta for document in read(tmp_path)[0]] == [{"group": "g"}, {"group": "g"}]


def test_csv_rows_that_do_not_fit(tmp_path: Path) -> None:
    """Guards against a row that is filled up, cut or moved by a column, and against NULs and other encodings."""
    path = tmp_path / "a.csv"
    rows = [
        b"n,text",
        b"1,good",
        b"2",
        b"3,one,two",
        b"",
        b"4,\xb9\xfe",
        b"5,a\0b",
        b'6,"a"b',
        b"7,",
        b'8,"long',
        b'er"',
    ]
    path.write_bytes(b"\n".join(rows) + b"\n")
    found, tally = read(path)
    assert [(document.text, document.source) for document in found] == [("good", "a.csv:2"), ("long\ner", "a.csv:11")]
    assert tally.dropped == {"ragged row": 2, "empty": 2, "not UTF-8": 1, "binary": 1, "not CSV": 1}
    path.write_bytes(b'text\n"never closed\nagain\n')
    refused(path, "1 x not CSV, first a.csv:3")
    path.write_bytes("文本,数\n学而,1\n".encode("gb18030"))
    refused(path, "it may be GB18030")
    path.write_text("text,text\na,b\n")
    refused(path, "two columns of one name among: text, text")


def test_csv_field_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a quotation mark that swallows the rest of a large file: the rows after the limit are read."""
    monkeypatch.setattr("hanlin.data.readers.csv.FIELD", 1000)
    path = tmp_path / "a.csv"
    path.write_text('text\n"' + "lost line\n" * 120 + "kept\n" * 3)
    found, tally = read(path)
    assert [document.text for document in found][-1] == "kept"
    assert tally.dropped == {"too long": 1}


def test_json_is_a_stream(tmp_path: Path) -> None:
    """Guards against a long list that is read whole: its first rows come before the damage at its end is met."""
    path = tmp_path / "a.json"
    row = json.dumps({"text": "words " * 100, "more": {"deep": [1, 2, {"a": "]}"}]}})
    path.write_text("[" + ", ".join([row] * 20_000) + ", {")
    assert path.stat().st_size > 10_000_000
    tracemalloc.start()
    tally = Tally()
    found = documents.read(path, tally)
    for _ in range(20_000):
        next(found)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()
    with pytest.raises(DataError, match="not JSON"):
        next(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "not JSON"),
        ('[{"text": ' * 50_000, "not JSON"),
        ('[{"text": 1' + "0" * 5000 + "}]", "not JSON"),
        ('{"text": "a"} {"text": "b"}', "more than one value; rows a line belong into .jsonl"),
        ('[{"text": "a"} {"text": "b"}]', "a list that does not end"),
        ('[{"text": "a"},', "not JSON"),
        ("[1, 2]", "2 x no field 'text', first a.json:1"),
        ("[]", "nothing to read"),
        ("nul", "not JSON"),
        ("[{'text': 1}]", "not JSON: Expecting property name"),
    ],
)
def test_json_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    """Guards against a crash on depth or digits, and against reading half of two rows as one."""
    (tmp_path / "a.json").write_text(text)
    refused(tmp_path / "a.json", words)


def test_json_rows_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a row, a number, an escape or a character cut in two where a piece ends."""
    rows = [{"n": 10**number, "text": f"é四\U0001f600\n\\ {number}"} for number in range(40)]
    for ascii_only in (False, True):
        (tmp_path / "a.json").write_text(json.dumps(rows, ensure_ascii=ascii_only), encoding="utf-8-sig")
        for piece in (1, 2, 3, 7, 64):
            monkeypatch.setattr("hanlin.data.readers.json.PIECE", piece)
            assert [document.text for document in read(tmp_path / "a.json")[0]] == [row["text"] for row in rows]
    (tmp_path / "a.json").write_text("[123456, 7]")
    monkeypatch.setattr("hanlin.data.readers.json.PIECE", 1)
    refused(tmp_path / "a.json", "2 x no field 'text'")


def test_parquet_types(tmp_path: Path) -> None:
    """Guards against nulls as the text "None", and against dictionaries that are not text."""
    coded = pa.array(["one", None, "two"]).dictionary_encode()
    (tmp_path / "a.parquet").write_bytes(table(text=coded))
    found, tally = read(tmp_path / "a.parquet")
    assert [document.source for document in found] == ["a.parquet:1", "a.parquet:3"]
    assert tally.dropped == {"field 'text' is not text": 1}
    (tmp_path / "b.parquet").write_bytes(table(text=[1, 2]))
    refused(tmp_path / "b.parquet", "field 'text' is not text")


def test_damaged_parquet(tmp_path: Path) -> None:
    """Guards against a flipped page that ends in a traceback, or in silence."""
    data = bytearray(table(text=[f"text number {number}" for number in range(5000)]))
    data[len(data) // 3 : len(data) // 3 + 50] = b"\xff" * 50
    (tmp_path / "a.parquet").write_bytes(data)
    (tmp_path / "b.txt").write_text("good")
    found, tally = read(tmp_path)
    assert found[-1].text == "good"
    assert "damaged" in tally.dropped or "not UTF-8" in tally.dropped


def test_html(tmp_path: Path) -> None:
    """Guards against menus in the text, a wrong encoding, and pages of which nothing is said to be taken whole."""
    (tmp_path / "a.html").write_bytes(page(LONG))
    (tmp_path / "b.html").write_bytes(f"<meta charset='gb2312'><p>{'学而时习之，不亦说乎？' * 9}</p>".encode("gbk"))
    (tmp_path / "c.html").write_bytes(b"<p>\xff\xff</p>")
    (tmp_path / "d.html").write_bytes(b"<html><body><script>var x</script></body></html>")
    (tmp_path / "e.html").write_bytes(b"<div>" * 100_000 + b"deep")
    found, tally = read(tmp_path)
    assert found[0].text == LONG
    assert found[1].text.startswith("学而时习之")
    assert tally.dropped["not UTF-8"] == 1
    assert tally.examples["no text in it"] == ["d.html", "e.html"]


def test_pdf(tmp_path: Path) -> None:
    """Guards against a scan that is kept as an empty document."""
    (tmp_path / "a.pdf").write_bytes(pdf(""))
    refused(tmp_path / "a.pdf", "no text in it; a scan needs text recognition first")


@pytest.mark.parametrize(("module", "name"), [("trafilatura", "a.html"), ("pypdf", "a.pdf")])
def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    """Guards against an ImportError: alone the extra is named, in a folder the file is counted under it."""
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(FORMATS[Path(name).suffix][0])
    (tmp_path / "good.txt").write_text("good")
    with pytest.raises(MissingExtra, match=r"hanlin\[documents\]"):
        read(tmp_path / name)
    found, tally = read(tmp_path)
    assert found[0].text == "good"
    assert tally.dropped == {f"{module}: not installed; run: pip install 'hanlin[documents]'": 1}


def test_a_file_that_changes(tmp_path: Path) -> None:
    """Guards against half a file that passes for the whole."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' * 50_000)
    (tmp_path / "b.txt").write_text("good")
    tally = Tally()
    found = documents.read(tmp_path, tally)
    next(found)
    os.truncate(path, 16 * 20_000)
    assert list(found)[-1].text == "good"
    assert tally.dropped["changed while it was read"] == 1


def test_packed_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a small file that keeps a machine busy for a day."""
    monkeypatch.setattr(contract, "FREE", 1 << 20)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n' + b" " * 30_000_000))
    refused(tmp_path / "a.jsonl.gz", "unpacks to too much; at most 200 bytes for each packed byte")


def test_the_first_of_several_fields_that_a_row_has(tmp_path: Path) -> None:
    """Guards against a folder of which half is dropped because its files call the text by different names."""
    rows = ['{"text": "a", "body": "b"}', '{"title": "t", "body": ["c", "d"]}', '{"title": "t"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    tally = Tally()
    found = [each.text for each in documents.read(tmp_path / "rows.jsonl", tally, field="text,body")]
    assert found == ["a", "c\nd"]
    assert tally.dropped == {"no field 'text,body'": 1}
