"""Adafactor: Adam's second moment kept as one row and one column a matrix (Shazeer and Stern, arXiv 1804.04235).

    b = 1 - t^decline             R = b R + (1 - b) mean over columns of g²        C = b C + (1 - b) mean over rows
    u = g / sqrt(R C / mean(R))   u = u / max(1, rms(u) / clip)
    w = w - a u - rate decay w    a = max(floor, rms(w)) min(rate, 1 / sqrt(t))

The memory of a matrix's state is its edge, not its area; a step is a share of the weight's own size. Vectors keep a
whole second moment. Computed by torch, many tensors in one call.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.optim.contract import OptimizerConfig, groups

TINY = 1e-15  # squared, the paper's 1e-30 under g²; torch's own 1e-7 would bound the mean of R from below, and matter


class Config(OptimizerConfig):
    """Adafactor's choices, the defaults those of the paper."""

    rate: float = Field(1e-2, gt=0)
    decline: float = Field(-0.8, lt=0)  # how fast the second moment's memory lengthens
    floor: float = Field(1e-3, gt=0)  # a weight's size counts as at least this
    clip: float = Field(1.0, ge=1)  # largest root mean square of an update, in units of the rate

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's Adafactor over the model."""
        parts = groups(model, self.rate, self.weight_decay, self.exempt, self.layer_decay)
        return torch.optim.Adafactor(
            parts, lr=self.rate, beta2_decay=self.decline, eps=(TINY, self.floor), d=self.clip, foreach=True
        )

    def numbers(self, name: str, parameter: Tensor) -> int:
        """Return a row and a column of each matrix, or a vector's second moment."""
        if parameter.ndim < 2:
            return parameter.numel()
        return parameter.numel() // parameter.shape[-1] + parameter.numel() // parameter.shape[-2]
