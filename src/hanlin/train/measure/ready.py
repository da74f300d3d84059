"""What is measured, and may be refused, before step 0: room on the disk, the machine's peak, the work a token takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hanlin.train.job import Job
from hanlin.train.measure import cost, disk


def ready(job: Job, place: Path) -> Job:
    """Return the job with its measurements; RunError when it cannot fit on the disk of its folder."""
    disk.check(job, place)
    return replace(job, flops=cost.flops_a_token(job.model, job.plan.context), peak=cost.peak(job.runtime))
