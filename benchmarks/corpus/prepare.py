"""MB/s a core and peak memory of `hanlin prepare` on synthetic text, beside datatrove doing the same steps.

python -m benchmarks.corpus.prepare [--megabytes 100 1000] [--workers 2] [--peer PYTHON] [--scratch DIR]

--peer is the python of an environment with datatrove 0.10.1, xxhash<4, spacy, orjson, tokenizers; without it ours runs
alone. Both read the same .jsonl, clean, drop near duplicates and tokenize with the same tokenizer.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import heading, rows
from hanlin.machine import cores
from hanlin.text.tokenizer import train_bpe

WORDS, SIGNS, ROWS = 50_000, 4_000, 20_000  # different words and signs; documents of a file
COPY, NEAR = 0.02, 0.03  # shares of documents that repeat an earlier one, or nearly do
PEER = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter

source, out, tokenizer, workers, language = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]

def run(name, tasks, *pipeline):
    LocalPipelineExecutor(pipeline=list(pipeline), tasks=tasks, workers=workers, logging_dir=f"{out}/logs/{name}").run()

if __name__ == "__main__":
    config = MinhashConfig()
    tasks = workers * 4
    run("clean", tasks, JsonlReader(source),
        GopherRepetitionFilter(language=language),
        GopherQualityFilter(language=language, min_stop_words=None),
        C4QualityFilter(language=language, split_paragraph=False, filter_no_terminal_punct=False, min_num_sentences=-1,
                        min_words_per_line=-1, max_word_length=-1, remove_citations=False, filter_javascript=False,
                        filter_policy=False, filter_curly_bracket=False),
        JsonlWriter(f"{out}/clean", compression=None))
    run("sign", tasks, JsonlReader(f"{out}/clean"),
        MinhashDedupSignature(f"{out}/sign", config=config, language=language))
    run("bucket", config.num_buckets, MinhashDedupBuckets(f"{out}/sign", f"{out}/bucket", config=config))
    run("cluster", 1, MinhashDedupCluster(f"{out}/bucket", f"{out}/remove", config=config))
    run("filter", tasks, JsonlReader(f"{out}/clean"), MinhashDedupFilter(f"{out}/remove"),
        DocumentTokenizer(f"{out}/tokens", tokenizer_name_or_path=tokenizer, shuffle_documents=False))
"""


def corpus(folder: Path, megabytes: int) -> int:
    """Write so much text, the same each time, and return its bytes: Zipf's words, en and zh, with planted copies."""
    draw = random.Random(megabytes)
    letters = "etaoinshrdlucmfwypvbgk"
    english = ["".join(draw.choices(letters, k=2 + int(draw.expovariate(0.25)) % 12)) for _ in range(WORDS)]
    chinese = [chr(0x4E00 + number) for number in draw.sample(range(0x51A6), SIGNS)]
    weights = [1 / (rank + 2.7) for rank in range(WORDS)]  # Zipf and Mandelbrot
    size, number, recent = 0, 0, list[str]()
    sums = [list(_sums(weights[:count])) for count in (WORDS, SIGNS)]
    while size < megabytes * 1_000_000:
        with (folder / f"part-{number:04d}.jsonl").open("w", encoding="utf-8") as file:
            for row in range(ROWS):
                if recent and draw.random() < COPY + NEAR:
                    text = draw.choice(recent)
                    text = text if draw.random() < COPY / (COPY + NEAR) else f"{text} {draw.choice(english)}."
                else:
                    text = _text(draw, english, sums[0], " ") if row % 2 else _text(draw, chinese, sums[1], "")
                if row % 97 == 0:
                    recent = [*recent[-500:], text]
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                size += len(text.encode())
                if size >= megabytes * 1_000_000:
                    break
        number += 1
    return size


def _sums(weights: list[float]) -> Iterator[float]:
    """Yield the running sums, which draws take quicker than weights."""
    total = 0.0
    for weight in weights:
        total += weight
        yield total


def _text(draw: random.Random, words: list[str], sums: list[float], space: str) -> str:
    """Return sentences of drawn words in a few paragraphs."""
    dot = ". " if space else "。"
    sentences = []
    for _ in range(draw.randint(4, 40)):
        chosen = draw.choices(words, cum_weights=sums, k=draw.randint(6, 24))
        sentences.append(space.join(chosen))
    cut = max(1, len(sentences) // 3)
    return "\n".join(dot.join(sentences[at : at + cut]) + dot.strip() for at in range(0, len(sentences), cut))


def watched(command: list[str], folder: Path) -> tuple[float, int]:
    """Return the seconds a command takes and the most memory, in bytes, that all its processes hold at once."""
    began, most = time.perf_counter(), 0
    with (folder / "said.txt").open("w") as said:
        child = subprocess.Popen(command, cwd=Path.cwd(), stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        while child.poll() is None:
            most = max(most, _held(child.pid))
            time.sleep(0.1)
    seconds = time.perf_counter() - began
    if child.returncode:
        sys.exit((folder / "said.txt").read_text()[-3000:])
    return seconds, most


def _held(group: int) -> int:
    """Return the memory of a process group; of what processes share, each its part."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == group:
                lines = (entry / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue  # it has ended
    return total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--peer", help="a python with datatrove")
    parser.add_argument("--languages", nargs="+", default=["grt", "eng"], help="datatrove's words: by spaces, by spaCy")
    parser.add_argument("--scratch", type=Path)
    given = parser.parse_args()
    found = []
    for megabytes in given.megabytes:
        with tempfile.TemporaryDirectory(dir=given.scratch) as name:
            found += measured(Path(name), megabytes, given)
    made = f"--megabytes {' '.join(map(str, given.megabytes))} --workers {given.workers}"
    command = f"python -m benchmarks.corpus.prepare {made}{' --peer PYTHON' if given.peer else ''}"
    print(heading("Preparing a corpus", command))
    print(rows(["corpus", "who", "seconds", "MB/s a core", "peak MB", "ours is faster by"], found))


def measured(scratch: Path, megabytes: int, given: argparse.Namespace) -> list[list[object]]:
    """Return a row for ours and one for each way the peer works."""
    (scratch / "corpus").mkdir()
    size = corpus(scratch / "corpus", megabytes)
    sample = (scratch / "corpus" / "part-0000.jsonl").read_text(encoding="utf-8").splitlines()[:3000]
    train_bpe((json.loads(line)["text"] for line in sample), 8192).save(scratch / "tokenizer")
    ours = [sys.executable, "-m", "hanlin", "prepare", str(scratch / "corpus"), "--output", str(scratch / "out")]
    options = ["--clean", "default", "--near", "0.8", "--tokenizer", str(scratch / "tokenizer")]
    works = {"hanlin": [*ours, *options, "--workers", str(given.workers)]}
    if given.peer:
        (scratch / "peer.py").write_text(PEER)
        words = {"eng": "spaCy", "grt": "spaces"}
        for language in given.languages:
            out = scratch / f"peer-{language}"
            more = [str(scratch / "corpus"), str(out), str(scratch / "tokenizer" / "tokenizer.json")]
            command = [given.peer, str(scratch / "peer.py"), *more, str(given.workers), language]
            works[f"datatrove, words by {words.get(language, language)}"] = command
    found: list[list[object]] = []
    first = 0.0
    for who, command in works.items():
        seconds, most = watched(command, scratch)
        first = first or seconds
        rate = size / 1e6 / seconds / given.workers
        found.append(
            [f"{megabytes} MB", who, f"{seconds:.1f}", f"{rate:.2f}", f"{most / 1e6:,.0f}", f"{seconds / first:.2f} x"]
        )
        print(*found[-1], file=sys.stderr)
    shutil.rmtree(scratch / "out")
    return found


if __name__ == "__main__":
    main()
