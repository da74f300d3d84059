"""Tasks that write, from files to answers, as a person meets them; and what is refused in one line."""

import json
import random

import pytest

from hanlin.errors import HanlinError
from hanlin.train import recipe as recipes
from hanlin.verbs import evaluate, predict, train

MODELS = {
    "rnn": "{family: rnn, kind: gru, encoder: bidirectional, attention: luong, copies: true, dim: 32, hidden: 64, "
    "layers: 1}",
    "t5": "{family: t5, dim: 48, layers: 1, encoder_layers: 1, heads: 4, hidden: 96, dropout: 0.0}",
}
RECIPE = """
model: {model}
tokenizer: {{kind: characters}}
task: {{name: translate, limit: 16, beams: 2}}
data: {{train: {folder}/train.xx, valid: {folder}/dev.xx}}
optimizer: {optimizer}
plan: {{steps: {steps}, rows: 32, context: 16, precision: fp32, evaluate_every: {steps}}}
"""


@pytest.fixture
def corpus(tmp_path):
    """Write words and the same words backwards."""
    draws = random.Random(0)
    lines = sorted({" ".join(draws.choices("abc好的", k=draws.randint(2, 4))) for _ in range(600)})
    draws.shuffle(lines)
    for name, part in (("train", lines[20:]), ("dev", lines[:20])):
        (tmp_path / f"{name}.xx").write_text("".join(f"{each}\n" for each in part), encoding="utf-8")
        (tmp_path / f"{name}.yy").write_text("".join(f"{each[::-1]}\n" for each in part), encoding="utf-8")
    return tmp_path


def run(folder, model, steps, optimizer):
    text = RECIPE.format(model=MODELS[model], folder=folder, steps=steps, optimizer=optimizer)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return train.learn(recipes.load(str(folder / "recipe.yaml")), folder / "run")


def test_how_bleu_is_counted_stands_beside_it(corpus, capsys):
    """Guards against figures that two papers cannot compare."""
    run(corpus, "rnn", 1, "{name: sgd}")
    told = {"model": str(corpus / "run"), "data": str(corpus / "dev.xx")}
    capsys.readouterr()
    evaluate.run(evaluate.Config(**told))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("bleu: nrefs:1|case:mixed|eff:no|tok:") for line in lines)
    evaluate.run(evaluate.Config(**told, json=True))
    assert "bleu: " + json.loads(capsys.readouterr().out)["signature"] in lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "steps", "optimizer"), [("rnn", 200, "{name: adamw, rate: 1e-2}"), ("t5", 350, "{name: muon}")]
)
def test_words_turned_round(corpus, model, steps, optimizer, capsys):
    """Guards against a step of the way that reads, opens or ends an answer otherwise than the others."""
    run(corpus, model, steps, optimizer)
    (corpus / "asked.xx").write_text("a b c\n\n好 的 a\n", encoding="utf-8")
    out = corpus / "out.jsonl"
    predict.run(predict.Config(model=str(corpus / "run"), input=str(corpus / "asked.xx"), output=str(out)))
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [lines[0]["text"], lines[2]["text"]] == ["c b a", "a 的 好"]
    assert "empty source" in lines[1]["error"]
    capsys.readouterr()
    evaluate.run(evaluate.Config(model=str(corpus / "run"), data=str(corpus / "dev.xx"), json=True))
    assert json.loads(capsys.readouterr().out)["scores"]["chrf"]["value"] > 90


class TestRefused:
    """One line, before anything is learned."""

    def lines(self, corpus):
        with pytest.raises(HanlinError) as caught:
            run(corpus, "rnn", 1, "{name: sgd}")
        return caught.value.problems

    def test_unequal_files(self, corpus):
        """Guards against pairs that shift."""
        (corpus / "train.yy").write_text("one\n", encoding="utf-8")
        (line,) = self.lines(corpus)
        assert "1 in train.yy" in line

    def test_empty_sides(self, corpus):
        """Guards against empty translations; each is told with its line, and how many more there are."""
        (corpus / "train.xx").write_text("a\n" * 10, encoding="utf-8")
        (corpus / "train.yy").write_text("b\n" + "\n" * 9, encoding="utf-8")
        told = self.lines(corpus)
        assert "train.xx:2: empty target" in told[0]
        assert "4 more bad rows" in told[-1]

    def test_a_source_longer_than_the_context(self, corpus):
        """Guards against text that is dropped in silence."""
        (corpus / "train.xx").write_text("a\n" + "b" * 40 + "\n", encoding="utf-8")
        (corpus / "train.yy").write_text("a\nb\n", encoding="utf-8")
        (line,) = self.lines(corpus)
        assert "41 tokens" in line
        assert "at most 16" in line
