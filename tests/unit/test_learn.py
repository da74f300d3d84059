"""From a table to a lesson: labels, held-out rows, baselines, frozen features, and how a model is judged."""

from __future__ import annotations

import json

import pytest
import torch
import toys

from hanlin import runtime
from hanlin.errors import ConfigError, DataError, HanlinError, RunError
from hanlin.tasks import classify, learn
from hanlin.tasks.lesson import baselines, frozen, judge, seeds
from hanlin.tasks.predict import Predictor
from hanlin.text.tokenizer import byte_level
from hanlin.train.recipe import build

WORDS = ["good", "fine", "好看", "bad", "poor", "不好"]
ROWS = [{"text": f"{WORDS[at % 6]} {at}", "label": "up" if at % 6 < 3 else "down"} for at in range(60)]
TASK = classify.Config()


def table(path, rows):
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
    return str(path)


def recipe(train, **changes):
    """Return a recipe of a toy-sized BERT over bytes."""
    plain = {
        "model": {"family": "bert", "dim": 8, "layers": 1, "heads": 2, "hidden": 16},
        "tokenizer": {"kind": "bytes"},
        "data": {"train": train, "valid_fraction": 0.3},
        "task": {"name": "classify"},
        "plan": {"steps": 2, "rows": 4, "context": 32, "precision": "fp32"},
    }
    for key, value in changes.items():
        plain[key] = {**plain[key], **value}
    return build(plain)


def fitted():
    """Return a fitted task, a toy model for it and the examples."""
    examples = [TASK.example(row) for row in ROWS]
    task = TASK.fitted(examples)
    return task, toys.EncoderConfig().build(seed=0, heads=task.heads()).eval(), examples


class TestMaterial:
    """What a run works on."""

    def test_says_columns_split_and_what_is_to_beat(self, tmp_path):
        said = []
        made = learn.material(recipe(table(tmp_path / "a.jsonl", ROWS)), tmp_path, said.append)
        assert made.task.labels == ("down", "up")
        assert len(made.train) + len(made.valid) == 60
        assert "text is 'text', label is 'label'" in said[0]
        assert "held out" in said[1]
        assert "majority accuracy" in said[2]
        assert "TF-IDF + linear accuracy" in said[2]

    def test_seeds_hold_out_the_same_rows(self, tmp_path):
        """Scores of two seeds that cannot be compared."""
        path = table(tmp_path / "a.jsonl", ROWS)
        sides = [learn.material(recipe(path, plan={"seed": seed}), tmp_path / str(seed), str).valid for seed in (0, 1)]
        assert sides[0] == sides[1]

    def test_a_label_that_only_dev_has_is_told_before_the_first_step(self, tmp_path):
        """An hour of training that ends in this error."""
        dev = table(tmp_path / "dev.jsonl", [*ROWS[:3], {"text": "x", "label": "upp"}])
        path = table(tmp_path / "a.jsonl", ROWS)
        with pytest.raises(DataError, match=r"dev\.jsonl: row 4.*label 'upp'.*did you mean 'up'"):
            learn.material(recipe(path, data={"valid": dev}), tmp_path, str)

    def test_one_label_is_none(self, tmp_path):
        with pytest.raises(DataError, match="only the label 'up'"):
            learn.material(recipe(table(tmp_path / "a.jsonl", ROWS[:3])), tmp_path, str)

    def test_rows_that_are_cut_are_counted(self, tmp_path):
        said = []
        path = table(tmp_path / "a.jsonl", [*ROWS, {"text": "long " * 20, "label": "up"}])
        learn.material(recipe(path, data={"valid_fraction": 0}), tmp_path, said.append)
        assert any("1 of 61 rows are longer than plan.context 32 and were cut" in line for line in said)

    def test_a_file_of_the_recipes_says_which_folder_to_name(self, tmp_path, monkeypatch):
        monkeypatch.delenv("HANLIN_DATA", raising=False)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(HanlinError, match="set HANLIN_DATA"):
            learn.material(recipe("data/none.jsonl"), tmp_path, str)


class TestJudge:
    """Scores on held-out rows."""

    def test_no_row_settles_and_is_scored(self):
        """A temperature learned on the rows that it is judged by."""
        task, model, examples = fitted()
        found = judge.verdict(task, model, byte_level(), examples, 32)
        assert found.scores["accuracy"]["n"] == 30
        settle, score = judge.halves(task, examples)
        assert not {*range(60)[settle]} & {*range(60)[score]}
        assert found.settings["temperature"] != 1.0
        assert found.labels == ("down", "up")

    def test_baselines_are_scored_on_the_same_rows(self):
        task, model, examples = fitted()
        answers = [classify.Prediction(label="up" if at % 2 else "down") for at in range(60)]
        found = judge.verdict(task, model, byte_level(), examples, 32, {"odd": answers})
        right = sum(each.label == "up" for each in examples[1::2]) / 30
        assert found.beside == (("odd", f"accuracy {right:.4f}"),)

    def test_nothing_held_out_is_no_score(self):
        task, model, _ = fitted()
        assert judge.verdict(task, model, byte_level(), [], 32).scores == {}

    def test_rows_are_encoded_once(self, monkeypatch):
        """Thousands of rows tokenized at every examination."""
        task, model, examples = fitted()
        encoded = task.encode(examples, byte_level(), 32)
        look = judge.examine(task, byte_level(), examples, encoded, 32, str)
        monkeypatch.setattr(classify.Config, "encode", None)
        assert look(model, 1)["valid_accuracy"] == look(model, 2)["valid_accuracy"]


class TestBaselines:
    """What a score has to beat."""

    def test_words_and_characters(self):
        assert baselines.grams("So good 很好!") == ["很", "很好", "好", "so", "good", "!", "so good", "good !"]

    @pytest.mark.parametrize(
        ("labels", "usual"),
        [(["a", "b", "b"], "b"), ([1.0, 2.0, 6.0], 3.0), ([("a", "b"), ("b",), ()], ("b",))],
    )
    def test_the_usual_answer(self, labels, usual):
        known = [([f"word{at} same"], label) for at, label in enumerate(labels)]
        assert list(baselines.answers(known, [["x"], ["y"]])["majority"]) == [usual, usual]

    @pytest.mark.parametrize("kind", ["single", "multi", "rating"])
    def test_a_linear_model_learns_each_kind(self, kind):
        """Pairs whose sides are mixed up; answers of another type than the labels."""
        label = {"single": str, "multi": lambda each: (each,), "rating": lambda each: float(each == "up")}[kind]
        known = [((row["text"].split()[0],), label(row["label"])) for row in ROWS]
        found = baselines.answers(known, [("fine",), ("不好",)])["TF-IDF + linear"]
        assert type(found[0]) is type(known[0][1])
        if kind == "rating":
            assert found[0] > 0.5 > found[1]
        else:
            assert list(found) == [label("up"), label("down")]

    def test_the_sides_of_a_pair_are_told_apart(self):
        known = [(("a", "b") if at % 2 else ("b", "a"), str(at % 2)) for at in range(20)]
        assert list(baselines.answers(known, [("a", "b"), ("b", "a")])["TF-IDF + linear"]) == ["1", "0"]

    def test_without_the_extra_that_is_said(self, monkeypatch, tmp_path):
        monkeypatch.setattr(baselines, "find_spec", lambda name: None)
        said = []
        learn.material(recipe(table(tmp_path / "a.jsonl", ROWS)), tmp_path, said.append)
        assert any("hanlin[baselines]" in line for line in said)


class TestFrozen:
    """The head alone."""

    @pytest.mark.parametrize("pooling", ["first", "mean"])
    def test_features_give_the_same_answers(self, pooling):
        """Features of padding, of another row, or of a model that drops out."""
        task, model, examples = fitted()
        task = task.model_copy(update={"frozen": True, "pooling": pooling})
        rows = task.encode(examples, byte_level(), 32)
        known = frozen.featured(task, model.train(), rows, 0, "sequence", pooling)
        assert model.training
        predictor = Predictor(task, model.eval(), byte_level(), context=32)
        plain, quick = predictor(examples), predictor.answer(examples, known)
        for one, other in zip(plain, quick):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)

    def test_only_the_head_learns(self):
        task, model, examples = fitted()
        task = task.model_copy(update={"frozen": True})
        rows = frozen.adding(task, 0)(model, task.encode(examples, byte_level(), 32))
        moving = [name for name, each in model.named_parameters() if each.requires_grad]
        assert moving
        assert all(name.startswith("heads.sequence.") for name in moving)
        batch = task.collate(rows[:4], 0)
        sum(part.total for part in task.objective()(model, batch)).backward()
        assert [name for name, each in model.named_parameters() if each.grad is not None] == moving

    def test_others_learn_whole(self):
        assert frozen.adding(TASK, 0) is None


class TestSeeds:
    """Several runs of one recipe."""

    def test_the_median_is_kept_and_the_spread_is_told(self, tmp_path, monkeypatch):
        from hanlin import api
        from hanlin.report import Report
        from hanlin.verbs import train

        monkeypatch.setattr(Report, "picture", lambda report: None)
        monkeypatch.setattr(runtime, "cores", lambda: 1)
        made = recipe(table(tmp_path / "a.jsonl", ROWS))
        folder = tmp_path / "run"
        line = train.learn_seeds(made, folder, 3)
        kept = json.loads((folder / "seeds.json").read_text())
        assert sorted(kept["seeds"].values())[1] == kept["seeds"][str(kept["kept"])]
        assert line in (folder / "README.md").read_text()
        assert f"# {folder.name}\n" in (folder / "README.md").read_text()
        ours, theirs = (api.load(str(each)) for each in (folder, folder / "seeds" / str(kept["kept"])))
        assert ours.predict(["good"]) == theirs.predict(["good"])
        assert torch.equal(ours.module.embed.weight, theirs.module.embed.weight)

    def test_a_folder_of_others_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(RunError, match=r"thesis\.txt"):
            seeds.claim(tmp_path, recipe("a.jsonl"), fresh=True)
        assert (tmp_path / "thesis.txt").exists()

    def test_plain_text_has_no_median(self, tmp_path):
        made = recipe("a.jsonl").model_copy(update={"task": None})
        with pytest.raises(ConfigError, match="a task's rows"):
            seeds.claim(tmp_path, made, fresh=False)
