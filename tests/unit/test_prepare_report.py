"""report.html and report.json: complete, escaped, of one piece, and the same whoever did the work."""

import json
import re
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from corpora import chinese, english, prepare, write

from hanlin.data import manifest
from hanlin.data.pipeline.mixing import Mix
from hanlin.data.report import pictures

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
VOID = {"meta", "br"}
OPEN_ENDED = {"td", "th", "tr"}  # closed by the next one


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a corpus with names and texts that would like to be part of the page."""
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path / "in" / "en.jsonl",
        [f"{english(n)}  \nann@corp-mail.org" for n in range(30)] + [f"{english(3)}  \nann@corp-mail.org"],
    )
    write(tmp_path / "in" / "zh.jsonl", [chinese(n) for n in range(20)] + [f"{EVIL} 太短"])
    write(tmp_path / "in" / "a<b>&amp;.jsonl", ["太短了"])
    (tmp_path / "in" / "x.bin").write_bytes(b"\0")
    write(tmp_path / "exam.jsonl", [english(3)])
    prepare(
        clean=("whitespace", "length"), near=0.8, against=("exam.jsonl",), anonymize="mask", mix=Mix(temperature=0.5)
    )
    return tmp_path


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note a tag and everything it refers to."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID | OPEN_ENDED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Every tag is closed in its turn."""
        if tag not in OPEN_ENDED | {"rect", "text", "tspan"} or tag in self.open:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        """Note a tag without content."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        """Note a text."""
        self.texts.append(data)


def test_the_page_is_of_one_piece_and_runs_nothing(folder):
    """Guards against a corpus that writes the page, and a page that asks a server for its parts."""
    text = Path("out/report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe", "object", "a", "form"}
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on") or key in ("src", "href")]
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\s\"]+", text)) <= {"http://www.w3.org/2000/svg"}
    said = "\n".join(page.texts)
    assert EVIL in said  # shown as what it is
    assert "a<b>&amp;.jsonl:1" in said
    assert "太短了" in said


def test_everything_that_was_counted_is_shown(folder):
    """Guards against a reason, a step or a file that the page forgets."""
    report = manifest.read(Path("out")).report
    said = "\n".join(Page(Path("out/report.html").read_text(encoding="utf-8")).texts)
    for reason, each in report["dropped"].items():
        assert reason in said
        assert all(example in said for example in each["examples"])
    for name in (*report["changed"], *report["mixture"], "x.bin", "exam.jsonl", "zh", "latin", "Personal data"):
        assert name in said
    assert f"{report['kept']:,} were kept" in said


def test_hashes_are_those_of_the_files(folder):
    """Guards against a lineage of other files."""
    found = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    assert {each["name"] for each in found["files"]} == {path.name for path in Path("in").iterdir()}
    for each in found["files"]:
        assert each["sha256"] == sha256(Path("in", each["name"]).read_bytes()).hexdigest()
    for name, digest in found["shards"].items():
        assert digest == sha256(Path("out", name).read_bytes()).hexdigest()
    assert found["data"] == manifest.read(Path("out")).hash
    assert found["tokenizer"] == manifest.read(Path("out")).tokenizer_hash


def test_pictures_add_up(folder):
    """Guards against bars of other numbers."""
    found = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    kept = sum(each["documents"] for each in found["languages"].values())
    assert kept == 50
    assert all(sum(each["lengths"].values()) == each["documents"] for each in found["languages"].values())
    assert found["languages"]["zh"]["documents"] == 20
    assert pictures.histogram({}, "nothing").endswith("</svg>")
    wide = [float(each) for each in re.findall(r'width="([\d.]+)" height="16"', pictures.bars({"a": 30, "翰": 10}, ""))]
    assert wide[0] == pytest.approx(3 * wide[1], rel=1e-3)
    assert "翰" in pictures.bars({"翰": 1}, "")


def test_many_files_are_named_in_part(folder, monkeypatch):
    """Guards against a page of a million rows."""
    monkeypatch.setattr("hanlin.data.report.account.NAMED", 2)
    prepare()
    found = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    assert (len(found["files"]), found["more_files"]) == (2, 2)
    assert "and 2 more" in Path("out/report.html").read_text(encoding="utf-8")
