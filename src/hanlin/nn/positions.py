"""Positions that are computed, not learned.

Letters: T positions, D dim.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=8)
def sinusoids(length: int, dim: int) -> Tensor:
    """Return (T, D) in fp32 on the CPU: sin(t / 10000^(2i / D)) in the first half of a row, the cosines in the second.

    Vaswani et al., arXiv 1706.03762; the halves lie side by side as in Marian, not interleaved as in the paper.
    """
    rates = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1).float()
