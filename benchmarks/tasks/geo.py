"""Geo880's questions to SQL in five folds of the 598 shared rows, the nearest question's query beside each.

python -m benchmarks.tasks.geo [--folds 5] [--only 0 1] [--output runs/geo-folds] [key=value …]

HANLIN_DATA names the folder that holds data/. Each fold trains the recipe `geo880` (with the overrides given) on the
other four. Rows whose own query finds nothing are left out of accuracy; order counts only under ORDER BY.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import heading, rows
from hanlin import bundle
from hanlin.evaluation import rows as scoring
from hanlin.tasks import parse, predict
from hanlin.tasks.sql import form
from hanlin.tasks.sql.nearest import Nearest
from hanlin.tasks.sql.slots import filled
from hanlin.train import recipe as recipes
from hanlin.verbs.train import learn

HOME = Path(os.environ.get("HANLIN_DATA", ".")) / "data/parsing/geo880_sql"


def folds(given: Sequence[Any], count: int, seed: int = 0) -> list[list[Any]]:
    """Return the rows in `count` parts of nearly equal size, shuffled once."""
    order = random.Random(seed).sample(list(given), len(given))
    return [order[part::count] for part in range(count)]


def nearest(task: parse.Config, train: Sequence[parse.Example], held: Sequence[parse.Example]) -> float:
    """Return the execution accuracy of the nearest training question's query."""
    taken = [task._taken(each) for each in train]
    kept = [(source, said) for source, said, _ in taken if said]
    answer = Nearest([source for source, _ in kept], [said for _, said in kept])
    found = []
    for each in held:
        source, _, texts = task._taken(each)
        said = filled(answer(source), texts)
        found.append(parse.Prediction(query="" if said is None else form.sql(said), complete=said is not None))
    return task.score(held, found)["exec_accuracy"].value


def fold(folder: Path, train: Sequence[Any], held: Sequence[Any], overrides: Sequence[str]) -> dict[str, float]:
    """Train on some rows, score the others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", train), ("held", held)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in part), encoding="utf-8")
    given = [f"data.train={folder}/train.jsonl", f"data.valid={folder}/held.jsonl", *overrides]
    learn(recipes.load("geo880", given), folder / "run")
    predictor = predict.opened(bundle.read(folder / "run"))
    found = scoring.answer(predictor, folder / "held.jsonl", {})
    task = predictor.task
    assert isinstance(task, parse.Config), "the recipe's task"
    examples = [task.example({"question": each["question"], "query": each["sql"]}) for each in train]
    return {name: each.value for name, each in found.scores.items()} | {
        "nearest": nearest(task, examples, found.examples),
        "counted": float(found.scores["exec_accuracy"].n),
        "foreign": float(task.foreign),
    }


def main() -> None:
    """Print a line a fold and the mean."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--folds", type=int, default=5)
    asked.add_argument("--only", type=int, nargs="*")
    asked.add_argument("--output", type=Path, default=Path("runs/geo-folds"))
    asked.add_argument("overrides", nargs="*")
    given = asked.parse_args()
    names = ("train", "dev")
    lines = [line for name in names for line in (HOME / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    parts = folds([json.loads(line) for line in lines], given.folds)
    print(heading("Geo880: questions to SQL", "python -m benchmarks.tasks.geo"))
    keys = ("exec_accuracy", "nearest", "complete", "explained", "counted", "foreign")
    found = []
    chosen = given.only or range(given.folds)
    for number in chosen:
        train = [row for at, part in enumerate(parts) if at != number for row in part]
        found.append(fold(given.output / str(number), train, parts[number], given.overrides))
    lines = [[number, *(f"{each[key]:.3f}" for key in keys)] for number, each in zip(chosen, found)]
    means = ["mean", *(f"{sum(each[key] for each in found) / len(found):.3f}" for key in keys)]
    print(rows(("fold", *keys), [*lines, means]))


if __name__ == "__main__":
    main()
