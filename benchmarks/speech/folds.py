"""Spoken digits of a speaker nobody learned from: one run for each of the six, and their mean.

python -m benchmarks.speech.folds [FOLDER] [--only theo] [key=value ...]      HANLIN_DATA for data/speech/fsdd

A run that is there already is not repeated: its score is read. `key=value` changes the recipe `fsdd`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.table import heading, rows
from hanlin.config import read_json
from hanlin.train import recipe as recipes
from hanlin.verbs.train import learn

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


def fold(folder: Path, speaker: str, overrides: list[str]) -> dict[str, dict[str, float]]:
    """Return the scores on a speaker of a model that learned from the five others."""
    card = folder / speaker / "hanlin.json"
    if not card.exists():
        recipe = recipes.load("fsdd", overrides)
        data = recipe.data.model_copy(update={"held": {"speaker": speaker}})
        learn(recipe.model_copy(update={"data": data}), folder / speaker)
    scores: dict[str, dict[str, float]] = read_json(card)["scores"]
    return scores


def main() -> None:
    """Run the folds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/fsdd-folds"))
    parser.add_argument("--only", choices=SPEAKERS, action="append", help="this speaker; may be given again")
    given, overrides = parser.parse_known_args()
    lines, values = [], []
    for speaker in given.only or SPEAKERS:
        exact = fold(given.folder, speaker, overrides)["exact"]
        values.append(exact["value"])
        lines.append([speaker, int(exact["n"]), f"{exact['value']:.3f} ({exact['low']:.3f} to {exact['high']:.3f})"])
    lines.append(["mean", "", f"{sum(values) / len(values):.3f}"])
    print(
        heading("Digits of a speaker nobody learned from", " ".join(["python -m benchmarks.speech.folds", *overrides]))
    )
    print(rows(["speaker", "recordings", "exact"], lines))


if __name__ == "__main__":
    main()
