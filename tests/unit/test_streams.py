"""Streams: rows that go on from step to step, and a recurrent state that goes with them, is saved, and starts anew."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import test_loop
import torch
import toys
from test_batches import made
from test_loop import STEPS, newest, stop_at, train

from hanlin.batch import IGNORE, Batch, take
from hanlin.data import shards
from hanlin.data.batches import Streams
from hanlin.errors import AbilityError, DataError, Stopped
from hanlin.models import llama, rnn
from hanlin.nn.cache import StateCache
from hanlin.objectives import next_token
from hanlin.optim import adamw
from hanlin.runtime import Runtime
from hanlin.text.tokenizer import byte_level
from hanlin.train.plan import Plan
from hanlin.train.step import Learner

CASES = {
    "toy": (toys.RecurrentConfig(vocab=259, context=16), {}),
    "toy, accumulated": (toys.RecurrentConfig(vocab=259, context=16), {"accumulate": 2}),
    "gru, bf16": (rnn.Config(kind="gru", vocab=259, dim=8, dropout=0.2), {"precision": "bf16"}),
    "lstm, accumulated": (rnn.Config(kind="lstm", vocab=259, dim=8, layers=2), {"accumulate": 4}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Shards of documents, some of them longer than a row and some much shorter."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    tokenizer = byte_level()
    texts = [f"text {n} 第{n}篇" * (9 if n % 5 == 0 else 1) for n in range(30)]
    entries = (shards.Entry("train", tokenizer.document(text), len(text.encode()), "x") for text in texts)
    shards.write(folder, entries, vocab=tokenizer.vocab, tokenizer_hash=tokenizer.hash)
    return shards.open(folder, "train")


def learner(config, **plan) -> Learner:
    model = config.build(seed=0)
    chosen = Plan(**{"steps": 1, "precision": "fp32", "rows": 2, "context": 6, **plan})
    runtime = Runtime(device=torch.device("cpu"), dtype=torch.float32, threads=1)
    return Learner(model, adamw.Config().build(model), next_token.Config(streams=True), chosen, runtime)


class TestBatches:
    """What a row goes on with."""

    def test_rows_go_on_to_the_end_of_the_epoch(self):
        """A row that goes on with another row's text, skips a token, or crosses into the next epoch."""
        source = Streams(made(40, 3, 90, 17), rows=3, context=7, seed=0)
        for epoch in range(3):
            steps = [source.batch(epoch * source.steps_per_epoch + at) for at in range(source.steps_per_epoch)]
            whole = torch.cat([batch.tokens for batch in steps], 1)
            answers = torch.cat([batch.targets for batch in steps], 1)[:, :-1]
            assert bool(((answers == whole[:, 1:]) | (answers == IGNORE)).all())
            assert len(whole.unique()) == whole.numel() == 3 * 7 * source.steps_per_epoch  # ids tell places: none twice
            assert not steps[0].continues.any()
        assert source.steps_per_epoch == 150 // 21
        assert source.tokens_per_step == 21

    def test_what_continues_is_what_no_document_begins(self):
        """A state kept into the next document, or thrown away inside one; a first token taken for a later one."""
        firsts = {0, 40, 43, 133}
        source = Streams(made(40, 3, 90, 17), rows=3, context=7, seed=0)
        for step in range(3 * source.steps_per_epoch):
            batch = source.batch(step)
            for row, tokens in enumerate(batch.tokens.tolist()):
                inside = step % source.steps_per_epoch > 0 and tokens[0] not in firsts
                assert bool(batch.continues[row]) == inside
                breaks = [1 + sum(token in firsts for token in tokens[1 : at + 1]) for at in range(7)]
                found = [1] * 7 if batch.layout is None else batch.layout.segments[row].tolist()
                assert found == breaks

    def test_any_step_in_any_order(self):
        """A batch that depends on which was asked for before."""
        one, two = (Streams(made(60, 61), rows=2, context=5, seed=4) for _ in "12")
        for step in reversed(range(30)):
            assert torch.equal(one.batch(step).tokens, Streams.batch(two, step).tokens)
        assert not torch.equal(one.batch(0).tokens, Streams(made(60, 61), rows=2, context=5, seed=5).batch(0).tokens)

    def test_too_little_text(self):
        """An epoch of no steps."""
        with pytest.raises(DataError, match=r"20 tokens; 4 rows of 6 or more; use more text, or fewer plan.rows"):
            Streams(made(20), rows=4, context=6, seed=0)


class TestCarry:
    """What is remembered over the end of a step."""

    @pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
    def test_cut_in_steps_is_one_long_row(self, kind):
        """A state lost, or mixed up between rows or layers: pieces forwarded one by one must be the whole."""
        config = rnn.Config(kind=kind, vocab=64, dim=6, layers=2)
        it = learner(config)
        ids = torch.randint(0, 64, (2, 19), generator=torch.Generator().manual_seed(0))
        cache = it.model.new_cache(2, 18)
        it.model(ids[:, :18], cache=cache)
        losses = []
        for step in range(3):
            at = slice(6 * step, 6 * step + 6)
            part = Batch(
                tokens=ids[:, at], targets=ids[:, 1:][:, at], continues=torch.full((2,), step > 0, dtype=torch.bool)
            )
            losses.append(it.advance(part, step, 0.0)["loss"])
        assert isinstance(cache, StateCache)
        for found, wanted in zip(it.carry, cache.states, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
            assert not found.requires_grad
        whole = next_token.Config()(it.model, Batch(tokens=ids[:, :18], targets=ids[:, 1:]))[0]
        assert np.mean(losses) == pytest.approx(float(whole.total.detach()) / whole.count, rel=1e-5)

    def test_a_new_document_begins_with_nothing(self):
        """What was read in another document whispering into this one, at a row's beginning or inside it."""
        it = learner(rnn.Config(vocab=180, dim=6))
        source = Streams(made(40, 3, 90, 17), rows=2, context=6, seed=1)
        it.carry = [torch.full((2, 12), 5.0), torch.full((2, 12), 5.0)]
        step = next(
            step for step in range(1, 99) if source.batch(step).continues.tolist() == [True, False]
        )  # row 1 begins with a document
        batch = source.batch(step)
        it.advance(batch, 0, 0.0)
        fresh = it.model.new_cache(1, 6)
        it.model(batch.tokens[1:], layout=take(batch.layout, slice(1, 2)), cache=fresh)
        for found, wanted in zip(it.carry, fresh.states, strict=True):
            torch.testing.assert_close(found[1:], wanted, atol=1e-6, rtol=0)
            assert not torch.allclose(found[:1], wanted, atol=1e-2)

    def test_portions_of_a_step_keep_their_own_rows(self):
        """Every portion going on from the first rows' state."""
        whole, cut = (learner(rnn.Config(vocab=180, dim=6), accumulate=each) for each in (1, 2))
        source = Streams(made(150), rows=2, context=6, seed=1)
        for step in range(3):
            one, two = (it.advance(source.batch(step), step, 0.0)["loss"] for it in (whole, cut))
            assert one == pytest.approx(two, rel=1e-5)
            torch.testing.assert_close(whole.carry, cut.carry, atol=1e-6, rtol=0)

    def test_a_step_that_is_not_taken_is_not_remembered(self):
        """NaN carried on for ever."""
        it = learner(rnn.Config(vocab=64, dim=6))
        ids = torch.randint(0, 64, (2, 7))
        batch = Batch(tokens=ids[:, :-1], targets=ids[:, 1:], continues=torch.tensor([False, False]))
        it.advance(batch, 0, 0.0)
        kept = [each.clone() for each in it.carry]
        with torch.no_grad():
            it.model.embed.weight[int(ids[0, 0])] = torch.nan
        it.advance(replace(batch, continues=torch.tensor([True, True])), 1, 0.0)
        assert all(torch.equal(*pair) for pair in zip(it.carry, kept, strict=True))

    def test_only_for_models_that_carry_a_state(self):
        """A Transformer that silently forgets what the recipe asks it to keep."""
        it = learner(llama.Config(vocab=64, dim=8, layers=1, heads=2, hidden=8))
        ids = torch.zeros(2, 6, dtype=torch.long)
        batch = Batch(tokens=ids, targets=ids, continues=torch.tensor([False, False]))
        with pytest.raises(AbilityError, match=r"Llama: carries no state.*set objective.streams: false"):
            it.advance(batch, 0, 1.0)


class TestGoingOn:
    """Interrupted and started again."""

    def job(self, folder, data, case, monkeypatch, **given):
        config, choices = CASES[case]
        monkeypatch.setitem(test_loop.CASES, case, (config, adamw.Config(rate=1e-2), choices))
        found = test_loop.make(folder, data, case, objective=next_token.Config(streams=True), **given)
        return replace(found, source=replace(found.source, source=Streams(data, rows=4, context=16, seed=0)))

    @pytest.mark.parametrize("case", CASES)
    def test_with_the_same_bits(self, tmp_path, data, case, monkeypatch):
        """A state that is not in the checkpoint, or not of the step it belongs to."""
        train(self.job(tmp_path / "whole", data, case, monkeypatch))
        for step in sorted(random.Random(case).sample(range(STEPS - 1), 2)):
            with pytest.raises(Stopped):
                train(self.job(tmp_path / "cut", data, case, monkeypatch, before=stop_at(step)))
        train(self.job(tmp_path / "cut", data, case, monkeypatch))
        assert test_loop.left(tmp_path / "cut") == test_loop.left(tmp_path / "whole")
        one, two = newest(tmp_path / "cut").carry, newest(tmp_path / "whole").carry
        assert one.keys() == two.keys() != set()
        assert all(torch.equal(one[name], two[name]) and one[name].abs().sum() > 0 for name in one)

    def test_a_damaged_state_is_passed_over(self, tmp_path, data, monkeypatch):
        """A run that goes on from a state that is not its own."""
        train(self.job(tmp_path, data, "toy", monkeypatch))
        (tmp_path / "checkpoints" / f"{STEPS:06d}" / "carry.safetensors").unlink()
        assert newest(tmp_path).step < STEPS
