"""The contract that every family keeps: one table of models, one set of tests. A new family is one row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
import toys

from hanlin.batch import Frames, Layout, Tokens
from hanlin.errors import AbilityError
from hanlin.models import bart, bert, gpt2, llama, rnn, t5, whisper
from hanlin.models.contract import Decodes, Encodes, ModelConfig, Summarises, require
from hanlin.models.weights import from_theirs, to_theirs
from hanlin.nn import heads
from hanlin.nn.cache import StateCache
from hanlin.objectives.cross_entropy import total_nats


@dataclass(frozen=True)
class Row:
    """One row of the table: a tiny config; `source` makes what the model reads first."""

    config: ModelConfig
    reads: str = ""
    heads: tuple[str, ...] = ()  # those it is built with, of as many outputs as tokens

    def build(self, seed):
        """Return a fresh model."""
        return self.config.build(seed=seed, heads=dict.fromkeys(self.heads, self.config.vocab))


LLAMA = llama.Config(vocab=256, dim=16, layers=2, heads=4, kv_heads=2, head_dim=6, hidden=24, context=64)
GPT2 = gpt2.Config(
    vocab=256, dim=16, layers=2, heads=4, context=64, dropout=0.0, embed_dropout=0.0, attention_dropout=0.0
)
WHISPER = whisper.Config(
    vocab=256, dim=16, layers=2, heads=4, hidden=24, context=64, source_context=5, features=5, any_length=True
)
RNN = rnn.Config(vocab=256, dim=12, hidden=12, layers=2)
TIED = rnn.Config(vocab=256, dim=12, hidden=12, layers=2, tied=True)
PAIR = RNN.model_copy(update={"encoder": "bidirectional", "hidden": 10})
T5 = t5.Config(
    vocab=256, dim=16, layers=2, encoder_layers=3, heads=4, head_dim=6, hidden=24, context=64, buckets=8, farthest=12
)
BART = bart.Config(
    vocab=256, dim=16, layers=2, heads=4, hidden=24, encoder_layers=3, encoder_heads=2, encoder_hidden=20, context=64
)
BERT = bert.Config(vocab=256, dim=16, layers=2, heads=4, hidden=24, context=64, dropout=0.0, attention_dropout=0.0)
DISTILBERT = BERT.model_copy(update={"variant": "distilbert", "kinds": 0})
TABLE = {
    "llama": Row(LLAMA),
    "llama-tied-biased": Row(LLAMA.model_copy(update={"tied": True, "attention_bias": True, "mlp_bias": True})),
    "mistral": Row(LLAMA.model_copy(update={"kind": "mistral", "window": 3})),
    "qwen2": Row(LLAMA.model_copy(update={"kind": "qwen2", "tied": True, "window": 4, "full": (0,)})),
    "qwen3": Row(LLAMA.model_copy(update={"kind": "qwen3"})),
    "llama-yarn": Row(LLAMA.model_copy(update={"rope": llama.Rope(kind="yarn", factor=4.0, original_context=8)})),
    "gpt2": Row(GPT2),
    "gpt2-untied": Row(GPT2.model_copy(update={"tied": False})),
    "whisper": Row(WHISPER, "frames"),
    "whisper-window-untied": Row(WHISPER.model_copy(update={"any_length": False, "tied": False}), "frames"),
    "rnn-tanh": Row(TIED.model_copy(update={"kind": "rnn"})),
    "rnn-gru": Row(RNN.model_copy(update={"kind": "gru"})),
    "rnn-lstm": Row(TIED.model_copy(update={"hidden": 10})),
    "rnn-pair": Row(PAIR, "tokens"),
    "rnn-luong": Row(PAIR.model_copy(update={"attention": "luong", "kind": "gru"}), "tokens"),
    "rnn-bahdanau-fed": Row(PAIR.model_copy(update={"attention": "bahdanau", "feeding": True}), "tokens"),
    "rnn-copies": Row(PAIR.model_copy(update={"attention": "luong", "copies": True, "kind": "rnn"}), "tokens"),
    "rnn-copies-fed": Row(
        PAIR.model_copy(update={"attention": "bahdanau", "copies": True, "feeding": True, "kind": "gru"}), "tokens"
    ),
    "t5": Row(T5, "tokens"),
    "t5-v1.1": Row(T5.model_copy(update={"feed": "gated-gelu", "tied": False, "scaled": False}), "tokens"),
    "mt5": Row(T5.model_copy(update={"kind": "mt5", "feed": "gated-gelu", "scaled": False}), "tokens"),
    "bart": Row(BART, "tokens"),
    "mbart": Row(BART.model_copy(update={"kind": "mbart", "scaled": True}), "tokens"),
    "marian": Row(BART.model_copy(update={"kind": "marian", "scaled": True, "activation": "swish"}), "tokens"),
    "bert": Row(BERT, heads=("masked",)),
    "roberta": Row(BERT.model_copy(update={"variant": "roberta", "kinds": 1, "pad": 2}), heads=("masked",)),
    "xlm-roberta": Row(BERT.model_copy(update={"variant": "xlm-roberta", "kinds": 1, "pad": 1}), heads=("masked",)),
    "distilbert": Row(DISTILBERT, heads=("masked",)),
    "toy-encoder": Row(toys.EncoderConfig()),
    "toy-pair": Row(toys.PairConfig(), "tokens"),
    "toy-recurrent": Row(toys.RecurrentConfig()),
    "toy-speech": Row(toys.SpeechConfig(), "frames"),
}
DECODERS = [name for name, row in TABLE.items() if isinstance(row.config.sketch(), Decodes)]
PACKERS = [name for name, row in TABLE.items() if row.config.sketch().packs]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def build(name: str, seed: int = 0):
    """Return the row's model with every parameter random, norms and biases too, so that none can be forgotten."""
    model = TABLE[name].build(seed=seed).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + 0.1)
    return model


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(seed))


def source(name: str, rows: int, short: int = 0):
    """Return the source of `rows` rows; the last `short` positions of row 0 are padding."""
    if not TABLE[name].reads:
        return None
    segments = torch.ones(rows, 6, dtype=torch.long)
    segments[0, 6 - short :] = 0
    layout = Layout.of(segments) if short else None
    if TABLE[name].reads == "tokens":
        return Tokens(ids=tokens(rows, 6, seed=9), layout=layout)
    values = torch.randn(rows, 6, 5, generator=torch.Generator().manual_seed(9))
    return Frames(values=values, layout=layout)


def memory(name: str, model, rows: int):
    given = source(name, rows)
    return None if given is None else require(model, Encodes).encode(given)


def pick(given, rows):
    """Return some rows of a source."""
    if given is None:
        return None
    if isinstance(given, Tokens):
        return Tokens(ids=given.ids[rows])
    return Frames(values=given.values[rows])


@pytest.mark.parametrize("name", TABLE)
class TestEveryModel:
    """What holds for all shapes."""

    def test_same_seed_same_weights(self, name):
        """A global random state leaking into initialisation."""
        torch.manual_seed(1)
        first = TABLE[name].build(seed=3)
        torch.manual_seed(2)
        second = TABLE[name].build(seed=3)
        other = TABLE[name].build(seed=4)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
        assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))

    def test_first_loss_is_that_of_guessing(self, name):
        """Wrong initial scale, a head that is not what it seems, targets that leak."""
        model = TABLE[name].build(seed=0).eval()
        x, y = tokens(8, 16), tokens(8, 16, seed=5)
        with torch.no_grad():
            loss = total_nats(model, model(x, memory=memory(name, model, 8)), y) / y.numel()
        assert abs(loss / math.log(256) - 1) < 0.05

    def test_names_cover_every_parameter_both_ways(self, name):
        """A weight left out of the table, written under a wrong name, or not transposed back."""
        first, second = build(name, seed=0), build(name, seed=5)
        theirs = to_theirs(first)
        from_theirs(second, list(theirs), theirs.__getitem__, "test")
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))

    def test_config_survives_its_json(self, name):
        """A field that config.json forgets."""
        config = TABLE[name].config
        again = type(config).from_hf({**config.to_hf(), "kept_key": 7})
        assert again.model_copy(update={"extra": {}}) == config.model_copy(update={"extra": {}})
        assert again.to_hf()["kept_key"] == 7

    def test_embedded_tokens_are_tokens(self, name):
        """A family that scales or looks up ids where embedded input skips it."""
        model = build(name)
        x = tokens(2, 7)
        held = memory(name, model, 2)
        torch.testing.assert_close(model(x, memory=held), model(model.embed(x), memory=held))

    def test_padding_never_changes_an_answer(self, name):
        """A mask with the wrong sign or offset, positions counted over padding, a state moved by padding."""
        model = build(name)
        given = source(name, 2)
        x = tokens(2, 9)
        for side in ("left", "right"):
            padded = torch.zeros(2, 12, dtype=torch.long)
            segments = torch.zeros(2, 12, dtype=torch.long)
            spans = [(12 - n, 12) if side == "left" else (0, n) for n in (9, 5)]
            for row, (start, end) in enumerate(spans):
                padded[row, start:end] = x[row, : end - start]
                segments[row, start:end] = 1
            held = None if given is None else model.encode(given)
            together = model(padded, layout=Layout.of(segments), memory=held)
            for row, (start, end) in enumerate(spans):
                one = None if given is None else model.encode(pick(given, slice(row, row + 1)))
                alone = model(x[row : row + 1, : end - start], memory=one)
                torch.testing.assert_close(together[row : row + 1, start:end], alone, **CLOSE)

    def test_order_and_company_never_change_an_answer(self, name):
        """Statistics over the batch, rows mixed up."""
        model = build(name)
        x, given = tokens(4, 8), source(name, 4)
        held = None if given is None else model.encode(given)
        mixed = torch.tensor([2, 0, 3, 1])
        other = None if given is None else model.encode(pick(given, mixed))
        torch.testing.assert_close(model(x, memory=held)[mixed], model(x[mixed], memory=other), **CLOSE)

    def test_bf16_is_near_fp32(self, name):
        """A part that stays fp32 and fails to meet bf16, or overflows in it."""
        model = TABLE[name].build(seed=0).eval()
        x = tokens(2, 9)
        given = source(name, 2)
        full = model.logits(model(x, memory=None if given is None else model.encode(given)))
        model = model.to(torch.bfloat16)
        if isinstance(given, Frames):
            given = Frames(values=given.values.bfloat16())
        short = model.logits(model(x, memory=None if given is None else model.encode(given)))
        assert short.dtype == torch.bfloat16
        assert (full - short.float()).abs().max() < 0.05 * full.abs().max()

    def test_gradients_reach_every_parameter(self, name):
        """A part of the network that is not wired in, or detached."""
        model = TABLE[name].build(seed=0)
        held = memory(name, model, 2)
        kinds = torch.ones(2, 9, dtype=torch.long) if name == "toy-encoder" else None
        model.logits(model(tokens(2, 9), memory=held, kinds=kinds)).square().mean().backward()
        learned = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
        silent = [name for name, grad in learned.items() if grad is None or not grad.abs().sum()]
        assert silent == [] or all("attn.k.bias" in each for each in silent)  # a key bias cancels in the softmax


@pytest.mark.parametrize("name", PACKERS)
def test_packed_is_alone(name):
    """Attention across documents, positions that do not restart."""
    model = build(name)
    x = tokens(1, 12)
    layout = Layout.of(torch.tensor([[1] * 5 + [2] * 4 + [3] * 3]))
    packed = model(x, layout=layout)
    for start, end in ((0, 5), (5, 9), (9, 12)):
        torch.testing.assert_close(packed[:, start:end], model(x[:, start:end]), **CLOSE)


@pytest.mark.parametrize("name", [name for name in TABLE if isinstance(build(name), Summarises)])
@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_the_first_states_are_those_of_the_whole(name, side):
    """A last layer that sees padding, takes the wrong token, or learns something else from the others."""
    whole, part = build(name).double(), build(name).double()
    x = tokens(3, 7)
    segments = torch.ones(3, 7, dtype=torch.long)
    segments[1, 3:] = segments[2, 1:] = 0
    layout = {"none": None, "right": Layout.of(segments), "left": Layout.of(segments.flip(1))}[side]
    expected = heads.first(whole(x, layout=layout), layout)
    found = part.first(x, layout=layout)
    torch.testing.assert_close(found, expected)
    for states in (expected, found):
        states.square().sum().backward()
    for one, other in zip(whole.parameters(), part.parameters()):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad)


@pytest.mark.parametrize("name", DECODERS)
class TestEveryDecoder:
    """What holds for all that go on token by token."""

    def test_no_look_ahead(self, name):
        """A causal mask off by one: a later token changing an earlier answer."""
        model = build(name)
        x = tokens(1, 10)
        y = x.clone()
        y[0, 6] = (y[0, 6] + 1) % 256
        held = memory(name, model, 1)
        before, after = model(x, memory=held), model(y, memory=held)
        torch.testing.assert_close(before[:, :6], after[:, :6])
        assert not torch.allclose(before[:, 6], after[:, 6])

    def test_incremental_is_full(self, name):
        """A cache that is off by one, loses a chunk, or restarts positions."""
        model = build(name)
        x = tokens(3, 11)
        held = memory(name, model, 3)
        full = model(x, memory=held)
        for cuts in ((1,) * 11, (4, 1, 1, 5), (11,)):
            cache = model.new_cache(3, 11)
            pieces = [model(piece, memory=held, cache=cache) for piece in x.split(cuts, 1)]
            torch.testing.assert_close(torch.cat(pieces, 1), full, **CLOSE)
            assert cache.lengths.tolist() == [11] * 3

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_rows_of_different_length_share_a_cache(self, name, side):
        """Padding written into the cache, or rows continued from the longest row's position."""
        model = build(name)
        given = source(name, 2)
        x = tokens(2, 10)
        lengths = (6, 3)
        prompt, segments = torch.zeros(2, 6, dtype=torch.long), torch.zeros(2, 6, dtype=torch.long)
        for row, n in enumerate(lengths):
            at = slice(6 - n, 6) if side == "left" else slice(0, n)
            prompt[row, at], segments[row, at] = x[row, :n], 1
        cache = model.new_cache(2, 16)
        held = None if given is None else model.encode(given)
        model(prompt, layout=Layout.of(segments), memory=held, cache=cache)
        assert cache.lengths.tolist() == [6, 3]
        for step in range(4):
            new = torch.stack([x[row, n + step] for row, n in enumerate(lengths)])[:, None]
            out = model(new, memory=held, cache=cache)
            for row, n in enumerate(lengths):
                one = None if given is None else model.encode(pick(given, slice(row, row + 1)))
                alone = model(x[row : row + 1, : n + step + 1], memory=one)[:, -1]
                torch.testing.assert_close(out[row : row + 1, -1], alone, **CLOSE)

    def test_reorder(self, name):
        """Beams that keep another beam's past."""
        model = build(name)
        x = tokens(3, 8)
        held = memory(name, model, 1)  # one source, three beams
        cache = model.new_cache(3, 8)
        model(x[:, :5], memory=held, cache=cache)
        rows = torch.tensor([2, 0, 0])
        cache.reorder(rows)
        mixed = torch.cat((x[rows, :5], x[:, 5:]), 1)
        torch.testing.assert_close(model(x[:, 5:], memory=held, cache=cache), model(mixed, memory=held)[:, 5:], **CLOSE)

    def test_truncate_by_row_or_restore(self, name):
        """Forgetting the wrong number of tokens, or the same number in every row."""
        model = build(name)
        x = tokens(2, 9)
        held = memory(name, model, 2)
        cache = model.new_cache(2, 12)
        model(x[:, :4], memory=held, cache=cache)
        saved = cache.snapshot()
        model(x[:, 4:7], memory=held, cache=cache)
        if isinstance(cache, StateCache):
            with pytest.raises(AbilityError, match="cannot be cut"):
                cache.truncate(torch.tensor([5, 3]))
        else:
            cache.truncate(torch.tensor([5, 3]))
            out = model(x[:, 7:8], memory=held, cache=cache)
            for row, n in enumerate((5, 3)):
                whole = torch.cat((x[row : row + 1, :n], x[row : row + 1, 7:8]), 1)
                one = None if held is None else model.encode(pick(source(name, 2), slice(row, row + 1)))
                torch.testing.assert_close(out[row], model(whole, memory=one)[0, -1:], **CLOSE)
            cache.truncate(torch.tensor([3, 3]))
            model(x[:, 3:4], memory=held, cache=cache)
        cache.restore(saved)
        again = model(x[:, 4:], memory=held, cache=cache)
        torch.testing.assert_close(again, model(x, memory=held)[:, 4:], **CLOSE)


def test_memory_hides_padding():
    """Cross-attention that reads the padding of a short source."""
    for name in ("toy-pair", "toy-speech", "whisper", "t5", "bart"):
        model = build(name)
        x = tokens(2, 5)
        padded = source(name, 2, short=2)
        together = model(x, memory=model.encode(padded))
        cut = Tokens(ids=padded.ids[:1, :4]) if TABLE[name].reads == "tokens" else Frames(values=padded.values[:1, :4])
        torch.testing.assert_close(together[:1], model(x[:1], memory=model.encode(cut)), **CLOSE)


def test_what_a_family_lacks_is_one_sentence():
    """An ability asked for by hasattr, or missing silently."""
    encoder = toys.EncoderConfig().build()
    with pytest.raises(AbilityError, match="Encoder: cannot decode step by step"):
        require(encoder, Decodes)
    with pytest.raises(AbilityError, match="Llama: takes no kinds"):
        LLAMA.build()(tokens(1, 3), kinds=tokens(1, 3))
    with pytest.raises(AbilityError, match=r"has no head 'span'.*its heads: sequence"):
        toys.EncoderConfig().build(heads={"span": 2})


def test_heads_are_built_named_and_read_back():
    """A head that is not drawn from the seed, not saved, or that hides missing weights."""
    config = toys.EncoderConfig()
    first, second = (config.build(seed=seed, heads={"sequence": 3}) for seed in (0, 1))
    theirs = to_theirs(first)
    assert "classifier.weight" in theirs
    assert from_theirs(second, list(theirs), theirs.__getitem__, "test") == []
    hidden = second(tokens(2, 5))
    assert second.heads["sequence"](hidden, None).shape == (2, 3)
    assert torch.equal(first.heads["sequence"].out.weight, second.heads["sequence"].out.weight)
    bare = {name: tensor for name, tensor in theirs.items() if "classifier" not in name}
    assert from_theirs(second, list(bare), bare.__getitem__, "test") == ["sequence"]
