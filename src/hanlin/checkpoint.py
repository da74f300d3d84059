"""Training state on disk: saved whole or not at all, verified when read, the one before it used when damaged.

    runs/x/checkpoints/000200/model.safetensors      fp32 weights
                              optimizer.safetensors  optimizer state, tensor by tensor
                              carry.safetensors      what a recurrent model remembers, where rows go on
                              average.safetensors    averaged weights, where the plan asks for them
                              state.json             step, counters, hashes of the files and of itself

No random state is kept: what a step draws follows from (seed, step).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hanlin import files
from hanlin.config import read_json
from hanlin.errors import CheckpointError, ConfigError, HanlinError, problem

PARTS = ("model", "optimizer", "carry", "average")
WHERE_THERE = ("carry", "average")  # parts that have no file when they are empty


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that a run needs to go on after `step`."""

    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    facts: Mapping[str, Any]  # early stopping, guard, data hash: small JSON values
    carry: Mapping[str, Tensor] = field(default_factory=dict)  # states that rows of the next step go on from
    average: Mapping[str, Tensor] = field(default_factory=dict)  # of the weights so far


class Checkpoints:
    """The checkpoints of one run: the last `keep` and the best."""

    def __init__(self, folder: Path, *, keep: int, say: Callable[[str], None]) -> None:
        """Use `folder`, removing unfinished saves; `say` is told when a damaged checkpoint is passed over."""
        self.folder = folder
        self.keep = keep
        self.say = say
        with files.explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            files.sweep(folder)

    def steps(self) -> list[int]:
        """Return the steps that have a finished checkpoint, ascending."""
        return sorted(int(path.name) for path in self.folder.iterdir() if re.fullmatch("[0-9]+", path.name))

    def save(self, state: State, *, best: int | None) -> None:
        """Write a checkpoint durably, then drop all but the last `keep` and the one of step `best`."""
        with files.filling(self._path(state.step)) as partial:
            hashes = {}
            for part in PARTS:
                tensors: Mapping[str, Tensor] = getattr(state, part)
                if part in WHERE_THERE and not tensors:
                    continue
                file = partial / f"{part}.safetensors"
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
                hashes[part] = files.sha256(file)
            body = {"step": state.step, "facts": dict(state.facts), "sha256": hashes}
            files.write_json(partial / "state.json", {**body, "self": _digest(body)})
        with files.explained(self.folder, do=f"the checkpoint of step {state.step} is whole"):
            for step in self.steps()[: -self.keep]:
                if step != best:
                    files.discard(self._path(step))

    def latest(self) -> State | None:
        """Return the newest checkpoint that is whole, naming every damaged one passed over; None without any.

        CheckpointError when there are checkpoints and every one is damaged: a run is never silently begun again.
        """
        found = self.steps()
        damage: list[str] = []
        for step in reversed(found):
            try:
                state = self.read(step)
            except HanlinError as error:
                damage += error.problems
                continue
            for line in damage:
                self.say(f"{line}; going on from step {step}")
            return state
        if damage:
            raise CheckpointError(*damage, problem(str(self.folder), "no whole checkpoint", do="--fresh starts over"))
        return None

    def read(self, step: int) -> State:
        """Return the checkpoint of `step`; CheckpointError names the file that is missing or damaged."""
        folder = self._path(step)
        try:
            body = read_json(folder / "state.json")
        except ConfigError as error:
            raise CheckpointError(*error.problems) from None
        if body.pop("self", None) != _digest(body):
            raise CheckpointError(problem(str(folder / "state.json"), "damaged: it does not match its own hash"))
        if body["step"] != step:
            raise CheckpointError(
                problem(str(folder / "state.json"), f"holds step {body['step']}, not that of its folder")
            )
        tensors = {}
        for part in (each for each in PARTS if each not in WHERE_THERE or each in body["sha256"]):
            file = folder / f"{part}.safetensors"
            if not file.is_file():
                raise CheckpointError(problem(str(file), "missing"))
            if files.sha256(file) != body["sha256"][part]:
                raise CheckpointError(problem(str(file), "damaged: it does not match its hash"))
            try:
                tensors[part] = load_file(file)
            except SafetensorError as error:
                raise CheckpointError(problem(str(file), f"damaged: {error}")) from None
        return State(step=step, facts=body["facts"], **tensors)

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:06d}"


def _digest(body: Mapping[str, Any]) -> str:
    """Return the hash of a state's JSON body."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
