"""What a person does when nothing goes wrong: text to shards to a model that is scored, writes, and opens elsewhere."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is all that is ever opened here

import pytest
import torch
from safetensors.torch import load_file

import hanlin
from hanlin import bundle, cli, hub, runtime
from hanlin.config import read_yaml, write_yaml
from hanlin.data import manifest, shards
from hanlin.data.batches import Packed
from hanlin.data.pipeline import parts
from hanlin.errors import HanlinError
from hanlin.models.llama import Llama
from hanlin.objectives import next_token
from hanlin.report import Report
from hanlin.text.tokenizer import Tokenizer
from hanlin.train import budget, recipe

ENGLISH = ["a", "model", "learns", "from", "text", "and", "writes", "what", "it", "has", "seen"]
CHINESE = ["翰林", "院士", "学习", "文字", "春秋", "山水", "天地", "读书"]
TEXTS = [
    f"{' '.join(ENGLISH[n % 4 : n % 7 + 5])} {n}." if n % 2 else f"{''.join(CHINESE[n % 3 : n % 5 + 3])}第{n}。"
    for n in range(60)
]
CONTEXT = 64
SIZES = {"dim": 16, "layers": 1, "heads": 2, "hidden": 32, "tied": True}
RECIPE = {
    "model": {"family": "llama", **SIZES},
    "tokenizer": {"kind": "bytes"},
    "data": {"train": "corpus.jsonl", "valid_fraction": 0.2},
    "optimizer": {"name": "adamw", "rate": 1e-3},
    "plan": {"steps": 6, "rows": 4, "context": CONTEXT, "precision": "fp32", "evaluate_every": 3},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a corpus, shards in data/, a recipe, and a run that learned from the shards in run/."""
    folder = tmp_path_factory.mktemp("happy")
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in [*TEXTS, TEXTS[0]]]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "recipe.yaml").write_text(write_yaml(RECIPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "cores", lambda: 1)
        patch.chdir(folder)
        words = ["--output", "data", "--vocab", "320", "--valid-fraction", "0.2"]
        assert cli.run(["prepare", "corpus.jsonl", *words]) == 0
        assert cli.run(["train", "recipe.yaml", "data.train=data", "--output", "run"]) == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """Return a copy of `made` as the current folder; no pictures are drawn, which takes longer than all else."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    monkeypatch.setattr(Report, "picture", lambda report: None)
    return tmp_path


def run(capsys, *words):
    """Run a command that must succeed; return what it wrote to standard output and to standard error."""
    capsys.readouterr()
    code = cli.run(list(words))
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out, said.err


def refused(capsys, *words):
    """Run a command that must fail; return its one line."""
    capsys.readouterr()
    assert cli.run(list(words)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    return lines[0]


def train(capsys, output, *changes):
    """Train by the recipe with changes and return the run's folder."""
    run(capsys, "train", "recipe.yaml", *changes, "--output", output)
    return Path(output)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def card(folder):
    return json.loads((folder / "hanlin.json").read_text())


def plan(folder):
    return read_yaml((folder / "recipe.yaml").read_text(), "recipe.yaml")["plan"]


def weights(folder):
    return load_file(folder / "model.safetensors")


def checkpoint(folder, step):
    """Return a checkpoint's weights under the bundle's names."""
    model = bundle.read_model(folder)
    model.load_state_dict(load_file(folder / "checkpoints" / f"{step:06d}" / "model.safetensors"))
    return {name: each.detach() for name, each in model.named_parameters()}


def parameters(folder):
    return {name: each.detach() for name, each in bundle.read_model(folder).named_parameters()}


def same(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


class TestPrepare:
    """Text to shards."""

    def test_every_text_is_there_once(self, here):
        """A document lost, doubled, or altered between the corpus and the shards."""
        tokenizer = Tokenizer.load("data")
        found = []
        for split in ("train", "valid"):
            data = shards.open("data", split)
            found += [tokenizer.decode(data.document(index).tolist()) for index in range(data.documents)]
            assert data.documents > 5
        assert sorted(found) == sorted(TEXTS)

    def test_the_account_adds_up(self, here, capsys):
        """Duplicates or bytes that are not counted; the same command giving other shards."""
        before = manifest.read(Path("data"))
        report = before.report
        assert (report["read"], report["kept"], report["dropped"]["duplicate"]["count"]) == (61, 60, 1)
        assert sum(split.bytes for split in before.splits.values()) == sum(len(text.encode()) for text in TEXTS)
        words = ["--output", "again", "--vocab", "320", "--valid-fraction", "0.2"]
        out, _ = run(capsys, "prepare", "corpus.jsonl", *words)
        assert "dropped 1: duplicate, such as corpus.jsonl:61" in out
        assert manifest.read(Path("again")) == before

    def test_the_tokenizer_learns_from_the_training_part_alone(self, here, capsys):
        """Held-out text that the tokenizer has seen, and scores too good."""
        Path("seen.txt").write_text("abc")
        Path("unseen.txt").write_text("xyz")
        run(capsys, "prepare", "seen.txt", "--valid", "unseen.txt", "--kind", "characters", "--output", "own")
        tokenizer = Tokenizer.load("own")
        assert all(tokenizer.id(letter) is not None for letter in "abc")
        assert all(tokenizer.id(letter) is None for letter in "xyz")
        assert shards.open("own", "train").documents == shards.open("own", "valid").documents == 1


class TestEvaluate:
    """Scores."""

    def test_figures_are_the_summed_nats(self, here, capsys):
        """Bits for nats, tokens for bytes, a first token counted, a mean of means."""
        scores = json.loads(run(capsys, "evaluate", "run", "--json")[0])
        opened, held = bundle.read(Path("run")), shards.open("data", "valid")
        nats, tokens = 0.0, 0
        for index in range(held.documents):
            ids = torch.tensor(held.document(index).astype("int64"))
            assert 2 <= len(ids) <= CONTEXT
            with torch.no_grad():
                logits = opened.model.logits(opened.model(ids[None, :-1])[0])
            nats -= float(logits.log_softmax(-1).gather(1, ids[1:, None]).sum())
            tokens += len(ids) - 1
        size = int(held.sizes.sum())
        assert (scores["documents"], scores["tokens"], scores["bytes"]) == (held.documents, tokens, size)
        assert math.isclose(scores["bits_per_byte"]["value"], nats / math.log(2) / size, rel_tol=1e-5)
        assert math.isclose(scores["perplexity"]["value"], math.exp(nats / tokens), rel_tol=1e-5)
        for name in ("bits_per_byte", "perplexity"):
            assert scores[name]["low"] < scores[name]["value"] < scores[name]["high"]
            assert scores[name]["n"] == held.documents

    def test_the_last_row_of_the_run_says_the_same(self, here, capsys):
        """A valid_loss on the way that is not what evaluate finds; a card that tells of other weights."""
        scores = json.loads(run(capsys, "evaluate", "run", "--json")[0])
        found = rows(Path("run"))[-1]["valid_loss"]
        assert math.isclose(math.log(scores["perplexity"]["value"]), found, rel_tol=1e-5)
        assert card(Path("run"))["scores"]["valid_loss"]["value"] == found

    def test_text_of_ones_own(self, here, capsys):
        """--data that is not read, or is read as something else than the shards of the same text."""
        held, tokenizer = shards.open("data", "valid"), Tokenizer.load("data")
        texts = [tokenizer.decode(held.document(index).tolist()) for index in range(held.documents)]
        Path("own.jsonl").write_text("\n".join(json.dumps({"body": text}) for text in texts))
        own, _ = run(capsys, "evaluate", "run", "--data", "own.jsonl", "--field", "body", "--json")
        assert json.loads(own) == json.loads(run(capsys, "evaluate", "run", "--json")[0])
        lines = run(capsys, "evaluate", "run", "--precision", "bf16")[0].splitlines()
        assert re.match(r"bits_per_byte +\d\.\d{4} +95 % interval", lines[0])

    def test_shards_that_were_made_again_with_another_tokenizer(self, here, capsys):
        """A score of ids that mean other text, without a word."""
        run(capsys, "prepare", "corpus.jsonl", "--output", "data", "--vocab", "300", "--valid-fraction", "0.2")
        assert "with another tokenizer" in refused(capsys, "evaluate", "run")


class TestGenerate:
    """Writing."""

    WORDS = ("generate", "run", "翰林", "--limit", "30", "--temperature", "1")

    def test_same_seed_same_text(self, here, capsys):
        """A draw that depends on the clock, or a seed that is ignored."""
        one = run(capsys, *self.WORDS, "--seed", "7")[0]
        assert one.startswith("翰林")
        assert one == run(capsys, *self.WORDS, "--seed", "7")[0]
        assert one != run(capsys, *self.WORDS, "--seed", "8")[0]

    def test_json_n_and_stream_agree(self, here, capsys):
        """Another answer streamed than whole; noise on standard output beside JSON."""
        streamed = run(capsys, *self.WORDS)[0]
        whole = json.loads(run(capsys, *self.WORDS, "--n", "3", "--logprobs", "2", "--json")[0])
        assert streamed == f"翰林{whole['answers'][0]['text']}\n"
        assert [each["n"] for each in whole["answers"]] == [0, 1, 2]
        for each in whole["answers"]:
            assert each["finish"] in ("stop", "length")
            assert len(each["ids"]) == len(each["logprobs"]) == len(each["tops"]) <= 30
        listed = run(capsys, *self.WORDS, "--n", "3")[0]
        assert [int(n) for n in re.findall(r"^--- (\d) \(\w+\)$", listed, re.MULTILINE)] == [1, 2, 3]
        assert listed.startswith(f"--- 1 (length)\n{streamed}")

    def test_stop_ends_the_answer(self, here, capsys):
        """A stop string shown, or passed by; only the last of several heeded."""
        answer = json.loads(run(capsys, *self.WORDS, "--json")[0])["answers"][0]["text"]
        stop = next(letter for letter in answer[5:] if letter != "�" and letter.isprintable())
        words = ("--stop", stop, "--stop", "never written", "--json")
        found = json.loads(run(capsys, *self.WORDS, *words)[0])["answers"][0]
        assert found["text"] == answer[: answer.index(stop)]
        assert found["finish"] == "stop"

    def test_standard_input(self, here, capsys, monkeypatch):
        """A prompt read as the letter '-', or a traceback for bytes that are no text."""
        monkeypatch.setattr(sys, "stdin", io.StringIO("翰林"))
        asked = run(capsys, *("-" if word == "翰林" else word for word in self.WORDS))[0]
        assert asked == run(capsys, *self.WORDS)[0]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff"), encoding="utf-8"))
        assert "standard input: not UTF-8 at byte 2" in refused(capsys, "generate", "run", "-")

    def test_an_unsaid_limit_fits_the_context(self, here, capsys):
        """A refusal, or an answer past the context, where nothing was asked for."""
        answer = json.loads(run(capsys, "generate", "run", "a model", "--json")[0])["answers"][0]
        prompt = len(hanlin.load("run").tokenizer.encode("a model").ids)
        assert prompt + len(answer["ids"]) <= CONTEXT
        assert answer["finish"] == "stop" or prompt + len(answer["ids"]) == CONTEXT


@pytest.mark.parity
class TestElsewhere:
    """What others open."""

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_transformers_opens_a_run(self, here, capfd, family):
        """A trained folder that others open with other logits or ids, missing weights, or a warning."""
        import transformers

        folder = "run"
        if family == "gpt2":
            folder = str(train(capfd, "gpt2", "model.family=gpt2", "data.train=data"))
        transformers.utils.logging.disable_progress_bar()
        capfd.readouterr()
        theirs, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        said = capfd.readouterr()
        assert said.err == said.out == ""
        assert not any(info.values()), info
        ours = hanlin.load(folder)
        for text in (*TEXTS[:2], "", " two  spaces\n\tand 12345 🙂 再見"):
            ids = tokenizer(text).input_ids
            assert tuple(ids) == ours.tokenizer.encode(text).ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == ours.tokenizer.decode(ids) == text
            with torch.no_grad():
                found = ours.module.logits(ours.module(torch.tensor([ids])))
                torch.testing.assert_close(found, theirs(torch.tensor([ids])).logits, atol=1e-4, rtol=0)
        special = ours.tokenizer.special
        assert (theirs.config.bos_token_id, theirs.config.eos_token_id) == (special.bos, special.eos) == (0, 1)


class TestGoingOnFrom:
    """`model: {from: run}`."""

    RECIPE = "model: {from: run}\ndata: {train: corpus.jsonl, valid_fraction: 0.2}\n" + write_yaml(
        {"plan": {**RECIPE["plan"], "steps": 2}}
    )

    def test_begins_at_that_model_with_its_tokenizer(self, here, capsys):
        """Fresh weights, or a tokenizer of its own, in place of those that were asked for."""
        Path("more.yaml").write_text(self.RECIPE)
        run(capsys, "train", "more.yaml", "--output", "more")
        assert Path("more/tokenizer.json").read_bytes() == Path("run/tokenizer.json").read_bytes()
        data = shards.open("more/data", "train")
        batch = Packed(data, rows=4, context=CONTEXT, seed=0).batch(0)
        with torch.no_grad():
            (part,) = next_token.Config()(bundle.read_model(Path("run")), batch)
        first = rows(Path("more"))[0]["loss"]
        assert math.isclose(first, float(part.total) / part.count, rel_tol=1e-5)
        assert not same(weights(Path("run")), weights(Path("more")))
        assert "done at step 2 of 2" in run(capsys, "train", "more.yaml", "--output", "more")[0]

    def test_a_hub_name_brings_its_tokenizer(self, here, capsys, monkeypatch):
        """The weights fetched and the tokenizer looked for in a folder of the hub's name."""
        fetch = hub.fetch
        monkeypatch.setattr(hub, "fetch", lambda name, **given: fetch("run" if name == "org/name" else name, **given))
        Path("more.yaml").write_text(self.RECIPE.replace("from: run", "from: org/name"))
        run(capsys, "train", "more.yaml", "--output", "more")
        assert Path("more/tokenizer.json").read_bytes() == Path("run/tokenizer.json").read_bytes()

    def test_shards_of_another_tokenizer_are_refused(self, here, capsys):
        """Ids that mean other text, learned without a word because they happen to fit the model's vocab."""
        run(capsys, "prepare", "corpus.jsonl", "--output", "other", "--kind", "bytes")
        Path("more.yaml").write_text(self.RECIPE.replace("corpus.jsonl", "other"))
        assert "another tokenizer than the model's" in refused(capsys, "train", "more.yaml", "--output", "more")


class TestLength:
    """How long a run is."""

    def test_epochs(self, here, capsys):
        """Passes counted in documents, or in rows for steps."""
        folder = train(capsys, "run2", "data.train=data", "plan.epochs=3")
        source = Packed(shards.open("data", "train"), rows=4, context=CONTEXT, seed=0)
        assert plan(folder)["steps"] == 3 * source.steps_per_epoch == len(rows(folder))
        assert plan(folder)["epochs"] is None

    def test_epochs_of_a_family_that_does_not_pack(self, here, capsys, monkeypatch):
        """Documents packed for a family that cannot tell them apart; an epoch that ends before all were seen."""
        monkeypatch.setattr(Llama, "packs", False)
        folder = train(capsys, "run2", "data.train=data", "plan.epochs=1")
        source = Packed(shards.open("data", "train"), rows=4, context=CONTEXT, seed=0, pack=False)
        assert plan(folder)["steps"] == source.steps_per_epoch == -(-source.cut.rows // 4)
        assert source.cut.rows == shards.open("data", "train").documents

    def test_tokens(self, here, capsys):
        """Rows left at their default beside tokens."""
        folder = train(capsys, "run2", "plan.tokens=130", "plan.steps=2")
        assert (folder / "README.md").read_text().count("| steps | 2 of 128 tokens |") == 1

    def test_minutes_are_measured_once(self, here, capsys, monkeypatch):
        """A repeat that measures again, finds another number of steps, and refuses its own checkpoints."""
        words = ("train", "recipe.yaml", "plan.minutes=0.003", "plan.evaluate_every=1", "--output", "run2")
        run(capsys, *words)
        folder = Path("run2")
        found = plan(folder)
        assert found["minutes"] is None
        assert found["steps"] == len(rows(folder)) >= 1
        before = weights(folder)
        (folder / "model.safetensors").unlink()
        monkeypatch.setattr(budget, "forecast", lambda *_: pytest.fail("measured again"))
        _, said = run(capsys, *words)
        assert f"going on from step {found['steps']}" in said
        assert same(weights(folder), before)

    def test_the_resolved_recipe_makes_the_same_model(self, here, capsys):
        """A number that the resolved recipe leaves out, so that it trains something else."""
        one = train(capsys, "one", "plan.epochs=1", "model.dropout=0.2")
        run(capsys, "train", str(one / "recipe.yaml"), "--output", "two")
        assert same(weights(one), weights(Path("two")))
        assert rows(one) == rows(Path("two"))
        assert "done at step" in run(capsys, "train", str(one / "recipe.yaml"), "--output", "one")[0]


class TestEarlyStopping:
    """Enough is enough."""

    CHANGES = (
        "data.train=few.txt",
        "data.valid=other.txt",
        "optimizer.rate=0.1",
        "plan.steps=60",
        "plan.evaluate_every=2",
        "plan.save_every=5",
    )

    @pytest.fixture
    def texts(self, here):
        Path("few.txt").write_text("abcabcabd " * 30)
        Path("other.txt").write_text("a quick brown fox jumps over the lazy dog. " * 4)

    def judged(self, folder):
        """Return step -> valid_loss."""
        return {row["step"]: row["valid_loss"] for row in rows(folder) if "valid_loss" in row}

    def test_ends_early_with_the_best_weights(self, texts, capsys):
        """A run that goes on for nothing, or hands over its last weights, worse than its best."""
        folder = train(capsys, "early", *self.CHANGES, "plan.patience=3")
        found = self.judged(folder)
        best = min(found, key=found.get)
        last = rows(folder)[-1]["step"]
        assert last == best + 3 * 2 < 60
        assert same(parameters(folder), checkpoint(folder, best))
        assert card(folder)["scores"]["valid_loss"]["value"] == found[best]
        assert card(folder)["lineage"]["steps"] == best
        before = weights(folder)
        out, _ = run(capsys, "train", "recipe.yaml", *self.CHANGES, "plan.patience=3", "--output", "early")
        assert f"at step {last} of 60, weights of step {best}, valid_loss {found[best]:.4f}" in out
        assert same(weights(folder), before)

    def test_patience_that_is_not_used_up_keeps_the_best_too(self, texts, capsys):
        """The best weights only where the run ended early."""
        folder = train(capsys, "late", *self.CHANGES, "plan.patience=1000", "plan.steps=30")
        found = self.judged(folder)
        best = min(found, key=found.get)
        assert best < 30 == rows(folder)[-1]["step"]
        assert same(parameters(folder), checkpoint(folder, best))

    def test_without_patience_the_last_weights_have_their_own_score(self, texts, capsys):
        """The best score of the run written beside weights that never had it."""
        folder = train(capsys, "last", *self.CHANGES, "plan.steps=30")
        found = self.judged(folder)
        assert found[30] > min(found.values())
        assert card(folder)["scores"]["valid_loss"]["value"] == found[30]
        assert same(parameters(folder), checkpoint(folder, 30))

    def test_patience_needs_something_to_judge_by(self, texts, capsys):
        """Patience without held-out text, which waits for ever."""
        words = ("plan.patience=3", "data.valid_fraction=0", "--output", "none")
        assert "plan.patience: 3; needs held-out text" in refused(capsys, "train", "recipe.yaml", *words)


class TestChoices:
    """One run of each kind."""

    def test_dropout(self, here, capsys):
        """Dropout that is never on, or that draws other numbers each time."""
        one, two = (train(capsys, name, "model.dropout=0.3") for name in ("one", "two"))
        assert same(weights(one), weights(two))
        assert not same(weights(one), weights(train(capsys, "none")))

    @pytest.mark.parametrize("kind", ["characters", "bpe"])
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_tokenizers_and_precisions(self, here, capsys, kind, precision):
        """A kind of tokenizer or number type that no stage was tried with."""
        changes = (f"tokenizer.kind={kind}", "tokenizer.vocab=300", f"plan.precision={precision}", "plan.steps=3")
        folder = train(capsys, "own", *changes, "optimizer.name=muon", "model.family=gpt2")
        assert rows(folder)[-1]["valid_loss"] < math.log(600)
        assert run(capsys, "generate", "own", "翰林", "--limit", "4", "--precision", precision)[0].startswith("翰林")
        assert all(each.dtype == torch.float32 for each in weights(folder).values())

    def test_tensorboard(self, here, capsys):
        """Asked for, and not written."""
        pytest.importorskip("tensorboard")
        folder = train(capsys, "board", "tensorboard=true", "plan.steps=2")
        (event,) = (folder / "tensorboard").glob("events.out.tfevents.*")
        assert b"valid_loss" in event.read_bytes()

    def test_demo(self, here, capsys, monkeypatch):
        """The first command that anyone tries, broken by a change elsewhere."""
        Path("recipes").mkdir()
        Path("recipes/demo.yaml").write_text(write_yaml(RECIPE))
        monkeypatch.setattr(recipe, "SHIPPED", Path("recipes"))
        out, _ = run(capsys, "demo", "--output", "demo", "--minutes", "0.002")
        figures = re.findall(r"^   (the model|xz|xz, primed) +(\d+\.\d{3})", out, re.MULTILINE)
        assert [name for name, _ in figures] == ["the model", "xz", "xz, primed"]
        assert float(figures[1][1]) > float(figures[2][1]) > 0
        assert out.count("\n   Return the ") == 1
        assert re.search(r"^   POST http://127\.0\.0\.1:\d+/v1/completions\n   \d+ tokens: '", out, re.MULTILINE)
        assert "done in" in run(capsys, "demo", "--output", "demo", "--minutes", "0.002")[0]


class TestLittleText:
    """A corpus of one document."""

    ONE = "just one document, with some words to learn from, again and again and again"

    @pytest.fixture
    def one(self, here):
        Path("one.txt").write_text(self.ONE)
        return ("data.train=one.txt", "plan.context=16", "plan.steps=2")

    def test_nothing_held_out_trains_without_examination(self, one, capsys):
        """A crash, or silence, where there is nothing to examine by."""
        _, said = run(capsys, "train", "recipe.yaml", *one, "data.valid_fraction=0", "--output", "run2")
        assert "no text is held out: the run is not examined on its way" in said
        assert len(rows(Path("run2"))) == 2
        assert card(Path("run2"))["scores"] == {}
        assert "nothing was held out" in refused(capsys, "evaluate", "run2")

    def test_everything_held_out_is_one_line(self, one, capsys):
        """A folder of shards that no training can use, and an error about splits at the next command."""
        lines = [
            refused(capsys, "train", "recipe.yaml", *one, "data.valid_fraction=0.999", "--output", "run2"),
            refused(capsys, "prepare", "one.txt", "--output", "out", "--valid-fraction", "0.999"),
            refused(capsys, "prepare", "one.txt", "--output", "out", "--valid", "one.txt"),
        ]
        for line in lines:
            assert "one.txt: nothing is left to learn from: every document is held out; use more text" in line
        assert not Path("out").exists()

    def test_held_out_documents_too_short_to_score(self, one, capsys, monkeypatch):
        """A perfect loss of 0.0 for documents that have nothing to predict."""
        Path("short.jsonl").write_text("\n".join(json.dumps({"text": letter}) for letter in "abc"))
        monkeypatch.setattr(Tokenizer, "documents", lambda _, texts: [[5] * (1 if len(t) < 2 else 40) for t in texts])
        _, said = run(capsys, "train", "recipe.yaml", *one, "data.valid=short.jsonl", "--output", "run2")
        assert "no text is held out" in said

    def test_a_choice_that_cannot_be_is_said_before_the_corpus_is_read(self, one, capsys, monkeypatch):
        """An hour of reading, and then a typo."""
        monkeypatch.setattr(parts, "parts", lambda *_: pytest.fail("read"))
        assert "did you mean 'bytes'" in refused(capsys, "prepare", "one.txt", "--kind", "byts")
        assert "greater than or equal to 259" in refused(capsys, "prepare", "one.txt", "--vocab", "10")
        assert "nowhere" in refused(capsys, "prepare", "one.txt", "--tokenizer", "nowhere")

    def test_shards_with_a_corpus_beside_them(self, here, capsys):
        """A held-out corpus that is asked for and not used."""
        line = refused(capsys, "train", "recipe.yaml", "data.train=data", "data.valid=corpus.jsonl", "--output", "out")
        assert "data.valid: 'corpus.jsonl' beside data, which is tokenized already" in line
        with pytest.raises(HanlinError):
            recipe.load("recipe.yaml", ["data.valid_fraction=1"])
