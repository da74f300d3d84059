"""What exists: the file's name is the registered name, and a file is imported on first use.

    src/hanlin/models/llama.py      ->  load("models", "llama")     (it defines `class Config` at top level)
    src/hanlin/data/clean/length.py ->  load("data.clean", "length")
    src/hanlin/data/readers/csv.py  ->  load("data.readers", "csv")  (it says `ENDINGS = (".csv", …)` at top level)
    entry point `hanlin.models`     ->  load("models", "<its name>")  (third parties, same rule; `hanlin.clean` …)

Adding a family, optimizer, objective, reader, cleaning step or verb is adding a file; nothing here changes.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from hanlin.errors import ConfigError, nearest, problem

ROOT = Path(__file__).parent
MARK = re.compile(r"^(class Config\(|ENDINGS = )", re.MULTILINE)  # what a registered file has, and no contract


@cache
def _own(kind: str) -> dict[str, Path]:
    """Return name -> file of the registered files of a kind, found without importing them; a dot is a folder more."""
    files = sorted(ROOT.joinpath(*kind.split(".")).glob("*.py"))
    return {file.stem: file for file in files if MARK.search(file.read_text(encoding="utf-8"))}


def _others(kind: str) -> dict[str, EntryPoint]:
    """Return name -> entry point of what other packages add, under `hanlin.<the last word of the kind>`."""
    return {point.name: point for point in entry_points(group=f"hanlin.{kind.rpartition('.')[2]}")}


def names(kind: str) -> list[str]:
    """Return every registered name of a kind ("models", "optim", "data.clean", …), sorted; imports nothing."""
    return sorted({*_own(kind), *_others(kind)})


def summary(kind: str, name: str) -> str:
    """Return the first docstring line of one of our registered files, unimported; of others', the entry point."""
    if name in _own(kind):
        with _own(kind)[name].open(encoding="utf-8") as file:
            return file.readline().strip().strip('"')
    return f"from {_others(kind)[name].value}"


def load(kind: str, name: str) -> ModuleType:
    """Import and return the module registered under `name`; ConfigError with the nearest match when there is none."""
    if name in _own(kind):
        return importlib.import_module(f"hanlin.{kind}.{name}")
    others = _others(kind)
    if name in others:
        module = others[name].load()
        if not isinstance(module, ModuleType):
            raise ConfigError(
                problem(kind, f"'{name}' is {others[name].value}, of another package", "expected a module")
            )
        return module
    known = names(kind)
    raise ConfigError(problem(kind, f"unknown name '{name}'", f"known: {', '.join(known)}", nearest(name, known)))


def name_of(kind: str, thing: type) -> str:
    """Return the name under which the module that defines `thing` is registered."""
    for name, point in _others(kind).items():
        if point.value == thing.__module__:
            return name
    return thing.__module__.rsplit(".", 1)[-1]
