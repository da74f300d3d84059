"""Muon: momentum whose matrices are made orthogonal before each step; AdamW for everything that is no matrix.

    M = momentum M + G            G' = G + momentum M   (Nesterov)
    U = orthogonal(G')            every singular value becomes about 1, by five steps of a polynomial in U Uᵀ
    W = W (1 - rate decay) - rate U sqrt(max(1, rows / columns))

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; Liu et al., arXiv 2502.16982. A step
turns every direction of a matrix equally far, so directions with small gradients are learned too; docs/numbers.md
has it beside AdamW on a small budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.optim.contract import OptimizerConfig, grouped, slowed

A, B, C = 3.4445, -4.7750, 2.0315  # the quintic of Jordan et al.: fastest growth of small singular values
ROUNDS = 5


class Config(OptimizerConfig):
    """Muon's choices; `rate` is Muon's, `adam_rate` that of the rest."""

    rate: float = Field(0.02, gt=0)
    momentum: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.1, ge=0)  # of the matrices
    adam_rate: float = Field(3e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    rest: tuple[str, ...] = ("*embed*", "positions.*", "head.*", "*norm*", "*bias")  # parameters that AdamW takes

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer over the model."""
        named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        matrices = [(name, each) for name, each in named if self._turns(name, each)]
        rest = [(name, each) for name, each in named if not self._turns(name, each)]
        shares = slowed(model, self.layer_decay)
        turned = grouped(
            matrices, self.rate, self.weight_decay, self.exempt, shares, momentum=self.momentum, matrices=True
        )
        plain = {"betas": (self.beta1, self.beta2), "eps": self.eps, "matrices": False}
        return Muon([*turned, *grouped(rest, self.adam_rate, 0.0, (), shares, **plain)])

    def _turns(self, name: str, parameter: Tensor) -> bool:
        """Return whether a parameter is a matrix that Muon takes."""
        return parameter.ndim == 2 and not any(fnmatch(name, key) for key in self.rest)

    def numbers(self, name: str, parameter: Tensor) -> int:
        """Return a matrix's momentum, or two moments."""
        return parameter.numel() * (1 if self._turns(name, parameter) else 2)


class Muon(torch.optim.Optimizer):
    """Muon for the groups marked `matrices`, AdamW without decay for the others."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        """Keep the groups."""
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Take one step."""
        for group in self.param_groups:
            (self._matrices if group["matrices"] else self._rest)(group)

    def _matrices(self, group: dict[str, Any]) -> None:
        """Step the matrices; equal shapes are made orthogonal together, in one batched product."""
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for each in group["params"]:
            if each.grad is not None:
                shapes.setdefault(each.shape, []).append(each)
        for (rows, columns), members in shapes.items():
            moved = torch.stack([self._nesterov(each, group["momentum"]) for each in members])
            turned = orthogonal(moved) * max(1.0, rows / columns) ** 0.5
            for each, update in zip(members, turned):
                each.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])

    def _nesterov(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Return the gradient pushed on by its momentum, which is brought up to date."""
        grad = parameter.grad
        assert grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(grad, 1 - momentum)
        return grad.lerp(state["momentum"], momentum)

    def _rest(self, group: dict[str, Any]) -> None:
        """Step everything else by Adam."""
        beta1, beta2 = group["betas"]
        for each in group["params"]:
            if each.grad is None:
                continue
            state = self.state[each]
            if not state:
                state["step"] = torch.zeros(())
                state["first"], state["second"] = torch.zeros_like(each), torch.zeros_like(each)
            state["step"] += 1
            state["first"].lerp_(each.grad, 1 - beta1)
            state["second"].lerp_(each.grad.square(), 1 - beta2)
            count = float(state["step"])
            spread = (state["second"] / (1 - beta2**count)).sqrt_().add_(group["eps"])
            each.addcdiv_(state["first"], spread, value=-group["lr"] / (1 - beta1**count))


def orthogonal(matrices: Tensor) -> Tensor:
    """Return (n, R, C) matrices with their singular values brought near 1, by Newton–Schulz iteration in bf16."""
    tall = matrices.shape[1] > matrices.shape[2]  # of the two products with its own transpose, the smaller is taken
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)
