"""Rotary position embedding: query and key meet at an angle set by their distance alone (arXiv 2104.09864).

    pair i of a head turns by  position * theta^(-2i/h);   halves (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)

Hugging Face writes the choice in two ways, and both are read and written:
    old   "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0} | null
    new   "rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}

A model outgrows the context of its first training by turning more slowly: all pairs (linear), or the slow ones alone,
which never made a full turn in training (llama3, and yarn, which also sharpens attention: arXiv 2309.00071).

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
    kind: Literal["default", "linear", "llama3", "yarn"] = "default"
    factor: float = Field(1.0, ge=1)
    low_factor: float = Field(1.0, gt=0)  # llama3: wavelengths longer than original / low are slowed by factor
    high_factor: float = Field(4.0, gt=0)  # llama3: wavelengths shorter than original / high are left alone
    original_context: int = Field(8192, gt=0)  # llama3 and yarn: the context of the first training
    beta_fast: float = Field(32.0, gt=0)  # yarn: pairs that made more turns in that context are left alone
    beta_slow: float = Field(1.0, gt=0)  # yarn: pairs that made fewer are slowed by factor
    truncate: bool = True  # yarn: the two borders between pairs are rounded outwards to whole pairs
    attention_factor: float | None = Field(None, gt=0)  # yarn: cosines and sines times this; by factor when left out
    mscale: float | None = Field(None, gt=0)  # yarn: the two weights of log(factor) in it, DeepSeek's way
    mscale_all_dim: float | None = Field(None, gt=0)

    def problems(self) -> list[str]:
        """Return contradictions."""
        if self.beta_fast < self.beta_slow:
            return [f"beta_fast {self.beta_fast} is less than beta_slow {self.beta_slow}"]
        return []


_KEYS = {
    "rope_theta": "theta",
    "rope_type": "kind",
    "type": "kind",
    "factor": "factor",
    "low_freq_factor": "low_factor",
    "high_freq_factor": "high_factor",
    "original_max_position_embeddings": "original_context",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "truncate": "truncate",
    "attention_factor": "attention_factor",
    "mscale": "mscale",
    "mscale_all_dim": "mscale_all_dim",
}
_KINDS = {  # what each cannot do without
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_factor", "high_factor", "original_context"),
    "yarn": ("factor", "original_context"),
}
_CHOICES = {"yarn": ("beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim")}


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
    choices = _CHOICES.get(kind, ())
    said = {_KEYS[key]: value for key, value in given.items() if value is not None or _KEYS[key] not in choices}
    values = {"theta": theta, **said, "kind": kind}
    missing = [key for key, name in _KEYS.items() if name in _KINDS[kind] and name not in values]
    if missing:
        raise ConfigError(*(problem(f"config.json: {where}.{key}", "missing", f"{kind} needs it") for key in missing))
    allowed = {"theta", "kind", *_KINDS[kind], *choices}
    try:
        return Rope.model_validate({key: value for key, value in values.items() if key in allowed})
    except (TypeError, ValueError):
        shown = given or {"rope_theta": theta}
        raise ConfigError(problem(f"config.json: {where}", f"{shown!r}"[:200], "expected positive numbers")) from None


def to_hf(rope: Rope) -> dict[str, Any]:
    """Return both spellings, ready to be merged into a config.json."""
    theirs = {ours: key for key, ours in _KEYS.items() if key != "type"}
    named = {theirs[name]: getattr(rope, name) for name in (*_KINDS[rope.kind], *_CHOICES.get(rope.kind, ()))}
    scaling = {"rope_type": rope.kind} | {key: value for key, value in named.items() if value is not None}
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
    if rope.kind == "yarn":
        return _yarn(plain, rope)
    return plain


def scale(rope: Rope) -> float:
    """Return the number that cosines and sines are multiplied by: 1 but for yarn (arXiv 2309.00071, section 3.4)."""
    if rope.kind != "yarn":
        return 1.0
    if rope.attention_factor is not None:
        return rope.attention_factor

    def sharper(weight: float) -> float:
        return 0.1 * weight * math.log(rope.factor) + 1.0

    if rope.mscale is not None and rope.mscale_all_dim is not None:
        return sharper(rope.mscale) / sharper(rope.mscale_all_dim)
    return sharper(1.0)


def _llama3(plain: Tensor, rope: Rope) -> Tensor:
    """Slow the long waves by `factor`, keep the short ones, blend between (Llama 3, arXiv 2407.21783, section 3.2)."""
    wavelength = 2 * math.pi / plain
    turns = rope.original_context / wavelength
    blend = ((turns - rope.low_factor) / (rope.high_factor - rope.low_factor)).clamp(0, 1)
    return (1 - blend) * plain / rope.factor + blend * plain


def _yarn(plain: Tensor, rope: Rope) -> Tensor:
    """Slow pairs by how often they turn in the first context, blended by the number of the pair (arXiv 2309.00071)."""
    pairs = len(plain)

    def pair(turns: float) -> float:
        """Return which pair, as a fraction, makes so many turns in the first context."""
        return pairs * math.log(rope.original_context / (turns * 2 * math.pi)) / math.log(rope.theta)

    low, high = pair(rope.beta_fast), pair(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)  # the bound of the published code: a head's size, not its pairs
    slowed = ((torch.arange(pairs) - low) / ((high - low) or 1e-3)).clamp(0, 1)
    return slowed * plain / rope.factor + (1 - slowed) * plain


def turn(positions: Tensor, rates: Tensor, dtype: torch.dtype, scale: float = 1.0) -> Turn:
    """Return cosines and sines, times `scale`, for positions (B or 1, T) and rates (h/2,), computed in fp32."""
    angles = positions[:, None, :, None].float() * rates
    both = torch.cat((angles, angles), -1)
    return (both.cos() * scale).to(dtype), (both.sin() * scale).to(dtype)


def rotate(x: Tensor, by: Turn) -> Tensor:
    """Return x (B, H, T, h) with each pair turned."""
    cos, sin = by
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
