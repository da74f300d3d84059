"""Answers: any number of examples through a model in batches of like length, in the order in which they were asked.

The same function answers for the command line, Python, HTTP and scoring, so all four agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic

import torch

from hanlin import registry
from hanlin.batch import move
from hanlin.bundle import Bundle
from hanlin.config import parse
from hanlin.errors import BundleError, DataError, problem
from hanlin.models import purpose
from hanlin.models.contract import Model
from hanlin.tasks import contract
from hanlin.tasks.batches import in_turn
from hanlin.tasks.contract import E, Opens, P, Row, Task
from hanlin.tasks.reading import schemes
from hanlin.text.tokenizer import Tokenizer

TOKENS = 8192  # of a batch, padding included
ROWS = 256  # of a batch
CHUNK = 2048  # examples encoded and sorted together
KINDS = {"multi_label_classification": "multi", "regression": "rating"}  # by Hugging Face's problem_type


class Predictor(Generic[E, P]):
    """A task, a model that carries its heads, and a tokenizer."""

    def __init__(
        self, task: Task[E, P], model: Model[Any], tokenizer: Tokenizer, *, context: int | None = None
    ) -> None:
        """Keep the three; `context` is the most tokens a row may have, the model's own where left out."""
        task = task.opened(model.config) if isinstance(task, Opens) else task
        self.task, self.model, self.tokenizer = task, model, tokenizer
        self.context = min(context or model.config.context, model.config.context)
        self.truncated = 0  # tokens cut off so far
        missing = [name for name in task.heads() if name not in model.heads]
        if missing:
            given = f"has no head '{missing[0]}'"
            raise DataError(problem(type(model).__name__, given, do="train it for this task first"))

    def __call__(self, examples: Sequence[E]) -> list[P]:
        """Return the prediction for each example."""
        return list(self.stream(examples))

    def stream(self, examples: Iterable[E]) -> Iterator[P]:
        """Yield the predictions in order; a few thousand examples are held at a time."""
        waiting = iter(examples)
        while chunk := list(islice(waiting, CHUNK)):
            yield from self.answer(chunk, self.encode(chunk))

    def encode(self, examples: Sequence[E]) -> list[Row]:
        """Return the rows of examples as the model reads them."""
        rows = self.task.encode(examples, self.tokenizer, self.context)
        self.truncated += sum(row.truncated for row in rows)
        return rows

    def answer(self, examples: Sequence[E], rows: Sequence[Row]) -> list[P]:
        """Return the predictions of examples whose rows, as `encode` gave them, are at hand."""
        return self.decode(examples, rows, self.run(rows))

    def run(self, rows: Sequence[Row]) -> list[Any]:
        """Return the output of each row; whose rows stand together changes none of them."""
        outputs: list[Any] = [None] * len(rows)
        pad = self.tokenizer.special.pad or 0
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for places in in_turn(rows, TOKENS, ROWS):
                    batch = move(self.task.collate([rows[place] for place in places], pad), self.model.device)
                    for place, output in zip(places, self.task.run(self.model, batch, self.tokenizer), strict=True):
                        outputs[place] = output
        finally:
            self.model.train(was_training)
        return outputs

    def decode(self, examples: Sequence[E], rows: Sequence[Row], outputs: Sequence[Any]) -> list[P]:
        """Return what the outputs of the examples' rows say."""
        own: list[list[int]] = [[] for _ in examples]
        for place, row in enumerate(rows):
            own[row.example].append(place)
        return [
            self.task.decode(example, [rows[at] for at in places], [outputs[at] for at in places], self.tokenizer)
            for example, places in zip(examples, own)
        ]


def opened(found: Bundle) -> Predictor[Any, Any]:
    """Return the predictor of an open bundle, ours or anyone's; BundleError when it was trained for no task."""
    if found.task in ("generate", "encode", ""):
        raise BundleError(problem(str(found.folder), "made for no task", do="train it for one: model.from names it"))
    if "task" not in found.card:
        return Predictor(_foreign(found), found.model, found.tokenizer)
    settings = {"name": found.card["task"], **found.card.get("settings", {})}
    context = settings.pop("context", None)
    task = contract.restored(settings, f"{found.folder}/hanlin.json")
    return Predictor(task, found.model, found.tokenizer, context=context)


def _foreign(found: Bundle) -> Task[Any, Any]:
    """Return the task that a folder made elsewhere is for, by the head that its config.json names and its labels.

    Scores without names are LABEL_0, LABEL_1, …, as in Hugging Face; one score alone is a rating.
    """
    config, settings = found.model.config, dict[str, Any]()
    if found.task in ("classify", "tag"):
        said = str(config.extra.get("problem_type"))
        labels = found.labels or tuple(f"LABEL_{place}" for place in range(purpose.outputs(config)))
        kind = KINDS.get(said, "single") if len(labels) > 1 else "rating"
        settings = {"kind": kind, "labels": () if kind == "rating" else labels}
    if found.task == "tag":
        settings = {"labels": labels, "scheme": schemes.scheme_of(labels), "unit": "word", "joint": False}
    if found.task == "similar" and found.pooling is not None:
        settings = {"how": found.pooling.how}
    made: type[Task[Any, Any]] = registry.load("tasks", found.task).Config
    return parse(made, settings, str(found.folder))
