"""How fast a decoder learns, beside transformers' Trainer in bf16 on the same model, batch and machine.

python -m benchmarks.train [--steps 12] [--sizes 10,30,134]

A step is what the loop of each does between two batches: forward, backward, clipping, AdamW and bookkeeping; start-up,
warm-up steps and scoring are left out. Both take the same rows of token ids, the same optimizer and rate; ours computes
in bf16 with fp32 state, the Trainer under bf16 autocast, its only way on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from itertools import pairwise
from typing import Any

import torch

from benchmarks.table import heading, ratio, rows
from hanlin import runtime
from hanlin.batch import Batch
from hanlin.models import llama
from hanlin.models.weights import to_theirs
from hanlin.objectives import next_token
from hanlin.optim import adamw
from hanlin.train.plan import Plan
from hanlin.train.step import Learner

SHAPES = {  # millions of parameters -> the model, rows and tokens a row of a step
    10: (llama.Config(vocab=8192, dim=256, layers=8, heads=8, hidden=704, tied=True, context=256), 8, 256),
    30: (llama.Config(vocab=16384, dim=448, layers=10, heads=7, hidden=1216, tied=True, context=256), 8, 256),
    134: (llama.Config(vocab=32000, dim=768, layers=12, heads=12, hidden=2048, context=512), 4, 512),
}
WARM = 3


def peak() -> float:
    """Return the floating-point operations a second of a bf16 product of 2048 x 2048 matrices, the best of ten."""
    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in "ab")
    times = []
    for _ in range(10):
        began = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / min(times)


def ours(config: llama.Config, batches: torch.Tensor) -> list[float]:
    """Return the seconds of each step after the warm ones."""
    model = config.build()
    plan = Plan(steps=len(batches), rows=batches.shape[1], context=batches.shape[2] - 1, precision="bf16")
    learner = Learner(
        model, adamw.Config().build(model), next_token.Config(), plan, runtime.start(precision="bf16", device="cpu")
    )
    times = []
    for step, ids in enumerate(batches):
        began = time.perf_counter()
        learner.advance(Batch(tokens=ids[:, :-1].contiguous(), targets=ids[:, 1:].contiguous()), step, 1.0)
        times.append(time.perf_counter() - began)
    return times[WARM:]


def theirs(config: llama.Config, batches: torch.Tensor) -> list[float]:
    """Return the seconds of each of the Trainer's steps after the warm ones, from batch to batch."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    model = LlamaForCausalLM(LlamaConfig(**config.to_hf(), bos_token_id=0, eos_token_id=None, use_cache=False))
    model.load_state_dict(to_theirs(config.build()), strict=False)
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    count, size, length = batches.shape
    told = {
        "per_device_train_batch_size": size,
        "max_steps": count,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
    }
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, bf16=True, use_cpu=True, weight_decay=0.1, adam_beta2=0.95, **told, **quiet
        )
        data = [{"input_ids": ids[:-1], "labels": ids[:-1]} for ids in batches.reshape(-1, length)]
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Clock()]).train()
    times = [after - before for before, after in pairwise(marks)]
    return times[WARM - 1 :]


def flops(config: llama.Config, tokens: int, context: int) -> float:
    """Return the operations of forward and backward: 6 a weight and token but embeddings, and attention's products."""
    weights = sum(each.numel() for each in config.sketch().parameters())
    used = weights if config.tied else weights - config.vocab * config.dim
    return tokens * (6 * used + 6 * config.layers * config.dim * context)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=12, help="timed steps of each, in two parts taken in turn")
    parser.add_argument("--sizes", default="10,30,134")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    best = peak()
    lines = []
    for size in map(int, options.sizes.split(",")):
        config, count, context = SHAPES[size]
        draws = torch.Generator().manual_seed(0)
        steps = WARM + options.steps // 2
        batches = torch.randint(3, config.vocab, (steps, count, context + 1), generator=draws)
        mine, other = [], []
        for _ in range(2):  # in turn, so that a drift of the machine meets both
            mine += ours(config, batches)
            other += theirs(config, batches)
        tokens = count * context
        share = flops(config, tokens, context) / statistics.median(mine) / best
        speeds = [f"{tokens / statistics.median(each):,.0f}" for each in (mine, other)]
        ranges = [f" ({tokens / max(each):,.0f} to {tokens / min(each):,.0f})" for each in (mine, other)]
        named = f"{size} M, {count} x {context}"
        lines.append([named, speeds[0] + ranges[0], speeds[1] + ranges[1], ratio(other, mine), f"{share:.0%}"])
    print(heading("Learning, tokens a second", "python -m benchmarks.train"))
    print(rows(["model, rows x tokens", "hanlin", "Trainer", "ratio", "of the bf16 peak"], lines))
    print(f"\nbf16 peak, 2048 x 2048: {best / 1e12:.2f} TFLOP/s")


if __name__ == "__main__":
    main()
