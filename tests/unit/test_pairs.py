"""Parallel files: which file is the other side, which way, and what is refused."""

import gzip
from pathlib import Path

import pytest

from hanlin.errors import DataError
from hanlin.tasks.reading import pairs


def write(folder, **sides):
    """Write train.<language> for each side; return the first."""
    paths = []
    for language, lines in sides.items():
        paths.append(folder / f"train.{language}")
        paths[-1].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return paths[0]


def both(raws):
    return [(raw.values["source"], raw.values["target"]) for raw in raws]


def test_one_side_names_the_other(tmp_path):
    """Guards against sides changed, and lines that a carriage return or a line separator splits."""
    path = write(tmp_path, en=["a\u2028b", "c"], zh=["甲", "乙\x0b丙"])
    assert both(pairs.read(path)) == [("a\u2028b", "甲"), ("c", "乙\x0b丙")]
    assert both(pairs.read(path.with_suffix(".zh"))) == [("甲", "a\u2028b"), ("乙\x0b丙", "c")]
    first = next(pairs.read(path))
    assert (first.values["source_language"], first.values["target_language"]) == ("en", "zh")


def test_directions_of_many_sides(tmp_path):
    """Guards against a direction lost, or read the wrong way round."""
    path = write(tmp_path, en=["a"], de=["b"], zh=["丙"])
    found = both(pairs.read(path, ["en-de", "zh-en", "de-zh"]))
    assert found == [("a", "b"), ("丙", "a"), ("b", "丙")]
    with pytest.raises(DataError, match=r"other sides: de, zh.*directions"):
        list(pairs.read(path))
    with pytest.raises(DataError, match=r"no side 'fr'"):
        list(pairs.read(path, ["en-fr", "fr-en"]))
    for wrong in ("en", "en-", "en-en"):
        with pytest.raises(DataError, match="two languages"):
            list(pairs.read(path, [wrong]))


def test_packed_and_plain_sides(tmp_path):
    """Guards against train.en.gz that does not find train.de."""
    write(tmp_path, de=["b"])
    packed = tmp_path / "train.en.gz"
    packed.write_bytes(gzip.compress(b"a\r\n"))
    assert both(pairs.read(packed)) == [("a", "b")]


def test_unequal_files_name_both_counts(tmp_path):
    """Guards against pairs that shift silently, and against a row given out before the count is known."""
    path = write(tmp_path, en=["a", "b", "c"], de=["x"])
    with pytest.raises(DataError, match=r"3 lines in train\.en, 1 in train\.de") as caught:
        next(pairs.read(path))
    assert len(caught.value.problems) == 1


def test_empty_sides_are_errors_of_their_rows(tmp_path):
    """Guards against empty translations that are learned from."""
    raws = list(pairs.read(write(tmp_path, en=["a", " ", "c", ""], de=["", "b", "d", "\t"])))
    assert [raw.error for raw in raws] == ["empty target", "empty source", "", "empty source and target"]
    assert [raw.number for raw in raws] == [1, 2, 3, 4]


def test_questions_have_no_other_side(tmp_path):
    """Guards against `predict` on a file that has no translation yet."""
    path = write(tmp_path, en=["a", ""])
    raws = list(pairs.read(path, ["en-de"]))
    assert raws[0].values == {"source": "a", "source_language": "en", "target_language": "de"}
    assert raws[1].error == "empty source"
    assert "target" not in next(pairs.read(path)).values


def test_files_that_are_none(tmp_path):
    """Guards against a traceback: no file, bytes that are no text, a packed file cut in the middle."""
    path = write(tmp_path, en=["a"], de=["b"])
    with pytest.raises(DataError, match=r"no such file.*train\.en"):
        list(pairs.read(tmp_path / "trian.en"))
    path.with_suffix(".de").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match="not UTF-8"):
        list(pairs.read(path))
    (tmp_path / "cut.en.gz").write_bytes(gzip.compress(b"a\n" * 1000)[:-12])
    with pytest.raises(DataError, match="cannot be read"):
        list(pairs.read(tmp_path / "cut.en.gz"))


def test_tables_are_not_parallel():
    """Guards against rows.jsonl taken for the language jsonl."""
    assert not any(pairs.parallel(Path(name)) for name in ("a.jsonl", "a.csv.gz", "a.TSV", "rows", "a.txt.zst"))
    assert all(pairs.parallel(Path(name)) for name in ("a.en", "a.zh-Hans.gz", "x.y.de"))
