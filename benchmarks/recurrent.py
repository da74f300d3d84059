"""RNN, GRU and LSTM language models against a Transformer: tiny Shakespeare by letters, equal parameters, equal time.

python -m benchmarks.recurrent [--seconds 120] [--parameters 800000] [--picture docs/images/recurrent.png]

HANLIN_DATA names the folder that holds data/. Every model learns with each rate in turn and keeps its best; clocks
stand still while a model is scored. The last tenth of the text is held out.
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.table import heading, rows
from hanlin import runtime
from hanlin.data.batches import BatchSource, Packed, Streams
from hanlin.data.manifest import Manifest
from hanlin.data.shards import Shards
from hanlin.evaluation import harness
from hanlin.models import llama, rnn
from hanlin.models.contract import ModelConfig
from hanlin.objectives import next_token
from hanlin.optim import adamw
from hanlin.train.plan import Plan
from hanlin.train.step import Learner

MODELS = ("rnn", "gru", "lstm", "llama")
RATES = (1e-3, 3e-3)
ROWS, CONTEXT = 64, 64
LOOKS = 8  # scores on the way, spread over the time
PIECES, QUICK = 64, 8  # the held-out text is scored in so many pieces; on the way, in so few of them


class Found(NamedTuple):
    """What one model came to."""

    parameters: int
    tokens: int
    seconds: float
    curve: list[tuple[float, float]]  # (seconds, bits a letter)
    bits: float
    rate: float


def shakespeare(data: Path) -> tuple[Shards, list[Any], int]:
    """Return the text to learn from, the held-out text in pieces, and how many letters there are."""
    text = gzip.decompress((data / "lm/tinyshakespeare/input.txt.gz").read_bytes()).decode()
    letters = {letter: index for index, letter in enumerate(sorted(set(text)))}
    ids = np.array([letters[letter] for letter in text], dtype=np.uint16)
    cut = len(ids) * 9 // 10
    manifest = Manifest(vocab=len(letters), dtype="uint16", tokenizer_hash="", splits={}, files={}, report={})
    count = np.array([cut])
    learned = Shards(folder=data, split="train", manifest=manifest, tokens=(ids[:cut],), lengths=count, sizes=count)
    return learned, list(np.array_split(ids[cut:], PIECES)), len(letters)


def sized(name: str, vocab: int, parameters: int) -> ModelConfig:
    """Return the config of the model with the number of parameters that is nearest."""

    def of(width: int) -> ModelConfig:
        if name == "llama":
            dim, hidden = 8 * width, 8 * (8 * width // 3)
            return llama.Config(
                vocab=vocab, dim=dim, layers=4, heads=4, hidden=hidden, context=4 * CONTEXT, tied=True, dropout=0.1
            )
        kind: Any = name
        return rnn.Config(kind=kind, vocab=vocab, dim=128, hidden=8 * width, layers=2, dropout=0.1)

    def distance(width: int) -> float:
        return abs(math.log(count(of(width)) / parameters))

    return of(min(range(2, 200), key=distance))


def count(config: ModelConfig) -> int:
    """Return the number of parameters."""
    return sum(each.numel() for each in config.sketch().parameters())


def learn(
    config: ModelConfig, shards: Shards, held: list[Any], rate: float, seconds: float, name: str, threads: int
) -> Found:
    """Train for some seconds; the rate falls from the first to the last as a cosine."""
    machine = runtime.start(precision="bf16", threads=threads)
    model = config.build(seed=0).to(machine.device)
    recurrent = isinstance(config, rnn.Config)
    source: BatchSource
    if recurrent:
        context, source = CONTEXT, Streams(shards, rows=ROWS, context=CONTEXT, seed=0)
    else:  # the same tokens a step; a Transformer remembers no more than its window
        context = config.context
        source = Packed(shards, rows=ROWS * CONTEXT // context, context=context, seed=0)
    plan = Plan(steps=1, rows=source.tokens_per_step // context, context=context)
    optimizer = adamw.Config(rate=rate).build(model)
    learner = Learner(model, optimizer, next_token.Config(streams=recurrent), plan, machine)
    spent, step = 0.0, 0
    curve: list[tuple[float, float]] = []
    while spent < seconds:
        began = time.perf_counter()
        learner.advance(source.batch(step), step, (1 + math.cos(math.pi * spent / seconds)) / 2)
        spent, step = spent + time.perf_counter() - began, step + 1
        if len(curve) < LOOKS * spent / seconds and spent < seconds:
            curve.append((spent, bits(learner, held[:: PIECES // QUICK])))
            print(f"{name} {rate:g}: {spent:6.1f} s, {step} steps, {curve[-1][1]:.3f} bits a letter", flush=True)
    last = bits(learner, held)
    curve.append((spent, last))
    return Found(count(config), step * source.tokens_per_step, spent, curve, last, rate)


def bits(learner: Learner, pieces: list[Any]) -> float:
    """Return bits a letter; a recurrent model reads a piece at once, a Transformer in windows that overlap by half."""
    config, letters = learner.work.config, sum(len(piece) - 1 for piece in pieces)
    overlap = 0 if isinstance(config, rnn.Config) else config.context // 2
    learner.work.eval()
    nats = harness.nats(learner.work, pieces, context=config.context, overlap=overlap, tokens_per_batch=32_768)
    return float(nats.sum()) / letters / math.log(2)


def best(name: str, given: argparse.Namespace, data: tuple[Shards, list[Any], int]) -> Found:
    """Return a model's best run over the rates."""
    shards, held, vocab = data
    config = sized(name, vocab, given.parameters)

    runs = [learn(config, shards, held, rate, given.seconds, name, given.threads) for rate in given.rates]
    return min(runs, key=lambda found: found.bits)


def picture(found: dict[str, Found], path: Path) -> None:
    """Draw bits a letter by seconds of learning."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, each in found.items():
        axes.plot(*zip(*each.curve), marker="o", markersize=3, label=f"{name}, {each.parameters:,} parameters")
    axes.set_xlabel("seconds of learning")
    axes.set_ylabel("bits a letter, held out")
    axes.set_title("Tiny Shakespeare by letters")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--parameters", type=int, default=800_000)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--threads", type=int, default=0, help="one a core when 0")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/recurrent.png"))
    given = parser.parse_args()
    torch.manual_seed(0)
    data = shakespeare(Path(os.environ.get("HANLIN_DATA", "../shared")) / "data")
    found = {name: best(name, given, data) for name in MODELS}
    lines = [
        [
            *(name, f"{each.parameters:,}", f"{each.rate:g}", f"{each.tokens / 1e6:.2f} M"),
            *(f"{each.tokens / each.seconds:,.0f}", f"{each.bits:.3f}"),
        ]
        for name, each in found.items()
    ]
    command = f"python -m benchmarks.recurrent --seconds {given.seconds:g} --parameters {given.parameters}"
    print(heading("Recurrent models and the Transformer, equal parameters and equal time", command))
    print(rows(["model", "parameters", "rate", "letters seen", "letters/s", "bits a letter"], lines))
    picture(found, given.picture)


if __name__ == "__main__":
    main()
