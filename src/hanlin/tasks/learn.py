"""From labelled rows to a lesson: what is learned, what is held out, and how a finished model is judged.

    train.csv ─┬─ examples ─ fitted ─> the task with its labels ─ encode ─> Bucketed batches
               └─ a share held out, unless valid.csv is given ─> examined on the way, scored at the end

A text that stands twice goes to one side of the split, so nothing that was learned is scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanlin import files, hub
from hanlin.config import dump
from hanlin.data.batches import BatchSource
from hanlin.models.contract import Model
from hanlin.tasks import contract, judge, rows
from hanlin.tasks.batches import Bucketed
from hanlin.tasks.contract import Example, Task
from hanlin.text import tokenizer as tokenizers
from hanlin.text.tokenizer import Tokenizer
from hanlin.train.job import Examine, Judge, Lesson
from hanlin.train.recipe import Recipe

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a task's run works on."""

    task: Task[Any, Any]  # labels learned
    tokenizer: Tokenizer
    train: list[Any]
    valid: list[Any]  # empty where nothing is held out
    lesson: Lesson
    examine: Examine | None


def material(recipe: Recipe, folder: Path, say: Say) -> Material:
    """Read a recipe's rows, learn labels and tokenizer from them, and say what was found."""
    asked = recipe.task
    assert isinstance(asked, Task), "the recipe has a task"
    train, valid = _sides(recipe, asked, say)
    task = asked.fitted(train if recipe.data.valid else [*train, *valid])
    tokenizer = _tokenizer(recipe, task, train, folder)
    encoded = task.encode(train, tokenizer, recipe.plan.context)
    cut = sum(row.truncated > 0 for row in encoded)
    if cut:
        say(f"{cut:,} of {len(encoded):,} rows are longer than plan.context {recipe.plan.context} and were cut")
    plan = recipe.plan

    def batches(model: Model[Any]) -> BatchSource:
        pad = tokenizer.special.pad or 0
        return Bucketed(task, encoded, rows=plan.rows_a_step, tokens=plan.tokens, seed=plan.seed, pad=pad)

    lesson = Lesson(
        objective=task.objective(),
        heads=task.heads(),
        batches=batches,
        hash=_hash(task, [*train, *valid], len(train), tokenizer),
        size=f"{len(train):,} rows",
        judge=Judge(name=f"valid_{task.main}", unit="", higher=True),
        verdict=lambda model: judge.verdict(task, model, tokenizer, valid, plan.context),
    )
    examine = judge.examine(task, tokenizer, valid, plan.context, say) if valid else None
    return Material(task=task, tokenizer=tokenizer, train=train, valid=valid, lesson=lesson, examine=examine)


def _sides(recipe: Recipe, task: Task[Any, Any], say: Say) -> tuple[list[Any], list[Any]]:
    """Return the examples to learn from and those held out, having said what was read and how."""
    data = recipe.data
    train, taken = rows.examples(task, Path(data.train), data.columns, labelled=True, limit=data.limit_rows)
    columns = ", ".join(f"{field} is '{column}'" for field, column in taken.items())
    say(f"{data.train}: {len(train):,} rows; {columns}")
    if data.valid is not None:
        valid, _ = rows.examples(task, Path(data.valid), data.columns, labelled=True)
        say(f"{data.valid}: {len(valid):,} rows held out")
        return train, valid
    kept, valid = rows.divided(task, train, data.valid_fraction, recipe.plan.seed)
    say(f"{len(valid):,} of them are held out" if valid else "no row is held out: the run is not examined on its way")
    return kept, valid


def _tokenizer(recipe: Recipe, task: Task[Any, Any], train: Sequence[Any], folder: Path) -> Tokenizer:
    """Return the tokenizer of the model to start from, or one made of the training rows' texts, once."""
    if recipe.start is not None:
        return Tokenizer.load(hub.fetch(recipe.start).folder)
    own = folder / "data"
    if (own / "tokenizer.json").exists():
        return Tokenizer.load(own)
    made = tokenizers.build(recipe.tokenizer, [text for each in train for text in task.texts(each)])
    with files.explained(folder), files.filling(own) as partial:
        made.save(partial)
    return Tokenizer.load(own)


def _hash(task: Task[Any, Any], examples: Sequence[Example], learned: int, tokenizer: Tokenizer) -> str:
    """Return a hash of everything that is learned from and held out, and how it is read."""
    found = hashlib.sha256(json.dumps([contract.saved(task), learned, tokenizer.hash]).encode())
    for each in examples:
        found.update(json.dumps(dump(each), sort_keys=True, default=str).encode(errors="surrogatepass") + b"\n")
    return found.hexdigest()
