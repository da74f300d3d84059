"""Normalisation layers; `torch.nn.LayerNorm` serves where a mean is subtracted.

Letters: ... any leading axes, D dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scale (..., D) to unit root mean square, then by a learned weight (Zhang and Sennrich, arXiv 1910.07467).

    The mean is taken in fp32 whatever the input type: bf16 squares lose too much.
    """

    def __init__(self, dim: int, eps: float) -> None:
        """Allocate the weight (D,)."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, in its own type."""
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * scaled.to(x.dtype)
