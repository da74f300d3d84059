"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), in torch's fused kernel.

m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g²
w = w - rate (m / (1 - b1ᵗ) / (sqrt(v / (1 - b2ᵗ)) + eps) + decay w)
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.optim.contract import OptimizerConfig, groups


class Config(OptimizerConfig):
    """AdamW's choices; beta2 0.95 and decay 0.1 are usual for language models (GPT-3, arXiv 2005.14165)."""

    rate: float = Field(1e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's AdamW over the model."""
        parts = groups(model, self.rate, self.weight_decay, self.exempt, self.layer_decay)
        return torch.optim.AdamW(parts, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)

    def numbers(self, name: str, parameter: Tensor) -> int:
        """Return two moments."""
        return 2 * parameter.numel()
