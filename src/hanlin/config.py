"""From YAML and `key=value` to frozen, strict configurations; every problem at once, with path and nearest match.

    recipe.yaml ─ read_yaml ─┐
                             ├─ override ─ parse ─> frozen Config       (or ConfigError with one line a problem)
    plan.steps=500 ──────────┘

`registered("optim")` marks a field whose class is chosen by name through the registry:
`optimizer: {name: adamw, rate: 1e-3}`.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, SerializeAsAny, ValidationError, model_validator
from pydantic_core import CoreSchema

from hanlin import registry
from hanlin.errors import ConfigError, nearest, problem

LONGEST_FILE = 1_000_000  # bytes; a recipe is a page of text, and the bound keeps hostile files cheap
DEEPEST = 20  # nesting levels; recipes use four


class Config(BaseModel):
    """What a user chooses: frozen, keyword-only, strict types, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    def problems(self) -> list[str]:
        """Return what is impossible about these values together, one line each."""
        return []

    @model_validator(mode="after")
    def _refuse(self) -> Self:
        found = self.problems()
        if found:
            raise ValueError("\n".join(found))
        return self


C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Registered:
    """Marks a field whose class is looked up by `key` among the registered files of `kind`."""

    kind: str
    key: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the field as one of the registered classes, each with its name as a constant."""
        choices = []
        for name in registry.names(self.kind):
            inner = handler.resolve_ref_schema(handler(registry.load(self.kind, name).Config.__pydantic_core_schema__))
            properties = {self.key: {"const": name}, **inner.get("properties", {})}
            choices.append({**inner, "properties": properties, "required": [self.key, *inner.get("required", [])]})
        return {"oneOf": choices}


def registered(kind: str, key: str = "name") -> Any:  # noqa: ANN401  # an Annotated type, which typing cannot name
    """Return the type of a field that holds one of the registered `Config`s of `kind`, chosen by the value at `key`."""
    return Annotated[SerializeAsAny[Config], Registered(kind, key)]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and aliases and reads 1e-3 as a number (YAML 1.1 calls it text)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing a key that stands twice."""
        seen: set[Hashable] = set()
        for each, _ in node.value:
            key = self.construct_object(each)
            if isinstance(key, Hashable):  # what is not is refused below
                if key in seen:
                    raise yaml.MarkedYAMLError(problem=f"key '{key}' stands twice", problem_mark=each.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, refusing aliases (a small file can unfold to gigabytes) and deep nesting."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not supported", problem_mark=self.peek_event().start_mark)
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {DEEPEST}", problem_mark=self.peek_event().start_mark
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what `_Loader` would not read as text, and writes no aliases, which it refuses."""

    def ignore_aliases(self, data: object) -> bool:
        """Write a value that stands in two places twice."""
        return True


for _each in (_Loader, _Dumper):
    _each.yaml_implicit_resolvers = {  # dates stay text: no config holds one, and names may look like one
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _each.yaml_implicit_resolvers.items()
    }
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def read_yaml(text: str, where: str) -> dict[str, Any]:
    """Return the mapping that YAML text holds; ConfigError with file, line and reason when it is not one."""
    if len(text) > LONGEST_FILE:
        raise ConfigError(problem(where, f"{len(text):,} characters", f"at most {LONGEST_FILE:,}"))
    try:
        loaded = yaml.load(text, Loader=_Loader)  # _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(problem(line, f"not valid YAML: {error.problem}")) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(problem(where, f"not valid YAML: {error}")) from None
    if loaded is None:
        raise ConfigError(problem(where, "empty file", "a recipe with at least a model and data"))
    if not isinstance(loaded, dict):
        raise ConfigError(problem(where, f"a {type(loaded).__name__}", "a mapping of keys to values"))
    return loaded


def write_yaml(data: Mapping[str, Any]) -> str:
    """Return YAML text for plain data, keys in the order given."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def override(data: Mapping[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """Return `data` with `a.b=value` pairs applied, later ones winning; values are read as YAML scalars or lists.

    >>> override({"plan": {"steps": 10}}, ["plan.steps=20"])
    {'plan': {'steps': 20}}
    """
    result = deepcopy(dict(data))
    problems = []
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not all(path.split(".")):
            problems.append(problem(pair, "not an override", "write key=value, for example plan.steps=500"))
            continue
        try:
            _put(result, path.split("."), _value(text, pair))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return result


def _value(text: str, pair: str) -> object:
    """Return the value that the right side of an override spells."""
    loaded = read_yaml(f"value: {text}", pair)
    if len(loaded) > 1:
        raise ConfigError(problem(pair, "several values", "one key=value each"))
    return loaded["value"]


def _put(data: dict[str, Any], keys: Sequence[str], value: object) -> None:
    """Set the value at the path `keys`, making the sections on the way that are not there or empty."""
    for depth, key in enumerate(keys[:-1], 1):
        data[key] = {} if data.get(key) is None else data[key]
        if not isinstance(data[key], dict):
            raise ConfigError(
                problem(".".join(keys), f"'{'.'.join(keys[:depth])}' is {data[key]!r}, without keys in it")
            )
        data = data[key]
    data[keys[-1]] = value


def parse(cls: type[C], data: Mapping[str, Any], where: str = "") -> C:
    """Return `data` as a frozen `cls`; ConfigError with one line for every problem in it, nested ones included."""
    config, problems = _parse(cls, data, where)
    if problems or config is None:
        raise ConfigError(*problems)
    return config


def _parse(cls: type[C], data: object, where: str) -> tuple[C | None, list[str]]:
    """Parse the registered sections first (their class depends on a name inside), then the rest by pydantic."""
    if not isinstance(data, Mapping):
        return None, [problem(where or "recipe", f"{data!r}", "expected a mapping of keys to values")]
    ready = {str(key): _tuples(value) for key, value in data.items()}
    problems: list[str] = []
    for name, field in cls.model_fields.items():
        key = field.alias or name
        marks = [mark for mark in field.metadata if isinstance(mark, Registered)]
        marks += [mark for arg in get_args(field.annotation) for mark in get_args(arg) if isinstance(mark, Registered)]
        if marks and ready.get(key) is not None and not isinstance(ready[key], BaseModel):
            section, found = _section(marks[0], ready.pop(key), _join(where, key), field.default)
            problems += found
            ready[key] = section if section is not None else Config.model_construct()
    try:
        return cls.model_validate(ready), problems
    except ValidationError as error:
        problems += [line for item in error.errors() for line in _explain(cls, dict(item), where)]
        return None, problems
    except AttributeError:
        if not problems:
            raise
        return None, problems  # a check met the stand-in of a section that is wrong


def _section(mark: Registered, data: object, where: str, default: object) -> tuple[Config | None, list[str]]:
    """Parse one registered section: `{name: adamw, ...}` into optim/adamw.py's Config; unnamed, the default's."""
    known = registry.names(mark.kind)
    if isinstance(data, Mapping) and isinstance(default, Config):
        data = {mark.key: registry.name_of(mark.kind, type(default)), **data}
    if not isinstance(data, Mapping) or mark.key not in data:
        return None, [problem(where, f"{data!r}", f"expected a mapping with '{mark.key}', one of: {', '.join(known)}")]
    rest = dict(data)
    name = str(rest.pop(mark.key))
    if name not in known:
        near = nearest(name, known)
        return None, [problem(_join(where, mark.key), f"unknown '{name}'", f"known: {', '.join(known)}", near)]
    return _parse(registry.load(mark.kind, name).Config, rest, where)


def dump(config: Config) -> dict[str, Any]:
    """Return plain data that `parse` turns back into an equal config; registered sections carry their name."""
    result: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        marks = [mark for mark in field.metadata if isinstance(mark, Registered)]
        marks += [mark for arg in get_args(field.annotation) for mark in get_args(arg) if isinstance(mark, Registered)]
        if isinstance(value, Config):
            plain = dump(value)
            value = {marks[0].key: registry.name_of(marks[0].kind, type(value)), **plain} if marks else plain
        result[field.alias or name] = _plain(value)
    return result


def _plain(value: object) -> object:
    """Return configs as mappings and tuples as lists, at any depth, so that YAML and JSON can hold them."""
    if isinstance(value, Config):
        return dump(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _tuples(value: object) -> object:
    """Return lists as tuples, at any depth: frozen configs hold no lists, and strict pydantic converts none."""
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _join(where: str, key: str) -> str:
    """Return the dotted path of `key` inside `where`."""
    return f"{where}.{key}" if where else key


def _explain(cls: type[BaseModel], error: dict[str, Any], where: str) -> list[str]:
    """Return one of pydantic's errors as our lines."""
    loc = [str(part) for part in error["loc"]]
    path = ".".join([where, *loc] if where else loc) or where or "recipe"
    if error["type"] == "extra_forbidden":
        known = _keys(cls, loc[:-1])
        return [problem(path, "unknown key", f"known: {', '.join(sorted(known))}", nearest(loc[-1], known))]
    if error["type"] == "default_factory_not_called":
        return []  # it follows from another field, which has a line of its own
    if error["type"] == "missing":
        return [problem(path, "missing", "this key has no default")]
    if error["type"] == "literal_error":
        choices = re.findall(r"'(.*?)'", error["ctx"]["expected"])
        near = nearest(str(error["input"]), choices)
        return [problem(path, f"{error['input']!r}"[:80], f"one of: {error['ctx']['expected']}", near)]
    if error["type"] == "value_error":
        return [problem(path, line) for line in str(error["ctx"]["error"]).splitlines()]
    return [problem(path, f"{error['input']!r}"[:80], error["msg"])]


def _keys(cls: type[BaseModel], loc: Sequence[str]) -> list[str]:
    """Return the keys that the section at `loc` inside `cls` knows."""
    for part in loc:
        found = [field for name, field in cls.model_fields.items() if (field.alias or name) == part]
        inner = _model(found[0].annotation) if found else None
        cls = inner or cls  # an index, a mapping's key or a union's tag stands in the path without being a field
    return [field.alias or name for name, field in cls.model_fields.items()]


def _model(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  # a type, or what typing makes of types
    """Return the first config class in an annotation, such as Shard in Mapping[str, tuple[Shard, ...]]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model(each))), None)


def read_json(path: Path, limit: int = 50_000_000) -> dict[str, Any]:
    """Return the mapping that a JSON file holds; ConfigError when it is absent, too large, too deep, or not one."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would block for ever
            raise ConfigError(problem(str(path), "not a file"))
        if path.stat().st_size > limit:
            raise ConfigError(problem(str(path), f"{path.stat().st_size:,} bytes", f"at most {limit:,}"))
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(problem(str(path), "no such file")) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(problem(str(path), f"not readable JSON: {error}"[:200])) from None
    if not isinstance(loaded, dict):
        raise ConfigError(problem(str(path), f"a JSON {type(loaded).__name__}", "expected an object"))
    return loaded
