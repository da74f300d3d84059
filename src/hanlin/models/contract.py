"""What every family promises, and the abilities some have.

    config.json ─ from_hf ─> ModelConfig ─ build ─> Model ─ forward ─> hidden (B, T, D) ─ logits ─> (..., V)
                                                      ├─ Decodes: new_cache(rows, length)      one token at a time
                                                      └─ Encodes: encode(source) -> Memory     reads a source first

One family is one file with a `Config(ModelConfig)`. Abstract or final: a family fills the
abstract methods and overrides nothing else.
`forward` takes everything by name, whatever the family:

    tokens (B, T) ids or (B, T, D) embedded · layout · kinds (B, T) · memory · cache

A family refuses what it cannot use with one sentence (`unused`), never silently.
Parameter names are the same everywhere: embed, norm, head and, in blocks.N, attn_norm, attn.{q,k,v,o},
cross.{norm,q,k,v,o}, mlp_norm, mlp.{gate,up,down}; a family's own parts stand beside them (GPT-2's `positions`).

Letters: B rows, T tokens, S source positions, D dim, V vocab.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hanlin.batch import Layout, Source
from hanlin.config import Config, parse
from hanlin.errors import AbilityError, ConfigError, nearest, problem
from hanlin.nn.cache import Cache

Json = dict[str, Any]


@dataclass(frozen=True)
class Rename:
    """One row of a weight table, read both ways: `*` is the layer, `@` is weight or bias.

    A tuple in `ours` is one stacked tensor in theirs, split evenly along its output axis. `transpose` is for
    files that keep (in, out) where torch keeps (out, in), as GPT-2's do; biases are never transposed.
    """

    ours: str | tuple[str, ...]
    theirs: str
    transpose: bool = False


@dataclass(frozen=True)
class Head:
    """A head that a family can carry: how to build it, its names in Hugging Face files, and its class there."""

    make: Callable[[Any, int], nn.Module]  # (config, outputs) -> module; called with (hidden (B,T,D), layout)
    renames: tuple[Rename, ...]
    architecture: str


class ModelConfig(Config, ABC):
    """Sizes and choices of one family. Field names are ours; `keys` says what Hugging Face calls them."""

    vocab: int
    dim: int
    layers: int
    context: int

    start: int | None = None  # the token that answers to a source begin with; None where no source is read
    first: int | None = None  # the token that must follow it, where there is one: a language, or BOS
    then: tuple[int, ...] = ()  # and those after it: of a Whisper its task, and that it writes no times
    never: tuple[int, ...] = ()  # tokens that no answer to a source holds
    never_first: tuple[int, ...] = ()  # and those that none begins with, after `opening`
    extra: Json = {}  # keys of a config.json that we do not model, kept for writing

    model_types: ClassVar[tuple[str, ...]]  # values of `model_type` that this family reads; the first is written
    architecture: ClassVar[str]  # the Hugging Face class of the bare language model
    keys: ClassVar[Mapping[str, str]]  # our field -> their key
    needed: ClassVar[tuple[str, ...]]  # our fields without which a config.json is refused
    absent: ClassVar[Mapping[str, Any]] = {}  # their key -> what Hugging Face takes when it is left out
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {}  # their key -> the only values implemented
    renames: ClassVar[tuple[Rename, ...]]
    prefix: ClassVar[str] = ""  # of their tensor names; optional on reading, written
    repeats: ClassVar[tuple[str, ...] | None] = None  # theirs, when tied: (the tensor kept, those that repeat it …)
    unties: ClassVar[bool] = False  # the last of `repeats`, where a file's differs, makes `tied` false
    optional: ClassVar[tuple[str, ...]] = ()  # their tensors that files may leave out: zeros then
    ignored: ClassVar[tuple[str, ...]] = ()  # their tensors, as patterns, that carry nothing
    task_heads: ClassVar[Mapping[str, Head]] = {}
    joint: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # their class -> the several heads that it carries
    beside: ClassVar[Mapping[str, Callable[[Any], Json]]] = {}  # other files of the folder: name -> config to content

    @classmethod
    @abstractmethod
    def from_hf(cls, json: Json) -> Self:
        """Build from a config.json; ConfigError naming any key that changes the forward and is not implemented."""

    @abstractmethod
    def to_hf(self) -> Json:
        """Return the config.json that Hugging Face reads back as the same model."""

    @property
    @final
    def opening(self) -> tuple[int, ...]:
        """Return the tokens that every answer to a source begins with: the prompt of an encoder–decoder."""
        return (*(each for each in (self.start, self.first) if each is not None), *self.then)

    @property
    def tables(self) -> type[ModelConfig]:
        """Return the class that says how files spell this config: its own; families with several spellings choose."""
        return type(self)

    @final
    @classmethod
    def checked(cls, values: Json) -> Self:
        """Build from our fields as read from a config.json; ConfigError names every one that cannot be."""
        return parse(cls, values, "config.json")

    @final
    def plain_hf(self) -> Json:
        """Return the keys in `keys` with our values, over the ones kept in `extra`."""
        ours = {their: getattr(self, name) for name, their in self.tables.keys.items()}
        return {"model_type": self.tables.model_types[0], **self.extra, **ours}

    @abstractmethod
    def make(self) -> Model[Any]:
        """Return the bare module, parameters allocated and not initialised."""

    @final
    def build(self, *, seed: int = 0, heads: Mapping[str, int] | None = None) -> Model[Any]:
        """Return a freshly initialised model; the same seed gives the same weights, bit for bit.

        `heads` maps a head's name to its number of outputs; AbilityError names the heads the family has.
        """
        model = self._with(heads or {})
        model.initialize(torch.Generator().manual_seed(seed))
        return model

    @final
    def sketch(self, heads: Mapping[str, int] | None = None) -> Model[Any]:
        """Return the model on the meta device: every shape, no memory."""
        with torch.device("meta"), _Unfilled():
            return self._with(heads or {})

    @final
    def _with(self, heads: Mapping[str, int]) -> Model[Any]:
        """Return the bare module with heads; AbilityError for one unknown, and for two that files name alike."""
        known = self.tables.task_heads
        where = f"model {type(self).__module__.rsplit('.', 1)[-1]}"
        model, taken = self.make(), dict[str, str]()
        for name, outputs in heads.items():
            if name not in known:
                raise AbilityError(problem(where, f"has no head '{name}'", f"its heads: {', '.join(known) or 'none'}"))
            for row in known[name].renames:
                other = taken.setdefault(row.theirs, name)
                if other != name:
                    given = f"the heads '{other}' and '{name}' are both {row.theirs} in files"
                    raise AbilityError(problem(where, given, "one of them"))
            model.heads[name] = known[name].make(self, outputs)
        return model


class _Unfilled(TorchFunctionMode):
    """Inside, `torch.nn.init` fills nothing: on the meta device, where nothing can be, it loads torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a model has read: states (B, S, D), their layout, and what a recurrent encoder carries over."""

    states: Tensor
    layout: Layout | None = None
    carry: Tensor | None = None
    ids: Tensor | None = None  # (B, S) the source's tokens, where a model copies from it
    kept: dict[str, Any] = field(default_factory=dict)  # cross-attention keys and values by layer, shared by all beams

    def once(self, name: str, make: Callable[[Tensor], Any]) -> Any:  # noqa: ANN401  # whatever make returns
        """Return `make(states)`, computed the first time it is asked for under `name`."""
        if name not in self.kept:
            self.kept[name] = make(self.states)
        return self.kept[name]


M = TypeVar("M", bound=ModelConfig)
A = TypeVar("A")


class Model(nn.Module, ABC, Generic[M]):
    """A network of one family: tokens in, hidden states out, logits on request."""

    packs: ClassVar[bool] = True  # several segments may share a row
    embed: nn.Embedding  # (B, T) ids -> (B, T, D)

    def __init__(self, config: M) -> None:
        """Store the config; a family builds its parts after this."""
        super().__init__()
        self.config = config
        self.heads = nn.ModuleDict()

    @abstractmethod
    def forward(
        self,
        tokens: Tensor,
        *,
        layout: Layout | None = None,
        kinds: Tensor | None = None,
        memory: Memory | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return hidden states (B, T, D), the final norm applied."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores over the vocab, (..., V), for hidden states (..., D)."""

    @abstractmethod
    def initialize(self, generator: torch.Generator) -> None:
        """Fill every parameter with fresh values drawn from `generator`."""

    @property
    def device(self) -> torch.device:
        """Return where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Return the type the parameters compute in."""
        return next(self.parameters()).dtype


class Decodes(ABC):
    """Can go on one token at a time."""

    @abstractmethod
    def new_cache(self, rows: int, length: int) -> Cache:
        """Return an empty cache for `rows` sequences of at most `length` tokens each."""


class Encodes(ABC):
    """Reads a source before the tokens."""

    @abstractmethod
    def encode(self, source: Source) -> Memory:
        """Return the memory that `forward` takes."""


class Summarises(ABC):
    """Can give the state of each row's first token for less than the states of all."""

    @abstractmethod
    def first(self, tokens: Tensor, *, layout: Layout | None = None, kinds: Tensor | None = None) -> Tensor:
        """Return (B, D): `forward`'s states of the rows' first real tokens, each row being one segment."""


_SENTENCES = {"Decodes": "cannot decode step by step", "Encodes": "reads no source"}


def require(model: Model[Any], ability: type[A]) -> A:
    """Return `model` as one that has `ability`; AbilityError in one sentence when it has not."""
    if isinstance(model, ability):
        return model
    reason = _SENTENCES.get(ability.__name__, f"lacks {ability.__name__}")
    raise AbilityError(problem(type(model).__name__, reason, do="choose a model of another family"))


def needed(model: Model[Any], memory: Memory | None) -> Memory:
    """Return the memory; AbilityError in one sentence where there is none and the family cannot do without."""
    if memory is not None:
        return memory
    do = "pass what `encode` returns as memory"
    raise AbilityError(problem(type(model).__name__, "writes only after it has read a source", do=do))


def unused(model: Model[Any], **given: object) -> None:
    """Raise AbilityError when something was passed that this family cannot use, such as kinds or a memory."""
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise AbilityError(problem(type(model).__name__, f"takes no {' and no '.join(extra)}"))


def fields_from_hf(cls: type[ModelConfig], json: Json) -> tuple[Json, Json]:
    """Split a config.json into (our fields, the keys we do not model).

    ConfigError names every key that changes the forward and is implemented only for other values (`fixed`), every
    needed one that is missing, and `auto_map`: code that comes with weights is never run.
    """
    problems = [
        problem(f"config.json: {key}", f"{json[key]!r} is not implemented", f"known: {', '.join(map(repr, allowed))}")
        for key, allowed in cls.fixed.items()
        if key in json and json[key] not in allowed
    ]
    if "auto_map" in json:
        problems.append(problem("config.json: auto_map", "code that comes with the weights", "is never run"))
    if json.get("quantization_config"):
        problems.append(problem("config.json: quantization_config", "quantised weights", "are not implemented"))
    for name in cls.needed:
        if cls.keys[name] not in json:
            problems.append(problem(f"config.json: {cls.keys[name]}", "missing", near=nearest(cls.keys[name], json)))
    if problems:
        raise ConfigError(*problems)
    theirs = {their: ours for ours, their in cls.keys.items()}
    complete = {**cls.absent, **json}
    values = {theirs[key]: value for key, value in complete.items() if key in theirs and value is not None}
    return values, {key: value for key, value in json.items() if key not in theirs}
