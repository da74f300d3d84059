"""How fast the parts of training are: attention, the loss, a whole step.

python -m benchmarks.speed
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.table import heading, in_turn, ratio, rows, spread
from hanlin import runtime
from hanlin.batch import Batch
from hanlin.models import llama
from hanlin.nn.attention import spelled_out
from hanlin.objectives import next_token
from hanlin.objectives.cross_entropy import total_nats
from hanlin.optim import adamw, muon
from hanlin.train.plan import Plan
from hanlin.train.step import Learner


def attention() -> list[list[str]]:
    """Return forward + backward of one causal attention in bf16: torch's fused one against matmul, softmax, matmul."""
    lines = []
    for rows_, heads, length, size in ((32, 4, 64, 32), (16, 6, 256, 64), (8, 4, 256, 32)):
        q, k, v = (torch.randn(rows_, heads, length, size, dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
        bias = torch.full((length, length), float("-inf"), dtype=torch.bfloat16).triu(1)

        def fused(q=q, k=k, v=v) -> None:
            F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()

        def spelled(q=q, k=k, v=v, bias=bias) -> None:
            spelled_out(q, k, v, bias).sum().backward()

        slow, fast = in_turn([fused, spelled])
        lines.append([f"{rows_} x {heads} x {length} x {size}", spread(slow), spread(fast), ratio(slow, fast)])
    return lines


def loss() -> list[list[str]]:
    """Return forward + backward of the loss over 2,048 tokens by how many tokens' logits exist at one time."""
    lines = []
    for vocab, dim in ((4096, 192), (32000, 768)):
        model = llama.Config(vocab=vocab, dim=dim, layers=1, heads=4, hidden=64, tied=True).build().to(torch.bfloat16)
        hidden = torch.randn(2048, dim, dtype=torch.bfloat16, requires_grad=True)
        targets = torch.randint(0, vocab, (2048,))

        def work(chunk: int, model=model, hidden=hidden, targets=targets) -> Callable[[], object]:
            return lambda: total_nats(model, hidden, targets, chunk=chunk).backward()

        chunks = (2048, 1024, 512, 256, 128)
        for chunk, times in zip(chunks, in_turn([work(chunk) for chunk in chunks], rounds=5)):
            lines.append([f"{vocab:,}", chunk, f"{chunk * vocab * 4 / 1e6:.0f} MB", spread(times)])
    return lines


def steps() -> list[list[str]]:
    """Return whole training steps of a small Llama, 2,048 tokens each."""
    lines = []
    config = llama.Config(vocab=4096, dim=128, layers=4, heads=4, hidden=384, tied=True, context=256)
    ids = torch.randint(0, config.vocab, (8, 257))
    batch = Batch(tokens=ids[:, :-1], targets=ids[:, 1:])
    cases = [("fp32", adamw.Config()), ("bf16", adamw.Config()), ("bf16", muon.Config())]
    learners = []
    for precision, optimizer in cases:
        model = config.build()
        plan = Plan(steps=1, rows=8, context=256, precision=precision)
        learners.append(
            Learner(model, optimizer.build(model), next_token.Config(), plan, runtime.start(precision=precision))
        )
    times = in_turn([lambda each=each: each.advance(batch, 0, 1.0) for each in learners])
    for (precision, optimizer), found in zip(cases, times):
        name = type(optimizer).__module__.rsplit(".", 1)[-1]
        lines.append(
            [precision, name, spread(found), f"{2048 / sorted(found)[len(found) // 2]:,.0f}", ratio(times[0], found)]
        )
    return lines


def main() -> None:
    """Print the tables."""
    print(heading("Speed of the parts of training", "python -m benchmarks.speed"))
    print("Attention, forward and backward, bf16\n")
    print(rows(["rows x heads x tokens x size", "torch fused", "spelled out", "ratio"], attention()))
    print("\nLoss over 2,048 tokens, forward and backward, bf16\n")
    print(rows(["vocab", "tokens a chunk", "logits, fp32", "time"], loss()))
    print("\nA training step, 4 layers of 128, 2,048 tokens\n")
    print(rows(["compute", "optimizer", "time", "tokens/s", "against fp32"], steps()))


if __name__ == "__main__":
    main()
