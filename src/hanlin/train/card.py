"""What a finished run leaves: the bundle with its lineage for machines, README.md and a picture for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hanlin import bundle, files
from hanlin.text.tokenizer import Tokenizer
from hanlin.train.job import Job, Lesson, Outcome


def finish(folder: Path, job: Job, outcome: Outcome, tokenizer: Tokenizer, lesson: Lesson) -> str:
    """Write bundle, picture and card, the best weights where the plan has patience; return one line of result.

    Step and score are those of the weights that are written.
    """
    progress = outcome.progress
    step, loss = progress.step, progress.valid
    if job.plan.patience is not None and progress.best_step is not None:
        step, loss = progress.best_step, progress.best
        job.model.load_state_dict(dict(job.checkpoints.read(step).model))
    scores = {} if loss is None else {"valid_loss": {"value": loss, "unit": "nats/token"}}
    bundle.write(folder, job.model, tokenizer, lineage=_lineage(job, step, lesson.hash, tokenizer.hash), scores=scores)
    job.report.picture()
    _card(folder, job, step, lesson.size, scores)
    how = "stopped early, for want of improvement," if outcome.early else "done"
    kept = "" if step == progress.step else f", weights of step {step}"
    valid = "" if loss is None else f", valid_loss {loss:.4f} nats/token"
    return f"{how} at step {progress.step} of {job.plan.steps}{kept}{valid}"


def _lineage(job: Job, step: int, data: str, tokenizer: str) -> dict[str, Any]:
    """Return where a model comes from: hashes of recipe and data, versions, steps."""
    return {
        "recipe_and_data": job.belongs,
        "data": data,
        "tokenizer": tokenizer,
        "steps": step,
        "seed": job.plan.seed,
        "versions": {"hanlin": version("hanlin"), "torch": torch.__version__, "python": platform.python_version()},
    }


def _card(folder: Path, job: Job, step: int, size: str, scores: Mapping[str, Any]) -> None:
    """Write the model card, README.md."""
    parameters = sum(each.numel() for each in job.model.parameters())
    rows = [
        ("family", type(job.model).__name__),
        ("parameters", f"{parameters:,}"),
        ("context", f"{job.model.config.context} tokens"),
        ("vocabulary", f"{job.model.config.vocab:,} tokens"),
        ("learned from", size),
        ("steps", f"{step:,} of {job.plan.rows_a_step * job.plan.context:,} tokens"),
        *((name, f"{each['value']:.4f} {each['unit']}") for name, each in scores.items()),
    ]
    text = "\n".join(
        [
            "---\nlibrary_name: hanlin\npipeline_tag: text-generation\n---",
            f"# {folder.name}\n",
            "Trained with Hanlin. The recipe with every number is `recipe.yaml`; hashes of recipe, data and files are",
            "in `hanlin.json`.\n",
            "| | |\n|---|---|",
            *(f"| {name} | {value} |" for name, value in rows),
            "\n![loss](loss.png)\n",
            f'```console\n$ hanlin generate {folder} "..."\n$ hanlin evaluate {folder}\n```\n',
            "It writes what the text it learned from makes likely, true or not. Check what you use.\n",
        ]
    )
    files.write(folder / "README.md", text.encode())
