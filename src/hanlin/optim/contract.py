"""Optimizers: a frozen config that builds one for a model, and its state as named tensors.

Weight decay goes by parameter name: matrices shrink towards zero; norms, biases and embeddings do not. With
`layer_decay` below 1, layers near the input learn more slowly than those near the output, each that much slower than
the one above it: what a pretrained model knows about words is kept while its top learns a task (arXiv 1801.06146).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hanlin.config import Config
from hanlin.errors import CheckpointError, problem


class OptimizerConfig(Config):
    """What every optimizer has: a peak learning rate that the schedule multiplies, and decay by name."""

    rate: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    exempt: tuple[str, ...] = ("*norm*", "*bias", "embed.*", "positions.*")  # parameters that do not decay
    layer_decay: float = Field(1.0, gt=0, le=1)  # rate of a layer as a share of that of the layer above it

    @abstractmethod
    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer over the model's parameters; each group's `initial_lr` is the rate at multiplier 1."""

    @abstractmethod
    def numbers(self, name: str, parameter: Tensor) -> int:
        """Return how many numbers of state a parameter of this name and shape has, single counters aside."""


def groups(
    model: nn.Module, rate: float, decay: float, exempt: tuple[str, ...], layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Return torch parameter groups: decayed, and exempt by name pattern; one of each for every rate."""
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    return grouped(named, rate, decay, exempt, slowed(model, layer_decay))


def grouped(
    named: Iterable[tuple[str, nn.Parameter]],
    rate: float,
    decay: float,
    exempt: tuple[str, ...],
    shares: Mapping[str, float],
    **more: object,
) -> list[dict[str, Any]]:
    """Return the groups of some parameters, each with `more` in it; `shares` says each one's part of the rate."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, each in named:
        spared = any(fnmatch(name, pattern) for pattern in exempt)
        found.setdefault((-shares[name], 0.0 if spared else -decay), []).append(each)
    made = []
    for (share, amount), members in sorted(found.items(), key=lambda pair: pair[0]):
        peak = rate * -share
        made.append({"params": members, "lr": peak, "initial_lr": peak, "weight_decay": -amount, **more})
    return made


def slowed(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Return every parameter's share of the rate: 1 at the top, `layer_decay` less for each layer below.

    What a model defines before its blocks is the bottom, what comes after them and every head the top.
    """
    names = [name for name, _ in model.named_parameters()]
    found = [re.search(r"(?:^|\.)blocks\.(\d+)\.", name) for name in names]
    layers = [int(match[1]) for match in found if match]
    top, first = max(layers, default=-1) + 1, next((at for at, match in enumerate(found) if match), 0)
    shares = {}
    for at, (name, match) in enumerate(zip(names, found)):
        if match:
            depth = int(match[1])
        else:
            depth = -1 if at < first and not name.startswith("heads.") else top
        shares[name] = layer_decay ** (top - depth)
    return shares


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
        if match is None or parameter is None or not _fits(tensor, parameter):
            raise CheckpointError(problem("optimizer.safetensors", f"'{name}' belongs to no parameter of this model"))
        optimizer.state[parameter][match[2]] = tensor.to(parameter.device, copy=True)


def _fits(state: Tensor, parameter: Tensor) -> bool:
    """Return whether a tensor can be state of the parameter: one number, its shape, or a sum over some of its axes."""
    if not state.ndim:
        return True
    return state.ndim == parameter.ndim and all(a in (1, b) for a, b in zip(state.shape, parameter.shape))
