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
from hanlin.errors import DataError, HanlinError, nearest, problem
from hanlin.metrics.contract import Estimate, Numbers
from hanlin.tasks import predict, rows
from hanlin.tasks.contract import Raw, Task
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
    raws: Sequence[Raw] = ()  # the rows of the file, one an example


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """One row that was answered badly."""

    number: int  # of the file, as rows.Raw counts
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
        raws=list(task.read(path)),
    )


def worst(predictor: Predictor[Any, Any], found: Answered, most: int = 20) -> list[Wrong]:
    """Return the rows that were answered worst, the worst first."""
    task = predictor.task
    order = np.argsort(found.marks, kind="stable")[:most]
    return [
        Wrong(
            number=found.raws[place].number if found.raws else int(place) + 1,
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


def slices(
    predictor: Predictor[Any, Any], found: Answered, column: str, most: int = 20
) -> list[tuple[str, int, Estimate | None]]:
    """Return (value, rows, main score) for each value of a column of the file, the commonest first.

    Values past `most` are put together as "(others)"; None where a score is undefined, as of too few rows. DataError
    for a column that no row has.
    """
    known = sorted({name for raw in found.raws for name in raw.values})
    if column not in known:
        raise DataError(problem("--slice", column, f"columns: {', '.join(known)}", nearest(column, known)))
    values = [_short(raw.values.get(column)) for raw in found.raws]
    kept = [value for value, _ in Counter(values).most_common(most)]
    places: dict[str, list[int]] = {value: [] for value in kept}
    for place, value in enumerate(values):
        places.setdefault(value if value in kept else "(others)", []).append(place)
    return [(value, len(at), _main(predictor.task, found, at)) for value, at in places.items()]


def _main(task: Task[Any, Any], found: Answered, places: Sequence[int]) -> Estimate | None:
    """Return the main score of some rows."""
    try:
        scores = task.score([found.examples[at] for at in places], [found.predictions[at] for at in places])
    except HanlinError:
        return None
    return scores.get(task.main)


def _short(value: object) -> str:
    """Return a value on one line of at most 80 characters."""
    line = " ".join(str(value).split())
    return line if len(line) <= 80 else line[:79] + "…"
