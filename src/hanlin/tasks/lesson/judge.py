"""How a task's model is judged: on held-out rows, on the way and at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hanlin.config import read_json
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
        settle, score = halves(task, held)
        if isinstance(task, Settles) and held[settle]:
            task = task.settled(held[settle], predictions[settle])
            held, others = held[score], {name: each[score] for name, each in others.items()}
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


def halves(task: Task[Any, Any], held: Sequence[Any]) -> tuple[slice, slice]:
    """Return which held-out rows settle a temperature or a threshold, and which are scored: no row does both."""
    if not isinstance(task, Settles) or len(held) < 2:
        return slice(0, 0), slice(None)
    return slice(0, None, 2), slice(1, None, 2)


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


def told(folder: Path, task: Task[Any, Any], valid: Sequence[Any], beside: Beside) -> list[str]:
    """Return a finished bundle's scores and those of the baselines on the same rows, a line each."""
    held = halves(task, valid)[1]
    lines = [
        f"{name:16} {each['value']:8.4f}   95 % interval {each['low']:.4f} to {each['high']:.4f} over {each['n']:,}"
        for name, each in read_json(folder / "hanlin.json")["scores"].items()
    ]
    others = {name: each[held] for name, each in beside.items()}
    return [*lines, *(f"{name}: {score}" for name, score in compared(task, valid[held], others))]


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
