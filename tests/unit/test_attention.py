"""Every way to attend against one written out in loops: what may be seen, and what is read there."""

from __future__ import annotations

import math

import pytest
import torch

from hanlin.batch import Layout
from hanlin.nn.attention import Attention, Plain, scope, spelled_out
from hanlin.nn.cache import KeyValueCache, StateCache

ROWS, HEADS, LENGTH, SIZE = 3, 6, 7, 5
LAYOUTS = {
    "none": None,
    "packed": Layout.of(torch.tensor([[1, 1, 1, 2, 2, 2, 2], [1, 2, 2, 3, 3, 3, 3], [1, 1, 1, 1, 1, 1, 1]])),
    "padded": Layout.of(torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 2, 2, 0, 0]])),
}
CLOSE = {"atol": 1e-12, "rtol": 1e-12}


def vectors(kv_heads=2, length=LENGTH, dtype=torch.float64, seed=0):
    """Return queries, keys and values."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(ROWS, heads, length, SIZE) for heads in (HEADS, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def in_loops(q, k, v, sees):
    """Return attention one query at a time; `sees(row, query, key)` says what may be looked at."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            group = head * k.shape[1] // q.shape[1]
            for at in range(q.shape[2]):
                keys = [other for other in range(k.shape[2]) if sees(row, at, other)]
                scores = [float(q[row, head, at] @ k[row, group, other]) / math.sqrt(q.shape[-1]) for other in keys]
                weights = [math.exp(score - max(scores)) for score in scores]
                for other, weight in zip(keys, weights):
                    out[row, head, at] += weight / sum(weights) * v[row, group, other].double()
    return out


def rule(layout, causal, window):
    """Return what the layout, the direction and the window together let a query see."""

    def sees(row, at, other):
        same = layout is None or layout.segments[row, at] == layout.segments[row, other]
        return bool(same) and (not causal or other <= at) and (window is None or at - other < window)

    return sees


@pytest.mark.parametrize("window", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", LAYOUTS)
def test_plain(name, causal, window):
    """A mask off by one, of the neighbour's segment, or for the wrong row; a window one too wide."""
    layout = LAYOUTS[name]
    view = Plain(LENGTH, layout, causal=causal, dropout=0.0)
    for kv_heads in (1, 2, 6):
        q, k, v = vectors(kv_heads)
        expected = in_loops(q, k, v, rule(layout, causal, window))
        torch.testing.assert_close(view.attend(q, k, v, window), expected, **CLOSE)
        torch.testing.assert_close(spelled_out(q, k, v, view.mask(window, q.device)), expected, **CLOSE)


@pytest.mark.parametrize("name", LAYOUTS)
def test_spelled_out_is_what_trains_in_bf16(name):
    """Two ways for one number type, and the one that trains is the one that is not tested."""
    q, k, v = vectors(dtype=torch.bfloat16)
    leaves = [each.requires_grad_() for each in (q, k, v)]
    layout = LAYOUTS[name]
    found = Plain(LENGTH, layout, causal=True, dropout=0.0).attend(*leaves)
    expected = in_loops(*(each.detach().double() for each in leaves), rule(layout, True, None))
    assert found.dtype == torch.bfloat16
    assert (found.detach().double() - expected).abs().max() < 0.03
    with torch.no_grad():
        fused = Plain(LENGTH, layout, causal=True, dropout=0.0).attend(*leaves)
    assert (found.detach() - fused).abs().max() < 0.05


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_gradients_are_those_of_the_fused_kernel(name, window):
    """A fast path whose values are right and whose gradients are not."""
    q, k, v = (each.requires_grad_() for each in vectors())
    view = Plain(LENGTH, LAYOUTS[name], causal=True, dropout=0.0)
    weights = torch.randn(ROWS, HEADS, LENGTH, SIZE, dtype=torch.float64)
    fused = torch.autograd.grad((view.attend(q, k, v, window) * weights).sum(), (q, k, v))
    slow = torch.autograd.grad((spelled_out(q, k, v, view.mask(window, q.device)) * weights).sum(), (q, k, v))
    for one, two in zip(fused, slow):
        torch.testing.assert_close(one, two, **CLOSE)


@pytest.mark.parametrize("causal", [True, False])
def test_no_row_is_empty(causal):
    """Padding that may look at nothing: NaN, and NaN in every gradient after it."""
    layout = Layout.of(torch.zeros(ROWS, LENGTH, dtype=torch.long))
    q, k, v = vectors()
    assert torch.isfinite(Plain(LENGTH, layout, causal=causal, dropout=0.0).attend(q, k, v)).all()


def test_dropout():
    """Attention dropped where none was asked for, or dropped and not scaled up again."""
    q, k, v = vectors(length=200)
    v = torch.ones_like(v)
    for dropout in (0.0, 0.5):
        torch.manual_seed(0)
        out = spelled_out(q, k, v, None, dropout)
        assert out.mean().item() == pytest.approx(1.0, abs=1e-9 if dropout == 0 else 0.03)
        assert (out.std().item() > 0.01) == (dropout > 0)
        torch.manual_seed(0)
        out = Plain(200, None, causal=False, dropout=dropout).attend(q, k, v)
        assert (out.std().item() > 0.01) == (dropout > 0)


class TestCache:
    """Attention through a cache."""

    def cache(self, kv_heads=2, length=12):
        return KeyValueCache(
            layers=1,
            rows=ROWS,
            kv_heads=kv_heads,
            head_dim=SIZE,
            length=length,
            dtype=torch.float64,
            device=torch.device("cpu"),
        )

    @pytest.mark.parametrize("cuts", [(7,), (1,) * 7, (3, 1, 2, 1)])
    @pytest.mark.parametrize("window", [None, 1, 3, 100])
    def test_pieces_are_the_whole(self, window, cuts):
        """A window that counts from the wrong end once the past lies in a cache."""
        q, k, v = vectors()
        cache, out = self.cache(), []
        for piece in zip(*(each.split(cuts, 2) for each in (q, k, v))):
            cache.extend(piece[0].shape[2], None)
            out.append(cache.layer(0).attend(*piece, window))
        torch.testing.assert_close(torch.cat(out, 2), in_loops(q, k, v, rule(None, True, window)), **CLOSE)

    @pytest.mark.parametrize("window", [None, 2])
    @pytest.mark.parametrize("side", ["left", "right", "both"])
    def test_padding_takes_no_room(self, side, window):
        """Padding in a slot of its own: the next token one too far, or reading what is not there."""
        lengths, pad = (4, 1, 3), {"left": 0, "right": 1, "both": 0.5}[side]
        q, k, v = vectors()
        segments = torch.zeros(ROWS, 6, dtype=torch.long)
        spans = []
        for row, n in enumerate(lengths):
            start = int((6 - n) * (1 - pad))
            segments[row, start : start + n] = 1
            spans.append((start, start + n))
        padded = [torch.randn(ROWS, each.shape[1], 6, SIZE, dtype=torch.float64) for each in (q, k, v)]
        for row, (start, end) in enumerate(spans):
            for to, each in zip(padded, (q, k, v)):
                to[row, :, start:end] = each[row, :, : end - start]
        cache = self.cache()
        positions = cache.extend(6, Layout.of(segments))
        first = cache.layer(0).attend(*padded, window)
        cache.extend(1, None)
        new = [torch.stack([each[row, :, n] for row, n in enumerate(lengths)])[:, :, None] for each in (q, k, v)]
        second = cache.layer(0).attend(*new, window)
        expected = in_loops(q, k, v, rule(None, True, window))
        assert cache.lengths.tolist() == [n + 1 for n in lengths]
        for row, (start, end) in enumerate(spans):
            n = end - start
            assert positions[row, start:end].tolist() == list(range(n))
            torch.testing.assert_close(first[row, :, start:end], expected[row, :, :n], **CLOSE)
            torch.testing.assert_close(second[row, :, 0], expected[row, :, n], **CLOSE)

    def test_packed_rows_are_refused(self):
        """Two documents in one cached row: the second would read the first."""
        for segments in ([1, 1, 2, 2], [1, 2, 0, 0]):
            with pytest.raises(AssertionError, match="holds one segment"):
                self.cache().extend(4, Layout.of(torch.tensor([segments] * ROWS)))

    def test_too_many_tokens_are_refused(self):
        """Writing past the end, or over the first tokens."""
        cache = self.cache(length=4)
        cache.extend(4, None)
        with pytest.raises(AssertionError, match="holds 4 tokens a row, 5 asked for"):
            cache.extend(1, None)

    def test_going_back_is_only_back(self):
        """A snapshot of ten tokens restored where only eight are left: two that were never there."""
        cache = self.cache()
        cache.extend(6, None)
        saved = cache.snapshot()
        cache.extend(3, None)
        cache.restore(saved)
        assert cache.lengths.tolist() == [6] * ROWS
        cache.truncate(torch.tensor([9, 2, 6]))
        assert cache.lengths.tolist() == [6, 2, 6]

    def test_a_recurrent_state_counts_padding_out(self):
        cache = StateCache([torch.zeros(2, 4)])
        positions = cache.extend(3, Layout.of(torch.tensor([[0, 1, 1], [1, 1, 1]])))
        assert positions[0, 1:].tolist() == [0, 1]
        assert cache.lengths.tolist() == [2, 3]


class TestModule:
    """The layer around it."""

    def test_heads_of_their_own_size(self):
        """A head size taken from dim / heads, heads and size exchanged in a reshape, a bias left out."""
        torch.manual_seed(0)
        layer = Attention(10, heads=6, kv_heads=2, head_dim=SIZE, bias=True).double().requires_grad_(False)
        x = torch.randn(ROWS, LENGTH, 10, dtype=torch.float64)
        q = (x @ layer.q.weight.T + layer.q.bias).view(ROWS, LENGTH, 6, SIZE).transpose(1, 2)
        k = (x @ layer.k.weight.T + layer.k.bias).view(ROWS, LENGTH, 2, SIZE).transpose(1, 2)
        v = (x @ layer.v.weight.T + layer.v.bias).view(ROWS, LENGTH, 2, SIZE).transpose(1, 2)
        read = in_loops(q, k, v, rule(None, True, None)).transpose(1, 2).reshape(ROWS, LENGTH, 30)
        expected = read @ layer.o.weight.T + layer.o.bias
        torch.testing.assert_close(layer(x, scope(x, None, None).layer(0)), expected, **CLOSE)

    def test_positions_restart_with_each_segment(self):
        x = torch.zeros(ROWS, LENGTH, dtype=torch.long)
        assert scope(x, None, None).positions.tolist() == [list(range(LENGTH))]
        assert scope(x, LAYOUTS["packed"], None).positions[1].tolist() == [0, 0, 1, 0, 1, 2, 3]
        assert scope(x, LAYOUTS["padded"], None).positions[0, 3:].tolist() == [0, 1, 2, 3]
