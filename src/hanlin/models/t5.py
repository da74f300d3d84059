"""T5, T5 v1.1 and mT5: an encoder–decoder with positions as a bias by distance, RMSNorm and no bias in any matrix.

    source ─ embed ─ [attn ─ mlp] x N ─ norm ─────────── memory
                                                            │ keys and values, once
    tokens ─ embed ─┬────────(+)─┬───────────────────────(+)─┬────────(+)─ ... ─ norm ─ head ─ logits
                    └ norm attn ─┘ └ norm cross (memory) ─┘ └ norm mlp ┘
                           └ + bias by distance, shared by all layers of a stack; scores are not scaled

Papers: T5 arXiv 1910.10683, mT5 arXiv 2010.11934; v1.1 (gated MLP, a head of its own) is described with mT5.
T5 ties the head to the embedding and multiplies its input by dim^-0.5 (`scaled`); the others do neither.
Letters: B rows, T tokens, S source positions, D dim, V vocab.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.batch import Frames, Layout, Source
from hanlin.errors import ConfigError, problem
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
from hanlin.nn.attention import Attention
from hanlin.nn.cache import Attends, Cache
from hanlin.nn.cross import CrossAttention
from hanlin.nn.dropout import Dropout
from hanlin.nn.linear import Linear, linear
from hanlin.nn.mlp import MLP, GatedMLP
from hanlin.nn.norms import RMSNorm
from hanlin.nn.relative import RelativeBias, biased, new_cache

NARROW = 0.1  # standard deviation of fresh logits: the first loss is that of guessing
FEEDS = {  # feed_forward_proj -> (activation, gated); 'gated-gelu' has always meant the tanh approximation
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gelu_new": ("gelu_new", False),
    "gated-gelu": ("gelu_new", True),
    "gated-relu": ("relu", True),
    "gated-silu": ("silu", True),
}


def _renames(up: str) -> tuple[Rename, ...]:
    """Return the table of weights; `up` is the name of the MLP's first matrix, or of the one beside its gate."""
    parts = {
        "attn_norm": "0.layer_norm",
        **{f"attn.{x}": f"0.SelfAttention.{x}" for x in "qkvo"},
        "cross.norm": "1.layer_norm",
        **{f"cross.{x}": f"1.EncDecAttention.{x}" for x in "qkvo"},
        "mlp_norm": "#.layer_norm",
        "mlp.gate": "#.DenseReluDense.wi_0",
        "mlp.up": f"#.DenseReluDense.{up}",
        "mlp.down": "#.DenseReluDense.wo",
    }
    rows = [Rename("embed.weight", "shared.weight"), Rename("head.weight", "lm_head.weight")]
    for ours, theirs, last in (("encoder.", "encoder.", "1"), ("", "decoder.", "2")):
        rows.append(Rename(f"{ours}norm.weight", f"{theirs}final_layer_norm.weight"))
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rows.append(Rename(f"{ours}relative.weight", theirs + bias))
        for name, their in parts.items():
            place = f"{theirs}block.*.layer.{their.replace('#', last)}.weight"
            rows.append(Rename(f"{ours}blocks.*.{name}.weight", place))
    return tuple(rows)


class Config(ModelConfig):
    """Sizes of a T5; the defaults are those of google-t5/t5-small."""

    kind: Literal["t5", "mt5"] = "t5"
    vocab: int = Field(32128, gt=0)
    dim: int = Field(512, gt=0)
    layers: int = Field(6, gt=0)  # of the decoder
    encoder_layers: int = Field(default_factory=lambda chosen: chosen.get("layers", 1), gt=0, le=1000)
    heads: int = Field(8, gt=0)
    head_dim: int = Field(default_factory=lambda chosen: chosen.get("dim", 1) // chosen.get("heads", 1), gt=0)
    hidden: int = Field(default_factory=lambda chosen: 4 * chosen.get("dim", 1), gt=0)
    feed: str = "relu"
    context: int = Field(512, gt=0)  # what it was trained on; positions have no end
    buckets: int = Field(32, ge=4, multiple_of=4)
    farthest: int = 128  # tokens; distances beyond share the last bucket
    eps: float = Field(1e-6, gt=0)
    tied: bool = True
    scaled: bool = Field(default_factory=lambda chosen: chosen.get("tied", True) and chosen.get("kind") == "t5")
    dropout: float = Field(0.1, ge=0, lt=1)  # after embedding, branches and last norm, in attention and MLP
    factor: float = Field(1.0, gt=0)  # multiplies the spread of fresh weights
    start: int | None = Field(0, ge=0)

    model_types: ClassVar = ("t5", "mt5")
    architecture: ClassVar = "T5ForConditionalGeneration"
    renames: ClassVar = _renames("wi")
    repeats: ClassVar = (
        *("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
        "lm_head.weight",
    )
    unties: ClassVar = True  # transformers 5 says tied for all of them
    needed: ClassVar = ("vocab", "dim", "encoder_layers", "heads", "head_dim", "hidden")
    keys: ClassVar = {
        "kind": "model_type",
        "vocab": "vocab_size",
        "dim": "d_model",
        "layers": "num_decoder_layers",
        "encoder_layers": "num_layers",
        "heads": "num_heads",
        "head_dim": "d_kv",
        "hidden": "d_ff",
        "feed": "feed_forward_proj",
        "context": "n_positions",
        "buckets": "relative_attention_num_buckets",
        "farthest": "relative_attention_max_distance",
        "eps": "layer_norm_epsilon",
        "tied": "tie_word_embeddings",
        "scaled": "scale_decoder_outputs",
        "dropout": "dropout_rate",
        "factor": "initializer_factor",
        "start": "decoder_start_token_id",
        "first": "forced_bos_token_id",
    }
    fixed: ClassVar = {"is_encoder_decoder": (True,), "is_decoder": (False,)}

    @property
    def tables(self) -> type[ModelConfig]:
        """Return the class whose tables files with this MLP follow."""
        return Multilingual if self.kind == "mt5" else Gated if FEEDS[self.feed][1] else Config

    def problems(self) -> list[str]:
        """Return what cannot be built, one line each."""
        found = []
        if self.feed not in FEEDS:
            found.append(f"feed '{self.feed}' is not one of {', '.join(FEEDS)}")
        elif self.kind == "mt5" and not FEEDS[self.feed][1]:
            found.append(f"feed '{self.feed}' is not gated, as mT5's is")
        if self.farthest <= self.buckets // 2:
            found.append(f"farthest {self.farthest} leaves {self.buckets} buckets nothing to share")
        return found

    @classmethod
    def from_hf(cls, json: Json) -> Self:
        """Build from a config.json of model_type t5 or mt5."""
        multilingual = json.get("model_type") == "mt5"
        usual = {"num_decoder_layers": json.get("num_layers"), "tie_word_embeddings": True}
        gated = {"feed_forward_proj": "gated-gelu"} if multilingual else {}
        values, extra = fields_from_hf(cls, {**usual, **gated, **{k: v for k, v in json.items() if v is not None}})
        if multilingual:
            values["scaled"] = False
        read = cls.checked({**values, "extra": extra})
        activation = FEEDS[read.feed][0]
        if extra.get("dense_act_fn", activation) != activation:
            given = f"{extra['dense_act_fn']!r} beside feed_forward_proj '{read.feed}'"
            raise ConfigError(problem("config.json: dense_act_fn", given, f"known: '{activation}'"))
        return read

    def to_hf(self) -> Json:
        """Return the config.json that T5ForConditionalGeneration or MT5ForConditionalGeneration reads."""
        return self.plain_hf()

    def make(self) -> T5:
        """Return the module, not initialised."""
        return T5(self)


class Gated(Config):
    """The tables of T5 v1.1's files."""

    renames: ClassVar = _renames("wi_1")


class Multilingual(Gated):
    """The tables of mT5's files."""

    architecture: ClassVar = "MT5ForConditionalGeneration"


class Block(nn.Module):
    """One layer: attention, a look at the memory in the decoder, the MLP; each on a normalised copy and added back."""

    def __init__(self, config: Config, *, cross: bool) -> None:
        """Allocate the layer."""
        super().__init__()
        sizes: dict[str, Any] = {"heads": config.heads, "head_dim": config.head_dim, "bias": False}
        self.attn_norm = RMSNorm(config.dim, config.eps)
        self.attn = Attention(config.dim, kv_heads=config.heads, **sizes)
        norm = RMSNorm(config.dim, config.eps)
        self.cross = CrossAttention(config.dim, norm, scale=1.0, dropout=config.dropout, **sizes) if cross else None
        self.mlp_norm = RMSNorm(config.dim, config.eps)
        activation, gated = FEEDS[config.feed]
        kind = GatedMLP if gated else MLP
        self.mlp = kind(config.dim, config.hidden, activation=activation, bias=False, dropout=config.dropout)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, view: Attends, memory: Memory | None = None, name: str = "") -> Tensor:
        """Return x (B, T, D) after this layer."""
        x = x + self.dropout(self.attn(self.attn_norm(x), view))
        if self.cross is not None and memory is not None:
            x = x + self.dropout(self.cross(self.cross.norm(x), memory, name))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Encoder(nn.Module):
    """Embedded source (B, S, D) to states (B, S, D), each position seeing the whole source."""

    def __init__(self, config: Config) -> None:
        """Allocate layers, bias and norm."""
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, cross=False) for _ in range(config.encoder_layers))
        self.relative = RelativeBias(config.buckets, config.heads, farthest=config.farthest, causal=False)
        self.norm = RMSNorm(config.dim, config.eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Return the states."""
        view = biased(x, layout, None, self.relative, dropout=self.dropout.p if self.training else 0.0)
        x = self.dropout(x)
        for index, block in enumerate(self.blocks):
            x = block(x, view.layer(index))
        return self.dropout(self.norm(x))


class T5(Model[Config], Decodes, Encodes):
    """A source (B, S) to a memory, and tokens (B, T) beside it to hidden states (B, T, D), causal."""

    packs: ClassVar = False  # a row is one source and its answer

    def __init__(self, config: Config) -> None:
        """Allocate embedding, encoder, layers, bias, norm and, unless tied, the output head."""
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.encoder = Encoder(config)
        self.blocks = nn.ModuleList(Block(config, cross=True) for _ in range(config.layers))
        self.relative = RelativeBias(config.buckets, config.heads, farthest=config.farthest, causal=True)
        self.norm = RMSNorm(config.dim, config.eps)
        self.dropout = Dropout(config.dropout)
        self.head = None if config.tied else Linear(config.dim, config.vocab, bias=False)

    def encode(self, source: Source) -> Memory:
        """Return the states of a source of tokens, or of frames that are embedded already."""
        x = source.values if isinstance(source, Frames) else self.embed(source.ids)
        return Memory(states=self.encoder(x, source.layout), layout=source.layout)

    def forward(
        self,
        tokens: Tensor,
        *,
        layout: Layout | None = None,
        kinds: Tensor | None = None,
        memory: Memory | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return hidden states; see Model.forward."""
        unused(self, kinds=kinds)
        memory = needed(self, memory)
        view = biased(tokens, layout, cache, self.relative, dropout=self.dropout.p if self.training else 0.0)
        x = self.dropout(tokens if tokens.is_floating_point() else self.embed(tokens))
        for index, block in enumerate(self.blocks):
            x = block(x, view.layer(index), memory, f"{index}")
        return self.dropout(self.norm(x))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (..., V)."""
        if self.config.scaled:
            hidden = hidden * self.config.dim**-0.5
        return linear(hidden, self.embed.weight) if self.head is None else self.head(hidden)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw matrices from N(0, factor² / inputs), queries narrower by sqrt(h); logits start NARROW."""
        config = self.config
        wide = config.dim**0.5
        narrow = NARROW if config.tied and config.scaled else NARROW / wide
        for name, parameter in self.named_parameters():
            if "norm" in name:
                nn.init.ones_(parameter)
                continue
            spread = narrow if name in ("embed.weight", "head.weight") else parameter.shape[-1] ** -0.5
            if ".q." in name:
                spread *= config.head_dim**-0.5  # scores are not scaled
            if "relative" in name:
                spread = 1 / wide
            nn.init.normal_(parameter, 0.0, config.factor * spread, generator=generator)

    def new_cache(self, rows: int, length: int) -> Cache:
        """Return an empty key-value cache that holds the bias by distance."""
        config = self.config
        sizes: dict[str, Any] = {"layers": config.layers, "rows": rows, "kv_heads": config.heads}
        where = {"dtype": self.dtype, "device": self.device}
        return new_cache(self.relative, length, head_dim=config.head_dim, **sizes, **where)
