"""A messy folder is indexed, searched, asked, changed; a wrong model and a bad index are refused in one line."""

from __future__ import annotations

import json
import shutil

import pytest

from hanlin import bundle, cli
from hanlin.data.tally import Document
from hanlin.errors import BundleError, ConfigError, DataError, RunError
from hanlin.models import bert
from hanlin.models.sentences import Pooling
from hanlin.serve.search import encoder, index
from hanlin.serve.search.ask import Asker
from hanlin.text.tokenizer import byte_level

MODEL = bert.Config(vocab=259, dim=8, layers=1, heads=2, hidden=12, context=64)
RIVER = "The bridge was closed in spring. People crossed the river by boat. Nobody minded."
CHINESE = "旧桥在春天封了。镇上的人坐船过河。船夫很忙😀。"


@pytest.fixture
def corpus(tmp_path):
    """Return a folder of texts, rows and junk."""
    root = tmp_path / "corpus"
    (root / "sub").mkdir(parents=True)
    (root / "river.txt").write_text(RIVER)
    (root / "sub" / "it's.md").write_text(f"# 笔记\n\n{CHINESE}", encoding="utf-8")
    rows = [{"text": f"Row {n} tells of duck number {n} and its pond."} for n in range(5)]
    (root / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    (root / "junk.txt").write_bytes(bytes(range(256)))
    (root / "empty.txt").write_text("")
    return root


@pytest.fixture
def models(tmp_path):
    """Return the folders of two encoders."""
    for seed, name in enumerate(("one", "two")):
        model = MODEL.build(seed=seed)
        bundle.write(tmp_path / name, model, byte_level(), pooling=Pooling(context=64))
    return tmp_path / "one", tmp_path / "two"


def said(capsys, *words):
    """Run a command that succeeds and return what it printed."""
    code = cli.run([str(each) for each in words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def refused(capsys, *words):
    """Run a command that fails and return its one line."""
    assert cli.run([str(each) for each in words]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if line.startswith("error:")]) == 1
    return lines[-1]


def test_words_alone(corpus, tmp_path, capsys):
    """A person without a model: index, query, ask, change, delete."""
    place = tmp_path / "index"
    out = said(capsys, "search", "index", corpus, "--output", place)
    assert "7 added" in out
    assert "junk.txt" in out
    assert "words alone" in out
    assert "7 unchanged; 0 passages" in said(capsys, "search", "index", corpus, "--output", place)
    line = said(capsys, "search", "query", place, "坐船", "--json").splitlines()[0]
    hit = json.loads(line)
    whole = (corpus / "sub" / "it's.md").read_text(encoding="utf-8")
    assert hit["source"] == "sub/it's.md"
    assert whole[hit["start"] : hit["stop"]] == hit["text"]
    answer = json.loads(said(capsys, "ask", place, "who crossed the river by boat?", "--json"))
    assert answer["text"] == "People crossed the river by boat."
    assert RIVER[answer["start"] : answer["stop"]] == answer["text"]
    assert "river.txt:33-66" in said(capsys, "ask", place, "who crossed the river by boat?")
    assert said(capsys, "ask", place, "what is the capital of Peru?").startswith("not found")
    answer = json.loads(said(capsys, "ask", place, "谁坐船过河？", "--json"))
    assert whole[answer["start"] : answer["stop"]] == answer["text"] == "镇上的人坐船过河。"
    (corpus / "river.txt").write_text("The bridge is open again. Cars cross it.")
    (corpus / "sub" / "it's.md").unlink()
    (corpus / "new.txt").write_text("A new page about tea.")
    out = said(capsys, "search", "index", corpus, "--output", place)
    assert "1 added, 1 changed, 1 deleted, 5 unchanged" in out
    assert "nothing found" in said(capsys, "search", "query", place, "坐船")
    assert "nothing found" in said(capsys, "search", "query", place, "boat")
    assert "new.txt" in said(capsys, "search", "query", place, "tea")


def test_vectors_belong_to_one_model(corpus, models, tmp_path, capsys):
    """Vectors of one model compared with a question by another; an index that forgets its model."""
    place, (one, two) = tmp_path / "index", models
    said(capsys, "search", "index", corpus, "--output", place, "--model", one)
    for way in ("hybrid", "dense", "words"):
        assert "1. " in said(capsys, "search", "query", place, "the river", "--way", way)
    first = json.loads(said(capsys, "search", "query", place, RIVER, "--way", "dense", "--json").splitlines()[0])
    assert first["source"] == "river.txt"
    assert first["score"] == pytest.approx(1, abs=1e-5)
    line = refused(capsys, "search", "query", place, "the river", "--model", two)
    assert f"built by the model {one}, not by {two} as it is now; --model {one}, or --fresh" in line
    assert "built by the model" in refused(capsys, "search", "index", corpus, "--output", place, "--model", two)
    shutil.rmtree(one)
    bundle.write(one, MODEL.build(seed=5), byte_level(), pooling=Pooling(context=64))
    assert "as it is now" in refused(capsys, "search", "query", place, "the river")  # same name, other weights
    assert "7 added" in said(capsys, "search", "index", corpus, "--output", place, "--model", two, "--fresh")
    assert "1. " in said(capsys, "search", "query", place, "the river")


def test_bad_input_is_one_line(corpus, tmp_path, capsys):
    """A traceback; another folder's files lost."""
    assert "no index there; hanlin search index FOLDER" in refused(capsys, "search", "query", tmp_path, "x")
    assert "say --output INDEX" in refused(capsys, "search", "index", corpus)
    assert "nothing to look for" in refused(capsys, "search", "query", tmp_path)
    assert "holds 'empty.txt' and no index" in refused(capsys, "search", "index", corpus, "--output", corpus)
    place = tmp_path / "index"
    said(capsys, "search", "index", corpus, "--output", place)
    assert "has words alone" in refused(capsys, "search", "query", place, "x", "--way", "dense")
    assert "question: empty" in refused(capsys, "ask", place, " ")


class TestUpdate:
    """What the index holds after any change equals an index made anew."""

    def test_increments_equal_a_new_index(self, models, tmp_path):
        """Passages of an old text that stay; vectors that move to other rows."""
        made = encoder.load(str(models[0]))
        texts = [f"Text {n} tells of thing {n}. " * (n % 5 + 1) + "好的。" * n for n in range(40)]
        documents = [Document(text=text, source=f"d{n}") for n, text in enumerate(texts)]
        changed = [Document(text=f"{each.text} More {n}.", source=each.source) for n, each in enumerate(documents)]
        after = [*documents[:10], *changed[10:20], *documents[30:], Document(text="New one.", source="new")]
        index.update(tmp_path / "a", documents, made, size=30)
        changes = index.update(tmp_path / "a", after, made, size=30)
        assert (changes.added, changes.changed, changes.deleted, changes.unchanged) == (1, 10, 10, 20)
        index.update(tmp_path / "b", after, made, size=30)
        one, two = (index.open_(tmp_path / name, made) for name in "ab")
        kept = ["source", "start", "stop"]
        rows = [sorted(zip(*(each.table[name].to_pylist() for name in kept))) for each in (one, two)]
        assert rows[0] == rows[1]
        for query in ("thing 3", "好的", "New one.", texts[12]):
            for way in ("words", "dense", "hybrid"):
                hits = [
                    {(h.source, h.start): h.score for h in each.search(query, way=way, limit=999)}
                    for each in (one, two)
                ]
                assert hits[0].keys() == hits[1].keys() or way == "hybrid"
                if way != "hybrid":  # ties share places there
                    assert hits[0] == pytest.approx(hits[1], abs=1e-5)

    def test_a_killed_update_goes_on(self, tmp_path, monkeypatch):
        """A document of which half was written counted as unchanged; words of an older table."""
        monkeypatch.setattr(index, "BATCH", 2)
        documents = [Document(text=f"Document {n} of word{n}.", source=f"d{n}") for n in range(7)]

        def torn():
            yield from documents[:5]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index.update(tmp_path / "a", torn())
        assert [each.source for each in index.open_(tmp_path / "a").search("word3")] == ["d3"]
        changes = index.update(tmp_path / "a", documents)
        assert (changes.added, changes.unchanged, changes.deleted) == (3, 4, 0)
        found = index.open_(tmp_path / "a")
        assert all([hit.source for hit in found.search(f"word{n}")] == [f"d{n}"] for n in range(7))

    def test_two_at_once_and_two_of_one_name(self, tmp_path):
        """Two processes that write into one table; a document that hides another."""
        twice = [Document(text="a", source="x"), Document(text="b", source="x")]
        with pytest.raises(DataError, match="two documents of one source"):
            index.update(tmp_path / "a", twice)
        with index._claimed(tmp_path / "a", fresh=False), pytest.raises(RunError, match="another process"):
            index.update(tmp_path / "a", twice[:1])
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "index.json").write_text('{"schema_": 1}')
        with pytest.raises(BundleError, match="never filled"):
            index.open_(tmp_path / "b")

    def test_read_again_puts_the_order_of_the_reader(self, tmp_path):
        """Scores of the reader that go to other passages, too many that are read, or the others lost."""
        documents = [Document(text=f"word {'x' * n}", source=f"d{n}") for n in range(1, 6)]
        index.update(tmp_path / "a", documents)
        found = index.open_(tmp_path / "a").search("word", read=lambda _, passages: [len(each) for each in passages])
        assert [hit.source for hit in found] == ["d5", "d4", "d3", "d2", "d1"]
        opened, seen = index.open_(tmp_path / "a"), []
        plain = [hit.source for hit in opened.search("word")]

        def read(_, passages):
            seen.extend(passages)
            return [0.0, 1.0]

        found = opened.search("word", read=read, again=2)
        assert [hit.source for hit in found] == [plain[1], plain[0], *plain[2:]]
        assert len(seen) == 2


def test_a_writer_is_shown_the_passages(corpus, tmp_path):
    """A language model asked without the passages; a model for another task taken for one."""
    import folders

    folders.write(tmp_path / "writer", config=folders.GPT2.model_copy(update={"context": 512}))
    index.update(tmp_path / "index", [Document(text=RIVER, source="river.txt")])
    asker = Asker(index.open_(tmp_path / "index"), str(tmp_path / "writer"))
    seen = []
    asker.writer.generate = lambda prompt, **choices: seen.append(prompt) or " by boat"
    answer = asker("who crossed the river by boat?")
    assert RIVER in seen[0]
    assert seen[0].endswith("Answer:")
    assert (answer.text, answer.source, answer.passage) == ("by boat", "river.txt", RIVER)
    assert asker("Peru?") is None
    bundle.write(tmp_path / "encoder", MODEL.build(seed=0), byte_level(), pooling=Pooling(context=64))
    with pytest.raises(ConfigError, match="a model trained to answer, or a language model"):
        Asker(index.open_(tmp_path / "index"), str(tmp_path / "encoder"))
