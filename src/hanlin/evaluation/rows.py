"""How well a model answers labelled rows: scores with intervals, the worst rows, and what was taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hanlin import bundle, hub, runtime
from hanlin.config import dump
from hanlin.errors import DataError, problem
from hanlin.metrics.contract import Estimate, Numbers
from hanlin.tasks import predict, rows
from hanlin.tasks.predict import Predictor
from hanlin.train import folder as folders


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Labelled rows with a model's answers to them."""

    examples: Sequence[Any]
    predictions: Sequence[Any]
    scores: Mapping[str, Estimate]
    marks: Numbers  # (n,) how right each is
    truncated: int  # tokens that did not fit


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """One row that was answered badly."""

    number: int  # from 1
    mark: float
    question: str
    wanted: str
    given: str


def of_model(
    model: str, data: str | None, columns: Mapping[str, str], precision: str
) -> tuple[Predictor[Any, Any], Answered]:
    """Return a model's predictor and its answers to a file, or to the held-out file of the run that made it."""
    place = runtime.start(precision=precision)
    folder = hub.fetch(model).folder
    recipe = folders.resolved(folder) if data is None else None
    name = data or (recipe.data.valid if recipe else None)
    if name is None:
        raise DataError(problem(str(folder), "no file of held-out rows is known", do="name one: --data ROWS.jsonl"))
    predictor = predict.opened(bundle.read(folder, dtype=place.dtype, device=str(place.device)))
    return predictor, answer(predictor, Path(name), {**(recipe.data.columns if recipe else {}), **columns})


def answer(predictor: Predictor[Any, Any], path: Path, columns: Mapping[str, str]) -> Answered:
    """Return the answers to a file's labelled rows; DataError names the rows that cannot be."""
    task = predictor.task
    examples, _ = rows.examples(task, path, columns, labelled=True)
    before = predictor.truncated
    predictions = predictor(examples)
    return Answered(
        examples=examples,
        predictions=predictions,
        scores=task.score(examples, predictions),
        marks=task.marks(examples, predictions),
        truncated=predictor.truncated - before,
    )


def worst(predictor: Predictor[Any, Any], found: Answered, most: int = 20) -> list[Wrong]:
    """Return the rows that were answered worst, the worst first."""
    task = predictor.task
    order = np.argsort(found.marks, kind="stable")[:most]
    return [
        Wrong(
            number=int(place) + 1,
            mark=float(found.marks[place]),
            question=" | ".join(_short(getattr(found.examples[place], field)) for field in task.needed),
            wanted=" | ".join(_short(getattr(found.examples[place], field)) for field in task.answers),
            given=_short(next(iter(dump(found.predictions[place]).values()))),
        )
        for place in order
    ]


def confusions(predictor: Predictor[Any, Any], found: Answered, most: int = 20) -> list[tuple[str, str, int]]:
    """Return (wanted, given, rows) for the label that was most often taken for another, and so on; [] without labels.

    Only for tasks whose answer is one label.
    """
    (field, *_) = predictor.task.answers
    pairs = [(getattr(e, field), getattr(p, field, None)) for e, p in zip(found.examples, found.predictions)]
    counts = Counter((a, b) for a, b in pairs if isinstance(a, str) and isinstance(b, str) and a != b)
    return [(a, b, count) for (a, b), count in counts.most_common(most)]


def _short(value: object) -> str:
    """Return a value on one line of at most 80 characters."""
    line = " ".join(str(value).split())
    return line if len(line) <= 80 else line[:79] + "…"
