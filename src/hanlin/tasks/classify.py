"""Which class a text, or a pair of texts, belongs to: one of several, any number of several, or a number on a scale.

    text [, pair] ─ encode ─> one row ─ head `sequence` ─> scores (C,) ─┬─ single   softmax    the likeliest label
                                                                        ├─ multi    sigmoid    those above 0.5
                                                                        └─ rating   as it is   a number

Probabilities are softened by a temperature learned on held-out rows (Guo et al., arXiv 1706.04599), which changes no
label. Letters: B rows, C labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from hanlin.batch import Batch
from hanlin.errors import DataError, nearest, problem
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.models.contract import Model
from hanlin.objectives import classification
from hanlin.tasks import contract, rows
from hanlin.tasks.contract import Baselined, Freezes, Raw, Row, Settles, Task
from hanlin.tasks.lesson import baselines, labels
from hanlin.tasks.lesson.labels import Kind
from hanlin.text.tokenizer import Tokenizer

SEPARATORS = ("|", ";", ",")  # of several labels in one cell of a table
GRID = np.exp(np.linspace(np.log(0.2), np.log(5.0), 97))  # temperatures tried


class Example(contract.Example):
    """A text, or two, and its answer where it is known."""

    text: str
    pair: str | None = None
    label: str | tuple[str, ...] | float | None = None  # single, multi, rating


class Prediction(contract.Prediction):
    """The answer, and how likely each label is; a rating has no probabilities."""

    label: str | tuple[str, ...] | float
    probabilities: dict[str, float] = {}


class Config(Task[Example, Prediction], Settles, Baselined, Freezes):
    """Classification by a `sequence` head."""

    kind: Kind = "single"
    labels: tuple[str, ...] = ()  # learned from the training rows where left out; their order is that of the scores
    smoothing: float = Field(0.0, ge=0, lt=1)
    temperature: float = Field(1.0, gt=0)  # of the probabilities; learned
    # What of a row the head reads; left out: the first token, as Hugging Face has it, or of a frozen model the mean.
    pooling: Literal["first", "mean"] | None = None
    frozen: bool = False  # the model stands still and its head alone is trained, on features computed once: seconds

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {
        "text": ("sentence", "sentence1", "text_a", "review", "title", "premise", "content", "query", "question", "s1"),
        "pair": ("sentence2", "text_b", "hypothesis", "s2"),
        "label": ("class", "category", "intent", "sentiment", "topic", "stars", "rating", "score", "gold", "labels"),
    }
    needed: ClassVar = ("text",)
    answers: ClassVar = ("label",)

    @property
    def main(self) -> str:  # type: ignore[override]  # it follows from the kind
        """Return the score that decides."""
        return labels.MAIN[self.kind]

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of a table."""
        return rows.read(path)

    def example(self, values: Mapping[str, Any]) -> Example:
        """Return an example; a label is text, a list (or a cell with | ; ,) of them, or a number, as `kind` says."""
        for field in ("text", "pair"):
            if not isinstance(values.get(field, ""), str):
                raise DataError(problem(field, f"{values[field]!r}"[:60], "text"))
        if not values["text"].strip():
            raise DataError(problem("text", "empty"))
        label = values.get("label")
        return Example(text=values["text"], pair=values.get("pair"), label=None if label is None else self._read(label))

    def _read(self, label: Any) -> str | tuple[str, ...] | float:  # noqa: ANN401  # whatever a file holds
        """Return a label as `kind` wants it."""
        if self.kind == "rating":
            try:
                value = float(label)
            except (TypeError, ValueError):
                value = math.nan
            if not math.isfinite(value):
                raise DataError(problem("label", f"{label!r}"[:60], "a number")) from None
            return value
        if self.kind == "multi":
            if isinstance(label, str):
                separator = next((each for each in SEPARATORS if each in label), None)
                label = label.split(separator) if separator else [label]
            return tuple(sorted({str(each).strip() for each in label} - {""}))
        if isinstance(label, list | tuple | dict) or not str(label).strip():
            do = "for several labels a row, task.kind=multi"
            raise DataError(problem("label", f"{label!r}"[:60], "one label", do=do))
        return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)

    def texts(self, example: Example) -> list[str]:
        """Return the text or both."""
        return [example.text, *([example.pair] if example.pair else [])]

    def fitted(self, examples: Sequence[Example]) -> Self:
        """Return the task with the labels of the rows, sorted; numbers by size."""
        if self.kind == "rating" or self.labels:
            return self
        named = {name for each in examples for name in labels.names(each.label)}
        if len(named) < 2:
            given = f"only the label {', '.join(map(repr, named))}" if named else "no labels"
            raise DataError(problem("data.train", given, "at least two different labels"))
        return self.model_copy(update={"labels": tuple(sorted(named, key=labels.order))})

    def heads(self) -> Mapping[str, int]:
        """Return one output a label, one for a rating."""
        return {"sequence": max(1, len(self.labels))}

    def objective(self) -> classification.Config:
        """Return the loss of the kind."""
        return classification.Config(kind=self.kind, smoothing=self.smoothing, reads=self.reads)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return one row an example; the longer text of a pair is cut first."""
        alone = iter(tokenizer.encode_batch([each.text for each in examples if each.pair is None], context=context))
        found = []
        for number, each in enumerate(examples):
            read = next(alone) if each.pair is None else tokenizer.encode(each.text, each.pair, context=context)
            answer = None if each.label is None else self._answer(each, number)
            found.append(Row(example=number, ids=read.ids, kinds=read.kinds, answer=answer, truncated=read.truncated))
        return found

    def _answer(self, example: Example, number: int) -> int | float | list[float]:
        """Return an example's label as the loss takes it; DataError for one that no training row has."""
        if self.kind == "rating":
            assert isinstance(example.label, float)
            return example.label
        unknown = [name for name in labels.names(example.label) if name not in self.labels]
        if unknown:
            allowed = f"the labels of the training rows: {', '.join(self.labels[:20])}"
            where = f"row {number + 1} ({example.text[:40]!r})"
            raise DataError(problem(where, f"label '{unknown[0]}'", allowed, nearest(unknown[0], self.labels)))
        if self.kind == "multi":
            return [float(name in labels.names(example.label)) for name in self.labels]
        assert isinstance(example.label, str)
        return self.labels.index(example.label)

    def labels_of(self, rows: Sequence[Row]) -> classification.Answers | None:
        """Return the answers as one tensor."""
        if any(row.answer is None for row in rows):
            return None
        known = [row.features for row in rows if row.features is not None]
        features = torch.from_numpy(np.stack(known)) if known else None
        return classification.Answers(values=torch.tensor([row.answer for row in rows]), features=features)

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[NDArray[np.float64]]:
        """Return the scores (C,) of each row."""
        return list(classification.scored(model, batch, self.reads).double().cpu().numpy())

    def decode(
        self, example: Example, rows: Sequence[Row], outputs: Sequence[NDArray[np.float64]], tokenizer: Tokenizer
    ) -> Prediction:
        """Return the answer that the scores say."""
        scores = outputs[0]
        if self.kind == "rating":
            return Prediction(label=float(scores[0]))
        scaled = scores / self.temperature
        likely = _softmax(scaled) if self.kind == "single" else 1 / (1 + np.exp(-scaled))
        probabilities = {name: float(each) for name, each in zip(self.labels, likely)}
        if self.kind == "single":
            return Prediction(label=self.labels[int(scores.argmax())], probabilities=probabilities)
        chosen = tuple(sorted(name for name, score in zip(self.labels, scores) if score > 0))
        return Prediction(label=chosen, probabilities=probabilities)

    @property
    def frozen_head(self) -> str | None:
        """Return the head that alone is trained, where asked for."""
        return "sequence" if self.frozen else None

    @property
    def reads(self) -> Literal["first", "mean"]:
        """Return what of a row's states the head reads."""
        return self.pooling or ("mean" if self.frozen else "first")

    def baselines(self, train: Sequence[Example], asked: Sequence[Example]) -> dict[str, list[Prediction]]:
        """Return the commonest answer, and what a linear model over TF-IDF says."""
        known = [(self.texts(each), each.label) for each in train]
        found = baselines.answers(known, [self.texts(each) for each in asked])
        return {name: [Prediction(label=each) for each in given] for name, given in found.items()}

    def settled(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Self:
        """Return the task with the temperature under which the labelled rows are likeliest."""
        if self.kind != "single" or not examples:
            return self
        likely = np.array([[each.probabilities[name] for name in self.labels] for each in predictions])
        logits = np.log(np.maximum(likely, 1e-300)) * self.temperature
        wanted = np.array([self.labels.index(str(each.label)) for each in examples])
        nats = [-np.log(_softmax(logits / by)[np.arange(len(wanted)), wanted] + 1e-300).sum() for by in GRID]
        return self.model_copy(update={"temperature": float(GRID[int(np.argmin(nats))])})

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Estimate]:
        """Return accuracy and macro F1; of several labels micro F1 and whole sets; of ratings correlation and error."""
        return labels.score(self.kind, *_sides(examples, predictions))

    def statistics(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Rows:
        """Return each row's part in accuracy, micro F1 or rank correlation."""
        return labels.rows(self.kind, *_sides(examples, predictions))

    def marks(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Numbers:
        """Return the probability given to the right label; the share of labels that agree; minus the error squared."""
        if self.kind == "single":
            return np.array([a.probabilities[str(b.label)] for a, b in zip(predictions, examples)])
        return labels.marks(self.kind, *_sides(examples, predictions), len(self.labels))


def _sides(examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any]]:
    """Return what was answered, and what is right."""
    return [each.label for each in predictions], [each.label for each in examples]


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities along the last axis."""
    shifted = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))
