"""From a path to what is served under which name, and what is refused before anything is loaded."""

import pytest
import torch
from folders import GPT2, write

from hanlin import runtime
from hanlin.errors import BundleError, ConfigError, HanlinError
from hanlin.serve import folder
from hanlin.serve.folder import Sizes, lines, named

PLACE = runtime.Runtime(device=torch.device("cpu"), dtype=torch.float32, threads=1)
SMALL = Sizes(slots=2, context=16)


@pytest.fixture
def root(tmp_path):
    """Return a folder of models, two levels deep, with what must not be served beside them."""
    write(tmp_path / "root" / "b", seed=1)
    write(tmp_path / "root" / "a", seed=2, config=GPT2)
    write(tmp_path / "root" / "team" / "c")
    write(tmp_path / "root" / "too" / "deep" / "d")
    write(tmp_path / "root" / ".hidden")
    write(tmp_path / "outside")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "inside").symlink_to(tmp_path / "root" / "a")
    (tmp_path / "root" / "empty").mkdir()
    return tmp_path / "root"


def test_names_are_folders_inside_the_root(root):
    """Guards against a link out of the root, a hidden folder, or a name that spells a path."""
    assert list(named(str(root))) == ["a", "b", "inside", "team/c"]


def test_one_folder_is_one_model(root):
    """Guards against a model folder taken for a root, and a name that depends on a trailing slash."""
    assert named(str(root / "a")) == named(f"{root}/a/") == {"a": root / "a"}


def test_a_root_without_models_says_so(root):
    """Guards against a server that starts with nothing to serve."""
    with pytest.raises(BundleError, match=r"no config\.json, here or below"):
        named(str(root / "empty"))


def test_a_name_that_is_no_folder_gets_the_nearest(root):
    """Guards against a typo that ends in a download."""
    with pytest.raises(HanlinError, match=r"root/a|no such"):
        named(str(root / "aa"))


def test_each_model_gets_its_own_line(root):
    """Guards against lines that share an engine, and sizes that are not passed on."""
    found = lines(str(root), SMALL, PLACE)
    assert [line.served.name for line in found] == ["a", "b", "inside", "team/c"]
    assert len({id(line.engine) for line in found}) == 4
    assert {line.served.context for line in found} == {16}
    assert {line.scheduler.slots for line in found} == {2}
    assert all(line.served.chat is None for line in found)
    assert found[0].served.fingerprint != found[1].served.fingerprint


def test_the_context_is_bounded(root):
    """Guards against positions the model never learned, and a cache as long as the longest context."""
    with pytest.raises(ConfigError, match="context: 33; b reads 32 tokens at most"):
        lines(str(root / "b"), Sizes(context=33), PLACE)
    assert lines(str(root / "b"), Sizes(slots=1), PLACE)[0].served.context == 32


def test_memory_is_forecast(root, monkeypatch):
    """Guards against a server that is killed for memory in the middle of a request."""
    monkeypatch.setattr(folder, "free_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match=r"2 slots of 16 tokens need 0\.0 GiB, 0\.0 are free; lower --slots"):
        lines(str(root / "b"), SMALL, PLACE)
    monkeypatch.setattr(folder, "free_bytes", lambda: None)
    assert lines(str(root / "b"), SMALL, PLACE)
