"""From labelled rows to a lesson: what is learned, what is held out, and how a finished model is judged.

    train.csv ─┬─ examples ─ fitted ─> the task with its labels ─ encode ─> Bucketed batches
               └─ a share held out, unless valid.csv is given ─> examined on the way, scored at the end

A text that stands twice goes to one side of the split, so nothing that was learned is scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanlin.data.batches import BatchSource
from hanlin.models.contract import Model
from hanlin.tasks import rows
from hanlin.tasks.batches import Bucketed
from hanlin.tasks.contract import Opens, Raw, Settles, Task
from hanlin.tasks.lesson import frozen, judge, reader
from hanlin.text.tokenizer import Tokenizer
from hanlin.train import model as models
from hanlin.train import recipe as recipes
from hanlin.train.job import Examine, Judge, Lesson
from hanlin.train.recipe import Recipe

Say = Callable[[str], None]
SPLIT = 0  # the held-out rows are the same whatever the run's seed: seeds can be compared


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a task's run works on."""

    task: Task[Any, Any]  # labels learned
    tokenizer: Tokenizer
    train: list[Any]
    valid: list[Any]  # empty where nothing is held out
    lesson: Lesson
    examine: Examine | None
    beside: judge.Beside  # what baselines answer to the held-out rows

    def told(self, folder: Path) -> list[str]:
        """Return the finished bundle's scores, and those of baselines on the same rows, a line each."""
        return judge.told(folder, self.task, self.valid, self.beside)


def material(recipe: Recipe, folder: Path, say: Say) -> Material:
    """Read a recipe's rows, learn labels and tokenizer from them, and say what was found."""
    asked = recipe.task
    assert isinstance(asked, Task), "the recipe has a task"
    train, valid = _sides(recipe, asked, say)
    task = asked.fitted(train if recipe.data.valid else [*train, *valid])
    texts = [text for each in train for text in task.texts(each)] if recipe.start is None else []
    tokenizer = reader.tokenizer(recipe.start, recipe.tokenizer, texts, folder)
    if isinstance(task, Opens):
        task = task.opened(models.foreseen(recipe))
    encoded = reader.encoded(task, train, tokenizer, recipe.plan.context, recipe.data.train)
    cut = sum(row.truncated > 0 for row in encoded)
    if cut:
        say(f"{cut:,} of {len(encoded):,} rows are longer than plan.context {recipe.plan.context} and were cut")
    plan, pad = recipe.plan, tokenizer.special.pad or 0
    beside = judge.baselines(task, train, valid, say)
    featured = frozen.adding(task, pad)

    def batches(model: Model[Any]) -> BatchSource:
        learned = encoded if featured is None else featured(model, encoded)
        return Bucketed(
            task,
            learned,
            rows=plan.rows_a_step,
            tokens=plan.tokens,
            seed=plan.seed,
            pad=pad,
            shortest_first=plan.shortest_first,
        )

    lesson = Lesson(
        objective=task.objective(),
        heads=task.heads(),
        batches=batches,
        hash=reader.hashed(task, [*train, *valid], len(train), tokenizer),
        size=f"{len(train):,} rows",
        judge=Judge(name=f"valid_{task.main}", unit="", higher=True),
        verdict=lambda model: judge.verdict(task, model, tokenizer, valid, plan.context, beside),
    )
    # What settles a temperature or a threshold in the end must not have said when to stop.
    where = recipe.data.valid or recipe.data.train
    held, seen = reader.encoded(task, valid, tokenizer, plan.context, where), valid
    if plan.patience is not None and isinstance(task, Settles):
        seen = valid[judge.halves(task, valid)[1]]
        held = reader.encoded(task, seen, tokenizer, plan.context, where)
    examine = judge.examine(task, tokenizer, seen, held, plan.context, say, featured) if seen else None
    return Material(
        task=task, tokenizer=tokenizer, train=train, valid=valid, lesson=lesson, examine=examine, beside=beside
    )


def _sides(recipe: Recipe, task: Task[Any, Any], say: Say) -> tuple[list[Any], list[Any]]:
    """Return the examples to learn from and those held out, having said what was read and how."""
    data = recipe.data
    where, limit = Path(recipes.corpus(data)), data.limit_rows

    def aside(raw: Raw) -> bool:
        return bool(data.held) and all(str(raw.values.get(key)) == value for key, value in data.held.items())

    how: dict[str, Any] = {"limit": limit, "keep": lambda raw: not aside(raw), "spare": data.bad_rows, "say": say}
    train, taken = rows.examples(task, where, data.columns, labelled=True, **how)
    columns = ", ".join(f"{field} is '{column}'" for field, column in taken.items())
    say(f"{data.train}: {len(train):,} rows; {columns}")
    if data.valid is not None:
        valid, _ = rows.examples(task, Path(data.valid), data.columns, labelled=True)
        say(f"{data.valid}: {len(valid):,} rows held out")
        return train, valid
    if data.held:
        valid, _ = rows.examples(task, where, data.columns, labelled=True, keep=aside)
        named = ", ".join(f"{key} is {value}" for key, value in data.held.items())
        say(f"{len(valid):,} rows, whose {named}, are held out")
        return train, valid
    kept, valid = rows.divided(task, train, data.valid_fraction, SPLIT)
    say(f"{len(valid):,} of them are held out" if valid else "no row is held out: the run is not examined on its way")
    return kept, valid
