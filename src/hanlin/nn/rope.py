"""Rotary position embedding: query and key meet at an angle set by their distance alone (arXiv 2104.09864).

    pair i of a head turns by  position * theta^(-2i/h);   halves (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)

Hugging Face writes the choice in two ways, and both are read and written:
    old   "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0} | null
    new   "rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}

Letters: B rows, H heads, T tokens, h head_dim.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from hanlin.config import Config
from hanlin.errors import ConfigError, nearest, problem

Turn = tuple[Tensor, Tensor]  # cosines and sines, (B or 1, 1, T, h) each


class Rope(Config):
    """How fast each pair of a head turns."""

    theta: float = Field(10000.0, gt=0)
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = Field(1.0, ge=1)
    low_factor: float = Field(1.0, gt=0)  # llama3: wavelengths longer than original / low are slowed by factor
    high_factor: float = Field(4.0, gt=0)  # llama3: wavelengths shorter than original / high are left alone
    original_context: int = Field(8192, gt=0)  # llama3: the context of the first training


_KEYS = {
    "rope_theta": "theta",
    "rope_type": "kind",
    "type": "kind",
    "factor": "factor",
    "low_freq_factor": "low_factor",
    "high_freq_factor": "high_factor",
    "original_max_position_embeddings": "original_context",
}
_KINDS = {"default": (), "linear": ("factor",), "llama3": ("factor", "low_factor", "high_factor", "original_context")}


def from_hf(json: dict[str, Any], theta: float = 10000.0) -> Rope:
    """Read either spelling from a config.json; ConfigError names what is not implemented, missing or contradictory."""
    theta = json.get("rope_theta") or theta
    found = [_spelled(where, json[where], theta) for where in ("rope_parameters", "rope_scaling") if json.get(where)]
    if len(found) == 2 and found[0] != found[1]:
        given = "says something else than rope_parameters"
        raise ConfigError(
            problem("config.json: rope_scaling", given, do="keep the one that the model was trained with")
        )
    return found[0] if found else _spelled("rope_theta", {}, theta)


def _spelled(where: str, given: Any, theta: float) -> Rope:  # noqa: ANN401  # anything JSON can hold
    """Read the mapping that stands at `where`."""
    if not isinstance(given, dict):
        raise ConfigError(problem(f"config.json: {where}", f"{given!r}", "expected a mapping"))
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise ConfigError(problem(f"config.json: {where}.rope_type", f"{kind!r} is not implemented", f"known: {known}"))
    unknown = [key for key in given if key not in _KEYS]
    if unknown:
        near = nearest(unknown[0], _KEYS)
        raise ConfigError(problem(f"config.json: {where}.{unknown[0]}", "is not implemented", near=near))
    values = {"theta": theta, **{_KEYS[key]: value for key, value in given.items()}, "kind": kind}
    missing = [key for key, name in _KEYS.items() if name in _KINDS[kind] and name not in values]
    if missing:
        raise ConfigError(*(problem(f"config.json: {where}.{key}", "missing", f"{kind} needs it") for key in missing))
    allowed = {"theta", "kind", *_KINDS[kind]}
    try:
        return Rope.model_validate({key: value for key, value in values.items() if key in allowed})
    except (TypeError, ValueError):
        shown = given or {"rope_theta": theta}
        raise ConfigError(problem(f"config.json: {where}", f"{shown!r}", "expected positive numbers")) from None


def to_hf(rope: Rope) -> dict[str, Any]:
    """Return both spellings, ready to be merged into a config.json."""
    theirs = {ours: key for key, ours in _KEYS.items() if key != "type"}
    scaling = {"rope_type": rope.kind} | {theirs[name]: getattr(rope, name) for name in _KINDS[rope.kind]}
    return {
        "rope_theta": rope.theta,
        "rope_scaling": None if rope.kind == "default" else scaling,
        "rope_parameters": {"rope_theta": rope.theta, **scaling},
    }


def frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Return the angle a position adds to each pair of a head, (h/2,) fp32."""
    plain = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(plain, rope)
    return plain


def _llama3(plain: Tensor, rope: Rope) -> Tensor:
    """Slow the long waves by `factor`, keep the short ones, blend between (Llama 3, arXiv 2407.21783, section 3.2)."""
    wavelength = 2 * math.pi / plain
    turns = rope.original_context / wavelength
    blend = ((turns - rope.low_factor) / (rope.high_factor - rope.low_factor)).clamp(0, 1)
    return (1 - blend) * plain / rope.factor + blend * plain


def turn(positions: Tensor, rates: Tensor, dtype: torch.dtype) -> Turn:
    """Return cosines and sines for positions (B or 1, T) and rates (h/2,), computed in fp32."""
    angles = positions[:, None, :, None].float() * rates
    both = torch.cat((angles, angles), -1)
    return both.cos().to(dtype), both.sin().to(dtype)


def rotate(x: Tensor, by: Turn) -> Tensor:
    """Return x (B, H, T, h) with each pair turned."""
    cos, sin = by
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
