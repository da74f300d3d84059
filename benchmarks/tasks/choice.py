"""Ten sets of choices, answered by how likely a decoder finds each: accuracy against chance, shots 0 and 3.

python -m benchmarks.tasks.choice MODEL [--sets NAME …] [--shots 0 3] [--rows 300]

HANLIN_DATA names the folder that holds data/. MODEL is any decoder's folder or hub name. A choice's log-probability is
divided by its characters, except where all choices end alike (winogrande, blimp). LAMBADA has no choices: the last word
is written greedily and must be the right one. What does not fit into the context is cut from the front and counted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import heading, rows
from hanlin import api
from hanlin.generate import decode
from hanlin.generate.sampling import Sampling
from hanlin.generate.score import score
from hanlin.metrics.labels import accuracy


@dataclass(frozen=True)
class Item:
    """One question: what stands before each choice, the choices, and which is right."""

    before: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int
    by_length: bool = True

    @property
    def right(self) -> str:
        """Return the whole text of the right choice, as an example."""
        return self.before[self.gold] + self.choices[self.gold]


def asked(question: str, choices: Sequence[str], gold: int) -> Item:
    """Return an item in which a question is followed by the text of its answer."""
    head = f"问题：{question}\n答案：" if _chinese(question) else f"Question: {question}\nAnswer:"
    gap = "" if _chinese(question) else " "
    return Item((head,) * len(choices), tuple(gap + each for each in choices), gold)


def _arc(row: dict[str, Any]) -> Item:
    choices = row["question"]["choices"]
    gold = next(at for at, each in enumerate(choices) if each["label"] == row["answerKey"])
    return asked(row["question"]["stem"], [each["text"] for each in choices], gold)


def _piqa(row: dict[str, Any]) -> Item:
    return asked(row["goal"], [row["sol1"], row["sol2"]], int(row["label"]))


def _hellaswag(row: dict[str, Any]) -> Item:
    head = f"{row['activity_label']}: {row['ctx']}"
    return Item((head,) * 4, tuple(f" {each}" for each in row["endings"]), int(row["label"]))


def _winogrande(row: dict[str, Any]) -> Item:
    heads = tuple(row["context_options"])
    return Item(heads, (f" {row['continuation']}",) * len(heads), int(row["gold"]), by_length=False)


def _lambada(row: dict[str, Any]) -> Item:
    head, _, last = row["text"].rpartition(" ")
    return Item((head,), (f" {last}",), 0)


def _blimp(row: dict[str, Any]) -> Item:
    return Item(("", ""), (row["sentence_good"], row["sentence_bad"]), 0, by_length=False)


def _c3(row: dict[str, Any]) -> Item:
    return asked("\n".join(row["document"]) + "\n" + row["question"], row["choices"], int(row["answer"]))


def _cmmlu(row: dict[str, Any]) -> Item:
    return asked(row["question"], row["choices"], int(row["answer"]))


# Set -> how a row becomes an item, the file that is scored, the file that examples come from.
SETS: dict[str, tuple[Callable[[dict[str, Any]], Item], str, str]] = {
    "arc_easy": (_arc, "dev.jsonl", "train.jsonl"),
    "arc_challenge": (_arc, "dev.jsonl", "train.jsonl"),
    "commonsenseqa": (_arc, "dev.jsonl", "train.jsonl.gz"),
    "piqa": (_piqa, "valid_a.jsonl", ""),  # no other file: the first rows are the examples, and are not scored
    "hellaswag": (_hellaswag, "valid_a.jsonl", ""),
    "winogrande": (_winogrande, "valid_a.jsonl", ""),
    "lambada": (_lambada, "development.jsonl.gz", ""),
    "blimp": (_blimp, "pairs.jsonl.gz", ""),
    "c3": (_c3, "dev.jsonl.gz", "train.jsonl.gz"),
    "cmmlu": (_cmmlu, "test_a.jsonl", "dev.jsonl"),
}


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, packed or not."""
    content = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()]


def items(folder: Path, name: str, shots: int, most: int) -> tuple[str, list[Item]]:
    """Return the examples as one text, and at most `most` items spread evenly over the set."""
    make, scored, others = SETS[name]
    found = [make(row) for row in read(folder / name / scored)]
    shown = [make(row) for row in read(folder / name / others)[:shots]] if others else found[:shots]
    left = found if others else found[shots:]
    every = max(1, len(left) // most)
    return "".join(f"{each.right}\n\n" for each in shown), left[::every][:most]


def answered(model: api.LanguageModel, before: str, found: Sequence[Item]) -> tuple[list[int], int]:
    """Return the likeliest choice of each item, and how many tokens were cut off."""
    sequences, starts, lengths, cut = [], [], [], 0
    room = model.config.context
    for item in found:
        for head, choice in zip(item.before, item.choices):
            first = model.tokenizer.prompt(before + head)
            tail = list(model.tokenizer.encode(choice, added=False).ids)[: room - 1]
            over = max(0, len(first) + len(tail) - room)
            cut += over
            first = first[over:] or tail[:1]
            tail = tail if len(first) + len(tail) <= room + 1 else tail[1:]
            sequences.append([*first, *tail])
            starts.append(max(1, len(first)))
            lengths.append(len(choice.strip()) if item.by_length else 1)
    totals = [float(each.sum()) for each in score(model.module, sequences, prefix=starts)]
    values = iter(total / max(1, length) for total, length in zip(totals, lengths))
    return [int(np.argmax([next(values) for _ in item.choices])) for item in found], cut


def written(model: api.LanguageModel, before: str, found: Sequence[Item]) -> tuple[list[int], int]:
    """Return 0 for each item whose word is written greedily, 1 for the others, and how many tokens were cut off."""
    right, cut = [], 0
    for item in found:
        ids = model.tokenizer.prompt(before + item.before[0])
        over = max(0, len(ids) + 8 - model.config.context)
        cut += over
        how = {"stop_ids": model.stop_ids, "tokenizer": model.tokenizer}
        (said,) = decode.answers(model.module, [ids[over:]], Sampling(limit=8, temperature=0.0), **how)
        right.append(int((said.text.split() or [""])[0] != item.choices[0].strip()))
    return right, cut


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--sets", nargs="*", default=[*SETS], choices=[*SETS], metavar="NAME")
    parser.add_argument("--shots", nargs="*", type=int, default=[0, 3])
    parser.add_argument("--rows", type=int, default=300)
    given = parser.parse_args()
    folder = Path(os.environ.get("HANLIN_DATA", "../shared")) / "data" / "choice"
    model = api.load(given.model)
    table = []
    for name in given.sets:
        for shots in given.shots:
            before, found = items(folder, name, shots, given.rows)
            guesses, cut = (written if name == "lambada" else answered)(model, before, found)
            gold = [item.gold for item in found]
            each = accuracy.score([str(guess) for guess in guesses], [str(one) for one in gold])["accuracy"]
            chance = 0.0 if name == "lambada" else float(np.mean([1 / len(item.choices) for item in found]))
            verdict = "above" if each.low > chance else "below" if each.high < chance else "as"
            interval = f"{each.low:.3f} to {each.high:.3f}"
            table.append([name, shots, len(found), f"{each.value:.3f} ({interval})", f"{chance:.3f}", verdict, cut])
            print(*table[-1], flush=True)
    print(heading(f"Choices by {given.model}", f"python -m benchmarks.tasks.choice {given.model} --rows {given.rows}"))
    print(rows(["set", "shots", "rows", "accuracy (95 %)", "chance", "against chance", "tokens cut"], table))


def _chinese(text: str) -> bool:
    return any("\u4e00" <= each <= "\u9fff" for each in text)


if __name__ == "__main__":
    main()
