"""Adam (Kingma and Ba, arXiv 1412.6980), fused; decay, where asked for, goes through the gradient. See also adamw.

g = gradient + decay w        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g²
w = w - rate m / (1 - b1ᵗ) / (sqrt(v / (1 - b2ᵗ)) + eps)
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.optim.contract import OptimizerConfig, groups


class Config(OptimizerConfig):
    """Adam's choices, the defaults those of the paper."""

    rate: float = Field(1e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's Adam over the model."""
        parts = groups(model, self.rate, self.weight_decay, self.exempt, self.layer_decay)
        return torch.optim.Adam(parts, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)

    def numbers(self, name: str, parameter: Tensor) -> int:
        """Return two moments."""
        return 2 * parameter.numel()
