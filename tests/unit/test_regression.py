"""The losses of numbers, against torch's own and against a slope worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from toys import EncoderConfig

from hanlin.batch import Batch
from hanlin.objectives import classification, regression
from hanlin.objectives.classification import Answers

SCORES = torch.tensor([[0.5, 3.0], [-2.0, 0.0], [1.0, 1.0]])
VALUES = torch.tensor([[0.0, 0.0], [-2.5, 4.0], [1.0, 1.5]])


@pytest.mark.parametrize(("error", "twin"), [("squared", F.mse_loss), ("absolute", F.l1_loss), ("huber", F.huber_loss)])
def test_each_error_is_the_known_one_summed_over_rows(error, twin):
    """A sum where the mean of a row's values is meant, or another formula."""
    total = regression.Config(error=error).total(SCORES, VALUES)
    assert torch.allclose(total, twin(SCORES, VALUES) * len(SCORES))


def test_the_errors_by_hand():
    """Formulas of the docstring that the code does not follow: an error of 0.5 and one of 3."""
    found = [
        [float(regression.Config(error=error).total(torch.tensor([[x]]), torch.zeros(1))) for x in (0.5, 3.0)]
        for error in ("squared", "absolute", "huber")
    ]
    assert found == [[0.25, 9.0], [0.5, 3.0], [0.125, 2.5]]


def test_the_slope_of_a_squared_error_is_twice_the_error():
    """A loss that learns in the wrong direction, or half as fast."""
    score = torch.tensor([[2.0]], requires_grad=True)
    regression.Config().total(score, torch.tensor([5.0])).backward()
    assert score.grad.item() == -6.0


def test_one_rating_is_what_the_classification_objective_learns():
    """Two losses of one name that disagree."""
    scores, values = SCORES[:, :1], VALUES[:, 0]
    rating = classification.Config(kind="rating").total(scores, values)
    assert torch.allclose(regression.Config().total(scores, values), rating)


def test_values_of_another_shape_are_not_spread_over_the_scores():
    """(B,) against (B, 2): broadcasting would give a loss of something else."""
    with pytest.raises(AssertionError, match="values for"):
        regression.Config().total(SCORES, VALUES[:, 0])


def test_a_batch_gives_one_part_and_halves_add_up():
    """A count that is not the rows, so that uneven batches weigh wrong."""
    model = EncoderConfig().build(heads={"sequence": 2}).eval()
    tokens = torch.randint(0, 256, (3, 5), generator=torch.Generator().manual_seed(0))
    objective = regression.Config()
    batch = Batch(tokens=tokens, labels=Answers(values=VALUES))
    assert objective.counts(batch) == (3,)
    (whole,) = objective(model, batch)
    halves = [
        objective(model, Batch(tokens=tokens[part], labels=Answers(values=VALUES[part])))[0]
        for part in (slice(0, 1), slice(1, 3))
    ]
    assert (whole.count, [each.count for each in halves]) == (3, [1, 2])
    assert torch.allclose(whole.total, halves[0].total + halves[1].total)
