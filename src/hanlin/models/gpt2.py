"""GPT-2: a decoder with learned positions, LayerNorm before each branch and a GELU MLP; the head repeats the embedding.

    tokens ─ embed + positions ─┬──────────────────(+)─┬────────────(+)─ ... ─ norm ─ embedᵀ ─ logits
                                └ attn_norm ─ attn ─ o ┘ └ mlp_norm ─ mlp ┘

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
Files keep matrices as (in, out), q, k and v stacked in one: the weight table transposes and splits.
Letters: B rows, T tokens, D dim, V vocab.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.batch import Layout
from hanlin.models.contract import Decodes, Json, Memory, Model, ModelConfig, Rename, fields_from_hf, unused
from hanlin.nn.attention import Attention, scope
from hanlin.nn.cache import Attends, Cache, KeyValueCache
from hanlin.nn.dropout import Dropout
from hanlin.nn.linear import Linear, linear
from hanlin.nn.mlp import ACTIVATIONS, MLP


class Config(ModelConfig):
    """Sizes of a GPT-2; the defaults are those of openai-community/gpt2."""

    vocab: int = Field(50257, gt=0)
    dim: int = Field(768, gt=0)
    layers: int = Field(12, gt=0)
    heads: int = Field(12, gt=0)
    hidden: int = Field(default_factory=lambda chosen: 4 * chosen.get("dim", 1), gt=0)
    context: int = Field(1024, gt=0)
    eps: float = Field(1e-5, gt=0)
    activation: str = "gelu_new"
    tied: bool = True
    dropout: float = Field(0.1, ge=0, lt=1)  # after attention and MLP
    embed_dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    spread: float = Field(0.02, gt=0)  # standard deviation of fresh weights

    model_types: ClassVar = ("gpt2",)
    architecture: ClassVar = "GPT2LMHeadModel"
    prefix: ClassVar = "transformer."
    repeats: ClassVar = ("transformer.wte.weight", "lm_head.weight")
    ignored: ClassVar = (r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",)
    needed: ClassVar = ("vocab", "dim", "layers", "heads")
    keys: ClassVar = {
        "vocab": "vocab_size",
        "dim": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "hidden": "n_inner",
        "context": "n_positions",
        "eps": "layer_norm_epsilon",
        "activation": "activation_function",
        "tied": "tie_word_embeddings",
        "dropout": "resid_pdrop",
        "embed_dropout": "embd_pdrop",
        "attention_dropout": "attn_pdrop",
        "spread": "initializer_range",
    }
    absent: ClassVar = {}
    fixed: ClassVar = {
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "activation_function": tuple(ACTIVATIONS),
    }
    renames: ClassVar = (
        Rename("embed.weight", "transformer.wte.weight"),
        Rename("positions.weight", "transformer.wpe.weight"),
        Rename("blocks.*.attn_norm.@", "transformer.h.*.ln_1.@"),
        Rename(("blocks.*.attn.q.@", "blocks.*.attn.k.@", "blocks.*.attn.v.@"), "transformer.h.*.attn.c_attn.@", True),
        Rename("blocks.*.attn.o.@", "transformer.h.*.attn.c_proj.@", True),
        Rename("blocks.*.mlp_norm.@", "transformer.h.*.ln_2.@"),
        Rename("blocks.*.mlp.up.@", "transformer.h.*.mlp.c_fc.@", True),
        Rename("blocks.*.mlp.down.@", "transformer.h.*.mlp.c_proj.@", True),
        Rename("norm.@", "transformer.ln_f.@"),
        Rename("head.weight", "lm_head.weight"),
    )

    def problems(self) -> list[str]:
        """Return what cannot be built, one line each."""
        found = []
        if self.dim % self.heads:
            found.append(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.activation not in ACTIVATIONS:
            found.append(f"activation '{self.activation}' is not one of {', '.join(ACTIVATIONS)}")
        return found

    @classmethod
    def from_hf(cls, json: Json) -> Self:
        """Build from a config.json of model_type gpt2."""
        values, extra = fields_from_hf(cls, json)
        return cls.checked({**values, "extra": extra})

    def to_hf(self) -> Json:
        """Return the config.json that GPT2LMHeadModel reads."""
        return self.plain_hf()

    def make(self) -> GPT2:
        """Return the module, not initialised."""
        return GPT2(self)


class Block(nn.Module):
    """One layer: attention, then the MLP, each on a normalised copy and added back."""

    def __init__(self, config: Config) -> None:
        """Allocate the layer."""
        super().__init__()
        head_dim = config.dim // config.heads
        self.attn_norm = nn.LayerNorm(config.dim, config.eps)
        self.attn = Attention(config.dim, heads=config.heads, kv_heads=config.heads, head_dim=head_dim, bias=True)
        self.mlp_norm = nn.LayerNorm(config.dim, config.eps)
        self.mlp = MLP(config.dim, config.hidden, activation=config.activation, bias=True)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, view: Attends) -> Tensor:
        """Return x (B, T, D) after this layer."""
        x = x + self.dropout(self.attn(self.attn_norm(x), view))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class GPT2(Model[Config], Decodes):
    """Tokens (B, T) to hidden states (B, T, D), each position seeing itself and what came before."""

    def __init__(self, config: Config) -> None:
        """Allocate embeddings, layers, norm and, unless tied, the output head."""
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.positions = nn.Embedding(config.context, config.dim)
        self.dropout = Dropout(config.embed_dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim, config.eps)
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
        x = tokens if tokens.is_floating_point() else self.embed(tokens)
        x = self.dropout(x + self.positions(seen.positions))
        for index, block in enumerate(self.blocks):
            x = block(x, seen.layer(index))
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (..., V)."""
        return linear(hidden, self.embed.weight) if self.head is None else self.head(hidden)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw matrices from N(0, spread²), those that end a residual branch narrower by sqrt(2 layers)."""
        narrow = self.config.spread / (2 * self.config.layers) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            else:
                ends = name.endswith(("attn.o.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, 0.0, narrow if ends else self.config.spread, generator=generator)

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
