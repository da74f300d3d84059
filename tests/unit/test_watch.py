"""What is looked at on the way: the loss that evaluate finds, and a sample that never disturbs the run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toys import EncoderConfig, RecurrentConfig

from hanlin.errors import AbilityError
from hanlin.evaluation import harness, texts, watch
from hanlin.models import gpt2, llama
from hanlin.text.tokenizer import byte_level

CONTEXT = 16
LLAMA = llama.Config(vocab=259, dim=16, layers=1, heads=2, context=CONTEXT, spread=0.4)
GPT2 = gpt2.Config(vocab=259, dim=16, layers=1, heads=2, context=CONTEXT, dropout=0.5, spread=0.4)


def held(*documents):
    """Return texts tokenized for scoring."""
    tokenizer = byte_level()
    ids = [np.array(each) for each in tokenizer.documents(documents)]
    sizes = np.array([len(each.encode()) for each in documents])
    return texts.Texts(ids, np.array([len(each) for each in ids]), sizes)


DOCUMENTS = held("a first text that is longer than the context", "第二", "c")


def look(model, step=3, documents=DOCUMENTS, context=CONTEXT):
    """Look once; return the numbers and the lines said."""
    said = []
    return watch.watch(documents, byte_level(), context, said.append)(model, step), said


@pytest.mark.parametrize(
    "config", [LLAMA, GPT2, RecurrentConfig(vocab=259, context=CONTEXT)], ids=["llama", "gpt2", "toy"]
)
class TestLook:
    """Loss and sample, for families that pack and one that does not."""

    def test_the_loss_is_what_evaluate_finds(self, config):
        """A mean of documents' means, a first token counted, dropout left on."""
        model = config.build(seed=0)
        numbers, _ = look(model)
        scores = harness.examine(model.eval(), DOCUMENTS)
        assert numbers.keys() == {"valid_loss"}
        assert math.isclose(numbers["valid_loss"], math.log(scores.perplexity.value), rel_tol=1e-5)

    def test_one_line_is_said_and_it_is_the_same_each_time(self, config):
        """A sample over many lines, a sample that a repeated run does not repeat."""
        model = config.build(seed=0)
        first, again, later = look(model), look(model), look(model, step=4)
        assert first == again
        (line,) = first[1]
        assert line.startswith(f"step 3: valid_loss {first[0]['valid_loss']:.4f} nats/token; sample: '")
        assert "\n" not in line
        assert line.partition("sample")[2] != later[1][0].partition("sample")[2]

    def test_neither_mode_nor_chance_is_changed(self, config):
        """Dropout off for the rest of the run; draws that differ from those of a run that was not examined."""
        model = config.build(seed=0).train()
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        look(model)
        assert model.training
        assert torch.equal(torch.rand(3), expected)


def test_a_model_that_sees_what_comes_is_not_scored_by_it():
    """The next token of an encoder, which reads it: a loss near nothing that means nothing."""
    with pytest.raises(AbilityError, match="cannot decode step by step"):
        look(EncoderConfig(vocab=259, context=CONTEXT).build(seed=0))


def test_a_context_of_one_leaves_no_room_to_write():
    """A prompt that fills the context, refused in the middle of a run."""
    (line,) = look(LLAMA.build(seed=0), context=1)[1]
    assert "sample" not in line


def test_a_context_shorter_than_the_models_is_kept():
    """Scores by a past that training never has."""
    model = LLAMA.build(seed=0)
    found = [look(model, context=context)[0]["valid_loss"] for context in (2, 8)]
    expected = [
        math.log(harness.examine(model.eval(), DOCUMENTS, context=context).perplexity.value) for context in (2, 8)
    ]
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[0] != found[1]


def test_documents_of_one_token_are_passed_over(monkeypatch):
    """A portion spent on documents that have nothing to score, and a loss of 0.0."""
    lengths = np.array([1] * 50 + [30] + [0] * 9)
    documents = texts.Texts([np.full(length, 5) for length in lengths], lengths, lengths)
    monkeypatch.setattr(watch, "TOKENS", 20)
    assert [len(each) for each in harness.portion(documents, 20)] == [20]
    assert look(LLAMA.build(seed=0), documents=documents)[0]["valid_loss"] > 0.1


def test_a_large_set_is_scored_in_part(monkeypatch):
    """An examination that takes longer than the steps between."""
    monkeypatch.setattr(watch, "TOKENS", 100)
    seen = []
    monkeypatch.setattr(
        harness, "nats", lambda model, documents, **_: seen.append(documents) or np.ones(len(documents))
    )
    numbers, _ = look(LLAMA.build(seed=0), documents=held(*["x" * 20] * 50))
    assert sum(map(len, seen[0])) <= 100
    assert numbers["valid_loss"] == len(seen[0]) / sum(len(each) - 1 for each in seen[0])
