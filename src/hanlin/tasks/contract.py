"""What a task is: one file that the trainer, `hanlin predict`, `evaluate`, Python and HTTP all use alike.

    file ─ read ─> row ─ example ─> Example ─ encode ─> Row, Row, … ─ collate ─> Batch ─┬─ objective ─> loss
                                                                                        └─ run ─> outputs
                                     Prediction <─ decode ─ an example's outputs <──────────────────┘

A task is one file of this folder (or an entry point of the group `hanlin.tasks`) with a `class Config(Task)`; its
fields are what a person may choose and what is learned from the training rows (labels), and all of them are kept in
the bundle. docs/add-a-task.md makes one. Abstract or final, as everywhere: a task fills in the abstract methods. What
only some tasks can do is an ability of its own: `Settles`, `Opens`, `Augments`, `Pools`.

Letters: B rows of a batch, T tokens of the longest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanlin import registry
from hanlin.batch import IGNORE, Batch, Frames, Layout, Source, Tokens
from hanlin.config import Config, dump, parse
from hanlin.errors import BundleError, DataError, nearest, problem
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.models.contract import Json, Model, ModelConfig
from hanlin.models.sentences import Pooling
from hanlin.objectives.contract import Objective
from hanlin.text.tokenizer import Tokenizer


class Example(Config):
    """One thing to be answered, with its answer where it is known; each task has its own fields."""


class Prediction(Config):
    """One answer; each task has its own fields. `hanlin predict` writes them, HTTP returns them."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """One row of a file as it stands there, or what is wrong with it."""

    number: int  # as a person counts: the line of a text file, else the row from 1
    values: Mapping[str, Any]
    error: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """What one forward reads of one example; a long example has several."""

    example: int  # its place among the examples encoded with it
    ids: Sequence[int]  # tokens; of an encoder–decoder what it writes, shifted right
    kinds: Sequence[int] | None = None
    targets: Sequence[int] | None = None  # the answer at each token, IGNORE where there is none
    source: Sequence[int] | NDArray[np.float32] | None = None  # what an encoder–decoder reads: ids, or (S, F) frames
    answer: Any = None  # what `labels_of` makes tensors of
    note: Any = None  # what `decode` needs to know: offsets, where a window begins
    group: int | None = None  # rows with the same number go into one batch, side by side
    truncated: int = 0  # tokens that were cut off
    features: NDArray[np.float32] | None = None  # (D,) of a model that stands still (tasks/lesson/frozen.py)

    @property
    def length(self) -> int:
        """Return the tokens, or the source positions where these are more."""
        return max(len(self.ids), 0 if self.source is None else len(self.source))


E = TypeVar("E", bound=Example)
P = TypeVar("P", bound=Prediction)


class Task(Config, ABC, Generic[E, P]):
    """One kind of question; a frozen config that knows how to ask it of a model and how to score the answers."""

    version: ClassVar[int] = 1  # of the meaning of its fields in bundles
    example_type: ClassVar[type[Example]]  # E
    prediction_type: ClassVar[type[Prediction]]  # P
    # Field of an example -> names that its column goes by, the usual first. The first field is the one that a plain
    # text is; those in `answers` stand in labelled rows alone.
    columns: ClassVar[Mapping[str, tuple[str, ...]]]
    needed: ClassVar[tuple[str, ...]]  # fields that every row has
    answers: ClassVar[tuple[str, ...]]
    main: ClassVar[str]  # the score that decides; higher is better
    files: ClassVar[tuple[str, ...]] = ()  # fields that name files: nobody may send them over a network

    @abstractmethod
    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of a file; DataError when it cannot be read. Most tasks return rows.read(path)."""

    @abstractmethod
    def example(self, values: Mapping[str, Any]) -> E:
        """Return the example that the values of a row, by field, make; DataError saying what is wrong with them."""

    @abstractmethod
    def texts(self, example: E) -> list[str]:
        """Return the texts that a tokenizer may be trained on."""

    @abstractmethod
    def fitted(self, examples: Sequence[E]) -> Self:
        """Return the task with what is to be learned from labelled rows before the first step: its labels."""

    @abstractmethod
    def heads(self) -> Mapping[str, int]:
        """Return the heads that the model needs, name -> outputs; {} where the language model itself answers."""

    @abstractmethod
    def objective(self) -> Objective:
        """Return what training minimises."""

    @abstractmethod
    def encode(self, examples: Sequence[E], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return the rows of all examples in order; answers are filled in where the examples have them."""

    @abstractmethod
    def labels_of(self, rows: Sequence[Row]) -> Any:  # noqa: ANN401  # a frozen dataclass of tensors, first axis B, or None
        """Return what the objective learns from besides `targets`; None where there is nothing."""

    @abstractmethod
    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[Any]:
        """Return an output for each row of the batch, on the host; called in inference mode."""

    @abstractmethod
    def decode(self, example: E, rows: Sequence[Row], outputs: Sequence[Any], tokenizer: Tokenizer) -> P:
        """Return the prediction that the outputs of an example's rows say."""

    @abstractmethod
    def score(self, examples: Sequence[E], predictions: Sequence[P]) -> dict[str, Estimate]:
        """Return the scores of labelled examples under the fixed keys, `main` among them."""

    @abstractmethod
    def marks(self, examples: Sequence[E], predictions: Sequence[P]) -> Numbers:
        """Return (n,) how right each prediction is, higher is better: to find the worst rows."""

    @abstractmethod
    def statistics(self, examples: Sequence[E], predictions: Sequence[P]) -> Rows:
        """Return what each row adds to the score `main`, to compare two models on the same rows."""

    @final
    def asked(self, given: object) -> E:
        """Return the example that a plain text, or a mapping of its fields, is."""
        values = {self.plain: given} if isinstance(given, str) else given
        if not isinstance(values, Mapping):
            raise DataError(problem("input", f"a {type(given).__name__}", "a text, or a mapping of fields"))
        unknown = [str(key) for key in values if key not in self.columns]
        if unknown:
            allowed = f"fields: {', '.join(self.columns)}"
            raise DataError(problem(f"input.{unknown[0]}", "unknown field", allowed, nearest(unknown[0], self.columns)))
        absent = [field for field in self.needed if values.get(field) is None]
        if absent:
            raise DataError(problem(f"input.{absent[0]}", "missing"))
        return self.example(values)

    @final
    @property
    def plain(self) -> str:
        """Return the field that a text on its own is."""
        return next(iter(self.columns))

    @final
    def collate(self, rows: Sequence[Row], pad: int) -> Batch[Any]:
        """Return one batch, short rows filled up on the right; no layout where all are equally long."""
        tokens, layout = _padded([row.ids for row in rows], pad)
        targets = [row.targets for row in rows if row.targets is not None]
        told = any(row.kinds is not None and any(row.kinds) for row in rows)  # kinds that are all 0 are the default
        kinds = [row.kinds or (0,) * len(row.ids) for row in rows] if told else []
        groups = [row.group for row in rows if row.group is not None]
        assert all(len(each) in (0, len(rows)) for each in (targets, groups)), "all rows or none"
        return Batch(
            tokens=tokens,
            targets=_padded(targets, IGNORE)[0] if targets else None,
            layout=layout,
            kinds=_padded(kinds, 0)[0] if kinds else None,
            source=_source(rows, pad),
            groups=torch.tensor(groups) if groups else None,
            labels=self.labels_of(rows),
        )


class Settles(ABC):
    """Learns something from held-out rows after the last step: a temperature, a threshold."""

    @abstractmethod
    def settled(self, examples: Sequence[Any], predictions: Sequence[Any]) -> Self:
        """Return the task with what the predictions on labelled rows, which no training saw, teach."""


class Augments(ABC):
    """Learns from rows that are changed anew at every step."""

    @abstractmethod
    def augmented(self, rows: Sequence[Row], *, seed: int, step: int) -> list[Row]:
        """Return the rows of a training step, changed; a function of its arguments, and pure."""


class Opens(ABC):
    """Writes answers to a source, which begin as the model's do."""

    @abstractmethod
    def opened(self, config: ModelConfig) -> Self:
        """Return the task with the tokens that this model's answers begin with."""


class Pools(ABC):
    """Makes one vector a text; its bundle says how, so that `embed` and search make the same."""

    @abstractmethod
    def pooling(self, context: int) -> Pooling:
        """Return how, for a model that was trained on rows of `context` tokens."""


class Signs(ABC):
    """Has a score that can be counted in several ways."""

    @abstractmethod
    def signature(self) -> str:
        """Return how the main score is counted, in one line that belongs beside every figure."""


class Baselined(ABC):
    """Can be answered without a model as well: what its score has to beat."""

    @abstractmethod
    def baselines(self, train: Sequence[Any], asked: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
        """Return each baseline's predictions for `asked`, learned from `train`, by its name."""


class Freezes(ABC):
    """Can train its head alone, on features computed once."""

    @property
    @abstractmethod
    def frozen_head(self) -> str | None:
        """Return the head that alone is trained; None where the whole model is."""

    @property
    @abstractmethod
    def reads(self) -> Literal["first", "mean"]:
        """Return what of a row's states the head reads: the first token's, or the mean of all."""


def saved(task: Task[Any, Any]) -> Json:
    """Return what a bundle keeps of a task."""
    return {"name": registry.name_of("tasks", type(task)), "version": task.version, **dump(task)}


def restored(card: Json, where: str) -> Task[Any, Any]:
    """Return the task that `saved` kept; BundleError when this version does not know it."""
    settings = dict(card)
    name, version = settings.pop("name", None), settings.pop("version", None)
    if name not in registry.names("tasks"):
        known = ", ".join(registry.names("tasks"))
        raise BundleError(problem(where, f"task {name!r}", f"known: {known}"))
    made: type[Task[Any, Any]] = registry.load("tasks", str(name)).Config
    if version != made.version:
        raise BundleError(problem(where, f"task {name} version {version!r}", f"this version reads {made.version}"))
    return parse(made, settings, where)


def _padded(lists: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Layout | None]:
    """Return (B, T) numbers and the layout that tells them from the filling, None where nothing was filled."""
    longest = max(map(len, lists))
    made = np.full((len(lists), longest), fill, np.int64)
    segments = np.zeros_like(made)
    for at, each in enumerate(lists):
        made[at, : len(each)] = each
        segments[at, : len(each)] = 1
    return torch.from_numpy(made), None if segments.all() else Layout.of(torch.from_numpy(segments))


def _source(rows: Sequence[Row], pad: int) -> Source | None:
    """Return what an encoder–decoder reads."""
    given = [row.source for row in rows if row.source is not None]
    if not given:
        return None
    assert len(given) == len(rows), "all rows or none"
    frames = [each for each in given if isinstance(each, np.ndarray) and each.ndim == 2]
    if not frames:
        ids, layout = _padded(given, pad)  # type: ignore[arg-type]  # no frames among them
        return Tokens(ids=ids, layout=layout)
    longest = max(map(len, frames))
    values = np.zeros((len(frames), longest, frames[0].shape[1]), np.float32)
    segments = np.zeros((len(frames), longest), np.int64)
    for at, each in enumerate(frames):
        values[at, : len(each)] = each
        segments[at, : len(each)] = 1
    layout = None if segments.all() else Layout.of(torch.from_numpy(segments))
    return Frames(values=torch.from_numpy(values), layout=layout)
