"""What a finished run says of itself: its lineage for machines, its README.md for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import hanlin
from hanlin import files
from hanlin.data.manifest import Manifest
from hanlin.train.loop import Job, Progress


def lineage(job: Job, progress: Progress, data: str, tokenizer: str) -> dict[str, Any]:
    """Return where a model comes from: hashes of recipe and data, versions, steps."""
    return {
        "recipe_and_data": job.belongs,
        "data": data,
        "tokenizer": tokenizer,
        "steps": progress.step,
        "seed": job.plan.seed,
        "versions": {"hanlin": hanlin.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def write(folder: Path, job: Job, progress: Progress, manifest: Manifest, scores: Mapping[str, Any]) -> None:
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
