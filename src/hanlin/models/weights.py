"""Weights between our names and Hugging Face's, by a family's table of Renames.

blocks.0.attn.q.weight ┐                             transpose, stack
blocks.0.attn.k.weight ├─ Rename((q, k, v), c_attn) ────────────────> transformer.h.0.attn.c_attn.weight
blocks.0.attn.v.weight ┘                             <────────────────
split, transpose
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
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
    tables = model.config.tables
    table = [*tables.renames, *(row for name in model.heads for row in tables.task_heads[name].renames)]
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
    problems += _repeated(model, spelled, get, where)
    for entry in entries(model):
        given = spelled.pop(_bare(model, entry.theirs), None)
        if given is not None:
            problems += _fill([parameters[each] for each in entry.ours], get(given), entry, f"{where}: {given}")
        elif entry.ours[0].startswith("heads."):
            fresh.add(entry.ours[0].split(".")[1])
        elif entry.theirs in model.config.optional:
            for each in entry.ours:
                torch.nn.init.zeros_(parameters[each])
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


def _repeated(model: Model[Any], spelled: dict[str, str], get: Callable[[str], Tensor], where: str) -> list[str]:
    """Put the tensor that others repeat in its place where files hold only a repeat; return which are no repeats."""
    tables = model.config.tables
    if not tables.repeats or tables.task_heads:  # a repeat may belong to a head that was not asked for
        return []
    filled = {_bare(model, entry.theirs) for entry in entries(model)}
    kept, *others = (_bare(model, name) for name in tables.repeats)
    there = [name for name in others if name in spelled and name not in filled]
    if there and kept not in spelled:
        spelled[kept] = spelled[there[0]]
    do = "set tie_word_embeddings to false in config.json"
    return [
        problem(f"{where}: {spelled[name]}", f"differs from {spelled[kept]}, which it should repeat", do=do)
        for name in there
        if spelled[name] != spelled[kept] and not torch.equal(get(spelled[name]), get(spelled[kept]))
    ]


def of_heads(model: Model[Any], heads: Collection[str], names: Iterable[str]) -> set[str]:
    """Return which of their names belong to `heads`, which the model does not carry, and to no inner part of its own.

    A pooler serves several heads; an output layer, whatever its name, serves the one that was trained with it.
    """
    known = model.config.tables.task_heads
    theirs = [row.theirs for head in heads for row in known[head].renames]
    own = [row.theirs for head in model.heads for row in known[head].renames if ".out." not in str(row.ours)]
    wanted, kept = ([_bare(model, each) for each in patterns] for patterns in (theirs, own))
    bare = {name: _bare(model, name) for name in names}
    return {
        name
        for name, each in bare.items()
        if any(_shaped(row, each) for row in wanted) and not any(_shaped(row, each) for row in kept)
    }


def _shaped(pattern: str, name: str) -> bool:
    """Return whether a name of theirs is one that a pattern with `@` for weight or bias stands for."""
    return re.fullmatch(re.escape(pattern).replace("@", "(weight|bias)"), name) is not None


def require_outputs(model: Model[Any], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise BundleError with one line for each head that the files hold with another number of outputs."""
    spelled = {_bare(model, name): shape for name, shape in shapes.items()}
    ours = dict(model.named_parameters())
    found = {}
    for entry in entries(model):
        _, _, name = entry.ours[0].partition("heads.")
        shape, needed = spelled.get(_bare(model, entry.theirs)), ours[entry.ours[0]].shape
        if name and shape and shape[0] != needed[0]:
            head = name.partition(".")[0]
            given, allowed = f"the head '{head}' has {shape[0]:,} outputs", f"{needed[0]:,} are needed"
            found[head] = problem(where, given, allowed, do="name as many labels, or start from a model without it")
    if found:
        raise BundleError(*found.values())


def _bare(model: Model[Any], name: str) -> str:
    """Return a name without the family's prefix."""
    if name.endswith((".LayerNorm.gamma", ".LayerNorm.beta")):  # as BERT's first files say
        name = f"{name.rpartition('.')[0]}.{'weight' if name.endswith('gamma') else 'bias'}"
    return name.removeprefix(model.config.tables.prefix)


def _unknown(model: Model[Any], names: Iterable[str]) -> list[str]:
    """Return the names that mean nothing to this model: not ignored, and not the repeats of another."""
    covered = {_bare(model, each) for each in (model.config.tables.repeats or ())[1:]}
    return [
        name
        for name in names
        if _bare(model, name) not in covered
        and not any(re.fullmatch(each, name) for each in model.config.tables.ignored)
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
