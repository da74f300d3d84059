"""Evaluation rows in training text: every planted one is found, and nothing where there is none."""

from __future__ import annotations

import gzip
import random
import re
from pathlib import Path

import planted
import pytest

from hanlin.data import decontaminate
from hanlin.data.decontaminate import Index
from hanlin.data.duplicates import examined
from hanlin.data.duplicates.examined import Row
from hanlin.data.duplicates.shingles import folded, words
from hanlin.data.tally import Document, Tally
from hanlin.errors import DataError

QUESTION = "A train leaves the station at noon and travels for three hours at sixty miles an hour. How far does it go?"
FRAGE = "小明每天早上七点起床，步行二十分钟到学校，中午在食堂吃饭，下午四点半放学回家。请问他几点到学校？"
SHORT = "How many legs do nine spiders have together?"
KURZ = "世界上最高的山峰叫什么名字？"
TINY = "Great movie!"
ROWS = [Row(source=f"dev:{at}", texts=(text,)) for at, text in enumerate([QUESTION, FRAGE, SHORT, KURZ, TINY])]
FILLER = " ".join(f"Sentence {at} is about something else, {at * 7} of them." for at in range(60))


def _doc(text: str) -> Document:
    return Document(text=text, source="train.txt")


def _spellings(text: str) -> list[str]:
    """Return other spellings of a text that say the same."""
    spread = re.sub(r"(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])", "\n", text.replace(" ", "\n  "))
    wide = "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in text)
    bare = "".join(each if each.isalnum() else " " for each in text)
    return [text, text.upper(), spread, wide, bare, f"**{text}** …", text.replace("，", ",").replace("。", ".")]


@pytest.mark.parametrize("at", range(4))
def test_every_spelling_is_found_anywhere(at: int) -> None:
    """Guards against case, width, punctuation, white space or the text around hiding a row, and against wrong rows."""
    index = Index(ROWS)
    for text in _spellings(ROWS[at].texts[0]):
        for document in (text, f"{FILLER}\n{text}\n{FILLER}", f"前文在此。{text}后文在此。", f"{text} {text}"):
            assert index.found(_doc(document)).rows == ((f"dev:{at}", 1.0),)


def test_a_tiny_row_is_found_as_a_whole_document_alone() -> None:
    """Guards against every document that says `great movie` taken for a leak, and against the row itself not seen."""
    index = Index(ROWS)
    assert index.found(_doc(" GREAT   movie")).rows == (("dev:4", 1.0),)
    assert not index.found(_doc("A great movie! " + FILLER))


def test_nothing_is_found_where_nothing_is() -> None:
    """Guards against alarms on empty text, on fewer words than are looked at, and on words in another order."""
    index = Index(ROWS)
    draw = random.Random(0)
    for text in (
        "",
        " ",
        "!",
        "legs",
        FILLER,
        QUESTION[:40],
        FRAGE[:12],
        *(" ".join(draw.sample(QUESTION.split(), 20)),),
    ):
        assert index.found(_doc(text)) == decontaminate.Overlap(source="train.txt", rows=(), spans=())
    assert not Index([]).found(_doc(FILLER))


def test_the_share_is_that_of_the_row() -> None:
    """Guards against a share of the document, and against one n-gram counted twice."""
    size = len(words(folded(QUESTION))[0])
    first = " ".join(QUESTION.split()[:15])
    (found,) = Index(ROWS).found(_doc(f"{first}. {FILLER} {first}.")).rows
    assert found == ("dev:0", pytest.approx(3 / (size - decontaminate.WORDS + 1)))
    assert not Index(ROWS).found(_doc(first), share=0.5)


def test_rows_that_share_a_text_are_all_named() -> None:
    """Guards against only one of the rows with the same passage being listed."""
    rows = [Row(source=f"{at}", texts=(QUESTION, f"{FRAGE}{at}")) for at in range(3)]
    assert [row for row, _ in Index(rows).found(_doc(QUESTION)).rows] == ["0", "1", "2"]


def test_what_many_rows_share_is_no_leak() -> None:
    """Guards against an instruction before every row, a label or a row of tags making all training text a leak."""
    frame = "Read the following passage with care and then answer the question below in one word: "
    rows = [Row(source=f"{at}", texts=(frame, "O O B-PER I-PER " * 9)) for at in range(30)]
    rows[3] = Row(source="3", texts=(f"{frame} {QUESTION}",))
    index = Index(rows)
    assert not index.found(_doc(frame + FILLER))
    assert not index.found(_doc("O B-PER O O I-PER " * 9))
    assert index.found(_doc(QUESTION)).rows[0][0] == "3"
    assert index.unseen == tuple(f"{at}" for at in range(30) if at != 3)
    assert Index(ROWS).unseen == ()


@pytest.mark.parametrize("piece", [600, 5000])
def test_pieces_make_no_difference(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a row lost where a long document is cut, and against places counted from the wrong beginning."""
    text = f"é{FILLER}{QUESTION}{FILLER}e\u0301 {FRAGE}{FILLER}"
    whole = Index(ROWS).found(_doc(text))
    monkeypatch.setattr(decontaminate, "PIECE", piece)
    monkeypatch.setattr(decontaminate, "SHARED", 300)
    assert Index(ROWS).found(_doc(text)) == whole
    assert [text[begin:end] for begin, end in whole.spans] == [QUESTION.rstrip("?"), FRAGE.rstrip("？")]


def test_documents_are_dropped_or_cut() -> None:
    """Guards against a leak kept, a neighbour lost with it, and a tally that is not told."""
    documents = [_doc(FILLER), _doc(f"{FILLER} {QUESTION} {FILLER}"), _doc(f"Well: {FRAGE}")]
    for cut, kept in ((False, [FILLER]), (True, [FILLER, f"{FILLER}\n\n? {FILLER}"])):
        tally = Tally()
        read = [tally.keep(document) for document in documents]
        found = [each.text for each in decontaminate.remove(read, Index(ROWS), tally, cut=cut)]
        assert found == kept
        assert tally.dropped == {"in an evaluation file": 3 - len(kept)}
        assert tally.examples["in an evaluation file"][-1] == "train.txt of dev:1"
        assert tally.bytes == sum(len(text.encode()) for text in kept)


def test_rows_of_every_format_are_read(tmp_path: Path) -> None:
    """Guards against a field, a list or the tokens of a tagged row that nobody looks for."""
    (tmp_path / "a.jsonl").write_text(
        '{"question": "Why so?", "choices": ["Because of this", "那个"], "n": 3, "tokens": ["EU", "rejects", "it"]}\n\n'
        '{"question": "", "answers": {"text": ["one more"]}}\n'
    )
    (tmp_path / "b.csv").write_text('question,answer\n"Why, so?","two\nlines"\n')
    (tmp_path / "c.tsv.gz").write_bytes(gzip.compress(b'question\tanswer\nsay "x"\tyes\n'))
    (tmp_path / "d.txt").write_text("one line\n\nanother\n")
    found = {path.name: list(examined.read(path)) for path in sorted(tmp_path.iterdir())}
    assert found == {
        "a.jsonl": [
            Row(source="a.jsonl:1", texts=("Why so?", "Because of this", "那个", "EU rejects it")),
            Row(source="a.jsonl:3", texts=("one more",)),
        ],
        "b.csv": [Row(source="b.csv:3", texts=("Why, so?", "two\nlines"))],
        "c.tsv.gz": [Row(source="c.tsv.gz:2", texts=('say "x"', "yes"))],
        "d.txt": [Row(source="d.txt:1", texts=("one line",)), Row(source="d.txt:3", texts=("another",))],
    }
    assert list(examined.read(tmp_path / "b.csv", ["answer"])) == [Row(source="b.csv:3", texts=("two\nlines",))]


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.jsonl", b"{"), ("a.jsonl", b'"\xff"'), ("a.csv.gz", b"no"), ("absent.tsv", None), ("a.x", b"x")],
)
def test_an_evaluation_file_that_cannot_be_read_is_refused(name: str, data: bytes | None, tmp_path: Path) -> None:
    """Guards against a broken file looked for in part, which would read as: nothing found."""
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=name):
        list(examined.read(tmp_path / name))


@pytest.mark.parametrize(
    ("language", "files"),
    [
        ("en", ["choice/arc_easy/dev.jsonl", "similarity/mrpc/dev.jsonl", "instruct/alpaca_en/dev.jsonl"]),
        ("zh", ["nli/ocnli/dev.jsonl", "similarity/lcqmc/dev.jsonl", "instruct/alpaca_zh/dev.jsonl"]),
    ],
)
def test_planted_rows_of_real_files_are_all_found(language: str, files: list[str], real_data: Path) -> None:
    """Guards against a real row that slips through, copied, re-spelled or inside another text, and false alarms."""
    texts = list(planted.passages(real_data, language, 200))
    for name in files:
        index = Index(examined.read(real_data / "data" / name))
        clean = [index.found(_doc(text), share=0.5) for text in texts]
        assert not any(clean), [overlap for overlap in clean if overlap]
        for number, row in enumerate(examined.read(real_data / "data" / name)):
            longest = max(row.texts, key=lambda text: len(words(folded(text))[0]))
            if number % 5 or row.source in index.unseen or len(words(folded(longest))[0]) < decontaminate.FEWEST_SIGNS:
                continue
            host = texts[number % len(texts)]
            spelled = _spellings(longest)[number % 7]
            for text in (spelled, f"{host}\n{spelled}\n{host}"):
                shares = dict(index.found(_doc(text)).rows)
                assert shares.get(row.source) == 1.0, row
