"""The short of a text: written anew, or the sentences that say most of it.

    abstractive   text ─ encoder ─> memory ─ beam search ─> summary          a model that reads a source
    extractive    text ─ sentences ─┬─ place, length, centrality ─ weights ──(+)─ the best `sentences` ─> summary
                                    └─ head `sequence` of an encoder ─────────┘

Extractive weights are learned first, by ridge regression on each sentence's ROUGE with the summary; the head learns
what they leave, and begins near nothing. Sources are texts or lists of sentences; a row may have several summaries: the
first is learned from, the best one counts. `rouge_*_lead` is what the first sentences alone would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from hanlin.batch import Batch
from hanlin.errors import DataError, problem
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.metrics.texts import rouge
from hanlin.models.contract import Model
from hanlin.objectives import classification
from hanlin.objectives.contract import Objective
from hanlin.tasks import contract, rows
from hanlin.tasks.contract import Raw, Row, Task
from hanlin.tasks.writing import sentences as texts
from hanlin.tasks.writing.seq2seq import Writer, Written
from hanlin.text.tokenizer import Tokenizer

RIDGE = 1.0  # of the weights; a few hundred texts are enough for nine


class Example(contract.Example):
    """A text, or its sentences, and its summary or several where they are known."""

    source: str | tuple[str, ...]
    target: str | tuple[str, ...] | None = None


class Prediction(contract.Prediction):
    """The summary."""

    text: str
    complete: bool = True  # false where writing was cut at the limit
    sentences: tuple[int, ...] = ()  # extractive: which they are, from 0


class Config(Task[Example, Prediction], Writer):
    """Summaries by a model that reads a source, or by an encoder that chooses sentences."""

    kind: Literal["abstractive", "extractive"] = "abstractive"
    sentences: int = Field(1, ge=1)  # of an extractive summary, and of the lead that it is compared with
    weights: tuple[float, ...] = ()  # of what is measured on a sentence; learned from the training rows

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {
        "source": ("text", "document", "article", "dialogue", "content", "abstract", "body"),
        "target": ("summary", "highlights", "tldr", "headline"),
    }
    needed: ClassVar = ("source",)
    answers: ClassVar = ("target",)
    main: ClassVar = "rouge_l"

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of a table."""
        return rows.read(path)

    def example(self, values: Mapping[str, Any]) -> Example:
        """Return an example; neither side is empty."""
        return Example(
            **{field: _read(field, values[field]) for field in self.columns if values.get(field) is not None}
        )

    def texts(self, example: Example) -> list[str]:
        """Return the text and its summaries."""
        return [_whole(example), *_wanted(example)]

    def fitted(self, examples: Sequence[Example]) -> Self:
        """Return the task with the weights that foresee a sentence's ROUGE best, of an extractive one."""
        if self.kind == "abstractive" or self.weights:
            return self
        square, product = RIDGE * np.eye(texts.MEASURES), np.zeros(texts.MEASURES)
        for each in examples:
            parts = _sentences(each)
            measured = texts.measures(parts)
            square += measured.T @ measured
            product += measured.T @ _gains(parts, _wanted(each))
        return self.model_copy(update={"weights": tuple(np.linalg.solve(square, product).tolist())})

    def heads(self) -> Mapping[str, int]:
        """Return one output of an extractive summariser, else none."""
        return {"sequence": 1} if self.kind == "extractive" else {}

    def objective(self) -> Objective:
        """Return the nats of the summary, or the squared error of a sentence's ROUGE."""
        return classification.Config(kind="rating") if self.kind == "extractive" else self.loss()

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return one row an example, or one a sentence."""
        if self.kind == "abstractive":
            asked = [(_whole(each), next(iter(_wanted(each)), None)) for each in examples]
            return self.written_rows(asked, tokenizer, context)
        found = []
        for number, each in enumerate(examples):
            parts = _sentences(each)
            foreseen = texts.measures(parts) @ np.array(self.weights or [0.0] * texts.MEASURES)
            left = _gains(parts, _wanted(each)) - foreseen if each.target is not None else None
            for place, read in enumerate(tokenizer.encode_batch(parts, context=context)):
                answer = None if left is None else float(left[place])
                note = float(foreseen[place])
                found.append(Row(example=number, ids=read.ids, answer=answer, note=note, truncated=read.truncated))
        return found

    def labels_of(self, rows: Sequence[Row]) -> classification.Answers | None:
        """Return what is left of each sentence's ROUGE; nothing where the targets say it all."""
        if any(row.answer is None for row in rows):
            return None
        return classification.Answers(values=torch.tensor([row.answer for row in rows]))

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[Any]:
        """Return the summary, or a sentence's score, of each row."""
        if self.kind == "abstractive":
            return self.write(model, batch, tokenizer)
        hidden = model(batch.tokens, layout=batch.layout)
        scores: list[float] = model.heads["sequence"](hidden, batch.layout)[:, 0].double().cpu().tolist()
        return scores

    def decode(self, example: Example, rows: Sequence[Row], outputs: Sequence[Any], tokenizer: Tokenizer) -> Prediction:
        """Return the summary that was written, or the best sentences in the order of the text."""
        if self.kind == "abstractive":
            (written,) = outputs
            assert isinstance(written, Written)
            return Prediction(text=written.text, complete=written.complete)
        scores = [row.note + output for row, output in zip(rows, outputs)]
        best = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: self.sentences]
        parts = _sentences(example)
        chosen = tuple(sorted(best))
        return Prediction(text=texts.joined([parts[place] for place in chosen]), sentences=chosen)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Estimate]:
        """Return ROUGE, and that of the first sentences beside it."""
        wanted = [_wanted(each) for each in examples]
        leads = [texts.joined(_sentences(each)[: self.sentences]) for each in examples]
        lead = {f"{name}_lead": each for name, each in rouge.score(leads, wanted).items()}
        return {**rouge.score([each.text for each in predictions], wanted), **lead}

    def marks(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Numbers:
        """Return each row's ROUGE-L."""
        return rouge.rows([each.text for each in predictions], [_wanted(each) for each in examples]).alone("rouge_l")

    def statistics(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Rows:
        """Return each row's ROUGE."""
        return rouge.rows([each.text for each in predictions], [_wanted(each) for each in examples])


def _read(field: str, value: object) -> str | tuple[str, ...]:
    """Return a text, or several without the empty ones."""
    if not isinstance(value, list | tuple):
        return texts.text_of(field, value)
    found = tuple(texts.text_of(field, each) for each in value if str(each).strip())
    if not found:
        raise DataError(problem(field, "empty"))
    return found


def _whole(example: Example) -> str:
    return example.source if isinstance(example.source, str) else texts.joined(example.source)


def _sentences(example: Example) -> list[str]:
    return texts.split(example.source) if isinstance(example.source, str) else list(example.source)


def _wanted(example: Example) -> list[str]:
    return [] if example.target is None else [example.target] if isinstance(example.target, str) else [*example.target]


def _gains(sentences: Sequence[str], wanted: Sequence[str]) -> Numbers:
    """Return (n,) the mean ROUGE of each sentence with the summaries, a fraction."""
    return np.asarray(rouge.rows(sentences, [list(wanted)] * len(sentences)).numbers[:, :3].mean(1))
