"""Will it fit: what a run will have written on its disk at the most, told before step 0.

checkpoint = weights + optimizer state [+ averaged weights], four bytes a number
run        = keep checkpoints + the best + the one being written + the bundle, old and new, + rows of numbers
"""

from __future__ import annotations

import shutil
from pathlib import Path

from hanlin.errors import RunError, problem
from hanlin.files import explained
from hanlin.train.job import Job

NUMBER = 4  # bytes: state is fp32
ROW = 300  # bytes of metrics.jsonl and timing.jsonl a step


def check(job: Job, place: Path) -> None:
    """Raise RunError, one line, when the run cannot fit on the disk of its folder."""
    needed = foreseen(job)
    with explained(place):
        there = sum(each.stat().st_size for each in (place / "checkpoints").rglob("*") if each.is_file())
        free = shutil.disk_usage(place).free
    if needed - there > free:
        given = f"the run needs {_size(needed - there)} more for checkpoints and model, {_size(free)} are free"
        do = "free some, lower plan.keep, or choose an --output on another disk"
        raise RunError(problem(str(place), given, do=do))


def foreseen(job: Job) -> int:
    """Return the bytes that checkpoints, bundle and rows of numbers take at the most."""
    weights = sum(each.numel() for each in job.model.parameters())
    learning = [(name, each) for name, each in job.model.named_parameters() if each.requires_grad]
    state = sum(job.optimizer.numbers(name, each) for name, each in learning)
    a_checkpoint = NUMBER * (weights * (2 if job.plan.ema else 1) + state)
    kept = job.plan.keep + (1 if job.examine is not None else 0) + 1
    return kept * a_checkpoint + 2 * NUMBER * weights + ROW * (job.plan.steps or 0)


def _size(size_bytes: int) -> str:
    """Return bytes in MB or GB."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
