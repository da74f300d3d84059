"""Whisper: log-mel frames in, tokens out; an encoder behind two convolutions, a decoder that looks at what it read.

    frames ─ conv ─ conv, every second ─ + sinusoids ─ [attn ─ mlp] x N ─ reader_norm ─ memory
    tokens ─ embed + positions ─ [attn ─ cross (memory) ─ mlp] x N ─ norm ─ embedᵀ ─ logits

Paper: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", arXiv 2212.04356.
Published checkpoints were trained on windows of 30 seconds and read the silence after short speech as content: rows are
filled with silence to the whole window and the memory hides nothing. A model with `any_length` reads each row as if it
were alone: padding is zero for both convolutions, as the edge of a row is, and hidden from every attention.
Keys have no bias: it would add the same to every score of a query, which the softmax takes out again.

Letters: B rows, T tokens, S frames, F mel features, P memory positions (S / 2, rounded up), D dim, V vocab.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from hanlin.batch import Layout, Source, Tokens
from hanlin.errors import AbilityError, problem
from hanlin.models import begins
from hanlin.models.contract import Decodes, Encodes, Json, Memory, Model, ModelConfig, Rename, fields_from_hf, unused
from hanlin.nn.attention import Attention, scope
from hanlin.nn.cache import Attends, Cache, KeyValueCache
from hanlin.nn.cross import CrossAttention
from hanlin.nn.dropout import Dropout
from hanlin.nn.linear import Linear, linear
from hanlin.nn.mlp import ACTIVATIONS, MLP

FRAMES_A_SECOND = 100  # a hop of 160 samples at 16 kHz
FLOOR, RANGE = -1.5, 2.0  # (log10(1e-10) + 4) / 4, and the 8 decades below a row's loudest frame that features keep


def preprocessor(config: Config) -> Json:
    """Return the preprocessor_config.json of the log-mel features that a model was trained on."""
    frames = 2 * config.source_context
    kind = {"feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor"}
    sound = {"sampling_rate": 16_000, "hop_length": 160, "n_fft": 400, "padding_side": "right", "padding_value": 0.0}
    sizes = {"feature_size": config.features, "nb_max_frames": frames, "n_samples": 160 * frames}
    seconds = max(1, frames // FRAMES_A_SECOND)  # a whole number there
    return {**kind, **sound, **sizes, "chunk_length": seconds, "return_attention_mask": config.any_length}


class Config(ModelConfig):
    """Sizes of a Whisper; the defaults are those of openai/whisper-tiny."""

    vocab: int = Field(51865, gt=0)
    dim: int = Field(384, gt=3)
    layers: int = Field(4, gt=0)  # of the decoder
    heads: int = Field(6, gt=0)
    hidden: int = Field(default_factory=lambda chosen: 4 * chosen.get("dim", 1), gt=0)
    context: int = Field(448, gt=0)  # tokens
    encoder_layers: int = Field(default_factory=lambda chosen: chosen.get("layers", 1), gt=0)
    encoder_heads: int = Field(default_factory=lambda chosen: chosen.get("heads", 1), gt=0)
    encoder_hidden: int = Field(default_factory=lambda chosen: chosen.get("hidden", 1), gt=0)
    source_context: int = Field(1500, gt=0)  # memory positions: 50 a second
    features: int = Field(80, gt=0)
    any_length: bool = False  # our own: rows of any length up to source_context, padding hidden
    activation: str = "gelu"
    tied: bool = True
    dropout: float = Field(0.0, ge=0, lt=1)  # after embedding, attention and MLP
    hidden_dropout: float = Field(0.0, ge=0, lt=1)  # inside the MLP
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    spread: float = Field(0.02, gt=0)  # standard deviation of fresh weights

    model_types: ClassVar = ("whisper",)
    architecture: ClassVar = "WhisperForConditionalGeneration"
    prefix: ClassVar = "model."
    repeats: ClassVar = ("model.decoder.embed_tokens.weight", "proj_out.weight")
    beside: ClassVar = {"preprocessor_config.json": preprocessor}
    needed: ClassVar = ("vocab", "dim", "layers", "heads", "encoder_layers", "encoder_heads")
    keys: ClassVar = {
        "vocab": "vocab_size",
        "dim": "d_model",
        "layers": "decoder_layers",
        "heads": "decoder_attention_heads",
        "hidden": "decoder_ffn_dim",
        "context": "max_target_positions",
        "encoder_heads": "encoder_attention_heads",
        "encoder_hidden": "encoder_ffn_dim",
        "source_context": "max_source_positions",
        "features": "num_mel_bins",
        "activation": "activation_function",
        "tied": "tie_word_embeddings",
        "hidden_dropout": "activation_dropout",
        **{name: name for name in ("encoder_layers", "any_length", "dropout", "attention_dropout")},
        "spread": "init_std",
    }
    absent: ClassVar = {"decoder_ffn_dim": 1536, "encoder_ffn_dim": 1536}
    fixed: ClassVar = {
        "is_encoder_decoder": (True,),
        "scale_embedding": (False,),
        "encoder_layerdrop": (0,),
        "decoder_layerdrop": (0,),
        "activation_function": tuple(ACTIVATIONS),
    }
    renames: ClassVar = (
        Rename("hear.@", "model.encoder.conv1.@"),
        Rename("gather.@", "model.encoder.conv2.@"),
        Rename("sinusoids.weight", "model.encoder.embed_positions.weight"),
        Rename("reader_norm.@", "model.encoder.layer_norm.@"),
        Rename("embed.weight", "model.decoder.embed_tokens.weight"),
        Rename("positions.weight", "model.decoder.embed_positions.weight"),
        Rename("norm.@", "model.decoder.layer_norm.@"),
        Rename("head.weight", "proj_out.weight"),
        Rename("blocks.*.cross.norm.@", "model.decoder.layers.*.encoder_attn_layer_norm.@"),
        *(
            Rename(f"{ours}.*.{mine}.@", f"model.{theirs}.layers.*.{name}.@")
            for ours, theirs in (("reader", "encoder"), ("blocks", "decoder"))
            for mine, name in (
                ("attn_norm", "self_attn_layer_norm"),
                *((f"attn.{x}", f"self_attn.{'out' if x == 'o' else x}_proj") for x in "qkvo"),
                *((f"cross.{x}", f"encoder_attn.{'out' if x == 'o' else x}_proj") for x in "qkvo"),
                ("mlp_norm", "final_layer_norm"),
                ("mlp.up", "fc1"),
                ("mlp.down", "fc2"),
            )
        ),
    )

    def problems(self) -> list[str]:
        """Return what cannot be built, one line each."""
        found = [
            f"dim {self.dim} is not a multiple of {name} {heads}"
            for name, heads in (("heads", self.heads), ("encoder_heads", self.encoder_heads))
            if self.dim % heads
        ]
        found += [f"dim {self.dim} is odd: half of it is sines, half cosines"] * (self.dim % 2)
        if self.activation not in ACTIVATIONS:
            found.append(f"activation '{self.activation}' is not one of {', '.join(ACTIVATIONS)}")
        return found

    @classmethod
    def from_hf(cls, json: Json) -> Self:
        """Build from a config.json of model_type whisper."""
        values, extra = fields_from_hf(cls, json)
        return cls.checked({**values, **begins.spoken(json), "extra": extra})

    def to_hf(self) -> Json:
        """Return the config.json that WhisperForConditionalGeneration reads."""
        return {"is_encoder_decoder": True, **self.plain_hf(), **begins.unspoken(self)}

    def make(self) -> Whisper:
        """Return the module, not initialised."""
        return Whisper(self)


def attention(dim: int, heads: int) -> Attention:
    """Return attention without a key bias."""
    part = Attention(dim, heads=heads, kv_heads=heads, head_dim=dim // heads, bias=True)
    part.k = Linear(dim, dim, bias=False)
    return part


def cross_attention(config: Config, heads: int) -> CrossAttention:
    """Return attention to the memory without a key bias."""
    sizes = {"heads": heads, "head_dim": config.dim // heads}
    part = CrossAttention(config.dim, nn.LayerNorm(config.dim), bias=True, dropout=config.attention_dropout, **sizes)
    part.k = Linear(config.dim, config.dim, bias=False)
    return part


class Block(nn.Module):
    """One layer: attention, in the decoder a look at the memory, the MLP, each on a normalised copy and added back."""

    def __init__(self, config: Config, heads: int, hidden: int, *, cross: bool) -> None:
        """Allocate the layer."""
        super().__init__()
        self.attn_norm, self.attn = nn.LayerNorm(config.dim), attention(config.dim, heads)
        self.cross = cross_attention(config, heads) if cross else None
        self.mlp_norm = nn.LayerNorm(config.dim)
        self.mlp = MLP(config.dim, hidden, activation=config.activation, bias=True)
        self.dropout, self.inner_dropout = Dropout(config.dropout), Dropout(config.hidden_dropout)

    def forward(self, x: Tensor, view: Attends, memory: Memory | None = None, index: int = 0) -> Tensor:
        """Return x (B, T, D) after this layer; without a memory nothing is looked at."""
        x = x + self.dropout(self.attn(self.attn_norm(x), view))
        if self.cross is not None and memory is not None:
            x = x + self.dropout(self.cross(self.cross.norm(x), memory, f"cross.{index}"))
        inner = self.mlp.activation(self.mlp.up(self.mlp_norm(x)))
        return x + self.dropout(self.mlp.down(self.inner_dropout(inner)))


class Whisper(Model[Config], Decodes, Encodes):
    """Frames (B, S, F) to a memory, tokens (B, T) and the memory to hidden states (B, T, D)."""

    packs: ClassVar = False

    def __init__(self, config: Config) -> None:
        """Allocate convolutions, both stacks and, unless tied, the output head."""
        super().__init__(config)
        self.hear = nn.Conv1d(config.features, config.dim, 3, padding=1)
        self.gather = nn.Conv1d(config.dim, config.dim, 3, stride=2, padding=1)
        self.sinusoids = nn.Embedding(config.source_context, config.dim)
        self.sinusoids.weight.requires_grad_(False)  # a table of constants, which files hold all the same
        reader, writer = (config.encoder_heads, config.encoder_hidden), (config.heads, config.hidden)
        self.reader = nn.ModuleList(Block(config, *reader, cross=False) for _ in range(config.encoder_layers))
        self.reader_norm = nn.LayerNorm(config.dim)
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.positions = nn.Embedding(config.context, config.dim)
        self.blocks = nn.ModuleList(Block(config, *writer, cross=True) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)
        self.head = None if config.tied else Linear(config.dim, config.vocab, bias=False)

    def encode(self, source: Source) -> Memory:
        """Return states (B, P, D) for Frames (B, S, F); AbilityError when S is longer than the model's window."""
        frames, layout = self._framed(source)
        real = None if layout is None else layout.real
        x = _blank(F.gelu(self.hear(_blank(frames, real).transpose(1, 2))).transpose(1, 2), real)
        x = F.gelu(self.gather(x.transpose(1, 2))).transpose(1, 2)
        layout = None if layout is None else _flush(layout.real[:, ::2], (layout.longest + 1) // 2)
        seen = scope(x, layout, None, causal=False, dropout=self.config.attention_dropout if self.training else 0.0)
        x = self.dropout(x + self.sinusoids.weight[: x.shape[1]])
        for index, block in enumerate(self.reader):
            x = block(x, seen.layer(index))
        return Memory(states=self.reader_norm(x), layout=layout)

    def _framed(self, source: Source) -> tuple[Tensor, Layout | None]:
        """Return frames (B, S, F) that begin at column 0, and what hides their padding, if anything does."""
        if isinstance(source, Tokens):
            raise AbilityError(problem("Whisper", "reads frames of sound, not tokens", do="choose another family"))
        frames, layout = source.values.to(self.dtype), source.layout
        window = 2 * self.config.source_context
        if layout is not None:
            order = layout.real.int().argsort(dim=1, descending=True, stable=True)  # left padding goes to the right
            frames = frames.gather(1, order[..., None].expand_as(frames))
            layout = _flush(layout.real.gather(1, order), layout.longest)
        length = frames.shape[1] if layout is None else layout.longest
        if length > window:
            given, do = f"{length:,} frames", "cut it into windows"
            raise AbilityError(problem("Whisper", given, f"at most {window:,}", do=do))
        if self.config.any_length:
            return frames[:, :window], layout and _flush(layout.real[:, :window], length)
        return _silenced(frames, layout, window), None

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
        seen = scope(tokens, layout, cache, dropout=self.config.attention_dropout if self.training else 0.0)
        x = tokens if tokens.is_floating_point() else self.embed(tokens)
        x = self.dropout(x + self.positions(seen.positions))
        for index, block in enumerate(self.blocks):
            x = block(x, seen.layer(index), memory, index)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (..., V)."""
        return linear(hidden, self.embed.weight) if self.head is None else self.head(hidden)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw matrices from N(0, spread²), convolutions and the ends of residual branches as their fan-in asks."""
        narrow = self.config.spread / (2 * max(self.config.layers, self.config.encoder_layers)) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            elif parameter.ndim == 3:  # (out, in, 3): keeps the size of what it reads, as N(0, spread²) would not
                nn.init.normal_(parameter, 0.0, (parameter.shape[1] * 3) ** -0.5, generator=generator)
            else:
                ends = name.endswith((".o.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, 0.0, narrow if ends else self.config.spread, generator=generator)
        with torch.no_grad():
            self.sinusoids.weight.copy_(sinusoids(*self.sinusoids.weight.shape))

    def new_cache(self, rows: int, length: int) -> Cache:
        """Return an empty key-value cache of the decoder."""
        config = self.config
        sizes = {"layers": config.layers, "kv_heads": config.heads, "head_dim": config.dim // config.heads}
        return KeyValueCache(**sizes, rows=rows, length=length, dtype=self.dtype, device=self.device)


def sinusoids(length: int, dim: int) -> Tensor:
    """Return (length, dim): sines, then cosines, of wavelengths from 2 pi to 10,000 times that in equal ratios."""
    rates = torch.exp(torch.arange(dim // 2) * (-math.log(10_000) / (dim // 2 - 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)


def _flush(real: Tensor, longest: int) -> Layout:
    """Return the layout of rows (B, S) that all begin at column 0, wherever they are: Layout.of works on the host."""
    starts = torch.where(real, 0, real.sum(1, keepdim=True))
    return Layout(segments=real.long(), starts=starts, longest=longest)


def _blank(x: Tensor, real: Tensor | None) -> Tensor:
    """Return x (B, S, D) with zeros on padding: what a convolution finds beyond the end of a row."""
    return x if real is None else x.masked_fill(~real[..., None], 0.0)


def _silenced(frames: Tensor, layout: Layout | None, window: int) -> Tensor:
    """Return (B, window, F): frames followed by the features of silence, which depend on a row's loudest frame.

    Equal to the features of sound that was padded before, but for the last frame, which reaches over the edge.
    """
    real = torch.ones_like(frames[..., 0], dtype=torch.bool) if layout is None else layout.real
    loudest = frames.masked_fill(~real[..., None], -math.inf).amax((1, 2))
    silence = (loudest - RANGE).clamp(min=FLOOR)[:, None, None]
    frames = torch.where(real[..., None], frames, silence)[:, :window]
    missing = silence.expand(-1, window - frames.shape[1], frames.shape[2])
    return torch.cat((frames, missing), 1)
