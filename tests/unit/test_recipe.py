"""Recipes: shipped ones load, overrides make way, every contradiction is named at once, and plain data comes back."""

from __future__ import annotations

import re

import pytest

from hanlin.config import read_yaml, write_yaml
from hanlin.errors import ConfigError, HubError
from hanlin.optim import adamw, muon
from hanlin.optim.schedules import Constant, Cosine
from hanlin.text.tokenizer import SMALLEST, byte_level
from hanlin.train import model as models
from hanlin.train import recipe
from hanlin.train.recipe import SHIPPED, build, differences, load, plain

SMALL = {
    "model": {"family": "llama", "dim": 16, "layers": 1, "heads": 2},
    "data": {"train": "corpus.txt"},
    "plan": {"minutes": 2, "tokens": 512, "context": 64},
}


@pytest.fixture
def small(tmp_path):
    """A recipe on disk."""
    path = tmp_path / "small.yaml"
    path.write_text(write_yaml(SMALL))
    return str(path)


def problems(call, *given):
    """Return the lines with which something is refused."""
    with pytest.raises(ConfigError) as caught:
        call(*given)
    return caught.value.problems


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
class TestShipped:
    """The recipes that come with the package."""

    def test_loads_and_is_commented(self, name):
        """A shipped recipe that a renamed key has broken, or that explains nothing."""
        text = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
        assert text.startswith("# ")
        assert load(name) == build(read_yaml(text, name))

    def test_its_model_can_be_built(self, name):
        """Sizes that do not fit together, found after the corpus was read."""
        chosen = load(name)
        if chosen.start is not None:
            return  # what it goes on from is not on this machine
        config = models.foreseen(chosen)
        sketch = config.sketch()
        assert sketch.embed.weight.shape == (config.vocab, config.dim)
        assert config.context >= chosen.plan.context

    def test_says_every_section_that_differs_from_the_defaults(self, name):
        """A recipe that changes when a default does: what a run needs is spelled out."""
        told = read_yaml((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"), name)
        own = {"tokenizer"} if "from" not in told["model"] else set()  # else it is the model's
        assert {"model", "data", "optimizer", "schedule", "plan", *own} <= told.keys()


class TestNames:
    """A shipped name, or a path."""

    def test_a_typo_names_the_nearest(self):
        """A missing file reported for a misspelt name."""
        assert "did you mean 'demo'" in problems(load, "demoo")[0]
        assert "shipped: " in problems(load, "")[0]

    def test_a_path_needs_a_slash_or_an_ending(self, small, tmp_path, monkeypatch):
        """A file in the current folder that shadows a shipped recipe."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "demo").write_text("nothing of ours")
        assert load("small.yaml") == load("./small.yaml") == load(small)
        assert load("demo").model.dim != 16

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (None, "cannot be read: No such file"),
            (b"\xff\xfe", "not UTF-8 text"),
            (b"", "empty file"),
            (b"- a\n- b\n", "a list; a mapping"),
            (b"plan: {steps: 1\n", "not valid YAML"),
            (b"plan: 3\ndata: {train: x}\n", "plan: 3"),
        ],
    )
    def test_a_file_that_is_no_recipe(self, tmp_path, content, expected):
        """A traceback of the YAML parser."""
        path = tmp_path / "x.yaml"
        if content is not None:
            path.write_bytes(content)
        assert any(expected in line for line in problems(load, str(path)))

    def test_a_folder_is_no_recipe(self, tmp_path):
        assert "cannot be read: Is a directory" in problems(load, f"{tmp_path}/")[0]


class TestMakingWay:
    """An override takes the place of its rivals."""

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("plan.steps=5", {"steps": 5, "tokens": 512}),
            ("plan.epochs=1.5", {"epochs": 1.5, "tokens": 512}),
            ("plan.minutes=3", {"minutes": 3.0, "tokens": 512}),
            ("plan.rows=3", {"minutes": 2.0, "rows": 3}),
            ("plan.tokens=128", {"minutes": 2.0, "tokens": 128}),
        ],
    )
    def test_of_steps_epochs_minutes_and_of_rows_tokens(self, small, given, expected):
        """`plan.steps=5` refused because the recipe says minutes; one that wipes what it does not replace."""
        chosen = load(small, [given]).plan
        found = {name: getattr(chosen, name) for name in ("steps", "epochs", "minutes", "rows", "tokens")}
        assert {name: value for name, value in found.items() if value is not None} == expected
        assert chosen.context == 64

    def test_two_overrides_do_not_make_way_for_each_other(self, small):
        """One of two contradicting wishes dropped in silence."""
        (line,) = problems(load, small, ["plan.steps=5", "plan.minutes=3"])
        assert "steps and minutes given; exactly one" in line

    def test_two_in_the_file_do_not_either(self, tmp_path):
        path = tmp_path / "x.yaml"
        path.write_text(write_yaml({**SMALL, "plan": {"steps": 3, "epochs": 2}}))
        assert "steps and epochs given" in problems(load, str(path))[0]

    def test_where_there_is_no_plan(self, tmp_path):
        """A crash in a recipe whose plan comes from the command line alone."""
        path = tmp_path / "x.yaml"
        path.write_text(write_yaml({key: SMALL[key] for key in ("model", "data")}))
        assert load(str(path), ["plan.steps=5"]).plan.steps == 5
        assert "plan: missing" in problems(load, str(path))[0]


class TestContradictions:
    """What cannot be."""

    def test_all_are_told_at_once(self, small):
        """One error a run: fix, start again, find the next."""
        overrides = [
            "plan.stepz=1",
            "model.dim=0",
            "optimizer.name=adamv",
            "schedule={name: cosin}",
            "date=1",
            "output=3",
        ]
        found = problems(load, small, overrides)
        for part in ("plan.stepz", "model.dim", "optimizer.name", "schedule", "date", "output"):
            assert len([line for line in found if line.startswith(f"{part}:")]) == 1, (part, found)
        assert len(found) == len(overrides)

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"model": None}, "give a model"),
            ({"start": "x"}, "give a model"),
            ({"model": {"from": "x", "dim": 3}}, "model: "),
            ({"model": {**SMALL["model"], "context": 32}}, "plan.context 64 is more than model.context 32"),
            ({"plan": {**SMALL["plan"], "shortest_first": True}}, "plan.shortest_first orders the rows of a task"),
            ({"tokenizer": {"vocab": SMALLEST - 1}}, "tokenizer.vocab: 258"),
            ({"data": {"train": "x", "valid_fraction": 1.0}}, "data.valid_fraction: 1.0"),
            ({"schedule": {"name": "cosine", "final": 2.0}}, "final: 2.0"),
            ({"optimizer": "adamw"}, "optimizer: 'adamw'; expected a mapping with 'name'"),
        ],
    )
    def test_one_by_one(self, changes, expected):
        """A contradiction that is found after the corpus was read, or never."""
        assert any(expected in line for line in problems(build, {**SMALL, **changes}))


class TestPlain:
    """There and back."""

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"model": {"from": "runs/x"}},
            {"optimizer": {"name": "muon", "rate": 0.1}, "schedule": {"name": "constant"}},
            {"model": {"family": "gpt2", "dim": 8, "heads": 2, "layers": 1}, "tokenizer": {"from": "folder"}},
            {"model": {**SMALL["model"], "rope": {"kind": "llama3", "factor": 4.0}}, "tensorboard": True},
        ],
    )
    def test_a_recipe_comes_back_through_yaml(self, changes):
        """A resolved recipe that is another one, or none, when it is read again."""
        chosen = build({**SMALL, **changes})
        again = build(read_yaml(write_yaml(plain(chosen)), "again"))
        assert again == chosen
        assert plain(again) == plain(chosen)

    def test_defaults(self):
        """A default that changes without anybody deciding it."""
        chosen = build(SMALL)
        assert (chosen.optimizer, chosen.schedule, chosen.start) == (adamw.Config(), Cosine(), None)
        other = build({**SMALL, "optimizer": {"name": "muon"}, "schedule": {"name": "constant"}})
        assert (other.optimizer, other.schedule) == (muon.Config(), Constant())

    def test_from_is_a_start(self):
        assert (build({**SMALL, "model": {"from": "x"}}).start, build({**SMALL, "model": {"from": "x"}}).model) == (
            "x",
            None,
        )


class TestText:
    """Where a recipe's text is."""

    def test_below_the_folder_that_is_named(self, small, tmp_path, monkeypatch):
        """A path looked for elsewhere, a file of the person's own replaced by one of the same name."""
        file = tmp_path / "home" / "data" / "lm" / "x.txt"
        file.parent.mkdir(parents=True)
        file.write_text("text")
        monkeypatch.setenv("HANLIN_DATA", str(tmp_path / "home"))
        chosen = load(small, ["data.train=data/lm/x.txt", "data.valid=data/lm/y.txt"]).data
        assert (chosen.train, chosen.valid) == (str(file), "data/lm/y.txt")
        assert recipe.corpus(chosen) == str(file)
        several = load(small, ["data.train=data/*/x*"]).data
        assert recipe.corpus(several) == several.train == str(tmp_path / "home" / "data/*/x*")
        monkeypatch.delenv("HANLIN_DATA")
        assert load(small, ["data.train=data/lm/x.txt"]).data.train == "data/lm/x.txt"

    def test_or_what_to_set(self, small, tmp_path, monkeypatch):
        """A missing file where a variable was not set; a traceback of the hub's client."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("HANLIN_DATA", raising=False)
        chosen = load(small, ["data.train=data/lm/x"]).data
        assert (
            "'data/lm/x' is not here; set HANLIN_DATA to the folder that holds data/"
            in problems(recipe.corpus, chosen)[0]
        )
        monkeypatch.setenv("HANLIN_DATA", str(tmp_path))
        assert "is neither here nor in HANLIN_DATA; set" in problems(recipe.corpus, chosen)[0]
        own = load(small, ["data.train=mine.txt"]).data
        assert recipe.corpus(own) == "mine.txt"

    def test_or_the_public_data_set(self, small, tmp_path, monkeypatch):
        """Files that were not named, fetched; an error that says nothing of the other way."""
        chosen = load(small, ["data.train=data/lm/x", "data.hub=a/b@v1", "data.hub_files=[train-*]"]).data
        asked = []

        def fetch_data(name, files):
            asked.append((name, files))
            return recipe.hub.Fetched(folder=tmp_path, name=name)

        monkeypatch.setattr(recipe.hub, "fetch_data", fetch_data)
        assert recipe.corpus(chosen) == str(tmp_path)
        assert asked == [("a/b@v1", ("train-*",))]

        def refuse(name, files):
            raise HubError("a/b@v1: could not be fetched")

        monkeypatch.setattr(recipe.hub, "fetch_data", refuse)
        with pytest.raises(HubError) as caught:
            recipe.corpus(chosen)
        assert caught.value.problems[0] == "a/b@v1: could not be fetched"
        assert "set HANLIN_DATA" in caught.value.problems[1]


def test_a_public_data_set_is_fetched_by_its_patterns(tmp_path, monkeypatch):
    """A model repository asked for in its place, a revision lost, code or pictures fetched, an empty folder read."""
    asked = {}

    def snapshot_download(repository, **given):
        asked.update(given, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(HubError, match="a/b@v1: has no such files; looked for: "):
        recipe.hub.fetch_data("a/b@v1")
    assert (asked["repository"], asked["revision"], asked["repo_type"]) == ("a/b", "v1", "dataset")
    assert {"*.parquet", "*.jsonl.zst", "*.txt"} <= {*asked["allow_patterns"]}
    assert not any(each.endswith((".py", "*", ".bin")) for each in asked["allow_patterns"])
    (tmp_path / "x.parquet").touch()
    assert recipe.hub.fetch_data("a/b", ("x*",)).folder == tmp_path
    assert (asked["revision"], asked["allow_patterns"]) == (None, ["x*"])


@pytest.mark.parametrize(("name", "parameters"), [("gpt2-124m", 124_439_808), ("llama-134m", 134_105_856)])
def test_sizes_are_those_of_the_name(name, parameters):
    """A recipe of another model than its name says."""
    config = models.foreseen(load(name))
    assert sum(each.numel() for each in config.sketch().parameters()) == parameters


class TestDifferences:
    """What a refusal names."""

    def test_every_value_that_differs_with_its_path(self):
        """A section said to differ as a whole, a key that only one side has passed over."""
        ours = {"a": 1, "b": {"c": [1], "d": {"e": None}}, "only": 0}
        theirs = {"a": 1, "b": {"c": [2], "d": {"e": 3}}, "new": {"x": 1}}
        expected = ["b.c: [1] -> [2]", "b.d.e: None -> 3", "only: 0 -> None", "new: None -> {'x': 1}"]
        assert differences(ours, theirs) == expected
        assert differences(ours, ours) == []

    def test_between_two_recipes(self):
        one, two = plain(build(SMALL)), plain(build({**SMALL, "plan": {**SMALL["plan"], "seed": 4}}))
        assert differences(one, two) == ["plan.seed: 0 -> 4"]


class TestModel:
    """The model that a recipe starts from."""

    def test_sizes_left_out_follow_tokenizer_and_plan(self):
        """A vocab of 32,000 for 259 tokens; a size that was asked for and overruled."""
        made = models.model(build(SMALL), byte_level(), {})
        assert (made.config.vocab, made.config.context) == (259, 64)
        asked = build({**SMALL, "model": {**SMALL["model"], "vocab": 300, "context": 128}})
        made = models.model(asked, byte_level(), {})
        assert (made.config.vocab, made.config.context) == (300, 128)

    def test_the_seed_is_the_plans(self):
        """Fresh weights that no seed changes, or that differ from start to start."""
        one, same, other = (
            models.model(build({**SMALL, "plan": {**SMALL["plan"], "seed": seed}}), byte_level(), {})
            for seed in (0, 0, 1)
        )
        assert one.embed.weight.equal(same.embed.weight)
        assert not one.embed.weight.equal(other.embed.weight)

    def test_a_vocab_that_is_too_small(self):
        """An index out of range in the middle of a run."""
        small = build({**SMALL, "model": {**SMALL["model"], "vocab": 100}})
        (line,) = problems(models.model, small, byte_level(), {})
        assert re.match(r"model.vocab: 100 is less than the 259 .*leave it out", line)

    def test_what_is_foreseen_is_what_is_made(self):
        """Sizes shown before training that training does not use."""
        chosen = build({**SMALL, "tokenizer": {"kind": "bytes"}})
        assert models.foreseen(chosen) == models.model(chosen, byte_level(), {}).config
        assert models.foreseen(build(SMALL)).vocab == recipe.TokenizerConfig().vocab


def test_a_registered_section_without_its_name_is_the_default_one(tmp_path):
    """`optimizer.rate=1e-4` on a recipe that names no optimizer, refused for want of a name."""
    (tmp_path / "r.yaml").write_text("model: {family: llama, dim: 16, heads: 2}\ndata: {train: x}\nplan: {steps: 1}\n")
    loaded = recipe.load(str(tmp_path / "r.yaml"), ["optimizer.rate=1e-4"])
    assert recipe.plain(loaded)["optimizer"]["name"] == "adamw"
    assert loaded.optimizer.rate == 1e-4
