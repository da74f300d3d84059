"""A recipe says everything once: model, tokenizer, data, objective, optimizer, schedule, plan, output.

    shipped name | path.yaml ─ key=value ─> Recipe ─ resolve ─> Recipe with every number filled in ─> runs/x/recipe.yaml

A name without `/` or `.yaml` is one of the recipes that come with the package (src/hanlin/recipes). These name public
text, such as data/lm/tinystories: HANLIN_DATA names the folder that holds `data/`; without it the recipe's public data
set is fetched from the hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hanlin import config as configs
from hanlin import files, hub
from hanlin.config import Config, override, parse, read_yaml, registered
from hanlin.errors import ConfigError, HubError, nearest, problem
from hanlin.objectives import next_token
from hanlin.optim import adamw
from hanlin.optim.schedules import Cosine, Schedule
from hanlin.text.tokenizer import Config as TokenizerConfig
from hanlin.train.plan import LENGTHS, PORTIONS, Plan

HOME, FOLDER = "HANLIN_DATA", "data"  # the variable that names the folder which holds data/, the recipes' text
SHIPPED = Path(configs.__file__).parent / "recipes"


class Data(Config):
    """What is learned from, and what is held out."""

    train: str  # shards made by `hanlin prepare`, or a corpus: a file, a folder, texts/*.txt, or `localdocs`
    hub: str | None = None  # the public data set to fetch where `train` is not there: owner/name[@revision]
    hub_files: tuple[str, ...] = ()  # of it; names or patterns
    valid: str | None = None  # a corpus of its own; without it a part of `train` is held out
    valid_fraction: float = Field(0.05, ge=0, lt=1)  # of the documents, or of each
    hold: Literal["documents", "end"] = "documents"  # what is held out: whole documents, or the end of each
    held: dict[str, str] = {}  # of a task: the rows of `train` with all these values are, such as {split: dev}
    field: str = "text"  # the key of the text in jsonl rows
    columns: dict[str, str] = {}  # of a task's rows: field -> column, where the usual names do not say
    bad_rows: int = Field(0, ge=0)  # of a task: at most so many that cannot be learned from are left out, and named
    limit_rows: int | None = Field(None, gt=0)  # of a task: learn from no more
    limit_bytes: int | None = Field(None, gt=0)  # read no more text than this


def _or_from(schema: dict[str, Any]) -> None:
    """Let the JSON schema of `model` also take `{from: FOLDER}`, which `build` reads."""
    start = {"type": "object", "properties": {"from": {"type": "string"}}, "required": ["from"]}
    schema["anyOf"].append({**start, "additionalProperties": False})


class Recipe(Config):
    """Everything a training run is told."""

    # A family and its sizes.
    model: registered("models", "family") | None = Field(None, json_schema_extra=_or_from)  # type: ignore[valid-type]
    start: str | None = None  # a model folder or hub name to go on from; `model: {from: ...}` says the same
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: Data
    task: registered("tasks") | None = None  # type: ignore[valid-type]  # what labelled rows teach; else plain text
    objective: registered("objectives") = next_token.Config()  # type: ignore[valid-type]
    optimizer: registered("optim") = adamw.Config()  # type: ignore[valid-type]
    schedule: Schedule = Cosine()
    plan: Plan
    tensorboard: bool = False  # event files beside metrics.jsonl; needs hanlin[track]
    output: str | None = None  # runs/<name of the recipe> when left out

    def problems(self) -> list[str]:
        """Return contradictions between sections."""
        found = []
        if (self.model is None) == (self.start is None):
            found.append("give a model: a family and its sizes, or `from:` a folder to go on from")
        context = (
            getattr(self.model, "context", None) if self.model and "context" in self.model.model_fields_set else None
        )
        if context is not None and context < self.plan.context:
            found.append(f"plan.context {self.plan.context} is more than model.context {context}")
        if self.plan.shortest_first and self.task is None:
            found.append("plan.shortest_first orders the rows of a task, and there is no task")
        return found


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a shipped name or a path, with `key=value` overrides; ConfigError lists every problem."""
    path = Path(name)
    if "/" not in name and path.suffix not in (".yaml", ".yml"):
        path = SHIPPED / f"{name}.yaml"
        shipped = sorted(each.stem for each in SHIPPED.glob("*.yaml"))
        if name not in shipped:
            allowed = f"shipped: {', '.join(shipped)}; or a path that ends in .yaml"
            raise ConfigError(problem("recipe", f"'{name}'", allowed, nearest(name, shipped)))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(problem(str(path), f"cannot be read: {reason}")) from None
    made = build(override(_make_way(read_yaml(text, str(path)), overrides), overrides))
    return made.model_copy(update={"data": located(made.data, os.environ)})


def located(data: Data, environ: Mapping[str, str]) -> Data:
    """Return the data with the paths that lie in the folder named by HANLIN_DATA, where they do."""
    home = environ.get(HOME)
    found = {}
    for name, given in (("train", data.train), ("valid", data.valid)):
        if home and given and not os.path.isabs(given) and files.matched(Path(home) / given):
            found[name] = str(Path(home) / given)
    return data.model_copy(update=found)


def corpus(data: Data) -> str:
    """Return the training text: its path, or that of its public data set, fetched; HanlinError says what to set."""
    ours = data.train.startswith(f"{FOLDER}/")
    if files.matched(data.train) or not (ours or data.hub):
        return data.train  # a path of the person's own that is not there is refused by who reads it
    where = f"neither here nor in {HOME}" if os.environ.get(HOME) else "not here"
    do = f"set {HOME} to the folder that holds {FOLDER}/, or data.train=YOUR_TEXT"
    if data.hub is None:
        raise ConfigError(problem("data.train", f"'{data.train}' is {where}", do=do))
    try:
        return str(hub.fetch_data(data.hub, data.hub_files).folder)
    except HubError as error:
        raise HubError(*error.problems, problem("data.train", f"'{data.train}' is {where}", do=do)) from None


def _make_way(data: dict[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """Return the recipe without the plan's keys that an override takes the place of: `plan.steps` for minutes."""
    plan = data.get("plan")
    given = {pair.partition("=")[0].removeprefix("plan.") for pair in pairs if pair.startswith("plan.")}
    rivals = {key for group in (LENGTHS, PORTIONS) if given & {*group} for key in group}
    if not isinstance(plan, Mapping) or not rivals:
        return data
    return {**data, "plan": {key: value for key, value in plan.items() if key not in rivals}}


def build(data: Mapping[str, Any]) -> Recipe:
    """Return the recipe that plain data holds."""
    data = dict(data)
    model = data.get("model")
    if isinstance(model, Mapping) and set(model) == {"from"}:
        data["start"] = data.pop("model")["from"]
    return parse(Recipe, data)


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain data that `build` turns back into an equal one."""
    return configs.dump(recipe)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str = "") -> list[str]:
    """Return `path: old -> new` for every value that differs between two plain recipes."""
    found = []
    for key in [*ours, *(each for each in theirs if each not in ours)]:
        path = f"{where}.{key}" if where else key
        old, new = ours.get(key), theirs.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, path)
        elif old != new:
            found.append(f"{path}: {old} -> {new}")
    return found
