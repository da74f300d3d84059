"""What an opened model can do besides continuing text, and the queues for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hanlin import registry
from hanlin.bundle import Bundle
from hanlin.errors import BundleError
from hanlin.generate.embed import vectors
from hanlin.models.contract import Decodes, Encodes
from hanlin.models.sentences import Pooling
from hanlin.serve.tasks.bulk import Bulk
from hanlin.tasks.predict import Predictor, opened

TASKLESS = ("", "generate", "encode")


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a model is served for."""

    task: str  # "generate", a task's name, or "" where vectors are all it gives
    writes: bool  # continues text, or answers it
    predictor: Predictor[Any, Any] | None
    pooling: Pooling | None  # how its vectors are made, None where it makes none

    @property
    def useless(self) -> bool:
        """Return whether no route could do anything with it."""
        return not self.writes and self.predictor is None and self.pooling is None


def abilities(found: Bundle) -> Abilities:
    """Return what a model can do; HanlinError for a task that this version cannot open."""
    predictor = None if found.task in TASKLESS else _predictor(found)
    reads = isinstance(found.model, Encodes)  # a source, which is text where the model is for no task
    writes = isinstance(found.model, Decodes) and predictor is None and (not reads or found.task in TASKLESS)
    return Abilities(
        task=registry.name_of("tasks", type(predictor.task)) if predictor else "generate" if writes else "",
        writes=writes,
        predictor=predictor,
        pooling=None if reads else found.pooling or Pooling(),
    )


def _predictor(found: Bundle) -> Predictor[Any, Any] | None:
    """Return the predictor; None for a folder that no task has been saved in: its heads alone say what for."""
    try:
        return opened(found)
    except BundleError:
        if found.card.get("settings"):
            raise
        return None


def bulks(found: Bundle, able: Abilities, queue: int) -> Mapping[str, Bulk]:
    """Return a queue for each thing that is answered whole: `predict`, `embed`."""
    made = {}
    if able.predictor is not None:
        made["predict"] = Bulk(able.predictor.run, lambda row: row.length, queue=queue)
    if able.pooling is not None:
        pooling = able.pooling

        def embed(sequences: Sequence[Sequence[int]]) -> Sequence[Any]:
            return list(vectors(found.model, sequences, pooling))

        made["embed"] = Bulk(embed, len, queue=queue)
    return made
