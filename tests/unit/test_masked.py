"""Pre-training an encoder: batches are functions of the step, parts are counted apart, and the loss falls."""

from __future__ import annotations

import pytest
import torch

from hanlin.batch import IGNORE, take
from hanlin.data import shards
from hanlin.data.masked import Masked, Questions
from hanlin.errors import AbilityError, ConfigError, DataError
from hanlin.models import bert
from hanlin.objectives import masked
from hanlin.objectives.contract import Reading
from hanlin.text.tokenizer import byte_level, train_wordpiece

LINES = [
    f"the {a} {b} sang of {c} and went home"
    for a in ["old", "new"]
    for b in ["king", "bard", "fox"]
    for c in ["rain", "stars", "bread", "酒", "月"]
]
CONFIG = {"dim": 16, "layers": 1, "heads": 2, "hidden": 32, "context": 32, "dropout": 0.0, "attention_dropout": 0.0}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Return a tokenizer and the shards of a few lines."""
    tokenizer = train_wordpiece(LINES, 80)
    folder = tmp_path_factory.mktemp("masked") / "data"
    entries = [shards.Entry("train", tokenizer.document(line), len(line), str(at)) for at, line in enumerate(LINES)]
    shards.write(folder, entries, vocab=tokenizer.vocab, tokenizer_hash="x")
    return tokenizer, shards.open(folder, "train", vocab=tokenizer.vocab)


def source(material, rows=4, context=32, seed=0, **asks):
    tokenizer, data = material
    return Masked(data, tokenizer, Questions(**asks), rows=rows, context=context, seed=seed)


def original(batch):
    """Return the tokens as they were before the questions."""
    return torch.where(batch.targets == IGNORE, batch.tokens, batch.targets)


class TestMasked:
    """Packed rows with questions."""

    def test_a_step_is_a_function_of_seed_and_step(self, material):
        """A state that runs along; an epoch that asks the same as the last."""
        one, two = source(material), source(material)
        two.batch(7)
        a, b, c = one.batch(3), two.batch(3), source(material, seed=1).batch(3)
        assert torch.equal(a.tokens, b.tokens)
        assert torch.equal(a.targets, b.targets)
        assert a.tokens.shape != c.tokens.shape or not torch.equal(a.tokens, c.tokens)
        later = one.batch(3 + one.steps_per_epoch)
        assert later.tokens.shape != a.tokens.shape or not torch.equal(later.targets, a.targets)

    def test_an_epoch_holds_every_document_framed(self, material):
        """Documents lost, cut where they need not be, or without [CLS] and [SEP]."""
        _, data = material
        made = source(material, rows=1)
        found = []
        for step in range(made.steps_per_epoch):
            batch = made.batch(step)
            row, segments = original(batch)[0], batch.layout.segments[0]
            found += [tuple(row[segments == number].tolist()) for number in range(1, int(segments.max()) + 1)]
        assert sorted(found) == sorted(tuple(data.document(at).tolist()) for at in range(data.documents))

    def test_special_tokens_and_padding_are_never_asked(self, material):
        """[CLS] hidden, or padding learned."""
        batch = source(material, rate=0.5).batch(0)
        asked = batch.targets[batch.targets != IGNORE]
        assert not set(asked.tolist()) & {0, 1, 2, 3, 4}
        assert bool((batch.targets[~batch.layout.real] == IGNORE).all())
        share = len(asked) / int((batch.layout.real & (original(batch) > 4)).sum())
        assert abs(share - 0.5) < 0.06

    def test_pairs(self, material):
        """Halves swapped, a stranger from the same document, kinds of the wrong half."""
        tokenizer, data = material
        made = source(material, rows=8, rate=0.0, pairs=True)
        whole = {tuple(data.document(at).tolist()) for at in range(data.documents)}
        counts = {0: 0, 1: 0}
        for step in range(6):
            batch = made.batch(step)
            assert batch.targets is None
            for row in range(8):
                segments = batch.layout.segments[row]
                for number in range(1, int(segments.max()) + 1):
                    here = segments == number
                    ids, kinds = batch.tokens[row][here].tolist(), batch.kinds[row][here]
                    answers = batch.labels.answers[row][here].tolist()
                    first, second = (
                        [ids[at] for at in range(len(ids)) if not kinds[at]],
                        [ids[at] for at in range(len(ids)) if kinds[at]],
                    )
                    assert first[0] == tokenizer.special.cls
                    assert first[-1] == second[-1] == tokenizer.special.sep
                    assert answers[1:] == [IGNORE] * (len(ids) - 1)
                    counts[answers[0]] += 1
                    assert ((*first[:-1], *second) in whole) or answers[0] == 1
            assert torch.equal(batch.labels.answers != IGNORE, batch.tokens == tokenizer.special.cls)
        assert 0.3 < counts[0] / sum(counts.values()) < 0.7

    def test_what_cannot_be_asked(self, material, tmp_path):
        """A mask token that is id -1; one document that is its own stranger."""
        _, data = material
        with pytest.raises(ConfigError, match="no mask token"):
            Masked(data, byte_level(), Questions(), rows=1, context=16, seed=0)
        with pytest.raises(ConfigError, match=r"plan\.context: 3"):
            source(material, context=3, pairs=True)
        tokenizer = material[0]
        entry = shards.Entry("train", tokenizer.document(LINES[0]), 9, "a")
        shards.write(tmp_path / "one", [entry], vocab=tokenizer.vocab, tokenizer_hash="x")
        alone = shards.open(tmp_path / "one", "train", vocab=tokenizer.vocab)
        with pytest.raises(DataError, match="1 documents of 2 tokens or more"):
            source((tokenizer, alone), pairs=True)


class TestObjective:
    """Parts, their counts, and what they need."""

    def model(self, material, **heads):
        return bert.Config(vocab=material[0].vocab, **CONFIG).build(heads=heads)

    def test_counts_are_known_and_slices_add_up(self, material):
        """A part that counts rows for pairs, or the padding; a mean of means."""
        objective = masked.Config(next_sentence=True, weight=0.5)
        tokenizer, data = material
        reading = Reading(tokenizer=tokenizer, rows=4, context=32, seed=0, packs=True)
        batch = objective.source(data, reading).batch(0)
        model = self.model(material, **objective.heads(tokenizer.vocab))
        whole = objective(model, batch)
        assert [part.name for part in whole] == ["masked", "next_sentence"]
        assert tuple(part.count for part in whole) == objective.counts(batch)
        assert objective.counts(batch)[1] == int((batch.labels.answers >= 0).sum()) > 4
        assert whole[1].weight == 0.5
        parts = [objective(model, take(batch, slice(at, at + 2))) for at in (0, 2)]
        for at in (0, 1):
            torch.testing.assert_close(parts[0][at].total + parts[1][at].total, whole[at].total)

    def test_either_part_alone(self, material):
        """A head that is built and never learns."""
        assert set(masked.Config().heads(9)) == {"masked"}
        alone = masked.Config(masked=False, next_sentence=True)
        assert set(alone.heads(9)) == {"next_sentence"}
        reading = Reading(tokenizer=material[0], rows=2, context=32, seed=0, packs=True)
        batch = alone.source(material[1], reading).batch(0)
        (part,) = alone(self.model(material, next_sentence=2), batch)
        assert part.name == "next_sentence"
        assert masked.Config.model_construct(masked=False).problems()

    def test_a_model_without_the_head_says_so(self, material):
        """Logits of nothing."""
        batch = source(material).batch(0)
        with pytest.raises(AbilityError, match="carries no masked head"):
            masked.Config()(self.model(material), batch)
        with pytest.raises(AbilityError, match=r"'sequence' and 'next_sentence' are both bert\.pooler"):
            self.model(material, sequence=2, next_sentence=2)

    @pytest.mark.parametrize("pairs", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_the_loss_falls(self, material, pairs):
        """Targets of other places than the masks, a gradient that stops at the head."""
        objective = masked.Config(next_sentence=pairs)
        tokenizer, data = material
        reading = Reading(tokenizer=tokenizer, rows=8, context=32, seed=0, packs=True)
        batches = objective.source(data, reading)
        model = self.model(material, **objective.heads(tokenizer.vocab))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        losses = []
        for step in range(120):
            parts = objective(model, batches.batch(step))
            loss = sum(part.total / part.count for part in parts)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(parts[0].total.detach()) / parts[0].count)
        assert sum(losses[-10:]) / 10 < 0.6 * sum(losses[:3]) / 3
