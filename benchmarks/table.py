"""What every table says of itself, and how a time is taken."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence

import torch


def heading(title: str, command: str) -> str:
    """Return a table's title with command, commit and machine."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    commit = done.stdout.strip() or "no commit"
    machine = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}"
    return f"## {title}\n\n`{command}` at {commit}; {machine}, torch {torch.__version__}\n"


def rows(names: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    body = [names, ["---"] * len(names), *lines]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in body)


def in_turn(works: Sequence[Callable[[], object]], rounds: int = 7) -> list[list[float]]:
    """Return the seconds of each work, taken in turn so that a drift of the machine meets all of them alike."""
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, times):
            began = time.perf_counter()
            work()
            found.append(time.perf_counter() - began)
    return times


def spread(seconds: Sequence[float]) -> str:
    """Return median and range in milliseconds."""
    low, high = min(seconds) * 1e3, max(seconds) * 1e3
    return f"{statistics.median(seconds) * 1e3:.1f} ms ({low:.1f} to {high:.1f})"


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """Return the median of the ratios, pair by pair."""
    return f"{statistics.median(a / b for a, b in zip(slow, fast)):.2f} x"
