"""Batches: what a row looks like, and that the batch of a step depends on nothing but seed and step."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hanlin.batch import IGNORE, Batch, Layout
from hanlin.data.batches import Packed
from hanlin.data.manifest import Manifest
from hanlin.data.shards import Shards
from hanlin.errors import ConfigError, DataError

MANIFEST = Manifest(vocab=1 << 20, dtype="uint32", tokenizer_hash="t", splits={}, files={}, report={})


def made(*lengths: int, files: int = 1) -> Shards:
    """Return documents in memory; each token's id is its position in the stream, so that any row tells its origin."""
    counts = np.array(lengths, np.int64)
    cuts = np.cumsum([part.sum() for part in np.array_split(counts, files)])[:-1]
    parts = tuple(np.split(np.arange(counts.sum(), dtype=np.uint32), cuts))
    return Shards(folder=Path("d"), split="train", manifest=MANIFEST, tokens=parts, lengths=counts, sizes=counts)


def equal(one: Batch, two: Batch) -> bool:
    same = torch.equal(one.tokens, two.tokens) and torch.equal(one.targets, two.targets)
    if one.layout is None or two.layout is None:
        return same and one.layout is two.layout
    return same and torch.equal(one.layout.segments, two.layout.segments)


def test_rows_by_hand() -> None:
    """Guards against shifted targets, targets across documents, and segments that start a token early or late."""
    source = Packed(made(3, 4, 5), rows=1, context=6, seed=0)
    for step in range(2 * source.steps_per_epoch):
        batch = source.batch(step)
        tokens, targets = batch.tokens[0].tolist(), batch.targets[0].tolist()
        assert [after if after in {3, 7, 12} else None for after in (token + 1 for token in tokens)] == [
            token + 1 if target == IGNORE else None for token, target in zip(tokens, targets)
        ]
        assert all(target in {IGNORE, token + 1} for token, target in zip(tokens, targets))
        changes = np.cumsum([1] + [token in {2, 6, 11} for token in tokens[:-1]]).tolist()
        assert batch.layout.segments[0].tolist() == changes


def test_kinds_of_numbers() -> None:
    """Guards against ids that torch cannot embed, and a layout that Layout.of would not build."""
    batch = Packed(made(3, 4, 5), rows=3, context=4, seed=0).batch(0)
    assert batch.tokens.shape == batch.targets.shape == (3, 4)
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    rebuilt = Layout.of(batch.layout.segments)
    assert torch.equal(rebuilt.starts, batch.layout.starts)
    assert rebuilt.longest == batch.layout.longest


def test_one_long_document() -> None:
    """Guards against losing the fast path where no row has a boundary, and against joining an end to its beginning."""
    source = Packed(made(103), rows=1, context=10, seed=0)
    batches = [source.batch(step) for step in range(30)]
    whole = [batch for batch in batches if batch.layout is None]
    assert len(whole) >= 27
    assert all(bool((batch.targets[:, :-1] == batch.tokens[:, 1:]).all()) for batch in whole)
    for batch in batches:
        if batch.layout is not None:
            at = batch.tokens[0].tolist().index(102)
            assert batch.targets[0, at] == IGNORE
            assert batch.layout.segments[0].tolist() == [1] * (at + 1) + [2] * (9 - at)


@pytest.mark.parametrize("pack", [True, False])
def test_a_step_is_a_step(pack: bool) -> None:
    """Guards against a batch that depends on which were drawn before, or on the object that draws it."""
    shards = made(*range(1, 40))
    source = Packed(shards, rows=7, context=5, seed=3, pack=pack)
    straight = [source.batch(step) for step in range(60)]
    for step in (59, 0, 33, 34, 2, 33):
        assert equal(source.batch(step), straight[step])
        assert equal(Packed(shards, rows=7, context=5, seed=3, pack=pack).batch(step), straight[step])
    other = Packed(shards, rows=7, context=5, seed=4, pack=pack)
    assert not any(equal(other.batch(step), straight[step]) for step in range(60))
    files = Packed(made(*range(1, 40), files=6), rows=7, context=5, seed=3, pack=pack)
    assert all(equal(files.batch(step), straight[step]) for step in range(60))


@pytest.mark.parametrize("pack", [True, False])
def test_rows_of_a_step_do_not_depend_on_how_many(pack: bool) -> None:
    """Guards against a row count that changes the order: accumulation and restarts with other rows see the same."""
    shards = made(*range(1, 40))
    small = Packed(shards, rows=2, context=5, seed=3, pack=pack)
    large = Packed(shards, rows=6, context=5, seed=3, pack=pack)
    for step in range(50):
        parts = torch.cat([small.batch(3 * step + part).tokens for part in range(3)])
        assert torch.equal(parts, large.batch(step).tokens)


def test_known_order() -> None:
    """Guards against an order that changes with NumPy, the machine or an innocent edit: runs could not be resumed."""
    shards = made(3, 4, 5, 6)
    packed = Packed(shards, rows=3, context=4, seed=0).batch(7)
    assert packed.tokens.tolist() == [[1, 2, 7, 8], [15, 16, 17, 0], [9, 10, 11, 3]]
    pieces = Packed(shards, rows=3, context=4, seed=0, pack=False).batch(7)
    assert pieces.tokens.tolist() == [[7, 8, 9, 10], [12, 13, 14, 15], [16, 0, 0, 0]]


def test_epochs_differ() -> None:
    """Guards against the same order, or the same cuts, in every epoch."""
    source = Packed(made(*[10] * 20), rows=25, context=8, seed=0)
    epochs = [source.batch(epoch).tokens for epoch in range(8)]
    assert len({tuple(each.flatten().tolist()) for each in epochs}) == 8
    assert len({int(each[0, 0]) % 10 for each in epochs}) > 2


def test_pieces_by_hand() -> None:
    """Guards against padding that is trained on, tokens after the end, and rows with nothing to learn."""
    source = Packed(made(1, 6, 5, 2, 0), rows=4, context=4, seed=0, pack=False, pad=77)
    assert source.steps_per_epoch == 1
    batch = source.batch(0)
    rows = sorted(zip(batch.tokens.tolist(), batch.targets.tolist(), batch.layout.segments.tolist()))
    no = IGNORE
    assert rows == [
        ([1, 2, 3, 4], [2, 3, 4, 5], [1, 1, 1, 1]),
        ([5, 77, 77, 77], [6, no, no, no], [1, 0, 0, 0]),
        ([7, 8, 9, 10], [8, 9, 10, 11], [1, 1, 1, 1]),
        ([12, 77, 77, 77], [13, no, no, no], [1, 0, 0, 0]),
    ]
    assert Packed(made(5, 5, 9), rows=4, context=4, seed=0, pack=False).batch(0).layout is None


def test_counts() -> None:
    """Guards against a plan in epochs that stops early."""
    source = Packed(made(10, 11), rows=4, context=3, seed=0)
    assert (source.steps_per_epoch, source.tokens_per_step) == (2, 12)
    assert Packed(made(10, 11), rows=8, context=3, seed=0).steps_per_epoch == 1
    assert Packed(made(10, 11), rows=100, context=3, seed=0).batch(0).tokens.shape == (100, 3)


def test_share() -> None:
    """Guards against ranks that see the same rows, and rows that nobody sees."""
    source = Packed(made(*range(1, 40)), rows=6, context=5, seed=0)
    batch = source.batch(0)
    parts = [source.share(batch, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([part.tokens for part in parts]), batch.tokens)
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
    assert torch.equal(torch.cat([part.layout.starts for part in parts]), batch.layout.starts)
    assert {part.rows for part in parts} == {2}
    with pytest.raises(ConfigError, match=r"plan\.rows: 6; a multiple of the 4 processes"):
        source.share(batch, 0, 4)


def test_too_little_text() -> None:
    """Guards against an epoch of no rows, which would divide by zero or train on nothing."""
    words = "smaller than one window: 8 tokens; a window is 9; use more text, or a smaller plan.context"
    with pytest.raises(DataError, match=words):
        Packed(made(4, 4), rows=1, context=8, seed=0)
    assert Packed(made(4, 5), rows=1, context=8, seed=0).batch(5).tokens.shape == (1, 8)
    with pytest.raises(DataError, match="no document of two tokens or more"):
        Packed(made(1, 0, 1), rows=1, context=8, seed=0, pack=False)


def test_cost() -> None:
    """Guards against a batch that costs more than a small model's step: about 1 ms on one core, 20 ms are allowed."""
    source = Packed(made(*[300] * 20_000), rows=32, context=256, seed=0)
    source.batch(0)
    begin = time.perf_counter()
    for step in range(20):
        source.batch(step)
    assert (time.perf_counter() - begin) / 20 < 0.02
