"""BERT and its kin, RoBERTa, XLM-R and DistilBERT (MiniLM is a BERT): encoders, each sum followed by a LayerNorm.

    tokens ─ embed + positions + kinds ─ embed_norm ─┬──────(+)─ attn_norm ─┬─────(+)─ mlp_norm ─ ... ─ hidden
                                                     └ attn ─┘              └ mlp ─┘
    hidden ─ heads.{sequence, token, span, masked, next_sentence}          logits: heads.masked, over the vocab

Papers: Devlin et al. arXiv 1810.04805 · Liu et al. 1907.11692 · Conneau et al. 1911.02116 · Sanh et al. 1910.01108.
The variants compute the same thing and differ in names, in heads and in these: RoBERTa and XLM-R number positions from
pad + 1, DistilBERT knows no kinds. A class a variant holds its tables; `variant` says which one is meant.

Letters: B rows, T tokens, D dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.batch import Layout
from hanlin.errors import AbilityError, problem
from hanlin.models.contract import Head, Json, Memory, Model, ModelConfig, Rename, Summarises, fields_from_hf, unused
from hanlin.nn.attention import Attention, Firsts, Scope, scope
from hanlin.nn.cache import Attends, Cache
from hanlin.nn.dropout import Dropout
from hanlin.nn.heads import Each, First, Guess, first
from hanlin.nn.mlp import ACTIVATIONS, MLP

NUMBERED = ("roberta", "xlm-roberta")  # positions from pad + 1
KINDS = {"bert": 2, "roberta": 1, "xlm-roberta": 1, "distilbert": 0}  # as in the checkpoints of their authors


def _sequence(config: Config, outputs: int) -> nn.Module:
    """Return the head for labels of a row; RoBERTa's drops out of the first state too."""
    activation = "relu" if config.variant == "distilbert" else "tanh"
    before = config.last_dropout if config.variant in NUMBERED else 0.0
    return First(config.dim, outputs, activation=activation, dropout=config.last_dropout, before=before)


def _masked(config: Config, outputs: int) -> nn.Module:
    """Return the head that guesses words; RoBERTa's is a GELU whatever its layers are."""
    activation = "gelu" if config.variant in NUMBERED else config.activation
    return Guess(config.dim, outputs, activation=activation, eps=config.eps)


def _heads(family: str, sequence: tuple[str, str], masked: tuple[str, ...]) -> dict[str, Head]:
    """Return the heads that all variants have, from their names of (dense, out) and (dense, norm, bias)."""
    guess = ("dense.@", "norm.@", "out.bias")
    token = (Rename("heads.token.out.@", "classifier.@"),)
    span = (Rename("heads.span.out.@", "qa_outputs.@"),)
    rows = tuple(Rename(f"heads.sequence.{ours}.@", f"{theirs}.@") for ours, theirs in zip(("dense", "out"), sequence))
    words = tuple(Rename(f"heads.masked.{ours}", theirs) for ours, theirs in zip(guess, masked))
    return {
        "sequence": Head(_sequence, rows, f"{family}ForSequenceClassification"),
        "token": Head(lambda c, n: Each(c.dim, n, dropout=c.last_dropout), token, f"{family}ForTokenClassification"),
        "span": Head(lambda c, n: Each(c.dim, n), span, f"{family}ForQuestionAnswering"),
        "masked": Head(_masked, words, f"{family}ForMaskedLM"),
    }


def _layers(bare: str, inside: str, names: tuple[str, ...]) -> tuple[Rename, ...]:
    """Return the table of a variant: embeddings, which all name alike, and the parts of a layer."""
    ends = {
        "embed.weight": "word_embeddings.weight",
        "positions.weight": "position_embeddings.weight",
        "kinds.weight": "token_type_embeddings.weight",
        "embed_norm.@": "LayerNorm.@",
    }
    layer = f"{bare}.{inside}.layer.*"
    parts = (Rename(f"blocks.*.{ours}.@", f"{layer}.{theirs}.@") for ours, theirs in zip(PARTS, names))
    return (*(Rename(ours, f"{bare}.embeddings.{theirs}") for ours, theirs in ends.items()), *parts)


PARTS = ("attn.q", "attn.k", "attn.v", "attn.o", "attn_norm", "mlp.up", "mlp.down", "mlp_norm")
LAYER = (
    *(f"attention.{each}" for each in ("self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")),
    *("intermediate.dense", "output.dense", "output.LayerNorm"),
)
DISTIL_LAYER = (
    *(f"attention.{each}_lin" for each in ("q", "k", "v", "out")),
    *("sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"),
)
BERT_WORDS = tuple(f"cls.predictions.{each}" for each in ("transform.dense.@", "transform.LayerNorm.@", "bias"))
ROBERTA_WORDS = ("lm_head.dense.@", "lm_head.layer_norm.@", "lm_head.bias")
DISTIL_WORDS = ("vocab_transform.@", "vocab_layer_norm.@", "vocab_projector.bias")
ROBERTA_ROWS = ("classifier.dense", "classifier.out_proj")


class Config(ModelConfig):
    """Sizes of an encoder; the defaults are those of google-bert/bert-base-uncased."""

    vocab: int = Field(30522, gt=0)
    dim: int = Field(768, gt=0)
    layers: int = Field(12, gt=0)
    context: int = Field(512, gt=0)  # tokens; RoBERTa's files count the places before pad + 1 too
    variant: Literal["bert", "roberta", "xlm-roberta", "distilbert"] = "bert"
    heads: int = Field(12, gt=0)
    hidden: int = Field(default_factory=lambda chosen: 4 * chosen.get("dim", 1), gt=0)
    kinds: int = Field(default_factory=lambda chosen: KINDS[chosen.get("variant", "bert")], ge=0)
    pad: int = Field(default_factory=lambda chosen: int(chosen.get("variant") in NUMBERED), ge=0)  # its id
    eps: float = Field(1e-12, gt=0)
    activation: str = "gelu"
    dropout: float = Field(0.1, ge=0, lt=1)  # after embeddings, attention and MLP
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    head_dropout: float | None = Field(None, ge=0, lt=1)  # of the sequence and token heads; None: as `dropout`
    spread: float = Field(0.02, gt=0)  # standard deviation of fresh weights

    model_types: ClassVar[tuple[str, ...]] = ("bert", "roberta", "xlm-roberta", "distilbert")
    architecture: ClassVar = "BertModel"
    prefix: ClassVar = "bert."
    repeats: ClassVar = ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
    ignored: ClassVar[tuple[str, ...]] = (
        r"(bert\.)?(embeddings\.position_ids|pooler\.dense\.(weight|bias))",
        r"cls\.(predictions\.(bias|decoder\.(weight|bias)|transform\.(dense|LayerNorm)\.(weight|bias|gamma|beta)))",
        r"cls\.seq_relationship\.(weight|bias)",
    )
    needed: ClassVar = ("vocab", "dim", "layers", "heads")
    keys: ClassVar = {
        "vocab": "vocab_size",
        "dim": "hidden_size",
        "layers": "num_hidden_layers",
        "context": "max_position_embeddings",
        "heads": "num_attention_heads",
        "hidden": "intermediate_size",
        "kinds": "type_vocab_size",
        "pad": "pad_token_id",
        "eps": "layer_norm_eps",
        "activation": "hidden_act",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "head_dropout": "classifier_dropout",
        "spread": "initializer_range",
    }
    absent: ClassVar = {"intermediate_size": 3072, "type_vocab_size": 2}
    fixed: ClassVar = {
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),  # the masked head compares with the embedding
    }
    renames: ClassVar = _layers("bert", "encoder", LAYER)
    task_heads: ClassVar[Mapping[str, Head]] = {
        **_heads("Bert", ("bert.pooler.dense", "classifier"), BERT_WORDS),
        "next_sentence": Head(
            lambda config, outputs: First(config.dim, outputs, activation="tanh", dropout=0.0),
            (
                Rename("heads.next_sentence.dense.@", "bert.pooler.dense.@"),
                Rename("heads.next_sentence.out.@", "cls.seq_relationship.@"),
            ),
            "BertForNextSentencePrediction",
        ),
    }
    joint: ClassVar[Mapping[str, tuple[str, ...]]] = {"BertForPreTraining": ("masked", "next_sentence")}

    def problems(self) -> list[str]:
        """Return what cannot be built, one line each."""
        found = []
        if self.dim % self.heads:
            found.append(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.activation not in ACTIVATIONS:
            found.append(f"activation '{self.activation}' is not one of {', '.join(ACTIVATIONS)}")
        if self.pad >= self.vocab:
            found.append(f"pad {self.pad} is not below vocab {self.vocab}")
        if self.variant == "distilbert" and (self.kinds or self.eps != 1e-12):
            found.append("distilbert has kinds 0 and eps 1e-12: its files cannot say otherwise")
        if self.variant != "distilbert" and not self.kinds:
            found.append(f"{self.variant} has at least one kind")
        return found

    @property
    def tables(self) -> type[ModelConfig]:
        """Return the class whose tables the variant's files follow."""
        return TABLES[self.variant]

    @property
    def before(self) -> int:
        """Return how many places stand before the first position: RoBERTa numbers from pad + 1."""
        return self.pad + 1 if self.variant in NUMBERED else 0

    @property
    def last_dropout(self) -> float:
        """Return the dropout before a head's last layer."""
        return self.dropout if self.head_dropout is None else self.head_dropout

    @classmethod
    def from_hf(cls, json: Json) -> Self:
        """Build from a config.json of model_type bert, roberta, xlm-roberta or distilbert."""
        variant = json.get("model_type", "bert")
        values, extra = fields_from_hf(TABLES.get(variant, cls), json)
        counted = cls.checked({**values, "variant": variant, "extra": extra})
        return cls.checked({**counted.__dict__, "context": counted.context - counted.before})

    def to_hf(self) -> Json:
        """Return the config.json that the variant's classes read."""
        return {**self.plain_hf(), self.tables.keys["context"]: self.context + self.before}

    def make(self) -> Bert:
        """Return the module, not initialised."""
        return Bert(self)


class Roberta(Config):
    """The tables of RoBERTa's files."""

    model_types: ClassVar = ("roberta",)
    architecture: ClassVar = "RobertaModel"
    prefix: ClassVar = "roberta."
    repeats: ClassVar = ("roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight")
    ignored: ClassVar = (
        r"(roberta\.)?(embeddings\.(position_ids|token_type_ids)|pooler\.dense\.(weight|bias))",
        r"lm_head\.(bias|(decoder|dense|layer_norm)\.(weight|bias))",
    )
    renames: ClassVar = _layers("roberta", "encoder", LAYER)
    task_heads: ClassVar = _heads("Roberta", ROBERTA_ROWS, ROBERTA_WORDS)
    joint: ClassVar = {}


class XLMRoberta(Roberta):
    """The tables of XLM-R's files: RoBERTa's, under other class names."""

    model_types: ClassVar = ("xlm-roberta",)
    architecture: ClassVar = "XLMRobertaModel"
    task_heads: ClassVar = _heads("XLMRoberta", ROBERTA_ROWS, ROBERTA_WORDS)


class DistilBert(Config):
    """The tables of DistilBERT's files."""

    model_types: ClassVar = ("distilbert",)
    architecture: ClassVar = "DistilBertModel"
    prefix: ClassVar = "distilbert."
    repeats: ClassVar = ("distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight")
    ignored: ClassVar = (
        r"(distilbert\.)?embeddings\.position_ids",
        r"vocab_(transform|layer_norm|projector)\.(weight|bias)",
    )
    keys: ClassVar = {
        **{name: Config.keys[name] for name in ("vocab", "context", "pad", "spread")},
        **{name: name for name in ("dim", "activation", "dropout", "attention_dropout")},
        **{name: f"n_{name}" for name in ("layers", "heads")},
        "hidden": "hidden_dim",
        "head_dropout": "seq_classif_dropout",
    }
    absent: ClassVar = {"hidden_dim": 3072, "max_position_embeddings": 512, "seq_classif_dropout": 0.2}
    renames: ClassVar = _layers("distilbert", "transformer", DISTIL_LAYER)
    task_heads: ClassVar = _heads("DistilBert", ("pre_classifier", "classifier"), DISTIL_WORDS)
    joint: ClassVar = {}


TABLES: dict[str, type[Config]] = {
    "bert": Config,
    "roberta": Roberta,
    "xlm-roberta": XLMRoberta,
    "distilbert": DistilBert,
}


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to what it read and normalised."""

    def __init__(self, config: Config) -> None:
        """Allocate the layer."""
        super().__init__()
        heads, size = config.heads, config.dim // config.heads
        self.attn = Attention(config.dim, heads=heads, kv_heads=heads, head_dim=size, bias=True)
        self.attn_norm = nn.LayerNorm(config.dim, config.eps)
        self.mlp = MLP(config.dim, config.hidden, activation=config.activation, bias=True)
        self.mlp_norm = nn.LayerNorm(config.dim, config.eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, view: Attends, asks: Tensor | None = None) -> Tensor:
        """Return what this layer makes of x (B, T, D), or of those (B, A, D) that alone ask."""
        asks = x if asks is None else asks
        asks = self.attn_norm(asks + self.dropout(self.attn(x, view, asks=asks)))
        return self.mlp_norm(asks + self.dropout(self.mlp(asks)))


class Bert(Model[Config], Summarises):
    """Tokens (B, T) to hidden states (B, T, D), each position seeing its whole segment."""

    def __init__(self, config: Config) -> None:
        """Allocate embeddings and layers; heads are added by `build`."""
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.positions = nn.Embedding(config.context + config.before, config.dim)
        self.kinds = nn.Embedding(config.kinds, config.dim) if config.kinds else None
        self.embed_norm = nn.LayerNorm(config.dim, config.eps)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(
        self,
        tokens: Tensor,
        *,
        layout: Layout | None = None,
        kinds: Tensor | None = None,
        memory: Memory | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return hidden states; see Model.forward. Kinds left out are 0; where there is one kind or none, refused."""
        unused(self, memory=memory, cache=cache)
        return self._through(self.blocks, tokens, layout, kinds)[0]

    def first(self, tokens: Tensor, *, layout: Layout | None = None, kinds: Tensor | None = None) -> Tensor:
        """Return (B, D), the states of the rows' first tokens; a row is one segment here.

        As `forward` has them, but the last layer asks for them alone: of six layers that saves a seventh of the work.
        """
        *below, last = self.blocks
        x, seen = self._through(below, tokens, layout, kinds)
        return last(x, Firsts(layout, seen.plain.dropout), first(x, layout)[:, None])[:, 0]

    def _through(
        self, blocks: Iterable[nn.Module], tokens: Tensor, layout: Layout | None, kinds: Tensor | None
    ) -> tuple[Tensor, Scope]:
        """Return what some layers make of the tokens, and what their positions see."""
        unused(self, kinds=kinds if self.config.kinds < 2 else None)
        seen = scope(tokens, layout, None, causal=False, dropout=self.config.attention_dropout * self.training)
        x = tokens if tokens.is_floating_point() else self.embed(tokens)
        x = x + self.positions(seen.positions + self.config.before)
        if self.kinds is not None:
            x = x + (self.kinds.weight[0] if kinds is None else self.kinds(kinds))
        x = self.dropout(self.embed_norm(x))
        for index, block in enumerate(blocks):
            x = block(x, seen.layer(index))
        return x, seen

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (..., V) from the masked head; AbilityError where the model carries none."""
        if "masked" not in self.heads:
            do = "open or build it with the head 'masked'"
            raise AbilityError(problem(type(self).__name__, "carries no masked head to guess words with", do=do))
        scores: Tensor = self.heads["masked"](hidden, self.embed.weight)
        return scores

    def initialize(self, generator: torch.Generator) -> None:
        """Draw matrices from N(0, spread²); norms begin at 1, biases at 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, 0.0, self.config.spread, generator=generator)
