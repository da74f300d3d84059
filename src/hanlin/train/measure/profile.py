"""Where the time of a step goes: three steps under torch's profiler, as a trace for a browser and in words.

step    0 1 2 3 4 │ 5 6 7 │ 8 ...
warming up        │ looked at; then runs/x/trace.json is written and a line is said
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hanlin.files import explained

SKIP, STEPS = 5, 3  # steps of this process that pass before, and that are looked at
FEWEST = 0.01  # share of the time below which a kind of work goes to "other operators"
KINDS: Mapping[str, str] = {  # kind of work -> names of operators; the first that fits counts
    "the optimizer and sums over all weights": r"_fused_|_foreach_|Optimizer\.|clip_grad|_newton",
    "matrix products": r"mm$|matmul|linear|convolution|einsum",
    "attention in one operator": r"scaled_dot_product|flash",
    "softmax and loss": r"softmax|cross_entropy|nll_loss",
    "norms": r"norm|mean|rsqrt|var",
    "looking up": r"embedding|index|gather|scatter",
    "copies and changes of type": r"copy|_to$|cat|clone|contiguous|stack|repeat|expand",
    "memory": r"empty|zero|fill|resize|ones|full",
    "arithmetic on single numbers": r"mul|add|sub|div|silu|gelu|sigmoid|tanh|relu|exp|pow|sin|cos|neg|where|mask|sum",
}


class Look:
    """Looks at some steps of a run; the bits of the run do not change."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Write the trace into `folder`, and tell `say` what came out."""
        self.folder, self.say = folder, say
        self._seen, self._seconds = 0, 0.0
        self._profiler: Any = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Take a step inside this."""
        if self._seen == SKIP:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.start()
        began = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - began if self._profiler else 0.0
        self._seen += 1
        if self._seen == SKIP + STEPS:
            self._profiler.stop()
            path = self.folder / "trace.json"
            with explained(path):
                self._profiler.export_chrome_trace(str(path))
            for line in words(_times(self._profiler), self._seconds / STEPS):
                self.say(line)
            self.say(f"profile: {path} opens in chrome://tracing or ui.perfetto.dev")
            self._profiler = None


def _times(profiler: Any) -> dict[str, float]:  # noqa: ANN401  # torch's profiler
    """Return the seconds that each operator took itself, a step."""
    found = {}
    for each in profiler.key_averages():
        own = max(each.self_cpu_time_total, getattr(each, "self_device_time_total", 0))  # microseconds
        found[each.key] = own / 1e6 / STEPS
    return found


def words(times: Mapping[str, float], seconds: float) -> list[str]:
    """Return in words where `seconds`, those of a step, went; `times` are the operators' own."""
    sums: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    other = 0.0
    for name, own in times.items():
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), None)
        if kind is None:
            other += own
        else:
            sums[kind] += own
    total = max(seconds, sum(times.values()))
    small = sum(each for each in sums.values() if each < FEWEST * total)
    shown = sorted(((each, kind) for kind, each in sums.items() if each >= FEWEST * total), reverse=True)
    shown.append((other + small, "other operators"))
    shown.append((total - sum(times.values()), "between operators: Python, batches, waiting"))
    parts = [f"{kind} {each / total:.0%}" for each, kind in shown if each >= 0.005 * total]
    return [f"profile: a step of {seconds * 1e3:.1f} ms went to {'; '.join(parts)}"]
