"""Weights between our names and Hugging Face's, by a family's table of Renames.

blocks.0.attn.q.weight ┐                             transpose, stack
blocks.0.attn.k.weight ├─ Rename((q, k, v), c_attn) ────────────────> transformer.h.0.attn.c_attn.weight
blocks.0.attn.v.weight ┘                             <────────────────
split, transpose
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hanlin.errors import BundleError, nearest, problem
from hanlin.models.contract import Model, Rename

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHOWN = 20  # problems of a kind that are told one by one


@dataclass(frozen=True)
class Entry:
    """One tensor of theirs and the parameters of ours that it fills, in order."""

    theirs: str
    ours: tuple[str, ...]
    transpose: bool


def entries(model: Model[Any]) -> list[Entry]:
    """Return an entry for every parameter of the model; assert that the family's table covers them all, once."""
    config = model.config
    table = [*config.renames, *(row for name in model.heads for row in config.task_heads[name].renames)]
    found: dict[str, Entry] = {}
    for name, _ in model.named_parameters():
        entry = next((made for row in table if (made := _match(row, name))), None)
        assert entry, f"no Rename covers {name}"
        found[entry.theirs] = entry
    return list(found.values())


def _match(row: Rename, name: str) -> Entry | None:
    """Return the entry that `row` makes for one of our parameters, or None when it is about others."""
    ours = (row.ours,) if isinstance(row.ours, str) else row.ours
    for pattern in ours:
        shape = re.escape(pattern).replace(r"\*", r"(?P<layer>\d+)").replace("@", "(?P<leaf>weight|bias)")
        match = re.fullmatch(shape, name)
        if match:
            parts = match.groupdict()
            layer, leaf = parts.get("layer", ""), parts.get("leaf", "")
            filled = [each.replace("*", layer).replace("@", leaf) for each in (row.theirs, *ours)]
            return Entry(filled[0], tuple(filled[1:]), row.transpose and not name.endswith("bias"))
    return None


def to_theirs(model: Model[Any]) -> dict[str, Tensor]:
    """Return the model's weights under Hugging Face names, contiguous, ready to be written."""
    ours = dict(model.named_parameters())
    result = {}
    for entry in entries(model):
        tensor = torch.cat([ours[name].detach() for name in entry.ours])
        result[entry.theirs] = (tensor.t() if entry.transpose else tensor).contiguous()
    return result


def from_theirs(model: Model[Any], names: Collection[str], get: Callable[[str], Tensor], where: str) -> list[str]:
    """Fill the model from tensors named as Hugging Face names them; return the names of heads that were not there.

    The family's prefix may be absent from, or present on, every name. BundleError names the tensors that are missing,
    unknown, there twice, of another shape, or hold NaN. A head whose tensors are all missing keeps its fresh weights.
    """
    parameters = dict(model.named_parameters())
    problems: list[str] = []
    missing: list[str] = []
    fresh: set[str] = set()
    spelled: dict[str, str] = {}
    for name in names:
        other = spelled.setdefault(_bare(model, name), name)
        if other != name:
            problems.append(problem(f"{where}: {name}", f"stands there twice, also as {other}"))
    for entry in entries(model):
        given = spelled.pop(_bare(model, entry.theirs), None)
        if given is not None:
            problems += _fill([parameters[each] for each in entry.ours], get(given), entry, f"{where}: {given}")
        elif entry.ours[0].startswith("heads."):
            fresh.add(entry.ours[0].split(".")[1])
        else:
            missing.append(entry.theirs)
    problems += _amiss(where, missing, _unknown(model, spelled.values()))
    if problems:
        raise BundleError(*problems)
    return sorted(fresh)


def _amiss(where: str, missing: list[str], unknown: list[str]) -> list[str]:
    """Return a line for each missing and each unknown tensor, and where there are many how many more."""
    first = {name: nearest(name, unknown[:1000]) for name in missing[:SHOWN]}  # each comparison takes microseconds
    lines = [problem(f"{where}: {name}", "missing tensor", near=near) for name, near in first.items()]
    lines += [problem(f"{where}: {name}", "unknown tensor") for name in unknown[:SHOWN]]
    for kind, names in (("missing", missing), ("unknown", unknown)):
        if len(names) > SHOWN:
            lines.append(problem(where, f"{len(names) - SHOWN:,} more {kind} tensors"))
    return lines


def _bare(model: Model[Any], name: str) -> str:
    """Return a name without the family's prefix."""
    return name.removeprefix(model.config.prefix) if model.config.prefix else name


def _unknown(model: Model[Any], names: Iterable[str]) -> list[str]:
    """Return the names that mean nothing to this model: not ignored, and not the repeated half of a tied pair."""
    repeats = model.config.repeats
    covered = {_bare(model, repeats[1])} if repeats else set()
    return [
        name
        for name in names
        if _bare(model, name) not in covered and not any(re.fullmatch(each, name) for each in model.config.ignored)
    ]


def _fill(parameters: list[torch.nn.Parameter], tensor: Tensor, entry: Entry, where: str) -> list[str]:
    """Copy one of their tensors into ours; return what is wrong with it instead, if anything is."""
    if tensor.dtype not in FLOATS:
        known = ", ".join(map(str, FLOATS))
        return [problem(where, f"{tensor.dtype}", f"expected one of: {known}")]
    if entry.transpose and tensor.ndim == 2:
        tensor = tensor.t()
    sizes = [each.shape[0] if each.ndim else 1 for each in parameters]
    expected = [sum(sizes), *parameters[0].shape[1:]]
    if list(tensor.shape) != expected:
        return [problem(where, f"shape {list(tensor.shape)}", f"this config needs {expected}")]
    if not bool(torch.isfinite(tensor).all()):
        return [problem(where, "holds NaN or infinity")]
    with torch.no_grad():
        for parameter, part in zip(parameters, tensor.split(sizes)):
            parameter.copy_(part)
    return []
