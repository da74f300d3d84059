"""The encoder spells: the loss is that of all paths counted one by one, and a run with it learns as one without."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, product

import pytest
import torch

from hanlin.batch import IGNORE, Batch, Frames, Layout, take
from hanlin.errors import AbilityError
from hanlin.models import gpt2, whisper
from hanlin.objectives import ctc, seq2seq
from hanlin.tasks import transcribe

START, END = 0, 1
SIZES = {"vocab": 5, "dim": 8, "layers": 1, "heads": 2, "context": 8, "features": 6, "source_context": 20}
MODEL = whisper.Config(**SIZES, any_length=True, spread=0.5)


@pytest.fixture
def model():
    return MODEL.build(seed=0).double().eval()


def batch(answers, frames, *, width=0):
    """Return a batch of answers (without their end) to rows of that many frames, padded to `width` frames at least."""
    longest, most = 1 + max(map(len, answers)), max(*frames, width)
    tokens, targets = torch.zeros(len(answers), longest, dtype=torch.long), torch.full((len(answers), longest), IGNORE)
    segments, heard = torch.zeros_like(tokens), torch.zeros(len(answers), most, dtype=torch.long)
    values = torch.zeros(len(answers), most, 6, dtype=torch.double)
    for row, (answer, length) in enumerate(zip(answers, frames)):
        tokens[row, : len(answer) + 1] = torch.tensor([START, *answer])
        targets[row, : len(answer) + 1] = torch.tensor([*answer, END])
        segments[row, : len(answer) + 1] = heard[row, :length] = 1
        values[row, :length] = torch.randn(length, 6, generator=torch.Generator().manual_seed(length)).double()
    source = Frames(values=values, layout=Layout.of(heard))
    return Batch(tokens=tokens, targets=targets, layout=Layout.of(segments), source=source)


def counted(model, given, answer):
    """Return minus the log of the summed probability of every path that collapses to the answer and its end."""
    memory = model.encode(given.source)
    logs = model.logits(memory.states[0]).log_softmax(-1)
    total = torch.zeros((), dtype=torch.double)
    for path in product(range(MODEL.vocab), repeat=len(logs)):
        if [token for token, _ in groupby(path) if token != START] == [*answer, END]:
            total = total + logs[torch.arange(len(logs)), torch.tensor(path)].sum().exp()
    return -total.log()


@pytest.mark.parametrize("answer", [[2], [3, 3], [4, 2]])
def test_all_paths_count(model, answer):
    """Guards against another blank, answers without their end, and a repeated letter that needs no blank between."""
    given = batch([answer], [10])  # five states
    found = ctc.spelling(model, given, model.encode(given.source))
    assert found.item() == pytest.approx(counted(model, given, answer).item(), rel=1e-4)  # it is taken in fp32


def test_rows_and_padding_do_not_mix(model):
    """Guards against targets of another row, and states of padding that spell."""
    answers, frames = [[2, 3], [4], [3, 3, 2]], [12, 7, 20]
    whole = batch(answers, frames, width=30)
    together = ctc.spelling(model, whole, model.encode(whole.source))
    alone = map(batch, zip(answers), zip(frames))
    found = [ctc.spelling(model, each, model.encode(each.source)).item() for each in alone]
    assert together.item() == pytest.approx(sum(found), rel=1e-5)


def test_an_answer_too_long_for_its_sound_counts_nothing(model):
    """Guards against an infinite loss, which ends a run, for one wrong label of many."""
    given = batch([[2, 3, 4, 2, 3, 4], [2]], [4, 12])  # two states for seven tokens
    found = ctc.spelling(model, given, model.encode(given.source))
    alone = batch([[2]], [12])
    alone = replace(alone, source=take(given.source, slice(1, 2)))
    assert found.item() == pytest.approx(ctc.spelling(model, alone, model.encode(alone.source)).item(), rel=1e-5)


def test_a_tokenizer_that_ends_as_it_begins(model):
    """Guards against the blank among the targets, for which the operator returns nonsense without a word."""
    given = batch([[2, 3]], [12])
    ends = replace(given, targets=torch.where(given.targets == END, START, given.targets))
    memory = model.encode(given.source)
    bare = replace(given, targets=torch.where(given.targets == END, IGNORE, given.targets))
    assert ctc.spelling(model, ends, memory).item() == ctc.spelling(model, bare, memory).item()


def test_parts_and_their_gradients(model):
    """Guards against a source that is read twice, counts that differ from the parts', and a weight left out."""
    given = batch([[2, 3], [4]], [12, 9])
    objective, plain = ctc.Config(weight=0.3), seq2seq.Config()
    parts = objective(model, given)
    assert tuple(each.count for each in parts) == objective.counts(given) == (5, 5)
    assert [each.weight for each in parts] == [1.0, 0.3]
    assert parts[0].total.item() == plain(model, given)[0].total.item()
    parts[1].total.backward()
    assert model.hear.weight.grad.abs().sum() > 0
    assert model.blocks[0].cross.q.weight.grad is None  # the decoder has no part in it


def test_a_task_asks_for_it():
    """Guards against a recipe's `ctc` that changes nothing."""
    assert type(transcribe.Config().objective()) is seq2seq.Config
    asked = transcribe.Config(ctc=0.5, smoothing=0.1).objective()
    assert asked == ctc.Config(weight=0.5, smoothing=0.1)


def test_a_family_that_hears_nothing():
    """Guards against a traceback where a decoder is asked to listen."""
    model = gpt2.Config(vocab=5, dim=8, layers=1, heads=2, context=8).build(seed=0)
    with pytest.raises(AbilityError, match="reads no source"):
        ctc.Config()(model, batch([[2]], [10]))
