"""Questions with passages, rated 1 where the passage answers and 0 where it does not, to train a reader for searches.

python -m benchmarks.tasks.reader FOLDER [--questions 2500]      HANLIN_DATA names the folder that holds data/

SQuAD's questions with their own paragraph, and with the two of the same article that share the rarest words with the
question. Then: python -m benchmarks.scores reader, and python -m benchmarks.tasks.retrieval --read runs/scores/reader.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WRONG = 2  # passages beside the right one
HELD = 100  # questions to examine by


def rated(articles: list[Any]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each question, the right passage first."""
    for article in articles:
        paragraphs = article["paragraphs"]
        words = [set(re.findall(r"\w+", each["context"].lower())) for each in paragraphs]
        known = Counter(word for each in words for word in each)
        rare = {word: math.log(len(words) / count) for word, count in known.items()}
        for own, paragraph in enumerate(paragraphs):
            others = [at for at in range(len(paragraphs)) if at != own]
            for question in paragraph["qas"]:
                asked = set(re.findall(r"\w+", question["question"].lower()))

                shared = [sum(rare[word] for word in sorted(asked & each)) for each in words]
                near = sorted(others, key=shared.__getitem__, reverse=True)[:WRONG]
                yield [
                    {"text": question["question"], "pair": paragraphs[at]["context"], "score": float(at == own)}
                    for at in (own, *near)
                ]


def main() -> None:
    """Write train.jsonl and valid.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=2500)
    given = parser.parse_args()
    data = Path(os.environ.get("HANLIN_DATA", "../shared")) / "data/qa/squad_dev"
    with gzip.open(data / "train.json.gz", "rt", encoding="utf-8") as file:
        sides = {"train": json.load(file)["data"], "valid": json.loads((data / "dev.json").read_text("utf-8"))["data"]}
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, wanted in (("train", given.questions), ("valid", HELD)):
        found = list(rated(sides[name]))
        random.Random(0).shuffle(found)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for rows in found[:wanted] for row in rows]
        (given.folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{given.folder / name}.jsonl: {len(lines):,} rows of {min(wanted, len(found)):,} questions")


if __name__ == "__main__":
    main()
