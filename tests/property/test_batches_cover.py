"""Whatever the documents, the context and the rows: an epoch shows everything once, and nothing crosses documents."""

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hanlin.batch import IGNORE
from hanlin.data.batches import Packed
from hanlin.data.manifest import Manifest
from hanlin.data.shards import Shards

MANIFEST = Manifest(vocab=1 << 20, dtype="uint32", tokenizer_hash="t", splits={}, files={}, report={})
LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=12)


def made(lengths: list[int]) -> Shards:
    """Return documents whose tokens are their positions in the stream: (token, target) tells where a pair is from."""
    counts = np.array(lengths, np.int64)
    tokens = (np.arange(counts.sum(), dtype=np.uint32),)
    return Shards(folder=Path("d"), split="train", manifest=MANIFEST, tokens=tokens, lengths=counts, sizes=counts)


def epoch_of(source: Packed, rows: int, epoch: int) -> list[tuple[list[int], list[int], list[int]]]:
    """Return (tokens, targets, segments) of the rows of one epoch; `source` draws one row a step."""
    drawn = []
    for step in range(epoch * rows, (epoch + 1) * rows):
        batch = source.batch(step)
        segments = batch.layout.segments[0].tolist() if batch.layout else [1] * batch.tokens.shape[1]
        drawn.append((batch.tokens[0].tolist(), batch.targets[0].tolist(), segments))
    return drawn


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
def test_packed(lengths: list[int], context: int, seed: int, epoch: int) -> None:
    """Guards against tokens seen twice or never, targets across documents, and segments that say otherwise.

    An epoch may leave out (tokens mod context) tokens.
    """
    if sum(lengths) <= context:
        return
    rows = sum(lengths) // context
    owner = np.repeat(np.arange(len(lengths)), lengths).tolist()
    source = Packed(made(lengths), rows=1, context=context, seed=seed)
    assert source.steps_per_epoch == rows
    seen = Counter()
    for tokens, targets, segments in epoch_of(source, rows, epoch):
        seen.update(tokens)
        assert segments[0] == 1
        for at, (token, target) in enumerate(zip(tokens, targets)):
            last = token + 1 == len(owner) or owner[token] != owner[token + 1]
            assert target == (IGNORE if last else token + 1)
            if at + 1 < context:
                joined = segments[at] == segments[at + 1]
                assert joined == (not last)
                assert joined or segments[at + 1] == segments[at] + 1
                assert not joined or tokens[at + 1] == target
    assert set(seen.values()) == {1}
    assert len(owner) - len(seen) == len(owner) % context


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
def test_pieces(lengths: list[int], context: int, seed: int, epoch: int) -> None:
    """Guards against the same without packing, where nothing at all may be left out, and against padding in between."""
    pairs = {
        (token, token + 1)
        for end, size in zip(np.cumsum(lengths).tolist(), lengths)
        for token in range(end - size, end - 1)
    }
    if not pairs:
        return
    source = Packed(made(lengths), rows=1, context=context, seed=seed, pack=False, pad=999)
    seen = Counter()
    for tokens, targets, segments in epoch_of(source, source.steps_per_epoch, epoch):
        real = sum(segments)
        assert real > 0
        assert segments == [1] * real + [0] * (context - real)
        assert tokens[real:] == [999] * (context - real)
        assert targets[real:] == [IGNORE] * (context - real)
        assert tokens[1:real] == targets[: real - 1]
        seen.update(zip(tokens[:real], targets[:real]))
    assert seen == Counter(pairs)


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_batches_are_the_rows_in_turn(lengths: list[int], context: int, rows: int, pack: bool) -> None:
    """Guards against rows lost or repeated where a batch spans epochs, once or many times."""
    if sum(lengths) <= context or max(lengths) < 2:
        return
    single = Packed(made(lengths), rows=1, context=context, seed=1, pack=pack)
    many = Packed(made(lengths), rows=rows, context=context, seed=1, pack=pack)
    for step in (3, 0, 1):
        batch = many.batch(step)
        for row in range(rows):
            alone = single.batch(step * rows + row)
            assert batch.tokens[row].tolist() == alone.tokens[0].tolist()
            assert batch.targets[row].tolist() == alone.targets[0].tolist()
