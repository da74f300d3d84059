"""What a reader wins by not answering when in doubt: SQuAD's held-out questions, each asked of another article as well.

python -m benchmarks.tasks.abstention RUN …      HANLIN_DATA names the folder that holds data/

A run may have learned that some passages hold no answer (`hanlin train squad task.elsewhere=0.5`) or not. A question
asked elsewhere is answered rightly by silence alone; `answered` is the share of all questions that get an answer, as
the threshold rises. The threshold of the highest F1 is that of these questions: a bound, no score to be expected.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from benchmarks.table import heading, rows
from hanlin import bundle
from hanlin.evaluation import rows as scoring
from hanlin.tasks import answer
from hanlin.tasks.predict import opened

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def main() -> None:
    """Print a curve a run."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("runs", type=Path, nargs="+")
    given = asked.parse_args()
    file = Path(os.environ.get("HANLIN_DATA", "../shared")) / "data/qa/squad_dev/dev.json"
    print(heading("Silence in doubt", "python -m benchmarks.tasks.abstention"))
    for run in given.runs:
        predictor = opened(bundle.read(run))
        task = predictor.task
        assert isinstance(task, answer.Config), "a run of the task answer"
        own = task.threshold
        predictor.task = task.model_copy(update={"elsewhere": 1.0, "threshold": None})
        found = scoring.answer(predictor, file, {})
        curve = task.abstention(found.examples, found.predictions)
        places = [int(np.abs(curve.answered - share).argmin()) for share in SHARES]
        lines = [
            [
                f"{curve.answered[at]:.2f}{' (highest F1)' if at == curve.best else ''}",
                f"{-curve.thresholds[at]:.2f}",
                f"{curve.exact_match[at]:.1f}",
                f"{curve.f1[at]:.1f}",
            ]
            for at in sorted({*places, curve.best})
        ]
        silent = sum(not each.answers for each in found.examples)
        print(f"\n{run}: {len(found.examples):,} questions, {silent:,} without an answer; its own threshold {own}\n")
        print(rows(["answered", "threshold", "exact match", "F1"], lines), flush=True)


if __name__ == "__main__":
    main()
