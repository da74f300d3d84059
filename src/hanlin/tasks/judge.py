"""How a task's model is judged: on held-out rows, on the way and at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from hanlin.metrics.contract import Estimate
from hanlin.models.contract import Model
from hanlin.tasks import contract
from hanlin.tasks.contract import Settles, Task
from hanlin.tasks.predict import Predictor
from hanlin.text.tokenizer import Tokenizer
from hanlin.train.job import Examine, Verdict


def verdict(
    task: Task[Any, Any], model: Model[Any], tokenizer: Tokenizer, held: Sequence[Any], context: int
) -> Verdict:
    """Return the task as it goes into the bundle, with the scores of the held-out rows."""
    scores: dict[str, Estimate] = {}
    if held:
        predictor = Predictor(task, model, tokenizer, context=context)
        if isinstance(task, Settles):  # half the rows settle, the other half are scored: no row does both
            first, second = held[::2], held[1::2]
            settled: Task[Any, Any] = task.settled(first, predictor(first))
            task, held = settled, second or first
            predictor = Predictor(task, model, tokenizer, context=context)
        scores = task.score(held, predictor(held))
    kept = contract.saved(task)
    labels = tuple(str(each) for each in kept.get("labels", ()))
    plain = {name: asdict(each) for name, each in scores.items()}
    name = str(kept.pop("name"))
    return Verdict(task=name, settings={**kept, "context": context}, scores=plain, labels=labels)


def examine(
    task: Task[Any, Any], tokenizer: Tokenizer, valid: Sequence[Any], context: int, say: Callable[[str], None]
) -> Examine:
    """Return a function of (model, step) that scores the held-out rows."""

    def look(model: Model[Any], step: int) -> dict[str, float]:
        scores = task.score(valid, Predictor(task, model, tokenizer, context=context)(valid))
        say(f"step {step}: " + ", ".join(f"{name} {each.value:.4f}" for name, each in scores.items()))
        return {f"valid_{name}": each.value for name, each in scores.items()}

    return look
