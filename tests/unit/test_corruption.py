"""Damaged text and what mends it: nothing is lost, nothing is made up, and a toy T5 learns from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hanlin.batch import IGNORE, Batch, Layout, Tokens, take
from hanlin.data import shards
from hanlin.data.corruption.denoise import infill, permute
from hanlin.data.corruption.spans import room, shares, spans
from hanlin.errors import AbilityError, ConfigError
from hanlin.models import gpt2, t5
from hanlin.objectives import corruption, seq2seq
from hanlin.objectives.contract import Reading
from hanlin.objectives.cross_entropy import total_nats
from hanlin.text.tokenizer import byte_level

MARKS = np.arange(1000, 1100)
END = 999


def bits(seed):
    return np.random.PCG64(np.random.SeedSequence([seed]))


def mended(inputs, targets):
    """Return the text that inputs and targets make together."""
    runs, mark = {}, None
    for id in targets[:-1]:
        if id >= 1000:
            mark = id
        else:
            runs.setdefault(mark, []).append(id)
    return [each for id in inputs for each in (runs[id] if id >= 1000 else [id])]


class TestSpans:
    """T5's."""

    @settings(max_examples=150, deadline=None)
    @given(st.integers(1, 300), st.floats(0.05, 0.9), st.floats(1, 8), st.integers(0, 9))
    def test_inputs_and_targets_make_the_text(self, count, rate, mean, seed):
        """A token lost or doubled at an edge, a sentinel out of order, a text of one token."""
        ids = np.arange(count) % 500
        inputs, targets = spans(ids, bits(seed), rate=rate, mean=mean, sentinels=MARKS, end=END)
        assert mended(inputs.tolist(), targets.tolist()) == ids.tolist()
        hidden, runs = shares(count, rate, mean)
        used = inputs[inputs >= 1000]
        assert used.tolist() == MARKS[: len(used)].tolist() == targets[targets >= 1000].tolist()
        assert targets[-1] == END
        assert len(targets) == hidden + min(runs, len(MARKS)) + 1
        assert not count > 1 or (inputs < 1000).any()

    def test_the_paper_s_shares(self):
        """15 % and runs of 3 on average, in the size that T5 reads: 568 tokens make 512 with the end."""
        assert shares(568, 0.15, 3.0) == (85, 28)
        assert room(511, 0.15, 3.0) == 568
        inputs, targets = spans(np.arange(568), bits(0), rate=0.15, mean=3.0, sentinels=MARKS, end=END)
        assert (len(inputs), len(targets)) == (511, 114)

    def test_every_place_is_as_likely(self):
        """Runs drawn from the beginning, or the last token never hidden."""
        gone = np.zeros(20)
        for seed in range(3000):
            _, targets = spans(np.arange(20), bits(seed), rate=0.3, mean=2.0, sentinels=MARKS, end=END)
            gone[targets[targets < 900]] += 1
        assert gone[0] == 0  # a text begins with what stays, as in T5
        assert gone[19] == 3000  # and ends with what is hidden
        assert gone[1:].min() > 300


class TestDenoise:
    """BART's."""

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 200), st.floats(0.0, 0.95), st.floats(1, 8), st.integers(0, 9))
    def test_infilling_keeps_the_rest_in_order(self, count, rate, mean, seed):
        """More or fewer tokens gone than asked for, masks side by side, tokens out of order."""
        ids = np.arange(count)
        found = infill(ids, bits(seed), rate=rate, mean=mean, mask=END)
        kept = found[found != END]
        assert len(kept) == count - round(rate * count)
        assert (np.diff(kept) > 0).all()
        assert not ((found[1:] == END) & (found[:-1] == END)).any()

    def test_lengths_are_poisson(self):
        """Runs of no token left out, or a mean that is not 3."""
        masks = sum(
            int((infill(np.arange(400), bits(n), rate=0.3, mean=3.0, mask=END) == END).sum()) for n in range(50)
        )
        assert 0.9 < masks / (50 * 120 / 3) < 1.15

    def test_sentences_change_places_whole(self):
        """A sentence cut, or the order always the same."""
        ids, ends = np.arange(10), np.isin(np.arange(10), [2, 3, 7])
        orders = {tuple(permute(ids, ends, bits(seed)).tolist()) for seed in range(60)}
        assert len(orders) == 24
        assert all(any(order[i : i + 4] == (4, 5, 6, 7) for i in range(7)) for order in orders)


@pytest.fixture
def text(tmp_path):
    """Return shards of short sentences as bytes, and their tokenizer."""
    tokenizer = byte_level()
    lines = ["the old bridge is shut. it was spring. 旧桥在春天封了。"] * 30
    entries = [shards.Entry("train", tokenizer.document(line), len(line), "t") for line in lines]
    shards.write(tmp_path / "s", entries, vocab=tokenizer.vocab, tokenizer_hash=tokenizer.hash)
    return shards.open(tmp_path / "s", "train"), tokenizer


SMALL = t5.Config(vocab=400, dim=16, layers=1, heads=2, head_dim=8, hidden=32, dropout=0.0)


@pytest.mark.parametrize("kind", ["spans", "denoise"])
def test_batches_follow_from_seed_and_step(text, kind):
    """Another damage when a step is asked for again, padding counted, a source beyond the context."""
    held, tokenizer = text
    made = [
        corruption.Config(kind=kind).source(held, Reading(tokenizer=tokenizer, rows=4, context=24, seed=s, packs=False))
        for s in (1, 1, 2)
    ]
    one, two, other = (each.batch(5) for each in made)
    assert torch.equal(one.source.ids, two.source.ids)
    assert torch.equal(one.targets, two.targets)
    assert one.source.ids.shape != other.source.ids.shape or not torch.equal(one.source.ids, other.source.ids)
    assert one.source.ids.shape[1] <= 24
    assert torch.equal(
        one.tokens[:, 1:][one.targets[:, 1:] != IGNORE], one.targets[:, :-1][one.targets[:, 1:] != IGNORE]
    )
    objective = corruption.Config(kind=kind)
    assert objective.counts(one) == (int((one.targets >= 0).sum()),)
    model = SMALL.build().eval()
    whole = float(objective(model, one)[0].total.detach())
    halves = sum(float(objective(model, take(one, slice(i, i + 2)))[0].total.detach()) for i in (0, 2))
    assert whole == pytest.approx(halves, rel=1e-5)
    with pytest.raises(ConfigError, match=r"model.vocab.*has no room"):
        objective(SMALL.model_copy(update={"vocab": 200}).build(), one)


class TestSeq2Seq:
    """Answers to a source."""

    def batch(self, seed, rows=16, length=6):
        """Return copying: the answer is the source, then 1."""
        ids = torch.randint(4, 20, (rows, length), generator=torch.Generator().manual_seed(seed))
        targets = torch.cat((ids, torch.ones(rows, 1, dtype=torch.long)), 1)
        tokens = torch.cat((torch.zeros(rows, 1, dtype=torch.long), ids), 1)
        return Batch(tokens=tokens, targets=targets, source=Tokens(ids=ids))

    def test_smoothing_is_torch_s(self):
        """The share taken over the targets' chunk, or the gradient of the plain loss."""
        model = SMALL.build()
        hidden = torch.randn(3, 5, 16, requires_grad=True)
        targets = torch.randint(0, 400, (3, 5))
        targets[1, 2:] = IGNORE
        found = total_nats(model, hidden, targets, chunk=4, smoothing=0.1)
        scores = model.logits(hidden).flatten(0, 1)
        expected = F.cross_entropy(scores, targets.flatten(), reduction="sum", label_smoothing=0.1)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, hidden), torch.autograd.grad(expected, hidden), atol=1e-6, rtol=1e-5
        )

    def test_padding_is_never_counted(self):
        """A target of padding, or a source's padding that changes the loss."""
        model, batch = SMALL.build().eval(), self.batch(0, rows=2)
        padded = torch.cat((batch.source.ids, torch.full((2, 3), 9)), 1)
        layout = Layout.of((torch.arange(9) < 6).long().expand(2, 9))
        tokens = F.pad(batch.tokens, (0, 2))
        longer = Batch(
            tokens=tokens,
            targets=F.pad(batch.targets, (0, 2), value=IGNORE),
            layout=Layout.of((torch.arange(9) < 7).long().expand(2, 9)),
            source=Tokens(ids=padded, layout=layout),
        )
        one, other = seq2seq.Config()(model, batch)[0], seq2seq.Config()(model, longer)[0]
        assert one.count == other.count == 14
        torch.testing.assert_close(one.total, other.total)

    def test_guesses_take_the_place_of_answers_alone(self):
        """The start replaced, a guess one place off, gradients lost to the first pass."""
        model, batch = SMALL.build().eval(), self.batch(1)
        memory = model.encode(batch.source)
        tokens = seq2seq.guessed(model, batch, memory, 1.0)
        best = model.logits(model(batch.tokens, memory=memory)).argmax(-1)
        assert torch.equal(tokens[:, 0], batch.tokens[:, 0])
        assert torch.equal(tokens[:, 1:], best[:, :-1])
        assert torch.equal(seq2seq.guessed(model, batch, memory, 0.0), batch.tokens)
        seq2seq.Config(sampled=0.5)(model, batch)[0].total.backward()
        assert all(each.grad is not None for each in model.parameters())

    def test_a_family_without_a_source_is_refused(self):
        """A decoder that learns answers without having read anything."""
        with pytest.raises(AbilityError, match="reads no source"):
            seq2seq.Config()(gpt2.Config(vocab=256, dim=8, layers=1, heads=2).build(), self.batch(0))

    def test_a_toy_learns_to_copy(self):
        """Anything that keeps an encoder–decoder from learning: targets off by one, a memory that is not looked at."""
        model = SMALL.model_copy(update={"vocab": 20, "dim": 32, "hidden": 64}).build()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for step in range(150):
            part = seq2seq.Config()(model, self.batch(step, rows=32, length=3))[0]
            (part.total / part.count).backward()
            optimizer.step()
            optimizer.zero_grad()
        part = seq2seq.Config()(model.eval(), self.batch(999, length=3))[0]
        assert float(part.total.detach()) / part.count < 1.2  # 0.87 here; without the source 3 / 4 · ln 16 = 2.1
