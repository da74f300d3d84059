"""Toys: one tiny model of every shape, bytes as tokens. The contract table treats them like the real families.

Encoder        reads both ways, token kinds, heads
Pair           encoder–decoder: reads a source, writes tokens
Recurrent      one state a layer, cannot pack
Speech         frames in, tokens out
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import nn

from hanlin.batch import Frames, Layout, Tokens
from hanlin.models.contract import Decodes, Encodes, Head, Memory, Model, ModelConfig, Rename, fields_from_hf, unused
from hanlin.nn.attention import Attention, scope, spelled_out
from hanlin.nn.cache import KeyValueCache, StateCache


class Toy(ModelConfig):
    """Sizes that all toys share, and a config.json under the toys' own names."""

    vocab: int = Field(256, gt=0)
    dim: int = 8
    layers: int = 2
    context: int = 32

    needed: ClassVar = ("vocab", "dim")
    keys: ClassVar = {"vocab": "vocab_size", "dim": "hidden_size", "layers": "num_layers", "context": "n_positions"}

    @classmethod
    def from_hf(cls, json) -> Self:
        values, extra = fields_from_hf(cls, json)
        return cls.checked({**values, "extra": extra})

    def to_hf(self):
        return self.plain_hf()


def draw(model, generator):
    """Draw every matrix narrow, every other parameter plain."""
    for name, each in model.named_parameters():
        if each.ndim < 2:
            nn.init.constant_(each, float("norm" in name and name.endswith("weight")))
        else:
            nn.init.normal_(each, 0.0, 0.1, generator=generator)


def attention(dim):
    """Return two heads over `dim`."""
    return Attention(dim, heads=2, kv_heads=2, head_dim=dim // 2, bias=False)


class Layer(nn.Module):
    """Attention, then a source when there is one, on normalised copies."""

    def __init__(self, dim, cross=False):
        super().__init__()
        self.attn_norm, self.attn = nn.LayerNorm(dim), attention(dim)
        self.cross = attention(dim) if cross else None

    def forward(self, x, view, memory=None, index=0):
        x = x + self.attn(self.attn_norm(x), view)
        if self.cross is None:
            return x
        keys, values = memory.once(
            f"{index}", lambda states: (self.split(self.cross.k, states), self.split(self.cross.v, states))
        )
        beams = len(x) // len(keys)
        keys, values = keys.repeat_interleave(beams, 0), values.repeat_interleave(beams, 0)
        mask = None if memory.layout is None else memory.layout.real.repeat_interleave(beams, 0)[:, None, None]
        read = spelled_out(self.split(self.cross.q, x), keys, values, mask)
        return x + self.cross.o(read.transpose(1, 2).flatten(2))

    def split(self, part, x):
        return part(x).unflatten(-1, (2, -1)).transpose(1, 2)


LAYER = (
    Rename("blocks.*.attn_norm.@", "layer.*.norm.@"),
    *(Rename(f"blocks.*.attn.{x}.@", f"layer.*.{x}.@") for x in "qkvo"),
    *(Rename(f"blocks.*.cross.{x}.@", f"layer.*.cross_{x}.@") for x in "qkvo"),
)


class EncoderConfig(Toy):
    """The encoder's: heads for labels on a row and on each token."""

    model_types: ClassVar = ("toy-encoder",)
    architecture: ClassVar = "ToyEncoder"
    prefix: ClassVar = "toy."
    renames: ClassVar = (
        *(Rename(f"{x}.weight", f"toy.{x}") for x in ("embed", "kinds", "places")),
        Rename("norm.@", "toy.norm.@"),
        *(Rename(row.ours, f"toy.{row.theirs}") for row in LAYER),
    )
    task_heads: ClassVar = {
        "sequence": Head(
            lambda config, outputs: First(config.dim, outputs),
            (Rename("heads.sequence.out.@", "classifier.@"),),
            "ToyForSequence",
        )
    }

    def make(self):
        return Encoder(self)


class First(nn.Module):
    """Scores from the first real token of each row."""

    def __init__(self, dim, outputs):
        super().__init__()
        self.out = nn.Linear(dim, outputs)

    def forward(self, hidden, layout: Layout | None):
        first = 0 if layout is None else layout.real.int().argmax(1)
        return self.out(hidden[torch.arange(len(hidden)), first])


class Encoder(Model[EncoderConfig]):
    """Every position sees its whole segment."""

    def __init__(self, config):
        super().__init__(config)
        self.embed, self.kinds = nn.Embedding(config.vocab, config.dim), nn.Embedding(2, config.dim)
        self.places = nn.Embedding(config.context, config.dim)
        self.blocks = nn.ModuleList(Layer(config.dim) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens, *, layout=None, kinds=None, memory=None, cache=None):
        unused(self, memory=memory, cache=cache)
        seen = scope(tokens, layout, None, causal=False)
        x = tokens if tokens.is_floating_point() else self.embed(tokens)
        x = x + self.places(seen.positions) + (0 if kinds is None else self.kinds(kinds))
        for index, block in enumerate(self.blocks):
            x = block(x, seen.layer(index))
        return self.norm(x)

    def logits(self, hidden):
        return hidden @ self.embed.weight.T

    def initialize(self, generator):
        draw(self, generator)


class PairConfig(Toy):
    """The encoder–decoder's."""

    model_types: ClassVar = ("toy-pair",)
    architecture: ClassVar = "ToyPair"
    renames: ClassVar = (
        Rename("embed.weight", "shared"),
        Rename("norm.@", "final.@"),
        Rename("reader_norm.@", "encoder.norm.@"),
        Rename("reader.attn_norm.@", "encoder.0.norm.@"),
        *(Rename(f"reader.attn.{x}.@", f"encoder.0.{x}.@") for x in "qkvo"),
        *LAYER,
    )

    def make(self):
        return Pair(self)


class Pair(Model[PairConfig], Decodes, Encodes):
    """A reader of one layer, a writer that looks at what it read."""

    packs: ClassVar = False

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.reader, self.reader_norm = Layer(config.dim), nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(Layer(config.dim, cross=True) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def encode(self, source):
        x = self.embed(source.ids) if isinstance(source, Tokens) else source.values
        seen = scope(x, source.layout, None, causal=False)
        return Memory(states=self.reader_norm(self.reader(x, seen.layer(0))), layout=source.layout)

    def forward(self, tokens, *, layout=None, kinds=None, memory=None, cache=None):
        unused(self, kinds=kinds)
        seen = scope(tokens, layout, cache)
        x = tokens if tokens.is_floating_point() else self.embed(tokens)
        for index, block in enumerate(self.blocks):
            x = block(x, seen.layer(index), memory, index)
        return self.norm(x)

    def logits(self, hidden):
        return hidden @ self.embed.weight.T

    def initialize(self, generator):
        draw(self, generator)

    def new_cache(self, rows, length):
        size = self.config.dim // 2
        return KeyValueCache(
            layers=self.config.layers,
            rows=rows,
            kv_heads=2,
            head_dim=size,
            length=length,
            dtype=self.dtype,
            device=self.device,
        )


class SpeechConfig(PairConfig):
    """The speech model's: features of a frame before the reader."""

    model_types: ClassVar = ("toy-speech",)
    architecture: ClassVar = "ToySpeech"
    features: int = 5
    keys: ClassVar = {**Toy.keys, "features": "num_mel_bins"}
    renames: ClassVar = (*PairConfig.renames, Rename("hear.@", "conv.@"))

    def make(self):
        return Speech(self)


class Speech(Pair):
    """Frames (B, S, F) instead of token ids in front of the same reader."""

    def __init__(self, config):
        super().__init__(config)
        self.hear = nn.Linear(config.features, config.dim)

    def encode(self, source):
        return super().encode(Frames(values=self.hear(source.values), layout=source.layout))


class RecurrentConfig(Toy):
    """The recurrent model's."""

    model_types: ClassVar = ("toy-recurrent",)
    architecture: ClassVar = "ToyRecurrent"
    renames: ClassVar = (
        Rename("embed.weight", "embed"),
        Rename("norm.@", "norm.@"),
        Rename("blocks.*.enter.@", "rnn.*.enter.@"),
        Rename("blocks.*.again.@", "rnn.*.again.@"),
    )

    def make(self):
        return Recurrent(self)


class Cell(nn.Module):
    """tanh(enter x + again h), held still on padding."""

    def __init__(self, dim):
        super().__init__()
        self.enter, self.again = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)

    def forward(self, x, state, real):
        out = []
        for t in range(x.shape[1]):
            new = torch.tanh(self.enter(x[:, t]) + self.again(state))
            state = torch.where(real[:, t, None], new, state)
            out.append(state)
        return torch.stack(out, 1), state


class Recurrent(Model[RecurrentConfig], Decodes):
    """One cell a layer; the state is all it remembers."""

    packs: ClassVar = False

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList(Cell(config.dim) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens, *, layout=None, kinds=None, memory=None, cache=None):
        unused(self, kinds=kinds, memory=memory)
        x = tokens if tokens.is_floating_point() else self.embed(tokens)
        real = torch.ones(x.shape[:2], dtype=torch.bool) if layout is None else layout.real
        if cache is not None:
            cache.extend(x.shape[1], layout)
        for index, cell in enumerate(self.blocks):
            before = x.new_zeros(len(x), self.config.dim) if cache is None else cache.layer(index)
            x, after = cell(x, before, real)
            if cache is not None:
                cache.states[index] = after
        return self.norm(x)

    def logits(self, hidden):
        return hidden @ self.embed.weight.T

    def initialize(self, generator):
        draw(self, generator)

    def new_cache(self, rows, length):
        return StateCache([torch.zeros(rows, self.config.dim, dtype=self.dtype) for _ in self.blocks])
