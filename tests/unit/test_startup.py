"""How long one waits before anything happens: help is quick, and importing hanlin costs nothing."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import serving

from hanlin import registry

HEAVY = ("torch", "numpy", "pydantic", "yaml", "tokenizers", "safetensors", "matplotlib", "rich", "pyarrow")
LOADED = f"import sys; print('loaded', *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
HELP = "from hanlin import cli; cli.run(['--help'])"
RUNS = 5

pytestmark = pytest.mark.multiprocess


def loaded(code):
    """Return the heavy packages that code imports, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{LOADED}"], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split()[1:])


def seconds(code):
    """Return how long a process that runs the code takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return time.perf_counter() - began


def extra(code):
    """Return how much longer code takes than nothing at all, the quickest of several turns: the rest is noise."""
    turns = [(seconds(code), seconds("pass")) for _ in range(RUNS)]
    return min(first for first, _ in turns) - min(second for _, second in turns)


@pytest.mark.parametrize("code", [HELP, "import hanlin", "from hanlin import cli; cli.run(['trian'])"])
def test_nothing_heavy_is_imported(code):
    """An import at the top of a file that turns every mistyped command into seconds of waiting."""
    assert loaded(code) == set()


@pytest.mark.parametrize("verb", registry.names("verbs"))
def test_the_help_of_a_verb_does_without_torch(verb):
    """A verb that opens its whole machinery to say what its options are."""
    assert "torch" not in loaded(f"from hanlin import cli; cli.run(['{verb}', '--help'])")


def test_a_model_is_opened_without_the_compiler(tmp_path):
    """Weights drawn on the meta device only to be overwritten: torch loads its compiler for them, for 1.6 seconds."""
    folder = serving.models(tmp_path, "bytes") / "bytes"
    write = f"import hanlin, sys; hanlin.load({str(folder)!r}).generate('a', limit=2)"
    code = f"{write}; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_help_is_there_in_a_quarter_second():
    """A slow start, beyond what Python itself takes (STYLE, 21)."""
    assert extra(HELP) <= 0.25


def test_import_is_there_at_once():
    """A package that does work when it is imported."""
    assert extra("import hanlin") <= 0.1
