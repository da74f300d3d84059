"""Several runs of one recipe with different seeds: the median is kept as the bundle, the spread stands on its card.

    runs/x/seeds/0  runs/x/seeds/1  runs/x/seeds/2     ordinary runs, each resumed where it was cut
    runs/x                                             the files of the median one, and seeds.json

One run of a small model on few rows says little: seeds alone move a score by points (Dodge et al., arXiv 2002.06305).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hanlin import files
from hanlin.config import read_json
from hanlin.errors import ConfigError, RunError, problem
from hanlin.train.recipe import Recipe

FOLDER, SPREAD = "seeds", "seeds.json"
PRIVATE = ("run.json", "checkpoints", ".lock", "tensorboard", "data")  # of a run, and no part of what it made


def claim(folder: Path, recipe: Recipe, *, fresh: bool) -> str:
    """Make the folder of several runs and return the score that decides; `fresh` removes earlier runs.

    RunError where something else lies there, ConfigError for a recipe without a task.
    """
    if recipe.task is None:
        raise ConfigError(problem("--seeds", recipe.data.train, "a task's rows, whose score says which run is kept"))
    others = [] if not folder.exists() else sorted(each.name for each in folder.iterdir())
    if others and FOLDER not in others:
        raise RunError(problem(str(folder), f"holds '{others[0]}' and no runs of several seeds", do="choose another"))
    if fresh and others:
        files.discard(folder)
    with files.explained(folder):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    return str(recipe.task.main)


def median(scores: Sequence[float]) -> int:
    """Return the place of the median; of an even number the lower of the middle two, so that it flatters nobody.

    >>> median([0.9, 0.7, 0.8]), median([0.9, 0.8])
    (2, 1)
    """
    order = sorted(range(len(scores)), key=lambda place: scores[place])
    return order[(len(scores) - 1) // 2]


def gather(folder: Path, runs: Mapping[int, Path], main: str) -> str:
    """Put the median run's files into the folder, its card naming all scores; return them in one line."""
    found: dict[int, float] = {seed: _score(run, main) for seed, run in runs.items()}
    kept = list(found)[median(list(found.values()))]
    with files.explained(folder):
        for path in sorted(runs[kept].iterdir()):
            if path.name not in PRIVATE and not path.name.startswith(files.PARTIAL):
                _copy(path, folder / path.name)
    spread = {"score": main, "seeds": {str(seed): value for seed, value in found.items()}, "kept": kept}
    files.write_json(folder / SPREAD, spread)
    values = ", ".join(f"{value:.4f}" for value in sorted(found.values()))
    line = f"{main} of {len(found)} seeds {values}; seed {kept}, the median, is kept"
    card = (folder / "README.md").read_text(encoding="utf-8")
    card = card.replace(str(runs[kept]), str(folder)).replace(f"\n# {runs[kept].name}\n", f"\n# {folder.name}\n")
    card = card.replace("|---|---|\n", f"|---|---|\n| over seeds | {line} |\n", 1)
    files.write(folder / "README.md", card.encode())
    return line


def _score(run: Path, main: str) -> float:
    """Return the main score in a finished run's bundle."""
    scores: Mapping[str, Any] = read_json(run / "hanlin.json").get("scores", {})
    if main not in scores:
        do = "raise data.valid_fraction, or name data.valid"
        raise RunError(problem(str(run), f"no score '{main}'", "a median needs held-out rows", do=do))
    return float(scores[main]["value"])


def _copy(path: Path, to: Path) -> None:
    """Copy a file, or a folder of them."""
    if path.is_dir():
        shutil.copytree(path, to, dirs_exist_ok=True)
    else:
        shutil.copy2(path, to)
