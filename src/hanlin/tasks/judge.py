"""How a task's model is judged: on held-out rows, on the way and at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hanlin.errors import HanlinError
from hanlin.metrics.contract import Estimate
from hanlin.models.contract import Model
from hanlin.tasks import contract
from hanlin.tasks.contract import Baselined, Pools, Row, Settles, Task
from hanlin.tasks.lesson import baselines as simple
from hanlin.tasks.predict import Predictor
from hanlin.text.tokenizer import Tokenizer
from hanlin.train.job import Examine, Verdict

Featured = Callable[[Model[Any], Sequence[Row]], list[Row]]
Beside = Mapping[str, Sequence[Any]]  # a baseline's name -> its predictions for the held-out rows


def verdict(
    task: Task[Any, Any],
    model: Model[Any],
    tokenizer: Tokenizer,
    held: Sequence[Any],
    context: int,
    beside: Beside | None = None,
) -> Verdict:
    """Return the task as it goes into the bundle, with the scores of the held-out rows and of baselines beside."""
    scores: dict[str, Estimate] = {}
    others = dict(beside or {})
    if held:
        predictions = Predictor(task, model, tokenizer, context=context)(held)
        if isinstance(task, Settles) and len(held) > 1:  # half the rows settle, the others are scored: no row does both
            task = task.settled(held[::2], predictions[::2])
            held, others = held[1::2], {name: each[1::2] for name, each in others.items()}
            predictions = Predictor(task, model, tokenizer, context=context)(held)
        scores = task.score(held, predictions)
    kept = contract.saved(task)
    name, labels = str(kept.pop("name")), tuple(str(each) for each in kept.get("labels", ()))
    return Verdict(
        task=name,
        settings={**kept, "context": context},
        scores={name: asdict(each) for name, each in scores.items()},
        labels=labels if len(labels) in task.heads().values() else (),  # they may be something else than outputs
        beside=tuple(compared(task, held, others)),
        pooling=task.pooling(context) if isinstance(task, Pools) else None,
    )


def compared(task: Task[Any, Any], held: Sequence[Any], beside: Beside) -> list[tuple[str, str]]:
    """Return (baseline, its main score in words); a score that is undefined, as of a constant's rank, is said so."""
    found = []
    for name, predictions in beside.items():
        try:
            each = task.score(held, predictions)[task.main]
            found.append((name, f"{task.main} {each.value:.4f}"))
        except HanlinError:
            found.append((name, f"{task.main} undefined"))
    return found


def baselines(task: Task[Any, Any], train: Sequence[Any], valid: Sequence[Any], say: Callable[[str], None]) -> Beside:
    """Return the baselines' answers to the held-out rows, having said how good they are; {} where there are none."""
    if not valid or not isinstance(task, Baselined):
        return {}
    found = task.baselines(train, valid)
    say("to beat: " + ", ".join(f"{name} {score}" for name, score in compared(task, valid, found)))
    if simple.LINEAR not in found:
        say(simple.EXTRA)
    return found


def examine(
    task: Task[Any, Any],
    tokenizer: Tokenizer,
    valid: Sequence[Any],
    encoded: Sequence[Row],
    context: int,
    say: Callable[[str], None],
    featured: Featured | None = None,
) -> Examine:
    """Return a function of (model, step) that scores held-out rows, `encoded` once for all times.

    `featured` adds to the rows what a model that stands still says of them, once as well.
    """
    kept: list[Sequence[Row]] = []

    def look(model: Model[Any], step: int) -> dict[str, float]:
        if not kept:
            kept.append(encoded if featured is None else featured(model, encoded))
        scores = task.score(valid, Predictor(task, model, tokenizer, context=context).answer(valid, kept[0]))
        say(f"step {step}: " + ", ".join(f"{name} {each.value:.4f}" for name, each in scores.items()))
        return {f"valid_{name}": each.value for name, each in scores.items()}

    return look
