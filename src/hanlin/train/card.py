"""What a finished run leaves: the bundle with its lineage for machines, README.md and a picture for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hanlin import bundle, files
from hanlin.data.manifest import Manifest
from hanlin.text.tokenizer import Tokenizer
from hanlin.train.job import Job, Outcome, Progress


def finish(folder: Path, job: Job, outcome: Outcome, tokenizer: Tokenizer, manifest: Manifest) -> str:
    """Write bundle, picture and card, the best weights where the run stopped early; return one line of result."""
    progress = outcome.progress
    if outcome.early and progress.best_step is not None:
        job.model.load_state_dict(dict(job.checkpoints.read(progress.best_step).model))
    scores = {} if progress.best is None else {"valid_loss": {"value": progress.best, "unit": "nats/token"}}
    lineage = _lineage(job, progress, manifest.hash, tokenizer.hash)
    bundle.write(folder, job.model, tokenizer, lineage=lineage, scores=scores)
    job.report.picture()
    _card(folder, job, progress, manifest, scores)
    how = "stopped early, for want of improvement," if outcome.early else "done"
    valid = "" if progress.best is None else f", best valid_loss {progress.best:.4f} nats/token"
    return f"{how} at step {progress.step} of {job.plan.steps}{valid}"


def _lineage(job: Job, progress: Progress, data: str, tokenizer: str) -> dict[str, Any]:
    """Return where a model comes from: hashes of recipe and data, versions, steps."""
    return {
        "recipe_and_data": job.belongs,
        "data": data,
        "tokenizer": tokenizer,
        "steps": progress.step,
        "seed": job.plan.seed,
        "versions": {"hanlin": version("hanlin"), "torch": torch.__version__, "python": platform.python_version()},
    }


def _card(folder: Path, job: Job, progress: Progress, manifest: Manifest, scores: Mapping[str, Any]) -> None:
    """Write the model card, README.md."""
    parameters = sum(each.numel() for each in job.model.parameters())
    split = manifest.splits["train"]
    rows = [
        ("family", type(job.model).__name__),
        ("parameters", f"{parameters:,}"),
        ("context", f"{job.model.config.context} tokens"),
        ("vocabulary", f"{job.model.config.vocab:,} tokens"),
        ("learned from", f"{split.documents:,} documents, {split.tokens:,} tokens"),
        ("steps", f"{progress.step:,} of {job.plan.rows_a_step * job.plan.context:,} tokens"),
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
