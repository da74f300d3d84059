"""AG News by the names of its topics alone, asked of a model that learned what follows from what (SNLI and RTE).

python -m benchmarks.tasks.zeroshot [FOLDER] [key=value …]      HANLIN_DATA names the folder that holds data/

Trains the recipe `nli` on both sets, told apart as entailment or not, and keeps the run in FOLDER. No row of AG News is
learned from, and no name or template was chosen by them.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.scores import recipe_of
from benchmarks.table import heading, rows
from benchmarks.tasks.choice import read
from hanlin import bundle
from hanlin.evaluation import rows as scoring
from hanlin.tasks import zeroshot
from hanlin.tasks.predict import Predictor, opened
from hanlin.train import recipe as recipes
from hanlin.verbs.train import learn

SETS = {"train": ("snli/train.jsonl.gz", "rte/train.jsonl"), "valid": ("snli/dev.jsonl", "rte/dev.jsonl")}
NAMES = {"World": "world politics", "Sports": "sports", "Business": "business", "Sci/Tech": "science and technology"}


def pairs(data: Path, name: str) -> str:
    """Return the rows of both sets as lines, with two labels."""
    found = [row for each in SETS[name] for row in read(data / "nli" / each)]
    for row in found:
        row["label"] = "entailment" if row["label"] == "entailment" else "not_entailment"
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


def main() -> None:
    """Train where there is no run yet, score and print the table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", type=Path, nargs="?", default=Path("runs/scores/zeroshot"))
    given, overrides = asked.parse_known_args()
    data = Path(os.environ.get("HANLIN_DATA", "../shared")) / "data"
    run = given.folder / "run"
    if not (run / "hanlin.json").exists():
        given.folder.mkdir(parents=True, exist_ok=True)
        for name in SETS:
            (given.folder / f"{name}.jsonl").write_text(pairs(data, name), encoding="utf-8")
        told = [f"data.{name}={given.folder}/{name}.jsonl" for name in SETS]
        learn(recipes.load(str(recipe_of("nli", (), given.folder)), [*told, *overrides]), run)
    predictor = opened(bundle.read(run))
    columns = {"text": "premise", "pair": "hypothesis", "label": "label"}
    learned = scoring.answer(predictor, given.folder / "valid.jsonl", columns).scores["accuracy"]
    model = predictor.model
    task = zeroshot.suited(zeroshot.Config(labels=tuple(NAMES), words=NAMES), model, predictor.task.labels)
    asker = Predictor(task, model, predictor.tokenizer)
    found = scoring.answer(asker, data / "classification/agnews/dev.jsonl", {}).scores
    print(heading("Topics that are only named", "python -m benchmarks.tasks.zeroshot"))
    table = {"what follows, SNLI and RTE held out": learned, "AG News, accuracy": found["accuracy"]}
    print(rows(["", "value (95 % interval)", "rows"], [
        [name, f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})", each.n] for name, each in table.items()
    ]))  # fmt: skip


if __name__ == "__main__":
    main()
