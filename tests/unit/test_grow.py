"""Growth: what a step takes is a function of the step, every row once, the tokens of a cut row unchanged."""

from __future__ import annotations

import pytest
import torch

from hanlin.batch import IGNORE, Batch, Layout
from hanlin.data import shards
from hanlin.data.batches import Packed, Streams
from hanlin.errors import ConfigError
from hanlin.text.tokenizer import byte_level
from hanlin.train.grow import Grow, cut, grown


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shards"
    tokenizer = byte_level()
    texts = [f"text {n} 第{n}篇" * (n % 4 + 1) for n in range(40)]
    entries = (shards.Entry("train", tokenizer.document(text), len(text.encode()), "x") for text in texts)
    shards.write(folder, entries, vocab=tokenizer.vocab, tokenizer_hash=tokenizer.hash)
    return shards.open(folder, "train")


def make(data, **given):
    return grown(Packed(data, rows=8, context=16, seed=0), Grow(**given), context=16, steps=20)


def test_stages_are_equally_long_and_end_where_the_plan_says(data):
    """A stage skipped, one that never ends, growth counted from the wrong end."""
    source = make(data, context=(4, 8), rows=(2, 4), over=0.5)
    shapes = [tuple(source.batch(step).tokens.shape) for step in range(20)]
    assert shapes == [(8, 4)] * 5 + [(8, 8)] * 5 + [(8, 16)] * 10
    only = make(data, rows=(3,), over=1.0)
    assert [only.batch(step).rows for step in range(22)] == [3] * 20 + [8] * 2


def test_no_row_is_left_out_or_taken_twice(data):
    """Rows skipped where the number of rows changes, so that part of the text is never read."""
    source = make(data, rows=(1, 3, 5), over=0.7)
    found = torch.cat([source.batch(step).tokens for step in range(20)])
    expected = torch.cat([source.source.rows_from(row, 1).tokens for row in range(len(found))])
    assert torch.equal(found, expected)


def test_a_step_is_a_function_of_its_number(data):
    """A source that remembers where it was: a resumed run would read other text."""
    source, other = (make(data, context=(4,), rows=(2,), over=0.6) for _ in range(2))
    order = [13, 2, 19, 2, 0, 7]
    found = {step: source.batch(step).tokens for step in range(20)}
    assert all(torch.equal(other.batch(step).tokens, found[step]) for step in order)


def test_cut_rows_hold_the_same_tokens_and_targets(data):
    """Targets moved, the last token of a piece without its answer, attention from one piece into the next."""
    whole = Packed(data, rows=8, context=16, seed=0).batch(3)
    short = cut(whole, 4)
    assert torch.equal(short.tokens.flatten(), whole.tokens.flatten())
    assert torch.equal(short.targets.flatten(), whole.targets.flatten())
    assert short.layout is not None
    segments = whole.layout.segments.reshape(-1, 4)
    same = segments[:, :, None] == segments[:, None]
    ours = short.layout.segments
    assert torch.equal(ours[:, :, None] == ours[:, None], same)
    assert (short.layout.positions[:, 0] == 0).all()
    assert short.layout.longest <= 4


def test_padding_stays_padding():
    segments = torch.tensor([[1, 1, 1, 2, 2, 0, 0, 0]])
    given = Batch(tokens=torch.arange(8)[None], targets=torch.full((1, 8), IGNORE), layout=Layout.of(segments))
    assert cut(given, 4).layout.segments.tolist() == [[1, 1, 1, 2], [1, 0, 0, 0]]
    assert cut(given, 2).layout.segments.tolist() == [[1, 1], [1, 2], [1, 0], [0, 0]]
    assert cut(Batch(tokens=torch.zeros(2, 8), targets=torch.zeros(2, 8)), 4).layout is None


def test_an_epoch_takes_more_steps(data):
    """Epochs that end before the text does."""
    source = make(data, rows=(2, 4), over=0.5)
    assert Grow(rows=(2, 4), over=0.5).share(8) == pytest.approx(1 - 0.5 * (1 - 3 / 8))
    assert source.steps_per_epoch == round(source.source.steps_per_epoch / (1 - 0.5 * (1 - 3 / 8)))
    assert Grow(context=(4,)).share(8) == 1.0


def test_rows_that_go_on_do_not_grow(data):
    """A state carried into another row."""
    streams = Streams(data, rows=2, context=8, seed=0)
    with pytest.raises(ConfigError, match=r"plan.grow: the rows of Streams do not grow"):
        grown(streams, Grow(rows=(1,)), context=8, steps=4)
    assert grown(streams, None, context=8, steps=4) is streams
