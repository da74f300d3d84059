"""A corpus in parts: read anywhere, decided on together, and the same shards whoever did the work."""

import json
import os
import shutil
from pathlib import Path

import pytest

from hanlin.data import documents, shards
from hanlin.data.pipeline import corpus, gathered, parts, pool, reading, tokenizing
from hanlin.data.tally import Tally
from hanlin.errors import ConfigError, DataError, RunError
from hanlin.text.tokenizer import Config as Wanted

WORDS = ("model", "learns", "text", "writes", "翰林", "院士", "春秋", "读书", "river", "stone", "cloud", "lamp")
MENU = "Home | About us | Contact | Terms of use"


def text(number):
    """Return a text unlike every other number's."""
    return " ".join(
        WORDS[(number * 7 + step * step * (1 + number % 5)) % len(WORDS)] + str(number) for step in range(12)
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a corpus of several files, with equal texts, nearly equal ones, and lines that all share."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    rows = [{"text": f"{text(n)}\n{MENU if n % 3 == 0 else ''}"} for n in range(200)]
    rows[150] = rows[20]
    rows[160] = {"text": rows[30]["text"] + " lamp"}
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "in" / "b.txt").write_text(text(300))
    (tmp_path / "in" / "c.txt").write_text(text(20) + "\n")
    (tmp_path / "in" / "sub" / "d.jsonl").write_text(
        "\n".join([*lines[:3], "{broken", json.dumps({"text": text(400)})])
    )
    (tmp_path / "in" / "e.bin").write_bytes(b"\0\1")
    return tmp_path


def plan(**changes):
    asked = {
        "source": "in",
        "valid": None,
        "valid_fraction": 0.1,
        "field": "text",
        "limit_bytes": None,
        "clean": (),
        "near": 0.8,
        "lines": 3,
        "tokenizer": Wanted(kind="bytes"),
        "seed": 0,
    }
    return corpus.Plan(**{**asked, **changes})


def prepare(output="out", *, engine="local", workers=1, watch=lambda *_: None, **changes):
    return corpus.prepare(plan(**changes), Path(output), engine=engine, workers=workers, watch=watch)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def held(folder, split="train"):
    """Return the texts of a split."""
    from hanlin.text.tokenizer import Tokenizer

    data, tokenizer = shards.open(folder, split), Tokenizer.load(folder)
    return [tokenizer.decode(data.document(number).tolist()) for number in range(data.documents)]


class TestParts:
    """How a corpus is cut."""

    @pytest.mark.parametrize("size", [1, 100, 1000, 10_000, 10**9])
    def test_cut_and_read_again_is_all_of_it_in_order(self, folder, size):
        """Guards against a line lost or read twice at a cut, and numbers of lines that begin anew."""
        whole = [(each.source, each.text) for each in documents.read("in", Tally())]
        found = parts.cut({"train": "in"}, Tally(), size)
        assert [part.number for part in found] == list(range(len(found)))
        pieces = [piece for part in found for piece in part.pieces]
        assert [(each.source, each.text) for piece in pieces for each in documents.of(piece, Tally())] == whole
        assert len(pieces) > 100 or size > 100

    def test_lines_without_an_end_and_empty_ones(self, folder):
        """Guards against a cut behind the last byte, and one inside a line that is longer than a part."""
        rows = [json.dumps({"text": "x" * 500}), "", json.dumps({"text": "y"})]
        for ending in ("", "\n"):
            Path("rows.jsonl").write_text("\n".join(rows) + ending)
            for size in (1, 10, 511, 512, 513, 514, 515):
                (part, *more) = parts.cut({"train": "rows.jsonl"}, Tally(), size)
                pieces = [piece for each in (part, *more) for piece in each.pieces]
                found = [each for piece in pieces for each in documents.of(piece, Tally())]
                assert [(each.source, len(each.text)) for each in found] == [("rows.jsonl:1", 500), ("rows.jsonl:3", 1)]

    def test_a_changed_file_is_noticed(self, folder):
        """Guards against parts of an older corpus in the shards of a new one."""
        before = parts.fingerprint(parts.cut({"train": "in"}, Tally()))
        assert parts.fingerprint(parts.cut({"train": "in"}, Tally())) == before
        os.utime("in/b.txt", (1, 1))
        assert parts.fingerprint(parts.cut({"train": "in"}, Tally())) != before


class TestDecisions:
    """What is kept, and where it goes."""

    def test_equal_nearly_equal_and_shared(self, folder):
        """Guards against a copy that is kept, a first that is dropped, and a menu that is learned a hundred times."""
        manifest = prepare()
        report = manifest.report
        found = [*held("out"), *held("out", "valid")]
        assert report["dropped"]["duplicate"]["count"] == 5  # a row, c.txt, three rows of d.jsonl
        assert report["dropped"]["duplicate"]["examples"][0] == "a.jsonl:151 of a.jsonl:21"
        assert report["dropped"]["near duplicate"]["examples"][0] == "a.jsonl:161 of a.jsonl:31"
        assert report["dropped"]["not JSON"]["count"] == 1
        assert report["dropped"]["no reader for it"]["count"] == 1
        assert sum(MENU in each for each in found) == 1
        assert report["changed"]["repeated lines"]["documents"] > 50
        assert report["kept"] == len(found) == sum(split.documents for split in manifest.splits.values())
        assert report["read"] == report["kept"] + sum(each["count"] for each in report["dropped"].values())
        assert report["bytes"] == sum(split.bytes for split in manifest.splits.values())
        assert 5 < manifest.splits["valid"].documents < 40

    def test_without_them_everything_stays(self, folder):
        """Guards against steps that nobody asked for."""
        manifest = prepare(near=None, lines=None)
        assert set(manifest.report["dropped"]) == {"duplicate", "not JSON", "no reader for it"}
        assert "changed" not in manifest.report
        assert sum(MENU in each for each in held("out")) > 40

    def test_what_is_held_out_is_never_learned_from(self, folder):
        """Guards against a held-out text that also stands in the training corpus, or nearly so."""
        Path("own.jsonl").write_text("\n".join(json.dumps({"text": text(n)}) for n in (1, 2, 500)))
        prepare(valid="own.jsonl", near=0.8)
        assert len(held("out", "valid")) == 3
        train = "\n".join(held("out"))
        assert text(1) not in train
        assert text(4) in train

    def test_cleaning_is_done_and_told(self, folder):
        """Guards against steps that are named in the manifest and not run, or run and not named."""
        manifest = prepare(clean=("whitespace", "length"), near=None, lines=None)
        assert [next(iter(step)) for step in manifest.report["clean"]] == ["whitespace", "length"]
        assert manifest.report["changed"]["whitespace"]["documents"] > 50

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"source": "nowhere"}, "nowhere: not readable"),
            ({"source": "in/e.bin"}, "in/e.bin: a file ending in '.bin'"),
            ({"valid": "in", "near": None}, "nothing is left to learn from"),
            ({"clean": ("lenght",)}, "did you mean 'length'?"),
        ],
    )
    def test_what_cannot_be_is_one_line_and_leaves_nothing(self, folder, changes, line):
        """Guards against a traceback, an empty folder of shards, or hours of work before the refusal."""
        with pytest.raises((DataError, ConfigError)) as caught:
            prepare(**changes)
        assert any(line in each for each in caught.value.problems), caught.value.problems
        assert not Path("out").exists()


class TestSameForAll:
    """The shards do not depend on who worked, how often, or where it was stopped."""

    @pytest.fixture
    def small(self, monkeypatch):
        """Cut the corpus into many parts."""
        monkeypatch.setattr(parts, "SIZE", 2000)
        monkeypatch.setattr(parts.cut, "__defaults__", (2000,))

    def test_any_number_of_parts(self, folder, monkeypatch):
        """Guards against a decision that depends on where the corpus was cut."""
        prepare("one")
        for size in (500, 3000):
            monkeypatch.setattr(parts.cut, "__defaults__", (size,))
            prepare("many")
            one, many = content("one"), content("many")
            assert {name: one[name] for name in one if name != "manifest.json"} == {
                name: many[name] for name in many if name != "manifest.json"
            }
            assert json.loads(one["manifest.json"]) == json.loads(many["manifest.json"])

    @pytest.mark.multiprocess
    def test_processes(self, folder, small):
        """Guards against results in the order in which processes end."""
        prepare("one")
        prepare("two", workers=2)
        assert content("one") == content("two")

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")  # Ray warns of itself
    def test_ray(self, folder, small):
        """Guards against a cluster that makes other shards than one machine."""
        ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'hanlin[cluster]'")
        prepare("one")
        try:
            prepare("two", engine="ray", workers=2)
            assert ray.is_initialized(), "somebody else did the work"
        finally:
            ray.shutdown()
        assert content("one") == content("two")

    def test_an_unknown_engine(self, folder):
        """Guards against a typo that runs somewhere else."""
        with pytest.raises(ConfigError, match="engine: 'rai'; one of: local, ray"):
            prepare(engine="rai")

    @pytest.mark.parametrize("stop", range(0, 24, 3))
    def test_stopped_anywhere_and_gone_on(self, folder, small, monkeypatch, stop):
        """Guards against work done twice, lost, or half-written files taken for whole ones."""
        prepare("one")
        done = []
        for module, name in ((reading, "read"), (tokenizing, "tokenize")):
            task = getattr(module, name)

            def counted(given, task=task, name=name):
                if len(done) == stop:
                    raise KeyboardInterrupt
                task(given)
                done.append(name)

            monkeypatch.setattr(module, name, counted)
        with pytest.raises(KeyboardInterrupt):
            prepare("two")
        assert not Path("two").exists()
        assert len(done) == stop
        stop = None
        prepare("two")
        assert content("one") == content("two")
        assert not Path(".two.work").exists()

    def test_done_parts_are_not_done_again(self, folder, small, monkeypatch):
        """Guards against a resumed run that begins from nothing."""
        real, calls = gathered.minhash.signature, []
        monkeypatch.setattr(gathered.minhash, "signature", lambda text: (calls.append(text), real(text))[1])
        monkeypatch.setattr(tokenizing, "tokenize", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare()
        first = len(calls)
        monkeypatch.undo()
        os.chdir(folder)
        monkeypatch.setattr(parts.cut, "__defaults__", (2000,))
        monkeypatch.setattr(gathered.minhash, "signature", lambda text: (calls.append(text), real(text))[1])
        prepare()
        assert len(calls) == first > 100

    @pytest.mark.parametrize("change", ["seed", "file"])
    def test_another_question_begins_anew(self, folder, small, monkeypatch, change):
        """Guards against shards made half of one corpus and half of another."""
        monkeypatch.setattr(tokenizing, "tokenize", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare()
        monkeypatch.undo()
        os.chdir(folder)
        if change == "file":
            Path("in/b.txt").write_text(text(301))
        changes = {"seed": 1} if change == "seed" else {}
        prepare(**changes)
        prepare("fresh", **changes)
        assert content("out") == content("fresh")

    def test_two_at_once_are_not(self, folder):
        """Guards against two processes that write the same parts."""
        from filelock import FileLock

        Path(".out.work").mkdir()
        with FileLock(".out.work/lock"), pytest.raises(RunError, match="another process is preparing it"):
            prepare()


def test_a_killed_process_is_one_line():
    """Guards against a traceback of the pool when the system ends a process for its memory."""
    with pytest.raises(RunError, match="a process was killed"):
        list(pool.run("local", os._exit, [1, 1, 1], 2))


def test_tallies_add_up():
    """Guards against an account that loses what one process counted."""
    one, two = Tally(), Tally()
    for tally, source in ((one, "a"), (two, "b")):
        tally.keep(documents.Document(text="ab", source=source))
        tally.drop("bad", source, "details")
        tally.note("decided")
        tally.change(
            "step", documents.Document(text="a\nb", source=source), documents.Document(text="a", source=source)
        )
    one.merge(Tally.of(json.loads(json.dumps(two.plain()))))
    assert (one.read, one.kept, one.bytes) == (4, 2, 0)
    assert one.examples == {"bad": ["a", "b"]}
    assert one.report()["changed"]["step"] == {"documents": 2, "lines": 2, "characters": 4}
    assert one.notes == {"decided": 2}


def test_the_work_folder_goes(folder):
    """Guards against copies of the corpus that stay beside the shards."""
    prepare()
    assert sorted(each.name for each in folder.iterdir()) == ["in", "out"]
    shutil.rmtree("out")
