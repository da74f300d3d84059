"""Recurrent layers against torch.nn and against their spelled-out twin; alignment and copying worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hanlin.batch import Frames, Layout, Tokens
from hanlin.errors import AbilityError, ConfigError
from hanlin.models import rnn
from hanlin.models.contract import Memory
from hanlin.nn import copying
from hanlin.nn.alignment import Alignment
from hanlin.nn.recurrent import Bidirectional, Recurrent, Runs, spelled_out, width
from hanlin.objectives.cross_entropy import total_nats

KINDS = ("rnn", "gru", "lstm")
THEIRS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
CLOSE = {"atol": 1e-6, "rtol": 0.0}
LAYOUTS = {
    "padded right": [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0]],
    "padded right, all": [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]],
    "padded left": [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]],
    "padded on both sides and between": [[0, 1, 1, 0, 2, 2, 0], [1, 2, 2, 2, 2, 0, 0]],
    "packed": [[1, 1, 1, 2, 2, 3, 4], [5, 5, 5, 5, 5, 5, 6], [1, 1, 1, 1, 1, 1, 1]],
    "one long among many short": [[1, 1, 1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8]],
    "a row of nothing": [[0, 0, 0, 0], [1, 1, 2, 2]],
    "nothing at all": [[0, 0], [0, 0]],
}


def layer(kind: str, inputs: int = 5, hidden: int = 4, back: bool = False) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(kind, inputs, hidden, back=back)


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def into_torch(kind: str, ahead: Recurrent, back: Recurrent | None = None) -> nn.RNNBase:
    """Return torch's layer with the weights of ours."""
    theirs = THEIRS[kind](ahead.enter.in_features, ahead.hidden, batch_first=True, bidirectional=back is not None)
    with torch.no_grad():
        for suffix, ours in (("", ahead), ("_reverse", back)):
            for name, part in (("ih", ours.enter), ("hh", ours.again)) if ours is not None else ():
                getattr(theirs, f"weight_{name}_l0{suffix}").copy_(part.weight)
                getattr(theirs, f"bias_{name}_l0{suffix}").copy_(part.bias)
    return theirs


def joined(state) -> torch.Tensor:
    """Return torch's last states as one (B, W)."""
    return torch.cat([each[0] for each in state], 1) if isinstance(state, tuple) else state[0]


@pytest.mark.parametrize("kind", KINDS)
class TestAgainstTorch:
    """Outputs, last states and gradients of torch.nn."""

    def test_whole_rows(self, kind):
        """A gate in another place, a bias forgotten, a state not taken over: fused, spelled out, and one step."""
        ours, x, state = layer(kind), numbers(3, 7, 5), numbers(3, width(kind, 4), seed=2)
        theirs = into_torch(kind, ours)
        given = tuple(each[None].contiguous() for each in state.split(4, 1))
        wanted, last = theirs(x, given if kind == "lstm" else given[0])
        for found, after in (ours(x, state), spelled_out(ours, x, state, None)):
            torch.testing.assert_close(found, wanted, **CLOSE)
            torch.testing.assert_close(after, joined(last), **CLOSE)
        cell = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}[kind](5, 4)
        cell.load_state_dict({name.removesuffix("_l0"): each for name, each in theirs.state_dict().items()})
        one = cell(x[:, 0], state.split(4, 1) if kind == "lstm" else state)
        torch.testing.assert_close(ours.step(ours.enter(x[:, 0]), state), torch.cat(one, 1) if kind == "lstm" else one)

    def test_gradients(self, kind):
        """A path that is detached."""
        ours = layer(kind)
        theirs = into_torch(kind, ours)
        for made in (ours(numbers(2, 6, 5)), theirs(numbers(2, 6, 5))):
            made[0].square().sum().backward()
        torch.testing.assert_close(ours.enter.weight.grad, theirs.weight_ih_l0.grad, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.again.bias.grad, theirs.bias_hh_l0.grad, atol=1e-5, rtol=1e-5)

    def test_packed_sequences_both_ways(self, kind):
        """A backward direction that begins in the padding, or a last state taken there."""
        torch.manual_seed(0)
        ours, x, lengths = Bidirectional(kind, 5, 8), numbers(3, 7, 5), torch.tensor([4, 7, 2])
        theirs = into_torch(kind, ours.ahead, ours.back)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, last = theirs(packed)
        wanted, _ = pad_packed_sequence(out, batch_first=True)
        h = last[0] if kind == "lstm" else last
        layout = Layout.of((torch.arange(7) < lengths[:, None]).long())
        found, arrived = ours(x, Runs(layout))
        real = layout.real[..., None]
        torch.testing.assert_close(found * real, wanted, **CLOSE)
        torch.testing.assert_close(arrived, torch.cat((h[0], h[1]), 1), **CLOSE)
        alone, there = ours(x[1:2])
        torch.testing.assert_close(alone, wanted[1:2], **CLOSE)
        torch.testing.assert_close(there, arrived[1:2], **CLOSE)

    @pytest.mark.parametrize("back", [False, True], ids=["ahead", "back"])
    @pytest.mark.parametrize("name", LAYOUTS)
    def test_layouts(self, kind, name, back):
        """A state moved by padding, kept over a segment's end, lost before its beginning, or given to another row."""
        segments = torch.tensor(LAYOUTS[name])
        layout, ours = Layout.of(segments), layer(kind, back=back)
        x, state = numbers(*segments.shape, 5), numbers(len(segments), width(kind, 4), seed=2)
        if back:  # the last segment goes on from the state when read from the end; only one a row is ever read so
            state = torch.zeros_like(state)
        wanted, last = spelled_out(ours, x, state, layout)
        found, after = ours(x, state, Runs(layout))
        real = layout.real[..., None]
        torch.testing.assert_close(found * real, wanted * real, **CLOSE)
        assert found.isfinite().all()
        if not back:
            torch.testing.assert_close(after, last, **CLOSE)
        short, kept = ours(x, state, Runs(layout), keep=False)
        torch.testing.assert_close(short * real, wanted * real, **CLOSE)
        assert kept.shape == after.shape

    def test_padding_has_no_gradient(self, kind):
        """A loss that reaches tokens which are not there."""
        layout, x = Layout.of(torch.tensor(LAYOUTS["padded on both sides and between"])), numbers(2, 7, 5)
        x.requires_grad_()
        out, after = layer(kind)(x, None, Runs(layout))
        ((out * layout.real[..., None]).square().sum() + after.sum()).backward()
        assert bool((x.grad.abs().sum(-1) > 0).eq(layout.real).all())


class TestAlignment:
    """Which source position is looked at, and what is read there."""

    def test_luong_by_hand(self):
        """A key matrix used the wrong way round, a softmax over the wrong axis."""
        look = Alignment("luong", 2, 2)
        look.k.weight.data = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
        states = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        context, weights = look(torch.tensor([[[1.0, 3.0]]]), Memory(states=states))
        first, second = math.exp(1.0), math.exp(1.0 + 6.0)  # (1, 3) . k (1, 0) = 1; (1, 3) . k (0, 1) = 1 + 3 * 2
        expected = torch.tensor([[[first, second]]]) / (first + second)
        torch.testing.assert_close(weights, expected)
        torch.testing.assert_close(context, expected)  # the states are unit vectors

    def test_bahdanau_by_hand(self):
        """A tanh left out, a query added to the wrong axis."""
        look = Alignment("bahdanau", 1, 1)
        look.k.weight.data, look.q.weight.data = torch.tensor([[2.0]]), torch.tensor([[0.5]])
        look.q.bias.data, look.score.weight.data = torch.tensor([0.1]), torch.tensor([[3.0]])
        states = torch.tensor([[[0.2], [-0.4], [9.0]]])
        memory = Memory(states=states, layout=Layout.of(torch.tensor([[1, 1, 0]])))
        context, weights = look(torch.tensor([[[0.6]]]), memory)
        raw = [math.exp(3 * math.tanh(0.4 + 2 * each)) for each in (0.2, -0.4)]
        expected = torch.tensor([raw[0], raw[1], 0.0]) / sum(raw)
        torch.testing.assert_close(weights, expected[None, None])
        torch.testing.assert_close(context, (expected @ states[0])[None, None])

    def test_beams_share_a_source(self):
        """Beams that read another row's source."""
        for way in ("luong", "bahdanau"):
            look, states, x = Alignment(way, 4, 3), numbers(2, 5, 3), numbers(6, 2, 4, seed=3)
            shared, _ = look(x, Memory(states=states))
            alone, _ = look(x, Memory(states=states.repeat_interleave(3, 0)))
            torch.testing.assert_close(shared, alone, **CLOSE)


class TestCopies:
    """The pointer-generator's mixture."""

    def test_by_hand(self):
        """A word that stands twice counted once; the gate the wrong way round."""
        gate, weights = torch.tensor([[0.0]]), torch.tensor([[0.5, 0.3, 0.2]])
        found = copying.mixed(torch.zeros(1, 4), gate, weights, torch.tensor([[2, 1, 2]])).exp()
        torch.testing.assert_close(found, torch.tensor([[0.125, 0.125 + 0.15, 0.125 + 0.35, 0.125]]))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_ids_survive(self, dtype):
        """A large vocabulary's ids rounded by bf16."""
        ids = torch.tensor([[0, 255, 256, 65_535, 65_536, 250_001]])
        packed = copying.pack(numbers(2, 3, 4).to(dtype), numbers(2, 3, 1).to(dtype), numbers(2, 3, 6).to(dtype), ids)
        hidden, gate, weights, found = copying.unpack(packed, 4)
        assert (hidden.shape, gate.shape, weights.shape) == ((2, 3, 4), (2, 3, 1), (2, 3, 6))
        assert torch.equal(found, ids.expand(2, 3, 6))

    @pytest.mark.parametrize("feeding", [False, True], ids=["at once", "fed"])
    def test_sums_to_one_and_learns_to_copy(self, feeding):
        """A mixture that loses mass; a copy that the vocabulary cannot explain."""
        sizes = {"vocab": 40, "dim": 16, "hidden": 16, "layers": 1}
        config = rnn.Config(**sizes, encoder="bidirectional", attention="luong", copies=True, feeding=feeding)
        model = config.build(seed=0)
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        generator = torch.Generator().manual_seed(0)
        for step in range(120):
            words = torch.randint(1, 40, (16, 4), generator=generator)
            begun = torch.cat((torch.zeros(16, 1, dtype=torch.long), words[:, :-1]), 1)
            logits = model.logits(model(begun, memory=model.encode(Tokens(ids=words))))
            if step == 0:
                torch.testing.assert_close(logits.exp().sum(-1), torch.ones(16, 4))
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), words.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert loss < 0.8 * math.log(39), "copying is learnt long before 39 words are"

    def test_the_chunked_loss_reaches_every_part(self):
        """Columns that the loss cuts off, or that carry no gradient back to the alignment."""
        config = rnn.Config(vocab=30, dim=6, layers=1, encoder="bidirectional", attention="bahdanau", copies=True)
        model, x = config.build(seed=0), torch.randint(0, 30, (3, 5))
        found = model(x, memory=model.encode(Tokens(ids=x)))
        total_nats(model, found, x, chunk=4).backward()
        chunked = {name: each.grad.clone() for name, each in model.named_parameters()}
        model.zero_grad()
        found = model(x, memory=model.encode(Tokens(ids=x)))
        nn.functional.cross_entropy(model.logits(found).flatten(0, 1), x.flatten(), reduction="sum").backward()
        for name, each in model.named_parameters():
            torch.testing.assert_close(chunked[name], each.grad, atol=1e-5, rtol=1e-4)


def test_feeding_by_hand():
    """What was looked up a step too late, or from another row."""
    config = rnn.Config(kind="gru", vocab=20, dim=6, layers=2, encoder="bidirectional", attention="luong", feeding=True)
    model = config.build(seed=0).eval()
    x, read = torch.randint(0, 20, (2, 4)), Tokens(ids=torch.randint(0, 20, (2, 3)))
    memory = model.encode(read)
    states = [torch.tanh(bridge(each)) for bridge, each in zip(model.bridge, memory.carry.split(6, 1))]
    fed, wanted = torch.zeros(2, 6), []
    for t in range(4):
        below = torch.cat((model.embed(x[:, t]), fed), 1)
        for index, block in enumerate(model.blocks):
            states[index] = below = block.step(block.enter(below), states[index])
        context, _ = model.cross(below[:, None], memory)
        fed = torch.tanh(model.o(torch.cat((context[:, 0], below), 1)))
        wanted.append(fed)
    torch.testing.assert_close(model(x, memory=memory), torch.stack(wanted, 1), **CLOSE)


def test_what_cannot_be_is_one_line_each():
    """A combination that is built and ignored."""
    with pytest.raises(ConfigError) as caught:
        rnn.Config.checked({"vocab": 9, "attention": "luong", "copies": True, "hidden": 3})
    assert "attention luong has nothing to look at" in str(caught.value)
    with pytest.raises(ConfigError, match="hidden 3 is odd"):
        rnn.Config.checked({"vocab": 9, "encoder": "bidirectional", "hidden": 3})
    with pytest.raises(ConfigError, match="feeding needs an attention"):
        rnn.Config.checked({"vocab": 9, "encoder": "bidirectional", "feeding": True})
    pair = rnn.Config(vocab=9, dim=4, encoder="bidirectional").build()
    with pytest.raises(AbilityError, match="Pair: writes only after it has read a source"):
        pair(torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(AbilityError, match="Pair: reads token ids, not frames"):
        pair.encode(Frames(values=numbers(1, 2, 4)))
    with pytest.raises(AbilityError, match="RNN: takes no memory"):
        rnn.Config(vocab=9, dim=4).build()(torch.zeros(1, 2, dtype=torch.long), memory=Memory(states=numbers(1, 2, 4)))
