"""The folder of a run: one writer, one recipe for good, nobody else's files touched."""

from __future__ import annotations

import errno
import json

import pytest

from hanlin import files
from hanlin.config import write_yaml
from hanlin.errors import ConfigError, RunError
from hanlin.train.folder import claimed, fingerprint, is_run, keep, resolved
from hanlin.train.recipe import build, plain

SMALL = {
    "model": {"family": "llama", "dim": 16, "layers": 1, "heads": 2},
    "data": {"train": "corpus.txt"},
    "plan": {"minutes": 2},
}


def recipe(**plan):
    return build({**SMALL, "plan": {"minutes": 2.0, **plan}})


def finished(asked=None):
    """Return a recipe with its minutes resolved."""
    asked = asked or recipe()
    known = {"steps": 70, "minutes": None, "epochs": None, "evaluate_every": 7, "save_every": 7}
    return asked.model_copy(update={"plan": asked.plan.model_copy(update=known), "output": "runs/x"})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "x"


@pytest.fixture
def begun(folder):
    """A folder whose run has its numbers and one checkpoint."""
    with claimed(folder, recipe()):
        keep(folder, finished())
        (folder / "checkpoints" / "000007").mkdir(parents=True)
        (folder / "data").mkdir()
        (folder / "data" / "tokens").write_text("kept")
    return folder


def refused(folder, asked=None, **given):
    """Return the lines with which a claim is refused; nothing in the folder may change."""
    before = listed(folder)
    with pytest.raises(RunError) as caught, claimed(folder, asked or recipe(), **given):
        pytest.fail("claimed")
    assert listed(folder) == before
    return caught.value.problems


def listed(folder):
    """Return what lies in a folder with its content, the lock aside."""
    found = sorted(path for path in folder.rglob("*") if path.name != ".lock") if folder.is_dir() else []
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


class TestClaim:
    """Whose folder it is."""

    def test_a_new_folder(self, folder):
        """A folder that must be made by hand, or a run that forgets what it was asked for."""
        assert not is_run(folder)
        with claimed(folder, recipe()):
            assert is_run(folder)
            assert resolved(folder) is None
        assert json.loads((folder / "run.json").read_text())["asked"]["plan"]["minutes"] == 2.0

    def test_the_same_recipe_goes_on(self, begun):
        """A repeated command refused, or one that wipes what is there."""
        before = listed(begun)
        for asked in (recipe(), build({**SMALL, "output": "elsewhere/x"})):
            with claimed(begun, asked):
                assert listed(begun) == before
                assert resolved(begun) == finished()

    def test_the_resolved_recipe_is_the_same_run(self, begun):
        """`hanlin train runs/x/recipe.yaml --output runs/x` refused though it says the same."""
        with claimed(begun, finished()):
            assert resolved(begun) == finished()
        assert "plan.steps" in " ".join(refused(begun, finished(recipe(seed=1))))

    def test_another_recipe_is_refused_by_name(self, begun):
        """Two recipes mixed in one run; a refusal that leaves one to guess."""
        lines = refused(begun, build({**SMALL, "plan": {"minutes": 3, "seed": 4}}))
        assert "holds a run of another recipe; choose another --output, or --fresh" in lines[0]
        assert [line.partition(": ")[2] for line in lines[1:]] == ["plan.minutes: 2.0 -> 3.0", "plan.seed: 0 -> 4"]

    def test_many_differences_are_counted(self, begun):
        """A page of lines."""
        other = {"rows": 3, "context": 8, "clip": 2.0, "seed": 1, "keep": 5, "threads": 1, "patience": 9}
        lines = refused(begun, recipe(**other))
        assert len(lines) == 7
        assert lines[-1].endswith("and 2 more differences")

    @pytest.mark.parametrize("fresh", [False, True])
    def test_the_files_of_others_are_never_touched(self, folder, fresh):
        """A thesis emptied by --fresh."""
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("mine")
        (line,) = refused(folder, fresh=fresh)
        assert "holds 'thesis.txt' and no run" in line

    def test_a_file_in_its_place(self, folder):
        folder.parent.mkdir()
        folder.write_text("a file")
        (line,) = refused(folder)
        assert "a file stands there" in line

    def test_an_empty_folder_and_leftovers_of_a_crash_are_free(self, folder):
        """A crash in the first second that bars the folder for good."""
        (folder / f"{files.PARTIAL}123-run.json").mkdir(parents=True)
        (folder / ".lock").touch()
        with claimed(folder, recipe()):
            assert sorted(path.name for path in folder.iterdir()) == [".lock", "run.json"]

    @pytest.mark.parametrize("what", ["pathlib.Path.mkdir", "filelock.FileLock.acquire"])
    def test_a_folder_that_may_not_be_written(self, folder, monkeypatch, what):
        """A traceback on a disk that is read-only."""

        def forbid(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        folder.mkdir(parents=True)
        monkeypatch.setattr(what, forbid)
        (line,) = refused(folder)
        assert "cannot be written: permission denied" in line

    def test_a_run_json_that_is_damaged_is_one_line(self, begun):
        """A traceback, or a run taken for another."""
        (begun / "run.json").write_text('{"asked": ')
        with pytest.raises(ConfigError, match=r"run\.json: not readable JSON"), claimed(begun, recipe()):
            pass


class TestLock:
    """One at a time."""

    @pytest.mark.parametrize("fresh", [False, True])
    def test_a_second_claim_is_refused(self, folder, fresh):
        """Two processes writing the same checkpoints; a run emptied under the feet of another."""
        with claimed(folder, recipe()):
            (line,) = refused(folder, fresh=fresh)
            assert "another run is at work here; wait for it, or stop it" in line
            (folder / "loss.png").write_text("still mine")
        with claimed(folder, recipe()):
            assert (folder / "loss.png").exists()

    def test_is_given_back_after_an_error(self, begun):
        """A folder locked for ever by a refusal."""
        with pytest.raises(ZeroDivisionError), claimed(begun, recipe()):
            raise ZeroDivisionError
        refused(begun, recipe(seed=1))
        with claimed(begun, recipe()):
            pass


class TestFresh:
    """Starting over."""

    def test_empties_a_run(self, begun):
        """An old checkpoint or tokenizer that the new run goes on from."""
        (begun / "link").symlink_to("/")
        with claimed(begun, recipe(seed=9), fresh=True):
            assert sorted(path.name for path in begun.iterdir()) == [".lock", "run.json"]
            assert resolved(begun) is None

    def test_interrupted_while_emptying_it_is_still_a_run(self, begun, monkeypatch):
        """A folder half empty that is a run's no more, and that nobody may use again."""

        def stop(path):
            raise KeyboardInterrupt

        monkeypatch.setattr("hanlin.train.folder.shutil.rmtree", stop)
        with pytest.raises(KeyboardInterrupt), claimed(begun, recipe(), fresh=True):
            pass
        assert is_run(begun)


class TestFailedStart:
    """A run that ended before its first step."""

    def test_gives_way_to_the_corrected_recipe(self, folder):
        """A typo in data.train after which the corrected command is refused as another recipe."""
        with claimed(folder, build({**SMALL, "data": {"train": "corpsu.txt"}})):
            (folder / "data").mkdir()
            (folder / "data" / "tokens").write_text("of another corpus")
            (folder / "checkpoints").mkdir()
        with claimed(folder, recipe()):
            assert not (folder / "data").exists()
        assert json.loads((folder / "run.json").read_text())["asked"]["data"]["train"] == "corpus.txt"

    def test_its_data_is_kept_for_the_same_recipe(self, folder):
        """An hour of tokenizing done again because the start was interrupted."""
        with claimed(folder, recipe()):
            (folder / "data").mkdir()
        with claimed(folder, recipe()):
            assert (folder / "data").is_dir()

    @pytest.mark.parametrize("left", ["model.safetensors", "checkpoints/000007/state.json", "notes.txt"])
    def test_does_not_give_way_where_there_is_something_to_lose(self, begun, left):
        """Weights wiped because recipe.yaml was deleted."""
        (begun / "recipe.yaml").unlink()
        (begun / "checkpoints" / "000007").rmdir()
        (begun / left).parent.mkdir(exist_ok=True)
        (begun / left).write_text("dear")
        assert "another recipe" in refused(begun, recipe(seed=1))[0]


class TestFingerprint:
    """What a checkpoint belongs to."""

    def test_changes_with_recipe_and_data_alone(self):
        """A checkpoint of other data taken over, or refused because the folder was moved."""
        one = fingerprint(finished(), "data")
        assert one == fingerprint(finished().model_copy(update={"output": "moved"}), "data")
        assert len({one, fingerprint(finished(), "other"), fingerprint(finished(recipe(seed=1)), "data")}) == 3

    def test_survives_the_way_through_yaml(self, folder):
        """A float or tuple that comes back as another, so that a run refuses its own checkpoint."""
        asked = build({**SMALL, "optimizer": {"name": "muon", "rate": 0.1 + 0.2}, "plan": {"epochs": 1e-7}})
        keep(folder, finished(asked))
        assert fingerprint(resolved(folder), "x") == fingerprint(finished(asked), "x")
        text = (folder / "recipe.yaml").read_text()
        assert text.startswith("# The recipe of this run")
        assert text.endswith(write_yaml(plain(finished(asked))))
