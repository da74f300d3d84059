"""Which model for which task: weights, memory and time of every family at two sizes.

python -m benchmarks.families            sizes and memory alone: seconds, the same on every machine
python -m benchmarks.families --time     and a step's time, on a machine that does nothing else
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from benchmarks.table import heading, in_turn, rows, spread
from hanlin.batch import Batch
from hanlin.models import bart, bert, gpt2, llama, rnn, t5, whisper
from hanlin.models.contract import ModelConfig
from hanlin.objectives import next_token
from hanlin.optim import adamw

SMALL = {"vocab": 8192, "dim": 256, "layers": 4, "heads": 4}
FAMILIES: dict[str, tuple[ModelConfig, ModelConfig]] = {
    "rnn (LSTM)": (rnn.Config(vocab=8192, dim=256, hidden=512), rnn.Config(vocab=32000, dim=512, hidden=1024)),
    "bert": (bert.Config(**SMALL, context=256), bert.Config()),
    "gpt2": (gpt2.Config(**SMALL, context=256), gpt2.Config()),
    "llama": (
        llama.Config(**SMALL, hidden=768, context=256, tied=True),
        llama.Config(vocab=32000, dim=768, layers=12, heads=12, hidden=2048, context=1024, tied=True),
    ),
    "t5": (t5.Config(vocab=8192, dim=256, layers=4, heads=4, head_dim=64, hidden=512), t5.Config()),
    "bart": (bart.Config(**SMALL, context=256), bart.Config()),
    "whisper": (whisper.Config(**SMALL), whisper.Config()),
}


def memory(config: ModelConfig) -> list[str]:
    """Return weights, the bytes of an fp32 copy, and what AdamW in bf16 needs before any activation."""
    model = config.sketch()
    weights = sum(each.numel() for each in model.parameters())
    state = sum(adamw.Config().numbers(name, each) for name, each in model.named_parameters())
    learning = weights * (4 + 4 + 2 + 2) + 4 * state  # fp32 weights and gradients, their bf16 twins, two moments
    return [f"{weights / 1e6:.1f}", f"{weights * 4 / 1e6:.0f} MB", f"{learning / 1e6:.0f} MB"]


def work(config: ModelConfig) -> Any:  # a function without arguments
    """Return a training step over 8 rows of 128 tokens, forward and backward."""
    model = config.build()
    ids = torch.randint(0, config.vocab, (8, 129))
    batch = Batch(tokens=ids[:, :-1], targets=ids[:, 1:])

    def step() -> None:
        (part,) = next_token.Config()(model, batch)
        (part.total / part.count).backward()
        model.zero_grad()

    return step


def main(words: list[str]) -> None:
    """Print the table."""
    print(heading("Families", " ".join(["python -m benchmarks.families", *words])))
    names = ["family", "small: million weights", "fp32", "to train", "usual: million weights", "fp32", "to train"]
    print(rows(names, [[name, *memory(small), *memory(usual)] for name, (small, usual) in FAMILIES.items()]))
    if "--time" in words:
        decoders = [name for name in FAMILIES if name in ("rnn (LSTM)", "gpt2", "llama")]
        times = in_turn([work(FAMILIES[name][0]) for name in decoders], rounds=5)
        print("\nForward and backward of the small ones, 1,024 tokens, fp32\n")
        body = [
            [name, spread(each), f"{1024 / sorted(each)[len(each) // 2]:,.0f}"] for name, each in zip(decoders, times)
        ]
        print(rows(["family", "time", "tokens/s"], body))


if __name__ == "__main__":
    main(sys.argv[1:])
