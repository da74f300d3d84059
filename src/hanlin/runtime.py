"""Where and how a run computes: device, number type, threads, seed, rank. One frozen value, passed and never global."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from hanlin.errors import ConfigError, problem
from hanlin.machine import cores

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MARGIN = 1.15  # times as long as in fp32 that bf16 may take to be chosen


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The machine as one run sees it."""

    device: torch.device
    dtype: torch.dtype  # what forward and backward compute in; state is kept in fp32
    threads: int
    seed: int = 0
    rank: int = 0
    world: int = 1


def start(*, device: str = "auto", precision: str = "fp32", threads: int = 0, seed: int = 0) -> Runtime:
    """Return the runtime for what a person chose, and set torch's thread count to match.

    `device` is auto, cpu, cuda or mps; `threads` 0 means one a core. ConfigError names a device that is not there.
    """
    if precision not in DTYPES:
        raise ConfigError(problem("precision", f"'{precision}'", f"one of: {', '.join(DTYPES)}"))
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    chosen = ("cuda" if available["cuda"] else "cpu") if device == "auto" else device
    if not available.get(chosen.split(":")[0], False):
        here = ", ".join(name for name, there in available.items() if there)
        raise ConfigError(problem("device", f"'{device}' is not on this machine", f"here: {here}"))
    threads = threads or cores()
    torch.set_num_threads(threads)
    return Runtime(device=torch.device(chosen), dtype=DTYPES[precision], threads=threads, seed=seed)


def quicker(dim: int, device: torch.device, say: Callable[[str], None]) -> Literal["fp32", "bf16"]:
    """Return the number type that this machine multiplies faster at a model's width, and say so.

    Many processors are slower in bf16, and some have no more of it than the name. It is taken unless fp32 is clearly
    faster: what is kept for the backward takes half the memory.
    """
    ratio = slower(dim, device)
    found: Literal["fp32", "bf16"] = "fp32" if ratio > MARGIN else "bf16"
    say(f"precision auto: {found}; a bf16 product takes {ratio:.2g} times as long as one in fp32 here")
    return found


@cache
def slower(dim: int, device: torch.device) -> float:
    """Return how many times as long as in fp32 a product takes in bf16; ~50 ms, once in a process."""
    shapes = ((2048, dim), (dim, 4 * dim))
    pairs = {kind: [torch.ones(shape, dtype=kind, device=device) for shape in shapes] for kind in DTYPES.values()}
    times: dict[torch.dtype, list[float]] = {kind: [] for kind in pairs}
    for _ in range(6):  # in turn; the first of each sets things up
        for kind, (one, two) in pairs.items():
            began = time.perf_counter()
            float((one @ two)[0, 0])  # reading a number waits for a device that works on its own
            times[kind].append(time.perf_counter() - began)
    return min(times[torch.bfloat16][1:]) / min(times[torch.float32][1:])


@contextmanager
def thin(rows: int, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Let torch multiply by itself inside, if it is one row of bf16 on a CPU; the setting is the whole process's.

    Where matrices meet vectors, memory is all that counts. oneDNN, which torch takes for bf16 on a CPU, reads 11 to 14
    GB/s in a matrix-vector product on two Zen 4 cores; torch's own loop reads 30 to 38. From the second row on oneDNN
    is the faster one (docs/numbers.md).
    """
    if rows != 1 or dtype != torch.bfloat16 or device.type != "cpu":
        yield
        return
    before, *_ = torch.backends.mkldnn.set_flags(False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before)
