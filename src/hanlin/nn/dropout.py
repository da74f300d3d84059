"""Dropout (Srivastava et al. 2014), drawn sixteen bits a number on a CPU.

torch draws a number from its generator for every element, one after the other, which takes longer than any other part
of a small encoder's layer but the matrices. Sixteen bits are enough: 1 - p is rounded to a multiple of 1 / 65,536, and
what is kept is divided by that very share, so that the mean stays where it was.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 1 << 16
LOWEST = -(1 << 63)


def dropout(x: Tensor, p: float) -> Tensor:
    """Return x with each number 0 with probability `p`, else divided by 1 - p; 0 <= p < 1."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    levels = round((1 - p) * LEVELS)
    if levels in (0, LEVELS):
        return F.dropout(x, p)
    count = x.numel()
    drawn = torch.empty(-(-count // 4), dtype=torch.int64).random_(LOWEST, None).view(torch.int16)[:count]
    kept = (drawn < levels - LEVELS // 2).to(x.dtype).mul_(LEVELS / levels)
    return x * kept.view(x.shape)


class Dropout(nn.Module):
    """Dropout while training, nothing otherwise."""

    def __init__(self, p: float) -> None:
        """Keep the probability, 0 <= p < 1."""
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x, with numbers left out while training."""
        return dropout(x, self.p) if self.training and self.p else x

    def extra_repr(self) -> str:
        """Say the probability."""
        return f"p={self.p}"
