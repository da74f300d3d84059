"""Reading corpora: what becomes a document, what is dropped, and that each of both is said."""

import gzip
import json
import os
from pathlib import Path

import pytest
import zstandard

from hanlin.data import compressed, documents
from hanlin.data.documents import Document, Tally
from hanlin.data.readers import contract
from hanlin.errors import DataError


def read(path: Path, **options) -> tuple[list[Document], Tally]:
    tally = Tally()
    found = list(documents.read(path, tally, **options))
    assert tally.read == tally.kept + sum(tally.dropped.values()), "everything looked at is accounted for"
    assert tally.kept == len(found)
    assert tally.bytes == sum(len(document.text.encode()) for document in found)
    return found, tally


def refused(path: Path, *expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read(path)
    assert all(line.startswith(str(path)) and "\n" not in line for line in caught.value.problems)
    for words in expected:
        assert words in str(caught.value)


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def test_folder(tmp_path: Path) -> None:
    """Guards against an order that depends on the disk, a missed subfolder, and sources with machine paths."""
    (tmp_path / "z").mkdir()
    (tmp_path / "b.jsonl").write_bytes(lines({"text": "two", "group": "g", "n": 3}, {"text": "three"}))
    (tmp_path / "z" / "c.TXT").write_text("four 四")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "d.exe").write_text("five")
    found, tally = read(tmp_path)
    assert [document.source for document in found] == ["a.txt", "b.jsonl:1", "b.jsonl:2", "z/c.TXT"]
    assert [document.text for document in found] == ["one", "two", "three", "four 四"]
    assert found[1].meta == {"group": "g"}
    assert tally.report()["dropped"] == {"no reader for it": {"count": 1, "examples": ["d.exe"]}}


@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
@pytest.mark.parametrize("packing", ["", ".gz", ".zst", ".zst two frames"])
def test_compressed(tmp_path: Path, ending: str, packing: str) -> None:
    """Guards against an ending that is not unpacked, and a second frame that is forgotten."""
    text = "光阴似箭\n" * 50_000
    data = text.encode() if ending == ".txt" else lines({"text": text})
    half = len(data) // 2
    pack = {
        "": lambda: data,
        ".gz": lambda: gzip.compress(data),
        ".zst": lambda: zstandard.compress(data),
        ".zst two frames": lambda: zstandard.compress(data[:half]) + zstandard.compress(data[half:]),
    }[packing]
    path = tmp_path / f"a{ending}{packing.split(' ')[0]}"
    path.write_bytes(pack())
    assert read(path)[0][0].text == text


def test_text_is_kept_as_it_is(tmp_path: Path) -> None:
    """Guards against a mark or CRLF that reaches the tokenizer, and against any other change of the text."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf  one\r\n\ttwo\rthree \xef\xbb\xbf\n\n")
    assert read(path)[0][0].text == "  one\n\ttwo\rthree \ufeff\n\n"


def test_field(tmp_path: Path) -> None:
    """Guards against a field name that is not passed on."""
    (tmp_path / "a.jsonl").write_bytes(lines({"story": "one", "text": "other"}))
    found, _ = read(tmp_path / "a.jsonl", field="story")
    assert (found[0].text, found[0].meta) == ("one", {"text": "other"})


def test_bad_lines(tmp_path: Path) -> None:
    """Guards against a bad line that ends the file, or that goes uncounted."""
    path = tmp_path / "a.jsonl"
    bad = [b"{", b"[" * 100_000, b'{"t": 1}', b"7", b'{"text": null}', b'{"text": " "}', b"", b'{"text": "\xff"}']
    bad += [b'{"text": "a\\u0000"}', b'{"text": "\\ud83d"}', b'{"text": 1' + b"0" * 5000 + b"}"]
    path.write_bytes(b"\n".join([*bad, b'{"text": "good"}']))
    found, tally = read(path)
    assert [document.source for document in found] == ["a.jsonl:12"]
    assert tally.dropped == {
        "not JSON": 3,
        "no field 'text'": 2,
        "field 'text' is not text": 1,
        "empty": 2,
        "not UTF-8": 1,
        "binary": 1,
        "half a character": 1,
    }
    assert tally.examples["empty"] == ["a.jsonl:6", "a.jsonl:7"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_file_is_a_stream(tmp_path: Path, ending: str) -> None:
    """Guards against unpacking a whole file before its first document: the damage at its end would come first."""
    path = tmp_path / f"a.jsonl.{ending}"
    data = lines({"text": "first"}) + b" " * 20_000_000
    path.write_bytes((gzip.compress(data, 1) if ending == "gz" else zstandard.compress(data))[:-4])
    found = documents.read(path, Tally())
    assert next(found).text == "first"
    with pytest.raises(DataError, match="damaged"):
        next(found)


def test_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a small packed file that fills the memory, as one text or as one line."""
    monkeypatch.setattr(contract, "LONGEST", 1 << 20)
    for name in ("a.txt.gz", "b.jsonl.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"a" * ((1 << 20) + 1)))
        refused(tmp_path / name, "at most 1 MiB", "one document a line")
    (tmp_path / "c.txt").write_text("good")
    assert read(tmp_path)[1].dropped == {"too long": 2}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \n\t", "empty"),
        ("a.txt.gz", b"", "empty"),
        ("a.txt.zst", b"", "empty"),
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b"{\n{\n", "2 x not JSON, first a.jsonl:1"),
        ("a.txt", b"PK\x03\x04\x00", "binary: byte 4 is NUL"),
        ("a.txt", b"abc \xff\xff", "not UTF-8 at byte 4"),
        ("a.txt", b"\xef\xbb\xbfabc \xff\xff", "not UTF-8 at byte 7"),
        ("a.txt", "学而时习之".encode("gb18030"), "not UTF-8 at byte 2; it may be GB18030"),
        ("a.txt", "学而".encode("utf-16"), "it looks like UTF-16"),
        ("a.exe", b"abc", ".xhtml .zip, each also .gz or .zst"),
        ("a", b"abc", "a file ending in ''; one of .csv .htm"),
        ("a.txt.gz", gzip.compress(b"abc" * 1000)[:-9], "damaged: Compressed file ended"),
        ("a.txt.gz", b"abc", "damaged: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"abc" * 1000)[:10] + b"\xff" * 20, "damaged"),
        ("a.txt.zst", zstandard.compress(b"abc" * 1000)[:-5], "damaged: it ends in the middle"),
        ("a.jsonl.zst", zstandard.compress(lines({"text": "a"}) * 9999)[:-5], "damaged: it ends in the middle"),
        ("a.txt.zst", b"abc", "damaged"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    """Guards against a traceback or a silence where a person needs one line; in a folder it is a counted drop."""
    path = tmp_path / name
    path.write_bytes(data)
    refused(path, words)
    (tmp_path / "good.txt").write_text("good")
    found, tally = read(tmp_path)
    assert found[-1].text == "good"
    assert tally.dropped == {next(iter(tally.dropped)): 2 if data == b"{\n{\n" else 1}


def test_missing_and_empty(tmp_path: Path) -> None:
    """Guards against a corpus of nothing that trains on nothing."""
    refused(tmp_path / "missing.txt", "not readable: No such file")
    refused(tmp_path / "a\0.txt", "not readable")
    refused(tmp_path, "nothing to read")
    (tmp_path / "a.exe").write_text("a")
    refused(tmp_path, "nothing to read", "1 x no reader for it, first a.exe")


def test_pipes_and_devices(tmp_path: Path) -> None:
    """Guards against waiting for ever on a pipe."""
    os.mkfifo(tmp_path / "a.txt")
    refused(tmp_path / "a.txt", "not a regular file")
    refused(tmp_path, "1 x not a regular file")
    refused(Path("/dev/zero"), "not a regular file")


def test_links(tmp_path: Path) -> None:
    """Guards against loops, and against a link that brings what lies outside into the corpus."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (corpus / "a.txt").write_text("inside")
    (corpus / "b.txt").symlink_to("a.txt")
    (corpus / "c.txt").symlink_to(tmp_path / "secret.txt")
    (corpus / "d.txt").symlink_to("d.txt")
    (corpus / "e").symlink_to(corpus)
    found, tally = read(corpus)
    assert [document.source for document in found] == ["a.txt", "b.txt"]
    assert tally.dropped == {"link out of the folder": 1, "link to nothing": 1, "link to a folder": 1}
    link = tmp_path / "link"
    link.symlink_to(corpus)
    assert [document.source for document in read(link)[0]] == ["a.txt", "b.txt"]


def test_a_pattern(tmp_path: Path) -> None:
    """Guards against held-out files learned from because only a whole folder can be named."""
    for name in ("a/x.train.txt", "a/x.valid.txt", "b/y.train.txt", "c.train/z.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "b" / "bad.train.txt").write_bytes(b"\xff")
    found, tally = read(tmp_path / "*" / "*train*")
    assert [(document.source, document.text) for document in found] == [
        ("a/x.train.txt", "a/x.train.txt"),
        ("b/y.train.txt", "b/y.train.txt"),
    ]
    assert (tally.read, tally.kept) == (3, 2)
    assert [document.source for document in read(tmp_path / "[bc]*")[0]] == ["b/y.train.txt", "c.train/z.txt"]
    refused(tmp_path / "*.csv", "not readable: No such file")
    (tmp_path / "[x]*.txt").write_text("a name as it is")
    assert read(tmp_path / "[x]*.txt")[0][0].text == "a name as it is"


def test_strange_names(tmp_path: Path) -> None:
    """Guards against a name that is not UTF-8 and stops the manifest from being written."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("text")
    assert read(tmp_path)[0][0].source.encode() == "\ufffd.txt".encode()


def test_dense_zstandard(tmp_path: Path) -> None:
    """Guards against losing or reordering bytes where one piece unpacks to far more than was asked for."""
    data = b"a" * 3_000_000 + b"b" * 3_000_000
    (tmp_path / "a.zst").write_bytes(zstandard.compress(data))
    with compressed.open(tmp_path / "a.zst") as stream:
        assert b"".join(iter(lambda: stream.read(7001), b"")) == data


def test_tally_of_what_is_taken_back() -> None:
    """Guards against a duplicate that still counts as kept."""
    tally = Tally()
    document = tally.keep(Document(text="四", source="a"))
    tally.remove("duplicate", document)
    report = tally.report()
    assert report == {"read": 1, "kept": 0, "bytes": 0, "dropped": {"duplicate": {"count": 1, "examples": ["a"]}}}
