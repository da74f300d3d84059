"""Looking inside: sizes are read from what is built, and a step's tokens are those that training sees."""

from __future__ import annotations

import json
import re

import pytest
from folders import GPT2, LLAMA, UNTIED, build, write

from hanlin import cli
from hanlin.config import read_yaml, write_yaml
from hanlin.data import shards
from hanlin.data.batches import Packed
from hanlin.text.tokenizer import Tokenizer
from hanlin.train import recipe

RECIPE = {
    "model": {"family": "llama", "dim": 16, "layers": 1, "heads": 2, "hidden": 32, "tied": True},
    "tokenizer": {"kind": "bytes"},
    "data": {"train": "corpus.txt"},
    "plan": {"steps": 6, "rows": 4, "context": 64},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return an empty folder as the current one, but for a recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(write_yaml(RECIPE))
    return tmp_path


@pytest.fixture
def data(here, capsys):
    """Make shards of a mixed corpus in data/."""
    rows = [json.dumps({"text": f"number {n}: 春秋 and words"}) for n in range(40)]
    (here / "corpus.jsonl").write_text("\n".join(rows))
    assert cli.run(["prepare", "corpus.jsonl", "--output", "data", "--vocab", "300"]) == 0
    capsys.readouterr()
    return "data"


def shown(capsys, *words):
    """Return what `hanlin inspect` prints."""
    assert cli.run(["inspect", *words]) == 0
    return capsys.readouterr().out


class TestModel:
    """Sizes."""

    @pytest.mark.parametrize("config", [LLAMA, GPT2, UNTIED], ids=["llama", "gpt2", "untied"])
    def test_are_those_of_the_weights(self, here, capsys, config):
        """Figures of a formula that forgot a bias, counted a tied matrix twice, or multiplied a lookup."""
        write(here / "model", config=config)
        out = shown(capsys, "model")
        model = build(config)
        total = sum(each.numel() for each in model.parameters())
        tied = getattr(config, "tied", False)
        looked_up = [each for name, each in model.named_parameters() if name == "positions.weight"]
        looked_up += [] if tied else [model.embed.weight]
        only = sum(each.numel() for each in looked_up)
        assert f"parameters          {total:>15,}   of them only looked up: {only:,}\n" in out
        assert f"FLOPs a token       {6 * (total - only) / 1e6:>15,.1f} million to train" in out
        for name, each in model.named_parameters():
            assert re.search(rf"^  {re.escape(name)} +{'x'.join(map(str, each.shape))}$", out, re.MULTILINE)


class TestRecipe:
    """Recipes."""

    def test_the_vocab_and_context_are_what_training_finds(self, here, capsys, data):
        """The family's default vocab and context in place of the tokenizer's and the plan's."""
        plain = shown(capsys, "recipe.yaml")
        assert "with a vocab of 259 and a context of 64:" in plain
        assert re.search(r"^  embed.weight +259x16$", plain, re.MULTILINE)
        vocab = Tokenizer.load(data).vocab
        expected = {
            ("tokenizer.kind=bpe", "tokenizer.vocab=512"): 512,
            ("data.train=data",): vocab,
            ("tokenizer={from: data}",): vocab,
            ("model.vocab=1000",): 1000,
        }
        for changes, size in expected.items():
            assert f"with a vocab of {size:,} and a context of 64:" in shown(capsys, "recipe.yaml", *changes)

    def test_a_model_to_go_on_from(self, here, capsys):
        """Nothing shown, or a fresh model's sizes, for a recipe that starts from a folder."""
        write(here / "start", config=GPT2)
        out = shown(capsys, "recipe.yaml", "model={from: start}")
        assert out.endswith(shown(capsys, "start"))

    def test_what_is_printed_is_the_recipe(self, here, capsys):
        """A page that cannot be saved and trained."""
        page = shown(capsys, "recipe.yaml", "plan.steps=7").partition("\n\n")[0]
        assert recipe.build(read_yaml(page, "shown")) == recipe.load("./recipe.yaml", ["plan.steps=7"])


class TestShards:
    """Data."""

    def test_shows_what_a_step_sees(self, here, capsys, data):
        """Targets that are not the next token, or that run over the end of a document; another step's rows."""
        out = shown(capsys, data, "--rows", "3", "--context", "30", "--step", "2")
        tokenizer = Tokenizer.load(data)
        batch = Packed(shards.open(data, "train"), rows=3, context=30, seed=0).batch(2)
        found = re.findall(r"^ +(\d+) segment +(\d+) +'(.*)' -> (.*)$", out, re.MULTILINE)
        assert len(found) == 3 * 24
        for (column, segment, token, target), row in zip(found, [row for row in range(3) for _ in range(24)]):
            place = row, int(column)
            assert repr(tokenizer.token(int(batch.tokens[place]))) == f"'{token}'"
            assert int(segment) == int(batch.layout.segments[place])
            answer = int(batch.targets[place])
            assert target == ("no loss" if answer == -100 else repr(tokenizer.token(answer)))
            assert (token == "<|eos|>") == (target == "no loss")
        assert out.startswith("read 40 documents, kept 40 ")

    def test_too_little_text_is_one_line(self, here, capsys, data):
        """A traceback for a context longer than the text."""
        assert cli.run(["inspect", data, "--context", "100000"]) == 1
        assert "smaller than one window" in capsys.readouterr().err


class TestSchema:
    """For editors."""

    def test_takes_good_recipes_and_no_bad_ones(self, here, capsys):
        """An editor that underlines a shipped recipe, or `from:`, or takes a misspelt key."""
        jsonschema = pytest.importorskip("jsonschema")
        schema = json.loads(shown(capsys, "--schema"))
        jsonschema.Draft202012Validator.check_schema(schema)
        check = jsonschema.Draft202012Validator(schema)
        shipped = [read_yaml(path.read_text("utf-8"), path.name) for path in recipe.SHIPPED.glob("*.yaml")]
        for good in (*shipped, RECIPE, {**RECIPE, "model": {"from": "run"}}, recipe.plain(recipe.build(RECIPE))):
            check.validate(good)
        wrong = {"model": {"from": "run", "dim": 3}, "optimizer": {"name": "adamw", "rte": 1}, "modle": {}}
        for key, bad in wrong.items():
            assert not check.is_valid({**RECIPE, key: bad})

    def test_nothing_to_look_at_is_one_line(self, here, capsys):
        """A traceback, or the help page, for `hanlin inspect` alone or for a folder that holds nothing."""
        for words, expected in {(): "nothing named", (".",): "no config.json", ("dmo",): "did you mean 'demo'"}.items():
            assert cli.run(["inspect", *words]) == 1
            assert expected in capsys.readouterr().err
