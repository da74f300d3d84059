"""Optimizers: a frozen config that builds one for a model, and its state as named tensors.

Weight decay goes by parameter name: matrices shrink towards zero; norms, biases and embeddings do not.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.config import Config
from hanlin.errors import CheckpointError, problem


class OptimizerConfig(Config):
    """What every optimizer has: a peak learning rate that the schedule multiplies."""

    rate: float = Field(gt=0)

    @abstractmethod
    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer over the model's parameters; each group's `initial_lr` is the rate at multiplier 1."""


def groups(model: nn.Module, rate: float, decay: float, exempt: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return torch parameter groups: decayed, and exempt by name pattern."""
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    spared = [each for name, each in named if any(fnmatch(name, pattern) for pattern in exempt)]
    chosen = {id(each) for each in spared}
    decayed = [each for _, each in named if id(each) not in chosen]
    made = [
        {"params": decayed, "lr": rate, "initial_lr": rate, "weight_decay": decay},
        {"params": spared, "lr": rate, "initial_lr": rate, "weight_decay": 0.0},
    ]
    return [group for group in made if group["params"]]


def save_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors named `<parameter>#<key>`."""
    names = {id(each): name for name, each in model.named_parameters()}
    saved = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            saved[f"{names[id(parameter)]}#{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return saved


def load_state(optimizer: torch.optim.Optimizer, model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Fill the optimizer's state from `save_state`'s tensors; CheckpointError when they belong to other parameters."""
    parameters = dict(model.named_parameters())
    for name, tensor in saved.items():
        match = re.fullmatch(r"(.+)#(.+)", name)
        parameter = parameters.get(match[1]) if match else None
        if match is None or parameter is None or (tensor.ndim and tensor.shape != parameter.shape):
            raise CheckpointError(problem("optimizer.safetensors", f"'{name}' belongs to no parameter of this model"))
        optimizer.state[parameter][match[2]] = tensor.to(parameter.device, copy=True)
