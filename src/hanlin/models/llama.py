"""Llama, Mistral, Qwen2 and Qwen3: decoders with RMSNorm, rotary positions, grouped key-value heads and a gated MLP.

    tokens ─ embed ─┬────────────────────(+)─┬───────────────────(+)─ ... ─ norm ─ head ─ logits
                    └ attn_norm ─ attn ─ o ┘ └ mlp_norm ─ gated mlp ┘
                                  └ q, k turned by position

    kind      differs from Llama in                                             paper
    mistral   a window: each token sees the last `window` ones                  arXiv 2310.06825
    qwen2     biases on q, k and v; a window in some layers                     arXiv 2407.10671
    qwen3     q and k normalised, head by head; a window in some layers         arXiv 2505.09388

Papers: LLaMA arXiv 2302.13971, Llama 2 arXiv 2307.09288, Llama 3 arXiv 2407.21783; grouped heads arXiv 2305.13245.
Letters: B rows, T tokens, D dim, V vocab.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.batch import Layout
from hanlin.errors import ConfigError, problem
from hanlin.models.contract import Decodes, Json, Memory, Model, ModelConfig, Rename, fields_from_hf, unused
from hanlin.nn import rope
from hanlin.nn.attention import Attention, scope
from hanlin.nn.cache import Attends, Cache, KeyValueCache
from hanlin.nn.dropout import Dropout
from hanlin.nn.linear import Linear, linear
from hanlin.nn.mlp import GatedMLP
from hanlin.nn.norms import RMSNorm
from hanlin.nn.rope import Rope, Turn


def _usual_hidden(chosen: dict[str, Any]) -> int:
    """Return 8/3 of dim, rounded up to a multiple of 256: the parameters of a plain MLP of width 4 dim (2302.13971)."""
    return -(-8 * int(chosen.get("dim", 0)) // (3 * 256)) * 256


class Config(ModelConfig):
    """Sizes of a Llama; the defaults are those of meta-llama/Llama-2-7b-hf."""

    kind: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    vocab: int = Field(32000, gt=0)
    dim: int = Field(4096, gt=0)
    layers: int = Field(32, gt=0)
    heads: int = Field(32, gt=0)
    kv_heads: int = Field(default_factory=lambda chosen: chosen.get("heads", 1), gt=0)
    head_dim: int = Field(default_factory=lambda chosen: chosen.get("dim", 1) // chosen.get("heads", 1), gt=0)
    hidden: int = Field(default_factory=_usual_hidden, gt=0)
    context: int = Field(4096, gt=0)
    eps: float = Field(1e-5, gt=0)
    rope: Rope = Rope()
    window: int | None = Field(None, gt=0)  # tokens that a token sees, itself among them; None: all before it
    full: tuple[int, ...] = ()  # layers without the window; qwen2 and qwen3
    attention_bias: bool = False  # on q, k, v and o; llama and qwen3
    mlp_bias: bool = False  # llama
    tied: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)  # after embedding, attention and MLP; ours alone, 0 in every checkpoint
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    spread: float = Field(0.02, gt=0)  # standard deviation of fresh weights

    model_types: ClassVar = ("llama", "mistral", "qwen2", "qwen3")
    prefix: ClassVar = "model."
    repeats: ClassVar = ("model.embed_tokens.weight", "lm_head.weight")
    ignored: ClassVar = (r".*rotary_emb\.inv_freq",)
    needed: ClassVar = ("vocab", "dim", "layers", "heads")
    keys: ClassVar = {
        "kind": "model_type",
        "vocab": "vocab_size",
        "dim": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim",
        "hidden": "intermediate_size",
        "context": "max_position_embeddings",
        "eps": "rms_norm_eps",
        "attention_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
        "tied": "tie_word_embeddings",
        "attention_dropout": "attention_dropout",
        "spread": "initializer_range",
        "dropout": "residual_dropout",
    }
    fixed: ClassVar = {
        "hidden_act": ("silu", "swish"),
        "partial_rotary_factor": (None, 1.0),
        "original_max_position_embeddings": (None,),  # transformers lets it overrule the one inside rope_parameters
    }
    renames: ClassVar = (
        Rename("embed.weight", "model.embed_tokens.weight"),
        Rename("blocks.*.attn_norm.weight", "model.layers.*.input_layernorm.weight"),
        Rename("blocks.*.attn.q.@", "model.layers.*.self_attn.q_proj.@"),
        Rename("blocks.*.attn.k.@", "model.layers.*.self_attn.k_proj.@"),
        Rename("blocks.*.attn.v.@", "model.layers.*.self_attn.v_proj.@"),
        Rename("blocks.*.attn.o.@", "model.layers.*.self_attn.o_proj.@"),
        Rename("blocks.*.attn.q_norm.weight", "model.layers.*.self_attn.q_norm.weight"),
        Rename("blocks.*.attn.k_norm.weight", "model.layers.*.self_attn.k_norm.weight"),
        Rename("blocks.*.mlp_norm.weight", "model.layers.*.post_attention_layernorm.weight"),
        Rename("blocks.*.mlp.gate.@", "model.layers.*.mlp.gate_proj.@"),
        Rename("blocks.*.mlp.up.@", "model.layers.*.mlp.up_proj.@"),
        Rename("blocks.*.mlp.down.@", "model.layers.*.mlp.down_proj.@"),
        Rename("norm.weight", "model.norm.weight"),
        Rename("head.weight", "lm_head.weight"),
    )

    def problems(self) -> list[str]:
        """Return what cannot be built, one line each."""
        found = []
        if self.heads % self.kv_heads:
            found.append(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.head_dim % 2:
            found.append(f"head_dim {self.head_dim} is odd; rotary positions turn pairs")
        for key, kinds in _OWN.items():
            if getattr(self, key) and self.kind not in kinds:
                found.append(f"kind {self.kind} has no {key}; {' and '.join(kinds)} have")
        if self.full and (self.window is None or not {*self.full} <= {*range(self.layers)}):
            found.append(f"full {list(self.full)} names layers without the window, of {self.layers}; there is no such")
        return found

    @property
    def architecture(self) -> str:  # type: ignore[override]  # it follows from the kind
        """Return the Hugging Face class."""
        return f"{self.kind.capitalize()}ForCausalLM"

    def window_of(self, layer: int) -> int | None:
        """Return the window of one layer."""
        return None if layer in self.full else self.window

    @classmethod
    def from_hf(cls, json: Json) -> Self:
        """Build from a config.json of one of the model_types."""
        kind = json.get("model_type") or "llama"
        values, extra = fields_from_hf(cls, {**json, **_left_out(kind, json)})
        values |= _windows(kind, json)
        for key in ("rope_theta", "rope_scaling", "rope_parameters"):
            extra.pop(key, None)
        return cls.checked({**values, "rope": rope.from_hf(json), "extra": extra})

    def to_hf(self) -> Json:
        """Return the config.json that Hugging Face's class reads, both spellings of the rope keys in it."""
        others = {self.keys[key] for key, kinds in _OWN.items() if key in self.keys and self.kind not in kinds}
        plain = {key: value for key, value in self.plain_hf().items() if key not in others}
        windows: Json = {}
        if self.kind == "mistral":
            windows = {"sliding_window": self.window}
        elif self.kind != "llama":
            types = [FULL if self.window_of(layer) is None else SLIDING for layer in range(self.layers)]
            windows = {"use_sliding_window": self.window is not None, "layer_types": types}
            windows |= {} if self.window is None else {"sliding_window": self.window}
        act = self.extra.get("hidden_act", "silu")
        return {**plain, **windows, "hidden_act": act, **rope.to_hf(self.rope)}

    def make(self) -> Llama:
        """Return the module, not initialised."""
        return Llama(self)


FULL, SLIDING = "full_attention", "sliding_attention"  # what Hugging Face calls a layer without and with the window
_OWN = {  # fields that only some kinds have
    "window": ("mistral", "qwen2", "qwen3"),
    "full": ("qwen2", "qwen3"),
    "attention_bias": ("llama", "qwen3"),
    "mlp_bias": ("llama",),
}
_ABSENT: dict[str, Json] = {  # what transformers takes for keys that a config.json leaves out
    "llama": {"max_position_embeddings": 2048, "intermediate_size": 11008},
    "mistral": {"max_position_embeddings": 131072, "intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": {"max_position_embeddings": 32768, "intermediate_size": 22016, "num_key_value_heads": 32},
    "qwen3": {
        "max_position_embeddings": 32768,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "head_dim": 128,
    },
}


def _left_out(kind: object, json: Json) -> Json:
    """Return the keys that a config.json leaves out and that count otherwise than by our defaults."""
    known = _ABSENT.get(str(kind), {}) | {"rms_norm_eps": 1e-6}
    return {key: value for key, value in known.items() if key not in json}


def _windows(kind: object, json: Json) -> Json:
    """Return `window` and `full` as a config.json of this kind says them; ConfigError names what is not implemented."""
    layers = json.get("num_hidden_layers")
    if kind == "mistral":
        return {"window": json.get("sliding_window", 4096)}
    if kind not in ("qwen2", "qwen3") or not isinstance(layers, int):
        return {}
    window = json.get("sliding_window", 4096) if json.get("use_sliding_window") else None
    first = json.get("max_window_layers", 28)
    types = json.get("layer_types")
    if types is None:
        types = [FULL if window is None or layer < first else SLIDING for layer in range(layers)]
    if not isinstance(types, list) or len(types) != layers or not all(each in (FULL, SLIDING) for each in types):
        allowed = f"one of {FULL}, {SLIDING} for each of {layers} layers"
        raise ConfigError(problem("config.json: layer_types", f"{types!r}"[:80], allowed))
    if SLIDING in types and window is None:
        raise ConfigError(problem("config.json: layer_types", f"{SLIDING} without use_sliding_window and a window"))
    full = [layer for layer, each in enumerate(types) if each == FULL]
    return {} if window is None else {"window": window, "full": full}


class Block(nn.Module):
    """One layer: attention, then the gated MLP, each on a normalised copy and added back."""

    def __init__(self, config: Config, layer: int) -> None:
        """Allocate the layer."""
        super().__init__()
        self.attn_norm = RMSNorm(config.dim, config.eps)
        self.attn = Attention(
            config.dim,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            bias=config.attention_bias or config.kind == "qwen2",
            o_bias=config.attention_bias,
            norm=config.eps if config.kind == "qwen3" else None,
            window=config.window_of(layer),
        )
        self.mlp_norm = RMSNorm(config.dim, config.eps)
        self.mlp = GatedMLP(config.dim, config.hidden, activation="silu", bias=config.mlp_bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, view: Attends, by: Turn) -> Tensor:
        """Return x (B, T, D) after this layer."""
        x = x + self.dropout(self.attn(self.attn_norm(x), view, by))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Llama(Model[Config], Decodes):
    """Tokens (B, T) to hidden states (B, T, D), each position seeing itself and what came before."""

    def __init__(self, config: Config) -> None:
        """Allocate embedding, layers, norm and, unless tied, the output head."""
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.dim, config.eps)
        self.head = None if config.tied else Linear(config.dim, config.vocab, bias=False)

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
        unused(self, kinds=kinds, memory=memory)
        seen = scope(tokens, layout, cache, dropout=self.config.attention_dropout if self.training else 0.0)
        x = self.dropout(tokens if tokens.is_floating_point() else self.embed(tokens))
        rates = rope.frequencies(self.config.rope, self.config.head_dim).to(x.device)
        by = rope.turn(seen.positions, rates, x.dtype, rope.scale(self.config.rope))
        for index, block in enumerate(self.blocks):
            x = block(x, seen.layer(index), by)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (..., V)."""
        return linear(hidden, self.embed.weight) if self.head is None else self.head(hidden)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw matrices from N(0, spread²), those that end a residual branch narrower by sqrt(2 layers)."""
        narrow = self.config.spread / (2 * self.config.layers) ** 0.5
        for name, parameter in self.named_parameters():
            if "norm" in name:
                nn.init.ones_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                ends = name.endswith(("attn.o.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, 0.0, narrow if ends else self.config.spread, generator=generator)

    def new_cache(self, rows: int, length: int) -> Cache:
        """Return an empty key-value cache."""
        config = self.config
        return KeyValueCache(
            layers=config.layers,
            rows=rows,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            length=length,
            dtype=self.dtype,
            device=self.device,
        )
