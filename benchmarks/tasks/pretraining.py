"""The texts that a small bilingual encoder is pre-trained on, and what that is worth on four Chinese tasks.

python -m benchmarks.tasks.pretraining FOLDER      writes FOLDER/texts.jsonl
hanlin train bert-mini data.train=FOLDER/texts.jsonl
python -m benchmarks.scores chnsenticorp chnsenticorp-fresh thucnews thucnews-fresh …

Only what a person may use is read: training files, and of the tasks the text alone, never a label.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

PLAIN = ("lm/zh_wiki/train.txt.gz", "lm/wiki_en/train.txt")
ROWS = {  # a file, and where its rows hold text: today's Chinese, as the tasks' is; old novels and poems taught little
    "lm/brown/train.jsonl.gz": ("text",),
    "classification/chnsenticorp_htl/train.jsonl.gz": ("text",),
    "classification/online_shopping/train.jsonl.gz": ("text",),
    "classification/thucnews_titles/train.jsonl": ("text",),
    "ner/weibo/train.jsonl": ("tokens",),
    "ner/resume/train.jsonl.gz": ("tokens",),
    "ner/msra/train.jsonl.gz": ("tokens",),
    "ner/cluener/train.jsonl.gz": ("text",),
    "choice/c3/train.jsonl.gz": ("document",),
    "nli/ocnli/train.jsonl.gz": ("premise", "hypothesis"),
    "similarity/lcqmc/train.jsonl": ("sentence1", "sentence2"),
    "similarity/atec/train.jsonl.gz": ("sentence1", "sentence2"),
    "retrieval/qbqtc/train.jsonl.gz": ("query", "title"),
    "summarization/csl_title/train.jsonl": ("summary", "text"),
    "instruct/alpaca_zh/train.jsonl.gz": ("instruction", "output"),
}
FEWEST = 8  # characters of a document that is worth its place


def texts(data: Path) -> Iterator[str]:
    """Yield the documents of all files that are there: paragraphs of books ten at a time, rows one by one."""
    for name in PLAIN:
        lines = [each for each in _lines(data / name) if each.strip()]
        for at in range(0, len(lines), 10):
            yield "\n".join(lines[at : at + 10])
    for name, fields in ROWS.items():
        for line in _lines(data / name):
            row = json.loads(line)
            said = [row[each] for each in fields]
            yield "\n".join(each if isinstance(each, str) else "".join(each) for each in said)


def _lines(path: Path) -> list[str]:
    """Return the lines of a file, packed or not; none where it is not there."""
    if not path.is_file():
        print(f"{path}: not there, left out")
        return []
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines()


def main() -> None:
    """Write the texts, each once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    data = Path(os.environ.get("HANLIN_DATA", "../shared")) / "data"
    found = dict.fromkeys(each for each in texts(data) if len(each) >= FEWEST)
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "texts.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for each in found:
            file.write(json.dumps({"text": each}, ensure_ascii=False) + "\n")
    print(f"made {path}: {len(found):,} documents, {path.stat().st_size / 1e6:.1f} MB")
    print(f"next: hanlin train bert-mini data.train={path}")


if __name__ == "__main__":
    main()
