"""Names found without importing, and modules found by name."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from hanlin import registry
from hanlin.errors import ConfigError

KINDS = ("models", "optim", "objectives", "verbs", "data.clean", "data.readers")


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """One module of another package, registered as the optimizer `fancy`, and one thing that is no module."""
    (tmp_path / "fancy_sgd.py").write_text(
        '"""Fancy."""\nfrom hanlin.config import Config as C\nclass Config(C):\n    pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("fancy", "fancy_sgd", "hanlin.optim"), EntryPoint("thing", "fancy_sgd:Config", "hanlin.optim")]
    steps = [EntryPoint("mine", "fancy_sgd", "hanlin.clean")]
    groups = {"hanlin.optim": points, "hanlin.clean": steps}
    monkeypatch.setattr(registry, "entry_points", lambda group: groups.get(group, []))


def test_names_are_files():
    """Guards against a list of names kept by hand, and contracts or packages taken for members."""
    for kind in KINDS:
        names = registry.names(kind)
        assert names == sorted(names)
        assert all(registry.ROOT.joinpath(*kind.split("."), f"{name}.py").is_file() for name in names)
        assert not {"contract", "__init__"} & set(names)
    assert {"gpt2", "llama"} <= set(registry.names("models"))
    assert {"length", "unicode"} <= set(registry.names("data.clean"))
    assert {"csv", "text"} <= set(registry.names("data.readers"))
    assert registry.names("nothing") == []


def test_names_import_nothing():
    """Guards against torch imported by --help."""
    code = (
        "import sys; from hanlin import registry as r; "
        f"[r.summary(kind, name) for kind in {KINDS} for name in r.names(kind)];"
        "print(sorted({'torch', 'pydantic'} & set(sys.modules)), [m for m in sys.modules if m.startswith('hanlin.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] ['hanlin.errors', 'hanlin.registry']\n"


def test_summaries_are_promises():
    """Guards against a file whose first line tells a reader of --help nothing."""
    for kind in KINDS:
        for name in registry.names(kind):
            said = registry.summary(kind, name)
            assert len(said) > 10, (kind, name)
            assert '"' not in said[:1] + said[-1:]


def test_load():
    """Guards against a name that loads another file than its own."""
    for kind in ("optim", "objectives", "data.clean"):
        for name in registry.names(kind):
            module = registry.load(kind, name)
            assert module.__name__ == f"hanlin.{kind}.{name}"
            assert registry.name_of(kind, module.Config) == name


@pytest.mark.parametrize("name", ["muonn", "contract", "__init__", "../models/llama", "os", ""])
def test_unknown_name(name):
    """Guards against an ImportError, and against a name that leads to a file that is no member."""
    with pytest.raises(ConfigError, match=f"optim: unknown name '{name}'; known: ") as caught:
        registry.load("optim", name)
    assert ("did you mean 'muon'?" in str(caught.value)) == (name == "muonn")


@pytest.mark.usefixtures("third_party")
def test_third_parties():
    """Guards against entry points that are not found, or whose configs lose their name."""
    assert {"adamw", "fancy"} <= set(registry.names("optim"))
    assert "fancy" not in registry.names("models")
    module = registry.load("optim", "fancy")
    assert module.__name__ == "fancy_sgd"
    assert registry.name_of("optim", module.Config) == "fancy"
    assert registry.summary("optim", "fancy") == "from fancy_sgd"
    assert "mine" in registry.names("data.clean")
    assert registry.load("data.clean", "mine") is module
    assert registry.name_of("data.clean", module.Config) == "mine"


@pytest.mark.usefixtures("third_party")
def test_entry_point_that_is_no_module():
    """Guards against a traceback about somebody else's mistake."""
    with pytest.raises(ConfigError, match="optim: 'thing' is fancy_sgd:Config, of another package; expected a module"):
        registry.load("optim", "thing")
