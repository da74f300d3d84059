"""From a document to shards and models: `hanlin trace`."""

import json
from pathlib import Path

import pytest
from corpora import chinese, english, prepare, write

from hanlin import cli
from hanlin.data import manifest, shards
from hanlin.data.pipeline.mixing import Mix
from hanlin.data.store import trace


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return shards of two files, one document of which is shown more than once."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in" / "en.jsonl", [english(n) for n in range(20)])
    write(tmp_path / "in" / "zh.jsonl", [f"  {chinese(n)}\r\n" for n in range(5)])
    prepare(valid_fraction=0, mix=Mix(weights={"en": 1, "zh": 1}, most=9), clean=("whitespace",))
    return tmp_path


def test_by_source_file_text_and_hash(folder):
    """Guards against an answer about another row, and a text that cleaning has made unfindable."""
    (first, *more) = trace.find(Path("out"), "zh.jsonl:3")
    assert (first.split, first.shard, first.origin.repeat) == ("train", "train-00000.safetensors", 0)
    assert [each.origin.repeat for each in more] == list(range(1, len(more) + 1))
    assert more
    assert len(list(trace.find(Path("out"), "en.jsonl"))) == 20
    assert list(trace.find(Path("out"), trace.digest(f"{chinese(2)}\n"))) == [first, *more]
    assert list(trace.find(Path("out"), first.origin.digest)) == [first, *more]
    assert not list(trace.find(Path("out"), "en.jsonl:99"))
    assert not list(trace.find(Path("out"), "en"))


def test_back_from_a_token(folder):
    """Guards against a token that is said to be its neighbour's."""
    data = shards.open("out", "train")
    for place in trace.find(Path("out"), "en.jsonl:7"):
        assert trace.at(data, place.start) == trace.at(data, place.stop - 1) == place
        assert trace.at(data, place.stop) != place
    with pytest.raises(IndexError):
        trace.at(data, data.total)


def test_the_shard_of_many(folder, monkeypatch):
    """Guards against a document that is looked for in the wrong file."""
    monkeypatch.setattr(shards.write, "__kwdefaults__", {**shards.write.__kwdefaults__, "shard_tokens": 500})
    prepare("many", valid_fraction=0)
    for place in trace.find(Path("many"), "en.jsonl"):
        held = shards._map(Path("many"), _named(place.shard), manifest.read(Path("many")), False)
        assert place.stop - place.start in held[1].tolist()
    assert len({place.shard for place in trace.find(Path("many"), "en.jsonl")}) > 2


def _named(file):
    """Return what the manifest says of a file."""
    return next(each for each in manifest.read(Path("many")).splits["train"].shards if each.file == file)


def test_which_models_saw_it(folder, capsys):
    """Guards against a model that is forgotten, and one that is accused for its neighbour's data."""
    hash = manifest.read(Path("out")).hash
    for name, card in {
        "runs/a": {"lineage": {"data": hash}},
        "runs/deep/b": {"lineage": {"data": hash}},
        "runs/c": {"lineage": {"data": "other"}},
        "runs/d": {"lineage": None},
        "runs/e": [],
    }.items():
        Path(name).mkdir(parents=True)
        Path(name, "hanlin.json").write_text(json.dumps(card))
    Path("runs/f").mkdir()
    Path("runs/f/hanlin.json").write_bytes(b"\xff{")
    assert trace.learned(Path("runs"), hash) == [Path("runs/a"), Path("runs/deep/b")]
    Path("asked.txt").write_text(chinese(2))
    assert cli.run(["trace", "out", "--text", "asked.txt", "--models", "runs"]) == 0
    said = capsys.readouterr().out
    assert "zh.jsonl:3, repeat 0" in said
    assert "runs/a learned from these shards" in said
    assert "runs/c" not in said
    assert json.loads(Path("out/report.json").read_text())["data"] == hash


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["out"], "trace: 0 documents named; one of --source, --text, --hash"),
        (["out", "--source", "a", "--hash", "b"], "trace: 2 documents named"),
        (["out", "--text", "nowhere"], "nowhere: not readable"),
        (["in", "--source", "a"], "in: no manifest.json"),
    ],
)
def test_what_cannot_be_is_one_line(folder, capsys, words, line):
    """Guards against an answer to no question."""
    assert cli.run(["trace", *words]) == 1
    assert line in capsys.readouterr().err


def test_what_is_not_there_is_said(folder, capsys):
    """Guards against silence that could mean anything."""
    assert cli.run(["trace", "out", "--source", "en.jsonl:99", "--models", "in"]) == 0
    said = capsys.readouterr().out
    assert "not in out: en.jsonl:99" in said
    assert "no model below in names these shards" in said


def test_shards_of_before_have_sources_too(folder):
    """Guards against folders that an earlier version made and this one cannot open."""
    import zstandard

    path = Path("out/sources-train.jsonl.zst")
    found = shards.open("out", "train").sources()
    path.write_bytes(zstandard.compress("".join(json.dumps(source) + "\n" for source in found).encode()))
    plain = json.loads(Path("out/manifest.json").read_text())
    plain["files"]["sources-train.jsonl.zst"] = __import__("hashlib").sha256(path.read_bytes()).hexdigest()
    Path("out/manifest.json").write_text(json.dumps(plain))
    data = shards.open("out", "train")
    assert data.sources() == found
    assert data.origins()[0] == shards.Origin("en.jsonl:1")
