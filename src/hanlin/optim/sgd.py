"""Stochastic gradient descent with momentum (Polyak) or Nesterov's look ahead (Sutskever et al., ICML 2013), fused.

m = momentum m + g            g = gradient + decay w
w = w - rate m                nesterov: w = w - rate (g + momentum m)
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.optim.contract import OptimizerConfig, groups


class Config(OptimizerConfig):
    """SGD's choices; decay goes through the gradient, as weight decay was first understood."""

    rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False

    def problems(self) -> list[str]:
        """Return contradictions."""
        return ["nesterov looks ahead by the momentum, which is 0"] if self.nesterov and not self.momentum else []

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's SGD over the model."""
        parts = groups(model, self.rate, self.weight_decay, self.exempt, self.layer_decay)
        return torch.optim.SGD(parts, lr=self.rate, momentum=self.momentum, nesterov=self.nesterov, fused=True)

    def numbers(self, name: str, parameter: Tensor) -> int:
        """Return the momentum."""
        return parameter.numel() if self.momentum else 0
