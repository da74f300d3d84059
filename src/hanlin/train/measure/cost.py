"""What a run costs: seconds, tokens a second, the share of the machine that learns, and an estimate of energy.

    share of the peak = FLOPs a token * tokens a second / FLOPs a second of a large product in the run's type, measured

"Model FLOPs utilisation" of PaLM (arXiv 2204.02311, appendix B), with a measured peak in place of a data sheet's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hanlin.models.contract import Model
from hanlin.nn.attention import Attention
from hanlin.report import rows
from hanlin.runtime import Runtime

SIDE, LONGEST_S = 2048, 0.3  # of the product that is measured; for how long
FEWEST, MOST = 6, 20  # times; the first warms up, and the best counts, so that other programs disturb little
CORE_W, GPU_W = 15.0, 400.0  # watts at work that are assumed: a server's core with its memory, a data centre's GPU


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Sums over the steps that count; a run that was killed and went on does not count what was lost."""

    seconds: float  # of steps: not of start-up, examination and saving
    tokens: float
    tokens_per_second: float  # median over the steps
    share: float | None  # of the measured peak
    watts: float
    assumed: bool  # the watts are ours, not the plan's

    @property
    def watt_hours(self) -> float:
        """Return the energy that the seconds took at these watts."""
        return self.seconds * self.watts / 3600

    def lines(self) -> list[tuple[str, str]]:
        """Return name and value of each line for people."""
        found = [("time", f"{duration(self.seconds)} of steps"), ("speed", f"{self.tokens_per_second:,.0f} tokens/s")]
        if self.share is not None:
            found.append(("of the machine", f"{self.share:.1%} of its measured matmul peak"))
        how = "assumed, plan.watts says otherwise" if self.assumed else "plan.watts"
        return [*found, ("energy", f"{self.watt_hours:.3g} Wh, an estimate: {self.watts:.0f} W ({how}) for that time")]


def cost(folder: Path, runtime: Runtime, *, flops: float, peak: float | None, watts: float | None) -> Cost | None:
    """Return what the steps in a run's timing.jsonl cost, None where there are none; `flops` are those of a token."""
    found = [row for row in rows(folder / "timing.jsonl") if row.get("seconds")]
    if not found:
        return None
    speed = statistics.median(row["tokens_per_second"] for row in found)
    share = flops * speed / peak if peak else None
    usual = GPU_W if runtime.device.type == "cuda" else CORE_W * runtime.threads
    return Cost(
        seconds=sum(row["seconds"] for row in found),
        tokens=sum(row["seconds"] * row["tokens_per_second"] for row in found),
        tokens_per_second=speed,
        share=share if share is not None and share <= 1 else None,  # above 1 the peak was measured on a busy machine
        watts=watts or usual,
        assumed=watts is None,
    )


def flops_a_token(model: Model[Any], context: int) -> float:
    """Return the FLOPs that learning from one token takes: forward 2, backward 4 for each weight that is multiplied.

    Attention comes on top, 12 for each position in reach and each number of a query (arXiv 2204.02311). Read from the
    built model. Known error: a reader's weights (encoder–decoders, speech) count once for each token that is written.
    """
    lookups = sum(each.weight.numel() for each in model.modules() if isinstance(each, nn.Embedding))
    head = model.embed.weight.numel() if getattr(model.config, "tied", False) else 0
    multiplied = sum(each.numel() for each in model.parameters()) - lookups + head
    reach = sum(
        each.q.out_features * min(context, each.window or context)
        for each in model.modules()
        if isinstance(each, Attention)
    )
    return 6.0 * multiplied + 12.0 * reach


def peak(runtime: Runtime) -> float:
    """Return the FLOPs a second of a 2048 x 2048 product in the run's type here, the best of a few; ~0.3 seconds."""
    one, two = torch.ones(2, SIDE, SIDE, dtype=runtime.dtype, device=runtime.device)
    times: list[float] = []
    while len(times) < FEWEST or (len(times) < MOST and sum(times) < LONGEST_S):
        began = time.perf_counter()
        float((one @ two)[0, 0])  # reading a number waits for a device that works on its own
        times.append(time.perf_counter() - began)
    return 2.0 * SIDE**3 / min(times)


def duration(seconds: float) -> str:
    """Return seconds in words: 12.3 seconds, 4.5 minutes, 6.7 hours.

    >>> [duration(each) for each in (12.34, 270, 24120)]
    ['12.3 seconds', '4.5 minutes', '6.7 hours']
    """
    steps: Sequence[tuple[str, float]] = (("seconds", 1), ("minutes", 60), ("hours", 3600))
    name, unit = next(((name, unit) for name, unit in reversed(steps) if seconds >= 2 * unit), steps[0])
    return f"{seconds / unit:.1f} {name}"
