"""RNN, GRU and LSTM: a language model, or with an encoder a pair that reads a source and writes from it.

    source ─ embed ─ encoder (both ways, a layer above the other) ──────── memory (R, S, H)
                        └ where each direction arrived ─ bridge ─┐            │
    tokens ─ embed ─ blocks (from nothing, or from the bridge) <─┘            │
                        └─ state ────────────────┬──── cross: look ───────────┘
                                                 o: tanh(o [context | state]) ─ hidden ─ head
                                                 └ feeding: beside the next token's embedding

Papers: Elman 1990; LSTM Hochreiter & Schmidhuber 1997, its forget bias of 1 Jozefowicz et al. 2015; GRU 1406.1078; the
pair 1409.3215, its alignment 1409.0473 and 1508.04025 (input feeding: there, 3.3), copying 1704.04368.
With `copies`, hidden states carry more columns than `dim` (nn/copying.py), and logits are logarithms of probabilities.
No Hugging Face class reads these: config.json says model_type "hanlin-rnn", and tensors have our own names.

Letters: B rows, T tokens, R sources, S source positions, D dim, H hidden, W a state (nn/recurrent.py), V vocab.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.batch import Layout, Source, Tokens
from hanlin.errors import AbilityError, problem
from hanlin.models.contract import (
    Decodes,
    Encodes,
    Json,
    Memory,
    Model,
    ModelConfig,
    Rename,
    fields_from_hf,
    needed,
    unused,
)
from hanlin.nn import copying
from hanlin.nn.alignment import Alignment, Way
from hanlin.nn.cache import Cache, StateCache
from hanlin.nn.dropout import Dropout
from hanlin.nn.linear import Linear, linear
from hanlin.nn.recurrent import Bidirectional, Kind, Recurrent, Runs, width


class Config(ModelConfig):
    """Sizes and parts of a recurrent model."""

    kind: Kind = "lstm"
    vocab: int = Field(256, gt=0)
    dim: int = Field(256, gt=0)  # of an embedding, and of what the head reads
    layers: int = Field(2, gt=0)
    hidden: int = Field(default_factory=lambda chosen: chosen.get("dim", 1), gt=0)  # of a layer's output
    context: int = Field(65536, gt=0)  # bounds the work of one answer; the network itself has no limit
    tied: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)  # after the embedding, every layer and the look
    encoder: Literal["none", "bidirectional"] = "none"
    attention: Literal["none"] | Way = "none"
    feeding: bool = False  # what was looked up goes in with the next token; training then runs token by token
    copies: bool = False  # words of the source can be copied
    # Standard deviation of fresh embeddings: small ones look all alike to a recurrent layer, and a short run ends so.
    spread: float = Field(default_factory=lambda chosen: 0.3 if chosen.get("tied") else 1.0, gt=0)

    model_types: ClassVar = ("hanlin-rnn",)
    architecture: ClassVar = "HanlinRNN"
    needed: ClassVar = ("kind", "vocab", "dim", "layers")
    keys: ClassVar = {
        "kind": "cell",
        "vocab": "vocab_size",
        "dim": "embedding_size",
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "context": "max_position_embeddings",
        "tied": "tie_word_embeddings",
        "dropout": "dropout",
        "encoder": "encoder",
        "attention": "attention",
        "feeding": "input_feeding",
        "copies": "copies",
        "spread": "initializer_range",
        "start": "decoder_start_token_id",
        "first": "forced_bos_token_id",
    }
    renames: ClassVar = tuple(
        Rename(name, name)
        for name in (
            "embed.weight",
            *(f"{place}.enter.@" for place in ("blocks.*", "encoder.*.ahead", "encoder.*.back")),
            *(f"{place}.again.@" for place in ("blocks.*", "encoder.*.ahead", "encoder.*.back")),
            "bridge.*.@",
            *(f"cross.{part}.@" for part in ("q", "k", "score")),
            *(f"{part}.@" for part in ("o", "gate", "head")),
        )
    )

    def problems(self) -> list[str]:
        """Return what cannot be built, one line each."""
        found = []
        if self.encoder == "none" and self.attention != "none":
            found.append(f"attention {self.attention} has nothing to look at; set encoder: bidirectional")
        found += [
            f"{name} needs an attention: bahdanau or luong"
            for name in ("feeding", "copies")
            if getattr(self, name) and self.attention == "none"
        ]
        if self.encoder != "none" and self.hidden % 2:
            found.append(f"hidden {self.hidden} is odd; an encoder gives each direction half of it")
        return found

    @classmethod
    def from_hf(cls, json: Json) -> Self:
        """Build from a config.json of model_type hanlin-rnn."""
        values, extra = fields_from_hf(cls, json)
        return cls.checked({**values, "extra": extra})

    def to_hf(self) -> Json:
        """Return the config.json of this model."""
        return self.plain_hf()

    def make(self) -> RNN:
        """Return the module, not initialised."""
        return RNN(self) if self.encoder == "none" else Pair(self)


class RNN(Model[Config], Decodes):
    """Tokens (B, T) to hidden states (B, T, D); all that it knows of what came before is in its states."""

    packs: ClassVar = False

    def __init__(self, config: Config) -> None:
        """Allocate the parts that the config asks for."""
        super().__init__(config)
        dim, hidden = config.dim, config.hidden
        self.embed = nn.Embedding(config.vocab, dim)
        self.dropout = Dropout(config.dropout)
        inputs = [dim * (1 + config.feeding), *[hidden] * (config.layers - 1)]
        self.blocks = nn.ModuleList(Recurrent(config.kind, size, hidden) for size in inputs)
        sizes = [dim, *[hidden] * (config.layers - 1)] if config.encoder != "none" else []
        self.encoder = nn.ModuleList(Bidirectional(config.kind, size, hidden) for size in sizes)
        self.bridge = nn.ModuleList(Linear(hidden, width(config.kind, hidden)) for _ in sizes)
        self.cross = None if config.attention == "none" else Alignment(config.attention, hidden, hidden)
        self.o = None if self.cross is None and hidden == dim else Linear(hidden * (2 if self.cross else 1), dim)
        self.gate = Linear(2 * hidden + dim, 1) if config.copies else None
        self.head = None if config.tied else Linear(dim, config.vocab, bias=False)

    def forward(
        self,
        tokens: Tensor,
        *,
        layout: Layout | None = None,
        kinds: Tensor | None = None,
        memory: Memory | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return hidden states, with more columns where words are copied; see Model.forward and nn/copying.py.

        Every segment of a row starts anew; the first goes on from the cache, or from the memory where that is empty.
        """
        unused(self, kinds=kinds)
        if len(self.encoder):
            memory = needed(self, memory)
        else:
            unused(self, memory=memory)
        x = self.dropout(tokens if tokens.is_floating_point() else self.embed(tokens))
        states = self._begin(x, memory, cache)
        if self.config.feeding:
            assert memory is not None
            found, states = self._fed(x, states, memory, layout)
        else:
            found, states = self._whole(x, states, memory, layout, keep=cache is not None)
        if cache is not None:
            assert isinstance(cache, StateCache), "a recurrent model goes on from its own cache"
            cache.extend(x.shape[1], layout)
            cache.states = states
        return found

    def _begin(self, x: Tensor, memory: Memory | None, cache: Cache | None) -> list[Tensor]:
        """Return the states (B, W) that the rows go on from."""
        if memory is None:
            return cache.states[:] if isinstance(cache, StateCache) else self._nothing(len(x))
        carry = memory.carry
        assert carry is not None, "Pair.encode carries over"
        if isinstance(cache, StateCache) and bool(cache.lengths.all()):
            return cache.states[:]
        arrived = carry.repeat_interleave(len(x) // len(carry), 0).split(self.config.hidden, 1)
        begun = [torch.tanh(bridge(each)) for bridge, each in zip(self.bridge, arrived)]
        begun += self._nothing(len(x))[len(begun) :]
        if not isinstance(cache, StateCache):
            return begun
        return [torch.where(cache.lengths[:, None] > 0, *pair) for pair in zip(cache.states, begun)]

    def _nothing(self, rows: int) -> list[Tensor]:
        """Return the states of rows that have read nothing: one a layer and, with feeding, what was looked up last."""
        config = self.config
        sizes = [width(config.kind, config.hidden)] * config.layers + [config.dim] * config.feeding
        return [torch.zeros(rows, size, dtype=self.dtype, device=self.device) for size in sizes]

    def _whole(
        self, x: Tensor, states: list[Tensor], memory: Memory | None, layout: Layout | None, *, keep: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Return hidden states and the states after, layer by layer over all tokens at once."""
        runs, y, after = None if layout is None else Runs(layout), x, []
        for block, state in zip(self.blocks, states):
            y, state = block(y, state, runs, keep=keep)
            after.append(state)
            y = self.dropout(y)
        found, rest = self._look(x, y, memory)
        return self._with_copies(found, rest, memory), after

    def _fed(
        self, x: Tensor, states: list[Tensor], memory: Memory, layout: Layout | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the same token by token, what was looked up going in with the next token's embedding."""
        first, *others = (block for block in self.blocks if isinstance(block, Recurrent))
        own, fed = first.enter.weight.split((self.config.dim, self.config.dim), 1)
        entered = linear(x, own, first.enter.bias)
        steps = []
        for t in range(x.shape[1]):
            new = [first.step(entered[:, t] + linear(states[-1], fed), states[0])]
            for block, state in zip(others, states[1:]):
                below = self.dropout(new[-1][:, : block.hidden])
                new.append(block.step(block.enter(below), state))
            top = self.dropout(new[-1][:, None, : first.hidden])
            steps.append(self._look(x[:, t : t + 1], top, memory))
            new.append(steps[-1][0][:, 0])
            if layout is not None:
                real = layout.real[:, t, None]
                new = [torch.where(real, now, before) for now, before in zip(new, states)]
            states = new
        found = torch.cat([one for one, _ in steps], 1)
        rest = tuple(torch.cat(each, 1) for each in zip(*(each for _, each in steps)))
        return self._with_copies(found, rest, memory), states

    def _look(self, x: Tensor, y: Tensor, memory: Memory | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return what the head reads (B, T, D) and, where words are copied, the gate and the weights (B, T, S)."""
        if self.cross is None or memory is None:
            return (y if self.o is None else self.o(y)), ()
        assert self.o is not None
        context, weights = self.cross(y, memory)
        found = self.dropout(torch.tanh(self.o(torch.cat((context, y), -1))))
        return found, () if self.gate is None else (self.gate(torch.cat((context, y, x), -1)), weights)

    def _with_copies(self, found: Tensor, rest: tuple[Tensor, ...], memory: Memory | None) -> Tensor:
        """Return hidden states, with the columns that copying needs."""
        if not rest:
            return found
        assert memory is not None
        assert memory.ids is not None, "Pair.encode keeps them"
        gate, weights = rest
        return copying.pack(found, gate, weights, memory.ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (..., V): scores, or logarithms of probabilities where words are copied."""
        if not self.config.copies:
            return self._scores(hidden)
        found, *rest = copying.unpack(hidden, self.config.dim)
        return copying.mixed(self._scores(found), *rest)

    def _scores(self, hidden: Tensor) -> Tensor:
        return linear(hidden, self.embed.weight) if self.head is None else self.head(hidden)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw embeddings from N(0, spread²), recurrent matrices orthogonal, others even within 1 / sqrt(inputs)."""
        for name, each in self.named_parameters():
            if each.ndim < 2:
                nn.init.zeros_(each)
                if self.config.kind == "lstm" and name.endswith("enter.bias"):
                    nn.init.ones_(each.detach().chunk(4)[1])  # remember first, learn to forget later
                elif name == "gate.bias":
                    nn.init.constant_(each, 3.0)  # write 95 %; a copy before anything is learnt is a wild guess
            elif name == "embed.weight":
                nn.init.normal_(each, 0.0, self.config.spread, generator=generator)
            elif name.endswith("again.weight"):
                for gate in each.detach().split(each.shape[1]):
                    nn.init.orthogonal_(gate, generator=generator)
            else:
                edge = each.shape[1] ** -0.5
                nn.init.uniform_(each, -edge, edge, generator=generator)

    def new_cache(self, rows: int, length: int) -> Cache:
        """Return states of rows that have read nothing; they take the same room at any length."""
        return StateCache(self._nothing(rows))


class Pair(RNN, Encodes):
    """A decoder that begins where its encoder arrived, and looks back at what it read."""

    def encode(self, source: Source) -> Memory:
        """Return the top layer's states (B, S, H), and where every layer arrived for the decoder to begin from."""
        if not isinstance(source, Tokens):
            raise AbilityError(problem(type(self).__name__, "reads token ids, not frames"))
        runs = None if source.layout is None else Runs(source.layout)
        x, arrived = self.dropout(self.embed(source.ids)), []
        for layer in self.encoder:
            x, last = layer(x, runs)
            x = self.dropout(x)
            arrived.append(last)
        return Memory(states=x, layout=source.layout, carry=torch.cat(arrived, 1), ids=source.ids)
