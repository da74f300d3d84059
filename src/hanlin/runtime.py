"""Where and how a run computes: device, number type, threads, seed, rank. One frozen value, passed and never global."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hanlin.errors import ConfigError, problem
from hanlin.machine import cores

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


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
