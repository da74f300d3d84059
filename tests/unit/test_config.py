"""What a person writes and what is said back: strict, complete, with paths and nearest matches; hostile files end."""

import json
import os
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from hanlin import registry
from hanlin.config import Config, _Loader, dump, override, parse, read_json, read_yaml, registered, write_yaml
from hanlin.errors import ConfigError

TEXT = "tag:yaml.org,2002:str"


class Plan(Config):
    steps: int = 10
    rate: float = Field(0.1, gt=0)
    source: str | None = Field(None, alias="from")


class Shard(Config):
    file: str
    tokens: int = 0


class Recipe(Config):
    plan: Plan = Plan()
    kind: Literal["bytes", "characters"] = "bytes"
    stop: tuple[str, ...] = ()
    bias: Mapping[int, float] = {}
    splits: Mapping[str, tuple[Shard, ...]] = {}
    second: Plan | None = None
    third: Plan = Field(Plan(), alias="last")

    def problems(self):
        return [f"{self.plan.steps} steps are too many"] if self.plan.steps > 1000 else []


class Built(Config):
    toy: registered("toys")
    other: registered("toys", "kind") | None = None

    def problems(self):
        return ["odd size"] if self.toy.size % 2 else []


TOYS = {
    "toy_ball": "class Inner(C):\n    red: int = 1\nclass Config(C):\n    size: int = 2\n    inner: Inner = Inner()\n",
    "toy_kite": "class Inner(C):\n    tail: float = 2.0\nclass Config(C):\n    size: int\n    inner: Inner = Inner()\n",
}


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Two third-party modules registered as toys."""
    for name, text in TOYS.items():
        (tmp_path / f"{name}.py").write_text("from hanlin.config import Config as C\n" + text)
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint(name.removeprefix("toy_"), name, "hanlin.toys") for name in TOYS]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "hanlin.toys" else [])


def said(call, *more):
    """Return the problems that a call's ConfigError lists."""
    with pytest.raises(ConfigError) as caught:
        call(*more)
    assert all("\n" not in each for each in caught.value.problems)
    return list(caught.value.problems)


# parse


def test_unknown_keys():
    """Guards against a typo that is ignored, a path that does not lead to it, and matches from another section."""
    assert said(parse, Recipe, {"plann": {}}) == [
        "plann: unknown key; known: bias, kind, last, plan, second, splits, stop; did you mean 'plan'?"
    ]
    known = "unknown key; known: from, rate, steps"
    assert said(parse, Recipe, {"plan": {"stepz": 1}}) == [f"plan.stepz: {known}; did you mean 'steps'?"]
    assert said(parse, Recipe, {"second": {"form": "x"}}) == [f"second.form: {known}; did you mean 'from'?"]
    assert said(parse, Recipe, {"last": {"form": "x"}}) == [f"last.form: {known}; did you mean 'from'?"]
    assert said(parse, Recipe, {"plan": {"source": "x"}}) == [f"plan.source: {known}"]
    assert said(parse, Recipe, {"splits": {"train": [{"file": "a", "tokenz": 1}]}}) == [
        "splits.train.0.tokenz: unknown key; known: file, tokens; did you mean 'tokens'?"
    ]
    assert said(parse, Recipe, {"zzz": 1}) == ["zzz: unknown key; known: bias, kind, last, plan, second, splits, stop"]
    assert said(parse, Plan, {"stepz": 1}, "recipe.yaml")[0].startswith("recipe.yaml.stepz: unknown key")


def test_every_problem_at_once():
    """Guards against a recipe that has to be started once for each of its mistakes."""
    data = {"plan": {"steps": "3", "rate": -1.0}, "kind": "bites", "splits": {"train": [{}]}, "odd": 1}
    assert said(parse, Recipe, data) == [
        "plan.steps: '3'; Input should be a valid integer",
        "plan.rate: -1.0; Input should be greater than 0",
        "kind: 'bites'; one of: 'bytes' or 'characters'; did you mean 'bytes'?",
        "splits.train.0.file: missing; this key has no default",
        "odd: unknown key; known: bias, kind, last, plan, second, splits, stop",
    ]


@pytest.mark.parametrize(
    ("cls", "data"),
    [
        (Plan, {"steps": "3"}),
        (Plan, {"steps": True}),
        (Plan, {"steps": 3.0}),
        (Plan, {"steps": None}),
        (Plan, {"rate": "0.1"}),
        (Plan, {"rate": True}),
        (Plan, {"rate": float("nan")}),
        (Plan, {"rate": float("inf")}),
        (Plan, {"rate": 10**400}),
        (Plan, {"from": 3}),
        (Recipe, {"stop": "a"}),
        (Recipe, {"stop": [1]}),
        (Recipe, {"bias": {"5": 1.0}}),
        (Recipe, {"bias": [1.0]}),
        (Recipe, {"plan": 3}),
        (Recipe, {"plan": [1]}),
        (Recipe, {"plan": None}),
        (Recipe, {"plan": {3: 4}}),
        (Recipe, {3: 4}),
        (Recipe, [1]),
        (Recipe, None),
    ],
)
def test_strictness(cls, data):
    """Guards against values that are bent until they fit: "3" is no number, true is not 1, a list is no section."""
    assert len(said(parse, cls, data)) == 1


def test_values_arrive():
    """Guards against lists left mutable, whole numbers refused as rates, and integer keys turned into text."""
    data = {"plan": {"rate": 1, "from": "x"}, "stop": ["a", "b"], "bias": {5: -1}, "splits": {"t": [{"file": "f"}]}}
    recipe = parse(Recipe, data)
    assert recipe.plan == Plan(**{"rate": 1.0, "from": "x"})
    assert (recipe.stop, recipe.bias, recipe.splits) == (("a", "b"), {5: -1.0}, {"t": (Shard(file="f"),)})
    with pytest.raises(ValueError, match="frozen"):
        recipe.kind = "characters"


def test_own_checks_have_a_path():
    """Guards against a contradiction between values that is found but not placed."""
    assert said(parse, Recipe, {"plan": {"steps": 2000}}) == ["recipe: 2000 steps are too many"]
    assert said(parse, Recipe, {"plan": {"steps": 2000}}, "base.yaml") == ["base.yaml: 2000 steps are too many"]


def test_values_that_follow_from_others():
    """Guards against a second, senseless line about a default that could not be made from a wrong value."""

    class Follows(Config):
        size: int
        half: int = Field(default_factory=lambda given: given["size"] // 2)

    assert parse(Follows, {"size": 8}).half == 4
    assert said(parse, Follows, {"size": "8"}) == ["size: '8'; Input should be a valid integer"]


# registered sections


@pytest.mark.usefixtures("toys")
def test_registered_section():
    """Guards against a section parsed as another class than its name says, and a name lost on the way back."""
    built = parse(Built, {"toy": {"name": "ball", "inner": {"red": 7}}, "other": {"kind": "kite", "size": 3}})
    assert (type(built.toy).__module__, built.toy.inner.red) == ("toy_ball", 7)
    assert (type(built.other).__module__, built.other.size) == ("toy_kite", 3)
    plain = dump(built)
    assert plain == {
        "toy": {"name": "ball", "size": 2, "inner": {"red": 7}},
        "other": {"kind": "kite", "size": 3, "inner": {"tail": 2.0}},
    }
    assert parse(Built, plain) == built
    assert parse(Built, read_yaml(write_yaml(plain), "x")) == built
    assert parse(Built, {"toy": built.toy, "other": None}).toy is built.toy


@pytest.mark.usefixtures("toys")
def test_problems_in_registered_sections():
    """Guards against a wrong section that hides the problems of others, or lets a check meet what is not there."""
    data = {"toy": {"name": "kite", "sise": 2, "inner": {"tial": 1.0}}, "other": {"kind": "bal"}, "odd": 1}
    assert said(parse, Built, data) == [
        "toy.size: missing; this key has no default",
        "toy.inner.tial: unknown key; known: tail; did you mean 'tail'?",
        "toy.sise: unknown key; known: inner, size; did you mean 'size'?",
        "other.kind: unknown 'bal'; known: ball, kite; did you mean 'ball'?",
        "odd: unknown key; known: other, toy",
    ]
    assert said(parse, Built, {"toy": {"name": "bal"}}) == [
        "toy.name: unknown 'bal'; known: ball, kite; did you mean 'ball'?"
    ]
    assert said(parse, Built, {"toy": {"name": "ball", "size": 3}}) == ["recipe: odd size"]
    for given in ("ball", 3, ["ball"], {"size": 1}):
        (line,) = said(parse, Built, {"toy": given})
        assert line.startswith("toy: ")
        assert line.endswith("expected a mapping with 'name', one of: ball, kite")
    assert said(parse, Built, {}) == ["toy: missing; this key has no default"]


@pytest.mark.usefixtures("toys")
def test_checks_may_fail_on_their_own():
    """Guards against an AttributeError of a check's own, swallowed as if a section were wrong."""

    class Wrong(Config):
        def problems(self):
            return [self.nothing]

    with pytest.raises(AttributeError):
        parse(Wrong, {})


@pytest.mark.usefixtures("toys")
def test_schema():
    """Guards against a schema that lacks a choice or its name, or points to definitions that are not there."""
    schema = Built.model_json_schema()
    ball, kite = schema["properties"]["toy"]["oneOf"]
    assert ball["properties"]["name"] == {"const": "ball"}
    assert (ball["required"], kite["required"]) == (["name"], ["name", "size"])
    assert schema["properties"]["other"]["anyOf"][0]["oneOf"][1]["properties"]["kind"] == {"const": "kite"}
    fields = [
        schema["$defs"][each["properties"]["inner"]["$ref"].split("/")[-1]]["properties"] for each in (ball, kite)
    ]
    assert [list(each) for each in fields] == [["red"], ["tail"]]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"plan": {"from": "x"}, "stop": ["是", "no", "1e3", "2024-01-01"], "bias": {7: 0.5}},
        {"second": {"steps": 3}, "splits": {"train": [{"file": "a"}, {"file": "b", "tokens": 10**15}], "valid": []}},
    ],
)
def test_dump_and_back(data):
    """Guards against a resolved recipe that reads back as another one."""
    recipe = parse(Recipe, data)
    assert parse(Recipe, dump(recipe)) == recipe
    assert parse(Recipe, read_yaml(write_yaml(dump(recipe)), "x")) == recipe
    assert json.loads(json.dumps(dump(recipe)))["splits"] == dump(recipe)["splits"]


def test_written_yaml():
    """Guards against a written recipe that we refuse ourselves: aliases for what stands in two places."""
    twice = ["a", "b"]
    text = write_yaml({"first": twice, "second": twice, "day": "2024-01-01", "name": "语言"})
    assert text == "first:\n- a\n- b\nsecond:\n- a\n- b\nday: 2024-01-01\nname: 语言\n"
    assert read_yaml(text, "x") == {"first": twice, "second": twice, "day": "2024-01-01", "name": "语言"}


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-2.5e+3", -2500.0),
        (".5e3", 500.0),
        ("1_000e1", 10000.0),
        ("1_000", 1000),
        ("0.1", 0.1),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1e3x", "1e3x"),
        ("2024-01-01", "2024-01-01"),
        ("'1e-3'", "1e-3"),
        ("true", True),
        ("", None),
        ("语言", "语言"),
    ],
)
def test_scalars(text, value):
    """Guards against YAML 1.1's reading of 1e-3 as text, and of a folder named by its date as a date."""
    read = read_yaml(f"a: {text}", "x")["a"]
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: 1\nb: 2\na: 3", "x.yaml:3: not valid YAML: key 'a' stands twice"),
        ("p:\n  a: 1\n  a: 1", "x.yaml:3: not valid YAML: key 'a' stands twice"),
        ("1: a\n0x1: b", "x.yaml:2: not valid YAML: key '1' stands twice"),
        ("a: &x [1]\nb: *x", "x.yaml:2: not valid YAML: aliases are not supported"),
        ("a: !!python/object/apply:os.system ['echo ran']", "python/object/apply:os.system"),
        ("a: !!python/name:os.system", "python/name:os.system"),
        ("a: !own 1", "could not determine a constructor for the tag '!own'"),
        ("? [a]\n: 1", "unhashable key"),
        ("a: {<<: {b: 1}}", "not valid YAML"),
        ("a: [1", "x.yaml:1: not valid YAML"),
        ("a: 1\n---\nb: 2", "x.yaml:2: not valid YAML"),
        ("a: \0", "x.yaml: not valid YAML"),
        ("a: 1" + "0" * 5000, "x.yaml: not valid YAML: Exceeds the limit"),
        ("a: " + "[" * 21, "x.yaml:1: not valid YAML: nested deeper than 20"),
        ("a: " + "[" * 100_000, "nested deeper than 20"),
        ("a: " + "{b: " * 100_000, "nested deeper than 20"),
        ("#" * 1_000_001, "x.yaml: 1,000,001 characters; at most 1,000,000"),
        ("", "x.yaml: empty file"),
        ("- 1", "x.yaml: a list; a mapping of keys to values"),
        ("word", "x.yaml: a str; a mapping of keys to values"),
    ],
)
def test_refused_yaml(text, wanted):
    """Guards against code in tags, a small file that unfolds to gigabytes, a value that wins over its twin."""
    (line,) = said(read_yaml, text, "x.yaml")
    assert wanted in line
    assert len(line) < 300


def test_alias_bomb():
    """Guards against nine levels of nine aliases: refused at the first alias, not after the last."""
    levels = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"] + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert said(read_yaml, "\n".join(levels), "x") == ["x:2: not valid YAML: aliases are not supported"]


def test_many_keys_stay_cheap():
    """Guards against a search for twins that compares every key with every other: 100 times the work at 100 times."""

    class Counted(str):
        compared = 0

        def __eq__(self, other):
            Counted.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    loader = _Loader("\n".join(f"k{number}: 1" for number in range(1000)))
    loader.yaml_constructors = {**loader.yaml_constructors, TEXT: lambda _, node: Counted(node.value)}
    node = loader.get_single_node()
    assert len(loader.construct_mapping(node)) == 1000
    assert Counted.compared < 10_000
    loader.dispose()


def test_nesting_that_is_allowed():
    """Guards against a depth that counts neighbours, or recipes refused for their natural depth."""
    text = "a: " + "[" * 19 + "]" * 19 + "\n" + "".join(f"b{number}: {{c: [1, 2]}}\n" for number in range(50))
    assert len(read_yaml(text, "x")) == 51


# override


def test_override():
    """Guards against a later value losing, a section lost with the one that is set in it, and the recipe changed."""
    data = {"plan": {"steps": 10, "rate": 0.1}, "second": None, "bias": {5: 1.0}, "stop": ["a"]}
    before = json.dumps(data)
    pairs = [
        "plan.steps=20",
        "plan.steps=30",
        "second.from=x=y",
        "new.deep.key=[1, a]",
        "kind=",
        "stop=[]",
        "rate=1e-3",
    ]
    assert override(data, pairs) == {
        "plan": {"steps": 30, "rate": 0.1},
        "second": {"from": "x=y"},
        "bias": {5: 1.0},
        "stop": [],
        "new": {"deep": {"key": [1, "a"]}},
        "kind": None,
        "rate": 0.001,
    }
    assert json.dumps(data) == before
    assert override({}, ["name=2024-01-01", "text='a: b'"]) == {"name": "2024-01-01", "text": "a: b"}


def test_refused_overrides():
    """Guards against an override that is silently lost, and against one problem hiding the next."""
    pairs = [
        "steps",
        "=3",
        "a..b=1",
        ".a=1",
        "plan.steps.x=1",
        "stop.0=b",
        "a=b: c",
        "a=*x",
        "a=!!python/name:os.system",
        "a=1\nb: 2",
    ]
    lines = said(override, {"plan": {"steps": 10}, "stop": ["a"]}, pairs)
    assert [line.split(": ")[0] for line in lines[:6]] == [*pairs[:4], "plan.steps.x", "stop.0"]
    assert all("write key=value" in line for line in lines[:4])
    assert lines[4:6] == [
        "plan.steps.x: 'plan.steps' is 10, without keys in it",
        "stop.0: 'stop' is ['a'], without keys in it",
    ]
    assert len(lines) == len(pairs)


# JSON


def test_read_json(tmp_path):
    """Guards against tracebacks, endless reads and hangs on what only looks like a config.json."""
    path = tmp_path / "config.json"
    assert said(read_json, path) == [f"{path}: no such file"]
    path.write_text('{"a": [1, 2.5], "b": "语言"}', encoding="utf-8")
    assert read_json(path) == {"a": [1, 2.5], "b": "语言"}
    assert said(read_json, path, 20) == [f"{path}: {path.stat().st_size} bytes; at most 20"]
    for text in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}"):
        path.write_bytes(text)
        (line,) = said(read_json, path)
        assert line.startswith(f"{path}: not readable JSON: ")
        assert len(line) < 300 + len(str(path))
    path.write_text("[1]")
    assert said(read_json, path) == [f"{path}: a JSON list; expected an object"]
    assert said(read_json, tmp_path) == [f"{tmp_path}: not a file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_json_that_never_ends(tmp_path, make):
    """Guards against a named pipe or a device in place of a file: reading it would never return."""
    path = tmp_path / "config.json"
    make(path)
    assert said(read_json, path) == [f"{path}: not a file"]


def test_no_paths_of_this_machine():
    """Guards against an error that names our sources instead of the person's file."""
    assert str(Path(__file__).parent) not in said(parse, Plan, {"steps": "3"})[0]
