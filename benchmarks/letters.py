"""Tiny Shakespeare by letters: the recipes that learn it beside an n-gram, on the last tenth scored whole.

python -m benchmarks.letters [--recipes shakespeare shakespeare-15min] [--runs runs/letters] [--order 6]

HANLIN_DATA names the folder that holds data/. A recipe is scored in windows of its own context that do not overlap, and
once more in windows that overlap by half of it, so that no letter is without neighbours. Finished runs are kept.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import time
from pathlib import Path

import numpy as np

from benchmarks import ngram
from benchmarks.table import heading, rows
from hanlin.train import folder, recipe
from hanlin.verbs import evaluate, train

FILE = "data/lm/tinyshakespeare/input.txt.gz"


def of_ngram(path: Path, order: int) -> list[str]:
    """Return the row of the n-gram."""
    text = gzip.decompress(path.read_bytes()).decode()
    letters = {each: number for number, each in enumerate(sorted(set(text)))}
    ids = np.array([letters[each] for each in text], dtype=np.int64)
    place = int(len(ids) * 0.9)
    began = time.perf_counter()
    found = ngram.nats(ids[:place], ids[place:], len(letters), order)
    return [f"Kneser-Ney n-gram of order {order}", f"{found:.4f}", "", f"{time.perf_counter() - began:.1f}", ""]


def of_recipe(name: str, runs: Path) -> list[str]:
    """Train by a recipe where that was not done; return its row."""
    made, run = recipe.load(name), runs / name
    if not (run / "hanlin.json").exists():
        train.learn(made, run)
    window = made.plan.context
    plain, half = (_nats(run, window, overlap) for overlap in (0, window // 2))
    timed = [json.loads(line) for line in (run / "timing.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = sum(each["seconds"] for each in timed)
    resolved = folder.resolved(run)
    steps = resolved.plan.steps if resolved else None
    return [name, f"{plain:.4f}", f"{half:.4f}", f"{seconds:.1f}", f"{steps:,} steps" if steps else ""]


def _nats(run: Path, context: int, overlap: int) -> float:
    """Return nats a letter of the held-out text."""
    scores = evaluate.evaluate(evaluate.Config(model=str(run), context=context, overlap=overlap))
    return math.log(scores.perplexity.value)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="*", default=["shakespeare", "shakespeare-15min"])
    parser.add_argument("--runs", type=Path, default=Path("runs/letters"))
    parser.add_argument("--order", type=int, default=6)
    given = parser.parse_args()
    lines = [of_ngram(Path(os.environ.setdefault("HANLIN_DATA", "../shared")) / FILE, given.order)]
    lines += [of_recipe(name, given.runs) for name in given.recipes]
    print(heading("Tiny Shakespeare by letters", "python -m benchmarks.letters"))
    print(rows(["", "nats a letter", "windows overlap by half", "seconds of steps", ""], lines))


if __name__ == "__main__":
    main()
