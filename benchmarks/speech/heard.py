"""How well a model hears sets that it never learned from: WER, CER and exact transcripts, with intervals.

python -m benchmarks.speech.heard RUN SET ... [--limit 500]

A SET is what training reads: a folder or archive with labels.jsonl, or a table with audio and text. Transcripts that
are a single digit, as those of FSDD are, are compared as words, zero to nine, where the model writes words. `silent`
counts recordings of which nothing was said, most of them stopped by the gate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.table import heading, rows
from hanlin import bundle
from hanlin.tasks import rows as tables
from hanlin.tasks.predict import opened

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = {str(digit): word for digit, word in enumerate(WORDS)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--limit", type=int, help="recordings of each set")
    given = parser.parse_args()
    predictor = opened(bundle.read(given.run))
    lines = []
    for each in given.sets:
        examples, _ = tables.examples(predictor.task, each, {}, labelled=True, limit=given.limit)
        said = predictor(examples)
        words = any(one.text.isalpha() for one in said)
        wanted = [one.model_copy(update={"text": DIGITS.get(one.text, one.text)}) if words else one for one in examples]
        scores = predictor.task.score(wanted, said)
        found = [scores[name] for name in ("wer", "cer")]
        figures = [f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in found]
        silent = sum(not one.text for one in said)
        lines.append([each.name, len(examples), *figures, f"{scores['exact'].value:.3f}", silent])
    print(heading("Speech that was never learned from", f"python -m benchmarks.speech.heard {given.run} …"))
    print(rows(["set", "recordings", "WER", "CER", "exact", "silent"], lines))


if __name__ == "__main__":
    main()
