"""Lion: every weight moves by the rate, in the direction of a momentum's sign (Chen et al., arXiv 2302.06675).

u = sign(b1 m + (1 - b1) g)   w = w - rate (u + decay w)        m = b2 m + (1 - b2) g

One state instead of Adam's two. The step does not shrink with the gradient, so the rate is 3 to 10 times smaller than
AdamW's and the decay as many times larger (section 5 of the paper).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.optim.contract import OptimizerConfig, groups


class Config(OptimizerConfig):
    """Lion's choices; beta2 0.99 is the paper's, 0.98 with beta1 0.95 its advice for language models."""

    rate: float = Field(1e-4, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    weight_decay: float = Field(1.0, ge=0)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer over the model."""
        parts = groups(model, self.rate, self.weight_decay, self.exempt, self.layer_decay)
        return Lion(parts, {"betas": (self.beta1, self.beta2)})

    def numbers(self, name: str, parameter: Tensor) -> int:
        """Return the momentum."""
        return parameter.numel()


class Lion(torch.optim.Optimizer):
    """Lion over groups with `betas` and `weight_decay`, all parameters of a group in one call each."""

    def __init__(self, groups: list[dict[str, Any]], defaults: dict[str, Any]) -> None:
        """Keep the groups."""
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Take one step."""
        for group in self.param_groups:
            moved = [each for each in group["params"] if each.grad is not None]
            if not moved:
                continue
            for each in moved:
                if not self.state[each]:
                    self.state[each]["momentum"] = torch.zeros_like(each)
            beta1, beta2 = group["betas"]
            grads, momenta = [each.grad for each in moved], [self.state[each]["momentum"] for each in moved]
            signs = torch._foreach_sign(torch._foreach_lerp(momenta, grads, 1 - beta1))
            torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(moved, signs, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, grads, 1 - beta2)
