"""BART, mBART and Marian: an encoder–decoder with added positions, LayerNorm and biases, as in the first Transformer.

    source ─ embed + positions (─ norm) ─ [attn ─ mlp] x N ─────── memory
                                                                      │ keys and values, once
    tokens ─ embed + positions (─ norm) ─┬─ attn (+) norm ─┬─ cross (memory) (+) norm ─┬─ mlp (+) norm ─ ... ─ logits
                                         └─────────┘       └────────────────────┘      └────────┘

              positions             norm after embedding   norms in a layer     a last norm
    BART      learned, 2 offset     yes                    after each sum       no
    mBART     learned, 2 offset     yes                    before each branch   yes
    Marian    sinusoids             no                     after each sum       no

Papers: BART arXiv 1910.13461, mBART arXiv 2001.08210, Marian arXiv 1804.00344, Transformer arXiv 1706.03762.
The head repeats the embedding; files hold a bias of the logits, zeros but for Marian's, that nobody trains.
Letters: B rows, T tokens, S source positions, D dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.batch import Frames, Layout, Source
from hanlin.errors import AbilityError, ConfigError, problem
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
from hanlin.nn.attention import Attention, scope
from hanlin.nn.cache import Attends, Cache, KeyValueCache
from hanlin.nn.cross import CrossAttention
from hanlin.nn.dropout import Dropout
from hanlin.nn.linear import Linear, linear
from hanlin.nn.mlp import ACTIVATIONS, MLP
from hanlin.nn.positions import sinusoids

OFFSET = 2  # rows of the learned positions that come before position 0
PARTS = {  # ours -> theirs, of a layer
    "attn_norm": "self_attn_layer_norm",
    **{f"attn.{x}": f"self_attn.{'out' if x == 'o' else x}_proj" for x in "qkvo"},
    "cross.norm": "encoder_attn_layer_norm",
    **{f"cross.{x}": f"encoder_attn.{'out' if x == 'o' else x}_proj" for x in "qkvo"},
    "mlp_norm": "final_layer_norm",
    "mlp.up": "fc1",
    "mlp.down": "fc2",
}


def _renames() -> tuple[Rename, ...]:
    """Return the table of weights, the same for all kinds: each has some of them."""
    rows = [Rename("embed.weight", "model.shared.weight"), Rename("head.weight", "lm_head.weight")]
    rows.append(Rename("logits_bias", "final_logits_bias"))
    for ours, theirs in (("encoder.", "model.encoder."), ("", "model.decoder.")):
        rows.append(Rename(f"{ours}positions.weight", f"{theirs}embed_positions.weight"))
        rows.append(Rename(f"{ours}embed_norm.@", f"{theirs}layernorm_embedding.@"))
        rows.append(Rename(f"{ours}norm.@", f"{theirs}layer_norm.@"))
        rows += [Rename(f"{ours}blocks.*.{our}.@", f"{theirs}layers.*.{their}.@") for our, their in PARTS.items()]
    return tuple(rows)


class Config(ModelConfig):
    """Sizes of a BART; the defaults are those of facebook/bart-large."""

    kind: Literal["bart", "mbart", "marian"] = "bart"
    vocab: int = Field(50265, gt=0)
    dim: int = Field(1024, gt=0)
    layers: int = Field(12, gt=0)  # of the decoder
    heads: int = Field(16, gt=0)
    hidden: int = Field(default_factory=lambda chosen: 4 * chosen.get("dim", 1), gt=0)
    encoder_layers: int = Field(default_factory=lambda chosen: chosen.get("layers", 1), gt=0, le=1000)
    encoder_heads: int = Field(default_factory=lambda chosen: chosen.get("heads", 1), gt=0)
    encoder_hidden: int = Field(default_factory=lambda chosen: chosen.get("hidden", 1), gt=0)
    context: int = Field(1024, gt=0)  # of source and answer alike
    activation: str = "gelu"
    scaled: bool = False  # embeddings are multiplied by sqrt(dim)
    tied: bool = True
    dropout: float = Field(0.1, ge=0, lt=1)  # after embedding, attention and MLP
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    activation_dropout: float = Field(0.0, ge=0, lt=1)
    spread: float = Field(0.02, gt=0)  # standard deviation of fresh weights
    start: int | None = Field(2, ge=0)

    model_types: ClassVar = ("bart", "mbart", "marian")
    architecture: ClassVar = "BartForConditionalGeneration"
    renames: ClassVar = _renames()
    prefix: ClassVar = "model."
    repeats: ClassVar = (
        "model.shared.weight",
        *("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"),
    )
    optional: ClassVar = ("final_logits_bias",)
    ignored: ClassVar = (r"(model\.)?(encoder|decoder)\.version",)
    needed: ClassVar = (
        *("vocab", "dim", "layers", "heads", "hidden"),
        *("encoder_layers", "encoder_heads", "encoder_hidden"),
    )
    keys: ClassVar = {
        "kind": "model_type",
        "vocab": "vocab_size",
        "dim": "d_model",
        "layers": "decoder_layers",
        "heads": "decoder_attention_heads",
        "hidden": "decoder_ffn_dim",
        "encoder_layers": "encoder_layers",
        "encoder_heads": "encoder_attention_heads",
        "encoder_hidden": "encoder_ffn_dim",
        "context": "max_position_embeddings",
        "activation": "activation_function",
        "scaled": "scale_embedding",
        "tied": "tie_word_embeddings",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "activation_dropout": "activation_dropout",
        "spread": "init_std",
        "start": "decoder_start_token_id",
        "first": "forced_bos_token_id",
    }
    fixed: ClassVar = {
        "activation_function": tuple(ACTIVATIONS),
        "is_encoder_decoder": (True,),
        "is_decoder": (False,),
        "share_encoder_decoder_embeddings": (True,),
    }

    @property
    def tables(self) -> type[ModelConfig]:
        """Return the class whose tables the kind's files follow."""
        return {"bart": Config, "mbart": MBart, "marian": Marian}[self.kind]

    def problems(self) -> list[str]:
        """Return what cannot be built, one line each."""
        found = [
            f"dim {self.dim} is not a multiple of {name} {heads}"
            for name, heads in (("heads", self.heads), ("encoder_heads", self.encoder_heads))
            if self.dim % heads
        ]
        if self.activation not in ACTIVATIONS:
            found.append(f"activation '{self.activation}' is not one of {', '.join(ACTIVATIONS)}")
        if self.kind == "marian" and self.dim % 2:
            found.append(f"dim {self.dim} is odd; sinusoids come in pairs")
        return found

    @classmethod
    def from_hf(cls, json: Json) -> Self:
        """Build from a config.json of model_type bart, mbart or marian."""
        values, extra = fields_from_hf(cls, json)
        other = json.get("decoder_vocab_size") or json["vocab_size"]
        if other != json["vocab_size"]:
            allowed = f"as many as vocab_size, {json['vocab_size']}"
            raise ConfigError(problem("config.json: decoder_vocab_size", f"{other} is not implemented", allowed))
        return cls.checked({**values, "start": values.get("start"), "extra": extra})

    def to_hf(self) -> Json:
        """Return the config.json that the kind's class reads."""
        return self.plain_hf()

    def make(self) -> Bart:
        """Return the module, not initialised."""
        return Bart(self)


class MBart(Config):
    """The tables of mBART's files."""

    architecture: ClassVar = "MBartForConditionalGeneration"


class Marian(Config):
    """The tables of Marian's files, in which the sinusoids may stand."""

    architecture: ClassVar = "MarianMTModel"
    ignored: ClassVar = (r"(model\.)?(encoder|decoder)\.embed_positions\.weight",)


class Block(nn.Module):
    """One layer: attention, a look at the memory in the decoder, the MLP; each added back, its norm before or after."""

    def __init__(self, config: Config, *, heads: int, hidden: int, cross: bool) -> None:
        """Allocate the layer."""
        super().__init__()
        dim, head_dim = config.dim, config.dim // heads
        self.before = config.kind == "mbart"
        self.attn_norm = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads=heads, kv_heads=heads, head_dim=head_dim, bias=True)
        rate = config.attention_dropout
        sizes: dict[str, Any] = {"heads": heads, "head_dim": head_dim, "bias": True, "dropout": rate}
        self.cross = CrossAttention(dim, nn.LayerNorm(dim), **sizes) if cross else None
        self.mlp_norm = nn.LayerNorm(dim)
        kind = config.activation
        self.mlp = MLP(dim, hidden, activation=kind, bias=True, dropout=config.activation_dropout)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, view: Attends, memory: Memory | None = None, name: str = "") -> Tensor:
        """Return x (B, T, D) after this layer."""
        x = self._add(x, self.attn_norm, lambda y: self.attn(y, view))
        if (cross := self.cross) is not None and memory is not None:
            x = self._add(x, cross.norm, lambda y: cross(y, memory, name))
        return self._add(x, self.mlp_norm, self.mlp)

    def _add(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the sum of x and a branch of it."""
        if self.before:
            return x + self.dropout(branch(norm(x)))
        return norm(x + self.dropout(branch(x)))


class Stack:
    """What encoder and decoder share: positions and norms around their layers. The decoder's stand in the model."""

    positions: nn.Embedding | None
    embed_norm: nn.LayerNorm | None
    blocks: nn.ModuleList
    norm: nn.LayerNorm | None

    def furnish(self, config: Config, *, layers: int, heads: int, hidden: int, cross: bool) -> None:
        """Allocate positions, norms and layers, as the kind has them."""
        learned, last = config.kind != "marian", config.kind == "mbart"
        self.positions = nn.Embedding(config.context + OFFSET, config.dim) if learned else None
        self.embed_norm = nn.LayerNorm(config.dim) if learned else None
        self.blocks = nn.ModuleList(Block(config, heads=heads, hidden=hidden, cross=cross) for _ in range(layers))
        self.norm = nn.LayerNorm(config.dim) if last else None
        self.dropout = Dropout(config.dropout)
        self.enlarged = config.dim**0.5 if config.scaled else 1.0
        self.context = config.context

    def place(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return embedded x (B, T, D) at its positions (B or 1, T)."""
        if self.positions is None:
            added = sinusoids(self.context, x.shape[-1]).to(x.device)[positions].to(x.dtype)
        else:
            added = self.positions(positions + OFFSET)
        x = x * self.enlarged + added
        return self.dropout(x if self.embed_norm is None else self.embed_norm(x))


class Encoder(nn.Module, Stack):
    """Embedded source (B, S, D) to states (B, S, D), each position seeing the whole source."""

    def __init__(self, config: Config) -> None:
        """Allocate the stack."""
        super().__init__()
        sizes = {"layers": config.encoder_layers, "heads": config.encoder_heads, "hidden": config.encoder_hidden}
        self.furnish(config, **sizes, cross=False)
        self.rate = config.attention_dropout

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Return the states; AbilityError when the source is longer than the context."""
        if x.shape[1] > self.context:
            given, do = f"{x.shape[1]} tokens; this model reads {self.context}", "cut the source"
            raise AbilityError(problem("source", given, do=do))
        seen = scope(x, layout, None, causal=False, dropout=self.rate if self.training else 0.0)
        x = self.place(x, seen.positions)
        for index, block in enumerate(self.blocks):
            x = block(x, seen.layer(index))
        return x if self.norm is None else self.norm(x)


class Bart(Model[Config], Stack, Decodes, Encodes):
    """A source (B, S) to a memory, and tokens (B, T) beside it to hidden states (B, T, D), causal."""

    packs: ClassVar = False  # a row is one source and its answer

    def __init__(self, config: Config) -> None:
        """Allocate embedding, encoder, the decoder's stack and, unless tied, the output head."""
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.encoder = Encoder(config)
        self.furnish(config, layers=config.layers, heads=config.heads, hidden=config.hidden, cross=True)
        self.head = None if config.tied else Linear(config.dim, config.vocab, bias=False)
        self.logits_bias = nn.Parameter(torch.empty(1, config.vocab), requires_grad=False)

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
        seen = scope(tokens, layout, cache, dropout=self.config.attention_dropout if self.training else 0.0)
        x = self.place(tokens if tokens.is_floating_point() else self.embed(tokens), seen.positions)
        for index, block in enumerate(self.blocks):
            x = block(x, seen.layer(index), memory, f"{index}")
        return x if self.norm is None else self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (..., V)."""
        weight = self.embed.weight if self.head is None else self.head.weight
        return linear(hidden, weight, self.logits_bias[0])

    def initialize(self, generator: torch.Generator) -> None:
        """Draw matrices from N(0, spread²)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, 0.0, self.config.spread, generator=generator)

    def new_cache(self, rows: int, length: int) -> Cache:
        """Return an empty key-value cache."""
        config = self.config
        return KeyValueCache(
            layers=config.layers,
            rows=rows,
            kv_heads=config.heads,
            head_dim=config.dim // config.heads,
            length=length,
            dtype=self.dtype,
            device=self.device,
        )
