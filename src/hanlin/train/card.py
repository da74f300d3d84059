"""What a finished run leaves: the bundle with its lineage for machines, README.md and a picture for people."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hanlin import bundle, files
from hanlin.models.contract import Decodes
from hanlin.text.tokenizer import Tokenizer
from hanlin.train.job import Job, Lesson, Outcome, Verdict
from hanlin.train.measure.cost import cost


def finish(folder: Path, job: Job, outcome: Outcome, tokenizer: Tokenizer, lesson: Lesson) -> str:
    """Write bundle, picture and card, the best weights where the plan has patience; return one line of result.

    Step and score are those of the weights that are written.
    """
    progress = outcome.progress
    step, loss = progress.step, progress.valid
    if job.plan.patience is not None and progress.best_step is not None:
        step, loss = progress.best_step, progress.best
    if job.plan.ema is not None or step != progress.step:
        state = job.checkpoints.read(step)
        job.model.load_state_dict(dict(state.average or state.model))
    verdict = _verdict(job, lesson, loss)
    bundle.write(
        folder,
        job.model,
        tokenizer,
        task=verdict.task,
        labels=verdict.labels or None,
        pooling=verdict.pooling,
        settings=dict(verdict.settings),
        lineage=_lineage(job, step, lesson.hash, tokenizer.hash),
        scores=dict(verdict.scores),
    )
    job.report.picture()
    _card(folder, job, step, lesson.size, verdict)
    how = "stopped early, for want of improvement," if outcome.early else "done"
    kept = "" if step == progress.step else f", weights of step {step}"
    valid = "" if loss is None else f", {job.judge.name} {loss:.4f} {job.judge.unit}"
    took = "".join(f"; {value}" for _, value in _cost(folder, job)[:3])
    return f"{how} at step {progress.step} of {job.plan.steps}{kept}{valid}{took}"


def uses(folder: Path, task: str | None = None) -> list[str]:
    """Return the commands that come next, the likeliest first; the task is that of the bundle there."""
    task = task or bundle.read_card(folder)["task"]
    if task == "encode":  # it has learned a language, and no task yet
        return [f"hanlin train classify model.from={folder} data.train=ROWS.csv"]
    use = f'hanlin generate {folder} "..."' if task == "generate" else f"hanlin predict {folder} --input ROWS.jsonl"
    return [use, f"hanlin evaluate {folder}"]


def _cost(folder: Path, job: Job) -> list[tuple[str, str]]:
    """Return what the run took, a line each; none where nothing was timed."""
    found = cost(folder, job.runtime, flops=job.flops, peak=job.peak, watts=job.plan.watts)
    return [] if found is None else found.lines()


def _verdict(job: Job, lesson: Lesson, found: float | None) -> Verdict:
    """Return the last examination's findings, or the judge's number where there is no other."""
    if lesson.verdict is not None:
        return lesson.verdict(job.model.eval())
    task = "generate" if isinstance(job.model, Decodes) else "encode"
    return Verdict(
        task=task, scores={} if found is None else {job.judge.name: {"value": found, "unit": job.judge.unit}}
    )


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


def _card(folder: Path, job: Job, step: int, size: str, verdict: Verdict) -> None:
    """Write the model card, README.md."""
    parameters = sum(each.numel() for each in job.model.parameters())
    writes = verdict.task == "generate"
    commands = "\n".join(f"$ {use}" for use in uses(folder, verdict.task))
    warning = "It writes what the text it learned from makes likely, true or not." if writes else "It can be wrong."
    rows = [
        ("family", type(job.model).__name__),
        ("parameters", f"{parameters:,}"),
        ("context", f"{job.model.config.context} tokens"),
        ("vocabulary", f"{job.model.config.vocab:,} tokens"),
        ("learned from", size),
        ("steps", f"{step:,} of {job.plan.rows_a_step * job.plan.context:,} tokens"),
        *((name, f"{each['value']:.4f} {each['unit']}") for name, each in verdict.scores.items()),
        *verdict.beside,
        *_cost(folder, job),
    ]
    text = "\n".join(
        [
            "---\nlibrary_name: hanlin\n---",
            f"# {folder.name}\n",
            "Trained with Hanlin. The recipe with every number is `recipe.yaml`; hashes of recipe, data and files are",
            "in `hanlin.json`.\n",
            "| | |\n|---|---|",
            *(f"| {name} | {value} |" for name, value in rows),
            "\n![loss](loss.png)\n",
            f"```console\n{commands}\n```\n",
            f"{warning} Check what you use.\n",
        ]
    )
    files.write(folder / "README.md", text.encode())
