"""The contract that every task keeps: one table of tasks, one set of tests. A new task is one row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import spoken
import torch
import toys
import written

from hanlin.config import dump
from hanlin.errors import DataError, HanlinError
from hanlin.models import bert
from hanlin.models.contract import ModelConfig
from hanlin.tasks import answer, classify, contract, rows, similar, tag, zeroshot
from hanlin.tasks.batches import Bucketed
from hanlin.tasks.contract import Task
from hanlin.tasks.predict import Predictor
from hanlin.text.tokenizer import byte_level


@dataclass(frozen=True)
class Entry:
    """One row of the table: a task, a toy model's config, and labelled rows as a file holds them."""

    task: Task[Any, Any]
    model: ModelConfig
    values: Sequence[Mapping[str, Any]]
    bad: Mapping[str, Any]  # a row that cannot be an example


TEXTS = ["good", "bad", "so good 好", "坏", "a longer good text", "bad bad bad", "好看", "不好 bad", "good!", "bad?"]
SINGLE = [{"text": text, "label": "down" if "bad" in text or "坏" in text else "up"} for text in TEXTS]
MULTI = [{"text": text, "label": [name for name in ("good", "bad", "好") if name in text]} for text in TEXTS]
RATED = [{"text": text, "label": float(len(text))} for text in TEXTS]
PAIRS = [{"text": text, "pair": text[::-1], "label": int(len(text) > 5)} for text in TEXTS]
ENCODER = toys.EncoderConfig()
NAMED = ["Ada met 李白 in Paris", "李白 slept", "no names here", "Paris fell", "Ada Ada", "in 北京 with Bo"]
TYPES = {"Ada": "PER", "李白": "PER", "Bo": "PER", "Paris": "LOC", "北京": "LOC"}
TAGGED = [
    {"text": text.split(), "tags": [f"B-{TYPES[w]}" if w in TYPES else "O" for w in text.split()]} for text in NAMED
]
SPANNED = [
    {"text": text, "tags": [[text.find(w), text.find(w) + len(w), kind] for w, kind in TYPES.items() if w in text]}
    for text in NAMED
]
MEANT = [{**row, "intent": "asks" if "met" in row["text"] else "tells"} for row in TAGGED]
SPOKEN = [{"text": row["text"], "tags": ["NAME" if tag != "O" else "WORD" for tag in row["tags"]]} for row in TAGGED]
PASSAGE = "Ada 😀 was born in London, 李白 in 碎叶城."
ASKED = [
    {"question": "Ada?", "context": PASSAGE, "answers": [{"text": "London", "answer_start": 18}], "article": "a"},
    {"question": "谁?", "context": PASSAGE, "answers": ["李白", "Ada"], "article": "a"},
    {"question": "who", "context": "Bo.", "answers": {"text": ["Bo"], "answer_start": [0]}, "article": "b"},
    {"question": "why", "context": "Bo is here, Bo is there.", "answers": [], "article": "b"},
]
LIKE = [
    {"text": text, "pair": [text + "!", "zz 坏"][at % 2], "score": 5 * (1 - at % 2)} for at, text in enumerate(TEXTS)
]
THREES = [{"text": text, "pair": text + "!", "negative": text[::-1] + "x"} for text in TEXTS]
READER = bert.Config(vocab=259, dim=16, layers=1, heads=2, hidden=16, context=48, dropout=0.0, attention_dropout=0.0)
TABLE = {
    "classify": Entry(classify.Config(), ENCODER, SINGLE, {"text": " ", "label": "up"}),
    "classify-pairs": Entry(classify.Config(), ENCODER, PAIRS, {"text": 7, "label": "1"}),
    "classify-multi": Entry(classify.Config(kind="multi"), ENCODER, MULTI, {"text": "", "label": []}),
    "classify-rating": Entry(classify.Config(kind="rating"), ENCODER, RATED, {"text": "a", "label": "much"}),
    "zeroshot": Entry(zeroshot.Config(classes=("entailment", "no")), ENCODER, SINGLE, {"text": " ", "label": "up"}),
    "tag": Entry(tag.Config(), READER, TAGGED, {"text": ["a", "b"], "tags": ["O"]}),
    "tag-legal": Entry(
        tag.Config(legal=True, scheme="bioes"), READER, SPANNED, {"text": "Ada", "tags": [[0, 4, "PER"]]}
    ),
    "tag-joint": Entry(tag.Config(), READER, MEANT, {"text": [], "tags": [], "intent": "asks"}),
    "tag-plain": Entry(tag.Config(), READER, SPOKEN, {"text": ["a", ""], "tags": ["WORD", "WORD"]}),
    "answer": Entry(answer.Config(), READER, ASKED, {**ASKED[0], "answers": [{"text": "London", "answer_start": 17}]}),
    "answer-cmrc": Entry(answer.Config(rule="cmrc"), READER, ASKED, {**ASKED[0], "answers": "Rome"}),
    "similar": Entry(similar.Config(), ENCODER, LIKE, {"text": "a", "pair": "b", "score": "much"}),
    "similar-cosine": Entry(similar.Config(learn="cosine", scaled=True), ENCODER, LIKE, {"text": "", "pair": "b"}),
    "similar-contrastive": Entry(similar.Config(learn="contrastive"), ENCODER, LIKE, {"text": "a", "pair": 7}),
    "similar-triplet": Entry(similar.Config(learn="triplet"), ENCODER, THREES, {"text": "a", "pair": " "}),
    **{name: Entry(*row) for name, row in {**written.ROWS, **spoken.ROWS}.items()},
}
CONTEXT = 32


def made(name: str):
    """Return the fitted task of a row, its model with every parameter random, its labelled examples."""
    entry = TABLE[name]
    examples = [entry.task.example(values) for values in entry.values]
    task = entry.task.fitted(examples)
    model = entry.model.build(seed=0, heads=task.heads()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return task, model, examples


def close(one, other):
    """Compare predictions: numbers nearly, everything else exactly."""
    if isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-5)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            close(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("name", TABLE)
class TestEveryTask:
    """What holds for all tasks."""

    def test_a_bundle_keeps_it(self, name):
        """A setting or label that is not saved, or read back as something else."""
        task, _, _ = made(name)
        plain = json.loads(json.dumps(contract.saved(task)))
        assert contract.restored(plain, "test") == task
        with pytest.raises(HanlinError, match="version"):
            contract.restored({**plain, "version": 99}, "test")

    def test_company_and_order_never_change_an_answer(self, name):
        """Answers handed to the wrong example, padding that counts, statistics over the batch."""
        task, model, examples = made(name)
        predictor = Predictor(task, model, byte_level(), context=CONTEXT)
        together = [dump(each) for each in predictor(examples)]
        alone = [dump(predictor([each])[0]) for each in examples]
        back = [dump(each) for each in predictor(examples[::-1])][::-1]
        close(together, alone)
        close(together, back)

    def test_unlabelled_examples_get_the_same_answers(self, name):
        """An answer that looks at the label."""
        task, model, examples = made(name)
        bare = [
            task.example({key: value for key, value in values.items() if key not in task.answers})
            for values in TABLE[name].values
        ]
        predictor = Predictor(task, model, byte_level(), context=CONTEXT)
        close([dump(each) for each in predictor(bare)], [dump(each) for each in predictor(examples)])

    def test_scores_are_estimates_and_the_main_one_is_there(self, name):
        """A key misspelled, a score outside its interval, marks of another length."""
        task, model, examples = made(name)
        predictions = Predictor(task, model, byte_level(), context=CONTEXT)(examples)
        scores = task.score(examples, predictions)
        assert task.main in scores
        assert all(each.low <= each.value <= each.high for each in scores.values())
        marks = task.marks(examples, predictions)
        assert marks.shape == (len(examples),)
        assert np.isfinite(marks).all()
        assert task.statistics(examples, predictions).value(task.main) == pytest.approx(scores[task.main].value)

    def test_a_few_steps_lower_the_loss(self, name):
        """Labels that do not belong to their rows, a loss that is not wired to the head."""
        torch.manual_seed(0)
        task, _, examples = made(name)
        model = TABLE[name].model.build(seed=0, heads=task.heads())
        encoded = task.encode(examples, byte_level(), CONTEXT)
        source = Bucketed(task, encoded, rows=len(examples), tokens=None, seed=0, pad=0)
        objective, batch = task.objective(), source.batch(0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        losses = []
        for _ in range(25):
            parts = objective(model, batch)
            assert tuple(part.count for part in parts) == objective.counts(batch)
            loss = sum(part.weight * part.total / max(1, part.count) for part in parts)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.8 * losses[0]

    def test_every_row_is_learned_from_once_an_epoch(self, name):
        """Rows lost at the end of an epoch, or taken twice; a step that depends on those before it."""
        task, _, examples = made(name)
        encoded = task.encode(examples, byte_level(), CONTEXT)
        for rows_, tokens in ((3, None), (16, 60)):
            source = Bucketed(task, encoded, rows=rows_, tokens=tokens, seed=0, pad=0)
            count = sum(source.batch(step).rows for step in range(source.steps_per_epoch))
            assert count == len(encoded)
            again = Bucketed(task, encoded, rows=rows_, tokens=tokens, seed=0, pad=0)
            assert torch.equal(again.batch(7).tokens, source.batch(7).tokens)

    def test_a_bad_row_is_named(self, name, tmp_path):
        """A row that is dropped in silence, or ends in a traceback."""
        entry = TABLE[name]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in [*entry.values[:3], entry.bad]))
        with pytest.raises(DataError, match=r"rows\.jsonl:4"):
            rows.examples(entry.task, path, {}, labelled=True)

    def test_what_is_asked_is_checked(self, name):
        """An unknown or missing field that passes."""
        task, _, _ = made(name)
        with pytest.raises(DataError, match=r"no_such_field.*unknown field"):
            task.asked({**TABLE[name].values[0], "no_such_field": 1})
        with pytest.raises(DataError, match=f"{task.needed[0]}.*missing"):
            task.asked({})
        with pytest.raises(DataError, match="a text, or a mapping"):
            task.asked(7)
