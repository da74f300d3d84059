"""Features computed once: where the model itself stands still, its head alone is trained, in seconds.

    row ─ model, once ─> its first token's state, or the mean of all (D,) ─┬─ kept in the row
                                                                           └─ every step: head(states) ─> scores

What is kept is what the head would have read, so a model trained so is an ordinary one: it is saved, opened and asked
like any other. Letters: B rows, D dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hanlin.batch import move
from hanlin.errors import AbilityError, problem
from hanlin.models.contract import Model
from hanlin.nn.heads import first, pool
from hanlin.tasks.batches import in_turn
from hanlin.tasks.contract import Freezes, Row, Task

TOKENS, ROWS = 8192, 256  # of a batch


def adding(task: Task[Any, Any], pad: int) -> Callable[[Model[Any], Sequence[Row]], list[Row]] | None:
    """Return what adds features to rows where the task trains its head alone; all else in the model then stands still.

    None where the task trains the whole model.
    """
    if not isinstance(task, Freezes) or task.frozen_head is None:
        return None
    head, reads = task.frozen_head, task.reads

    def add(model: Model[Any], encoded: Sequence[Row]) -> list[Row]:
        for name, each in model.named_parameters():
            each.requires_grad_(name.startswith(f"heads.{head}."))
        return featured(task, model, encoded, pad, head, reads)

    return add


@torch.inference_mode()
def featured(
    task: Task[Any, Any],
    model: Model[Any],
    encoded: Sequence[Row],
    pad: int,
    head: str,
    reads: Literal["first", "mean"] = "first",
) -> list[Row]:
    """Return the rows with what `head` reads of each; AbilityError for a head that reads more than one state."""
    found: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(encoded)
    was_training = model.training
    model.eval()
    try:
        for places in in_turn(encoded, TOKENS, ROWS):
            batch = move(task.collate([encoded[place] for place in places], pad), model.device)
            hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds)
            states = pool(hidden, batch.layout, "mean") if reads == "mean" else first(hidden, batch.layout)
            if reads == "first":
                whole, alone = model.heads[head](hidden, batch.layout), model.heads[head](states[:, None], None)
                if not torch.allclose(whole.float(), alone.float(), atol=1e-2, rtol=1e-2):
                    given = "its head reads more than the first token's state"
                    raise AbilityError(problem("task.frozen", given, do="leave frozen out"))
            for place, state in zip(places, states.float().cpu().numpy()):
                found[place] = state
    finally:
        model.train(was_training)
    return [replace(row, features=each) for row, each in zip(encoded, found)]
