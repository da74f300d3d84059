"""A recurrent model from text to writing: trained by a recipe on streams, opened, generated from, streamed, scored."""

from __future__ import annotations

import json

import pytest
import serving
import torch

import hanlin
from hanlin.train import recipe
from hanlin.verbs import train

SIZES = {"rnn": 24, "gru": 16, "lstm": 16}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A text in two languages that is easy to learn by heart."""
    path = tmp_path_factory.mktemp("corpus") / "text.jsonl"
    lines = [{"text": f"one two three four {n} 一二三四五。 " * 12} for n in range(8)]
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["lstm", *(pytest.param(each, marks=pytest.mark.slow) for each in ("rnn", "gru"))])
def test_from_text_to_writing(tmp_path, corpus, kind):
    """A family that the trainer, the bundle, the generator or the scorer does not take."""
    asked = {
        "model": {"family": "rnn", "kind": kind, "dim": 16, "hidden": SIZES[kind], "layers": 1, "context": 4096},
        "tokenizer": {"kind": "characters"},
        "data": {"train": str(corpus), "valid_fraction": 0.3},
        "objective": {"name": "next_token", "streams": True},
        "optimizer": {"name": "adamw", "rate": 0.03},
        "plan": {"steps": 40, "rows": 4, "context": 16, "precision": "fp32", "threads": 1, "device": "cpu"},
    }
    assert "done at step 40 of 40" in train.learn(recipe.build(asked), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["valid_loss"] < 0.6 * rows[0]["loss"]
    model = hanlin.load(str(tmp_path / "run"))
    assert model.config.model_types[0] == "hanlin-rnn"
    whole = model.generate("one two", limit=60, temperature=0)  # past the 16 tokens it learned from at once
    assert whole == "".join(model.generate("one two", limit=60, temperature=0, stream=True))
    assert len(whole) >= 50
    together = model.generate(["一二", "one two three"], limit=9, temperature=0)
    assert together == [model.generate(each, limit=9, temperature=0) for each in ("一二", "one two three")]
    likely, odd = model.score(["one two three four", "owt eno ruof eerht"])
    assert sum(likely.logprobs) > sum(odd.logprobs)
    if kind == "lstm":
        continued_over_http(tmp_path / "run", model)
    again = hanlin.load(str(tmp_path / "run")).module
    assert all(torch.equal(*pair) for pair in zip(again.parameters(), model.module.parameters()))


def continued_over_http(folder, model):
    """Guards against a state that a neighbour moves, is lost between steps, or is shared by two answers."""
    prompts, choices = ["one two", "一二三", "四五。 "], {"temperature": 1.0, "seed": 3, "n": 2}
    wanted = [text for each in prompts for text in model.generate(each, limit=60, **choices)]
    assert len(set(wanted)) == 6
    asked = {"model": folder.name, "max_tokens": 60, **choices}
    with serving.serving(folder) as running, running.client() as client:
        reply = client.post("/v1/completions", json={**asked, "prompt": prompts}).json()
        streamed = client.post("/v1/completions", json={**asked, "prompt": prompts[0], "n": 1, "stream": True})
    assert [each["text"] for each in reply["choices"]] == wanted
    pieces = [each["choices"][0]["text"] for each in serving.events(streamed.text)]
    assert len(pieces) > 30
    assert "".join(pieces) == wanted[0]
