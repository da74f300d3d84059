"""Losses on pairs: by hand, and a step cut into portions learns what the whole step does."""

from __future__ import annotations

import math

import pytest
import torch
import toys

from hanlin.batch import Batch, take
from hanlin.errors import DataError
from hanlin.models import bert
from hanlin.objectives import contrastive
from hanlin.objectives.contrastive import Sides
from hanlin.optim import adamw
from hanlin.runtime import Runtime
from hanlin.tasks import similar
from hanlin.tasks.predict import Predictor
from hanlin.text.tokenizer import byte_level
from hanlin.train.plan import Plan
from hanlin.train.step import Learner

VECTORS = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
PAIRS = [
    {"text": "a cat", "pair": "one cat", "negative": "a red car", "score": 5},
    {"text": "a dog", "pair": "the dog", "negative": "a blue car", "score": 4},
    {"text": "好看", "pair": "不好看", "negative": "汽车", "score": 1},
    {"text": "a cat", "pair": "some cat", "negative": "no", "score": 0},
    {"text": "rain", "pair": "it is raining today, is it not", "negative": "x", "score": 3},
]


def two(kind, scores=(math.nan, math.nan), keys=(1, 2, 3, 4), **fields):
    """Return the loss of two pairs of plane vectors."""
    nan = math.nan
    sides = Sides(
        roles=torch.tensor([0, 1, 0, 1]),
        scores=torch.tensor([scores[0], nan, scores[1], nan], dtype=torch.float64),
        keys=torch.tensor(keys),
    )
    batch = Batch(tokens=torch.zeros(4, 1, dtype=torch.long), labels=sides)
    part = contrastive.Config(kind=kind, **fields).joint(VECTORS, batch)
    return float(part.total), part.count


class TestByHand:
    """The four losses, on cosines 0.8 and 0.8 within the pairs, 0.6 and 0.6 across."""

    def test_contrastive(self):
        """A sign, a temperature on the wrong side, a text compared with its own row."""
        each = -math.log(math.exp(8) / (math.exp(8) + math.exp(6)))
        assert two("contrastive", temperature=0.1) == pytest.approx((2 * each, 2))

    def test_the_same_text_is_no_wrong_answer(self):
        """The right answer, found in another row, counted as wrong."""
        assert two("contrastive", keys=(1, 2, 3, 2), temperature=0.1) == pytest.approx((0.0, 2))
        assert two("contrastive", keys=(1, 2, 2, 4), temperature=0.1)[0] == pytest.approx(0.126928, abs=1e-5)

    def test_pairs_scored_as_unlike_are_only_candidates(self):
        """An unlike pair drawn together."""
        assert two("contrastive", scores=(1.0, 0.0), temperature=0.1) == pytest.approx((0.126928, 1), abs=1e-5)

    def test_cosine(self):
        """A score that goes to another pair."""
        assert two("cosine", scores=(1.0, 0.5)) == pytest.approx((0.04 + 0.09, 2))

    def test_cosent(self):
        """An order turned round; a difference that is not divided by the temperature."""
        pulled = VECTORS.clone()
        try:
            VECTORS[3] = torch.tensor([0.8, 0.6])  # the second pair's cosine is 0.6 now
            assert two("cosent", scores=(1.0, 0.0), temperature=0.1)[0] == pytest.approx(2 * math.log1p(math.exp(-2)))
            assert two("cosent", scores=(0.0, 1.0), temperature=0.1)[0] == pytest.approx(2 * math.log1p(math.exp(2)))
        finally:
            VECTORS.copy_(pulled)

    def test_triplet(self):
        """A margin that is taken off."""
        sides = Sides(roles=torch.tensor([0, 1, 2]), scores=torch.full((3,), math.nan), keys=torch.tensor([1, 2, 3]))
        batch = Batch(tokens=torch.zeros(3, 1, dtype=torch.long), labels=sides)
        part = contrastive.Config(kind="triplet", margin=0.3).joint(VECTORS[[0, 1, 3]], batch)
        assert float(part.total) == pytest.approx(0.6 - 0.8 + 0.3)


@pytest.mark.parametrize("kind", ["contrastive", "triplet", "cosine", "cosent"])
@pytest.mark.parametrize("cut", [[3, 6, 15], [9, 12, 15]])
def test_portions_learn_what_the_whole_step_does(kind, cut, monkeypatch):
    """GradCache: negatives of another portion forgotten, a slope that belongs to other rows, a loss counted twice."""
    monkeypatch.setattr(contrastive, "pool", lambda hidden, layout, how: _mean(hidden, layout))
    task = similar.Config(learn=kind)
    examples = [task.example(each) for each in PAIRS]
    task = task.fitted(examples)
    model = toys.EncoderConfig().build(seed=0).double()
    whole = task.collate(task.encode(examples, byte_level(), 32), 0)
    objective = task.objective()

    def slopes(losses):
        model.zero_grad()
        total = 0.0
        for loss in losses:
            loss.backward()
            total += float(loss.detach())
        return total, [each.grad.clone() for each in model.parameters() if each.grad is not None]

    value, plain = slopes(part.total for part in objective(model, whole))
    parted = [take(whole, slice(start, stop)) for start, stop in zip([0, *cut], cut)]
    linked = objective.linked(model, whole, parted, lambda index: None)
    again, chunked = slopes(part.total for portion in parted for part in linked(model, portion))
    assert again == pytest.approx(value, abs=1e-12)
    assert max(float((a - b).abs().max()) for a, b in zip(plain, chunked, strict=True)) < 1e-12
    assert max(float(each.abs().max()) for each in plain) > 1e-4


def test_a_step_is_the_same_however_it_is_cut():
    """A trainer that learns each portion by itself, or draws other dropout the second time it embeds."""
    task = similar.Config(learn="contrastive")
    whole = task.collate(task.encode([task.example(each) for each in PAIRS[:2] + PAIRS[3:]], byte_level(), 32), 0)
    config = bert.Config(vocab=259, dim=8, layers=1, heads=2, hidden=12, context=32, dropout=0.0, attention_dropout=0.0)
    place = Runtime(device=torch.device("cpu"), dtype=torch.float32, threads=1)

    def slopes(dropout=0.0, **cut):
        model = config.model_copy(update={"dropout": dropout}).build(seed=0)
        learner = Learner(model, adamw.Config().build(model), task.objective(), Plan(steps=1, rows=4, **cut), place)
        return learner.gradients(whole, 0)["loss"], [each.grad for each in model.parameters() if each.grad is not None]

    value, plain = slopes()
    for cut in ({"accumulate": 3}, {"portion": 100}):
        again, chunked = slopes(**cut)
        assert again == pytest.approx(value, abs=1e-5)
        assert max(float((a - b).abs().max()) for a, b in zip(plain, chunked, strict=True)) < 1e-4
    first, second = (slopes(dropout=0.4, accumulate=2) for _ in range(2))
    assert first[0] == second[0]
    step = 1e-5  # with dropout the slope must be that of the loss that the same draws give
    model = config.model_copy(update={"dropout": 0.4}).build(seed=0)
    learner = Learner(model, adamw.Config().build(model), task.objective(), Plan(steps=1, rows=4, accumulate=2), place)
    weights = list(model.parameters())
    found = learned(learner, whole)
    with torch.no_grad():
        for weight, slope in zip(weights, found, strict=True):
            weight -= step * slope
    moved = learner.gradients(whole, 0)["loss"]
    square = sum(float(each.square().sum()) for each in first[1])
    assert first[0] - moved == pytest.approx(step * square, rel=0.3)


def learned(learner, batch):
    """Return the slopes of a step, zeros where there are none."""
    learner.gradients(batch, 0)
    found = [torch.zeros_like(each) if each.grad is None else each.grad for each in learner.model.parameters()]
    learner.optimizer.zero_grad(set_to_none=True)
    return found


def _mean(hidden, layout):
    """Pool in the type of the states: fp64 here."""
    real = torch.ones(hidden.shape[:2], dtype=torch.bool) if layout is None else layout.real
    return (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)


class TestSimilar:
    """The task around the losses."""

    def test_the_scale_of_the_scores_is_learned_and_given_back(self):
        """A cosine where the training scores' scale was asked for."""
        task = similar.Config(scaled=True)
        examples = [task.example(each) for each in PAIRS]
        task = task.fitted(examples)
        assert (task.low, task.high) == (0.0, 5.0)
        model = toys.EncoderConfig().build(seed=0)
        plain = Predictor(task.model_copy(update={"scaled": False}), model, byte_level())(examples)
        scaled = Predictor(task, model, byte_level())(examples)
        assert [each.similarity for each in scaled] == pytest.approx([5 * max(0, each.similarity) for each in plain])

    def test_rows_that_cannot_teach_are_refused(self):
        """A triplet without its third; scores all alike; held-out pairs with nothing to judge by."""
        bare = [similar.Example(text="a", pair="b", score=1.0)] * 2
        with pytest.raises(DataError, match="row 1 of 2 has no negative"):
            similar.Config(learn="triplet").fitted(bare)
        with pytest.raises(DataError, match="all scores are the same"):
            similar.Config().fitted(bare)
        unscored = [similar.Example(text="a", pair="b")]
        with pytest.raises(DataError, match=r"row 1 of 1 has no score; name scored rows in data\.valid"):
            similar.Config(learn="contrastive").score(unscored, [similar.Prediction(similarity=0.5)])
