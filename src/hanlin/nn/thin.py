"""A single row through a model: where matrices meet vectors, memory is all that counts.

oneDNN, which torch takes for bf16 on a CPU, reads 11 to 14 GB/s in a matrix-vector product on two Zen 4 cores; torch's
own loop reads 30 to 38. From the second row on oneDNN is the faster one (docs/numbers.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def thin(rows: int, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Let torch multiply by itself inside, if it is one row of bf16 on a CPU; the setting is the whole process's."""
    if rows != 1 or dtype != torch.bfloat16 or device.type != "cpu":
        yield
        return
    before, *_ = torch.backends.mkldnn.set_flags(False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before)
