"""The command line: options are the verb's Config, problems are lines, and Ctrl-C is no accident."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from pydantic import Field

import hanlin
from hanlin import cli, registry
from hanlin.config import Config as Frozen
from hanlin.errors import ConfigError, HanlinError, Stopped

VERBS = registry.names("verbs")


class Config(Frozen):
    """A verb that has every kind of field."""

    first: str
    second: str = "none"
    rest: tuple[str, ...] = ()
    count: int = Field(3, ge=0, description="How many.")
    share: float = Field(0.5, description="Which part.")
    most: int | None = Field(None, gt=0, description="At most.")
    minutes: float | None = None
    long_name: str = Field("x y", description="Two words.")
    many: tuple[str, ...] = Field((), description="Several.")
    loud: bool = Field(False, description="Say more.")
    json_: bool = Field(False, alias="json", description="JSON.")


class Verb:
    """What registry.load returns, with a run that keeps what it was told."""

    __doc__ = "Do a thing."
    POSITIONAL, REST = ("first", "second"), "rest"

    def __init__(self, outcome=None):
        self.Config, self.told, self.outcome = Config, [], outcome

    def run(self, config):
        self.told.append(config)
        if self.outcome is not None:
            raise self.outcome


@pytest.fixture
def verb(monkeypatch):
    """Register one verb, `do`, and return it."""
    made = Verb()
    monkeypatch.setattr(registry, "names", lambda kind: ["do"])
    monkeypatch.setattr(registry, "load", lambda kind, name: made)
    monkeypatch.setattr(registry, "summary", lambda kind, name: made.__doc__)
    return made


def told(verb, *words):
    """Run the verb and return what it was told."""
    assert cli.run(["do", *words]) == 0
    return verb.told.pop()


def refused(capsys, *words):
    """Run a command that must fail; return its lines."""
    assert cli.run(list(words)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return lines


class TestOptions:
    """Fields and flags."""

    @pytest.mark.parametrize("name", VERBS)
    def test_every_field_of_every_verb_has_one(self, name):
        """A field that cannot be set, an option without a word of help, a default that is not shown."""
        module, command = registry.load("verbs", name), cli.command(name)
        context = click.Context(command, info_name=name)
        page = re.sub(r"\s+", " ", command.get_help(context))
        assert page.startswith(f"Usage: {name} ")
        assert module.__doc__.splitlines()[0].split(";")[0] in page
        options = {each.name: each for each in command.params}
        assert options.keys() == {*module.Config.model_fields, "debug"}
        for key, field in module.Config.model_fields.items():
            if isinstance(options[key], click.Argument):
                assert options[key].required == field.is_required()
                continue
            assert options[key].opts == [f"--{(field.alias or key).replace('_', '-')}"]
            assert field.description
            bare = field.is_required() or field.default in (None, "", ()) or field.annotation is bool
            shown = "" if bare else f" [{field.default}]"
            assert f"{field.description}{shown}" in page

    def test_nothing_given_is_the_defaults(self, verb):
        """A flag that is not given and overrules the default, or an option's empty value."""
        assert told(verb, "a") == Config(first="a")

    def test_everything_given(self, verb):
        """Numbers left as text, underscores for dashes, only the last of several values."""
        words = ["a", "b", "k=1", "l=2", "--count", "0", "--share", "1", "--most", "7", "--minutes", "2.5", "--json"]
        words += ["--long-name", "z", "--many", "x", "--many", "", "--loud"]
        expected = Config(
            first="a",
            second="b",
            rest=("k=1", "l=2"),
            count=0,
            share=1.0,
            most=7,
            minutes=2.5,
            long_name="z",
            many=("x", ""),
            loud=True,
            json=True,
        )
        assert told(verb, *words) == expected

    def test_dashes_and_numbers_stay_text_where_text_is_wanted(self, verb):
        """A prompt that begins with a dash, or is a number, taken for something else."""
        found = told(verb, "--long-name", "12", "--", "-5", "--json")
        assert (found.first, found.second, found.long_name, found.json_) == ("-5", "--json", "12", False)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["a", "--count", "many"], "count: 'many'"),
            (["a", "--count", "-1"], "count: -1"),
            (["a", "--count", "1.5"], "count: '1.5'"),
            (["a", "--share", "nan"], "share: nan"),
            (["a", "--most", "0"], "most: 0"),
            (["a", "--jsn"], "--jsn"),
            (["a", "--count"], "--count"),
            ([], "Missing argument 'FIRST'"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, verb, capsys, words, expected):
        """A usage page, a traceback, or a number read as another."""
        (line,) = refused(capsys, "do", *words)
        assert expected in line
        assert verb.told == []

    def test_all_problems_at_once(self, verb, capsys):
        assert len(refused(capsys, "do", "a", "--count", "x", "--most", "0")) == 2


class TestVerbs:
    """Which there are."""

    def test_help_lists_every_verb_with_its_promise(self, capsys):
        """A verb that nobody finds."""
        for words in ([], ["--help"], ["-h"]):
            assert cli.run(words) == 0
            page = re.sub(r"\s+", " ", capsys.readouterr().out)
            for name in VERBS:
                assert f"{name} {registry.summary('verbs', name)}" in page

    def test_a_typo_names_the_nearest(self, capsys):
        """A list of all verbs where one letter is wrong."""
        (line,) = refused(capsys, "inspct")
        assert "no verb 'inspct'; verbs: ask, chat, compare, " in line
        assert line.endswith("did you mean 'inspect'?")

    def test_version(self, capsys):
        """Three places that tell three versions."""
        assert cli.run(["--version"]) == 0
        assert capsys.readouterr().out == f"hanlin {version('hanlin')}\n"
        assert hanlin.__version__ == version("hanlin")


class TestEnds:
    """How a command ends."""

    def test_a_problem_is_a_line_each(self, verb, capsys):
        """Only the first of several problems; a traceback."""
        verb.outcome = ConfigError("a: wrong", "b: wrong")
        assert refused(capsys, "do", "x") == ["error: a: wrong", "error: b: wrong"]

    def test_debug_shows_where(self, verb):
        """A traceback that nobody can get at."""
        verb.outcome = ConfigError("a: wrong")
        with pytest.raises(HanlinError) as caught:
            cli.run(["do", "x", "--debug"])
        assert caught.value is verb.outcome
        verb.outcome = None
        assert told(verb, "x", "--debug") == Config(first="x")

    def test_a_bug_is_not_hidden(self, verb):
        """Our own mistakes told as if they were the person's."""
        verb.outcome = AttributeError("ours")
        with pytest.raises(AttributeError, match="ours"):
            cli.run(["do", "x"])

    @pytest.mark.parametrize("code", [130, 143])
    def test_stopped(self, verb, capsys, code):
        """Exit 0 after Ctrl-C, so that a script goes on as if the run were done."""
        verb.outcome = Stopped(code, "stopped and saved at step 3 of 9")
        assert cli.run(["do", "x"]) == code
        assert capsys.readouterr().err == "stopped and saved at step 3 of 9; the same command goes on\n"

    def test_ctrl_c_elsewhere(self, verb, capsys):
        """A traceback for Ctrl-C while a corpus is read."""
        verb.outcome = KeyboardInterrupt()
        assert cli.run(["do", "x"]) == 130
        assert capsys.readouterr().err.split() == ["stopped"]

    @pytest.mark.multiprocess
    def test_ctrl_c_while_it_starts(self):
        """A page of traceback for Ctrl-C in the second that torch takes to be imported."""
        code = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch.nn":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
from hanlin import cli
sys.argv = ["hanlin", "generate", "nowhere", "x"]
cli.main()
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 130
        assert done.stderr.split() == ["stopped"]
        assert done.stdout == ""

    @pytest.mark.multiprocess
    def test_debug_on_the_command_line(self):
        """--debug that is taken and ignored, or another exit status with it."""
        command = [sys.executable, "-m", "hanlin", "prepare", "nowhere.txt", "--kind", "byts", "--debug"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("Traceback")
        assert "did you mean 'bytes'?" in done.stderr.splitlines()[-1]
