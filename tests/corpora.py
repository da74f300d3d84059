"""A small corpus in two languages, the plan to prepare it, and a look at what came out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from hanlin.data import shards
from hanlin.data.pipeline import corpus
from hanlin.text.tokenizer import Config as Wanted
from hanlin.text.tokenizer import Tokenizer

ENGLISH = ("the", "river", "was", "slow", "and", "boats", "came", "down", "from", "hills", "with", "stone", "lamps")
CHINESE = "旧桥在春天封了镇上的人坐船过河一直到秋天水涨船高也没有这样忙过山上有花"


def english(number: int, words: int = 40) -> str:
    """Return an English text unlike every other number's."""
    draw = random.Random(number)
    return " ".join(f"{draw.choice(ENGLISH)}{draw.randrange(99)}" for _ in range(words))


def chinese(number: int, signs: int = 80) -> str:
    """Return a Chinese text unlike every other number's."""
    return "".join(random.Random(number).choices(CHINESE, k=signs))


def write(path: Path, texts: list[str]) -> None:
    """Write a .jsonl file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    path.write_text("".join(lines), encoding="utf-8")


def prepare(output: str = "out", *, engine: str = "local", workers: int = 1, **changes: Any) -> Any:
    """Prepare the folder `in`."""
    asked = {
        "source": "in",
        "valid": None,
        "valid_fraction": 0.1,
        "field": "text",
        "limit_bytes": None,
        "clean": (),
        "near": None,
        "lines": None,
        "tokenizer": Wanted(kind="bytes"),
        "seed": 0,
    }
    plan = corpus.Plan(**{**asked, **changes})
    return corpus.prepare(plan, Path(output), engine=engine, workers=workers, watch=lambda *_: None)


def content(folder: str | Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def texts(folder: str | Path, split: str = "train") -> list[str]:
    """Return the texts of a split, as the shards have them."""
    data, tokenizer = shards.open(folder, split), Tokenizer.load(folder)
    return [tokenizer.decode(data.document(number).tolist()) for number in range(data.documents)]
