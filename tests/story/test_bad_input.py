"""Bad input: one clear line a problem, exit 1, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hanlin import cli, files

RECIPE = """
model: {family: llama, dim: 16, layers: 1, heads: 2, tied: true}
tokenizer: {kind: bytes}
data: {train: corpus.jsonl, valid_fraction: 0.1}
plan: {steps: 2, rows: 2, context: 16, precision: fp32}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a corpus, a recipe, shards in data/ and a finished run in run/."""
    folder = tmp_path_factory.mktemp("made")
    rows = [json.dumps({"text": f"number {n}: some words to learn from. 学一学。"}) for n in range(60)]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert cli.run(["prepare", "corpus.jsonl", "--output", "data", "--kind", "bytes"]) == 0
        assert cli.run(["train", "recipe.yaml", "--output", "run"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """Return a copy of `made`, as the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *words: str) -> list[str]:
    """Run a command that must fail; return its lines, each of them a problem."""
    before = everything()
    capsys.readouterr()
    assert cli.run(list(words)) == 1
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert lines, said.err
    assert "Traceback" not in said.err
    left = {path for path in everything() - before if not path.endswith(".lock")}
    assert not [path for path in left if files.PARTIAL in path], "unfinished work was left"
    return lines


def everything() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


CORPORA = {
    "missing.txt": (None, "missing.txt"),
    "empty.txt": (b"", "empty"),
    "binary.txt": (b"abc\0def", "binary"),
    "latin.txt": ("schön ist es, wenn Müller grüßt".encode("latin-1"), "UTF-8"),
    "odd.exe": (b"MZ", ".zip, each also .gz or .zst"),
    "bad.jsonl": (b'{"text": "a"\n[1]\n', "JSON"),
    "cut.txt.gz": (b"\x1f\x8b\x08\x00garbage", "cut.txt.gz"),
}


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_that_cannot_be_read(here, capsys, name):
    """A traceback, or an empty folder of shards, for a corpus that holds nothing."""
    content, expected = CORPORA[name]
    if content is not None:
        (here / name).write_bytes(content)
    lines = refused(capsys, "prepare", name, "--output", "out", "--kind", "bytes")
    assert any(expected in line for line in lines), lines
    assert not (here / "out").exists()


RECIPES = {
    "unknown key": (["plan.stepz=3"], "plan.stepz: unknown key", "did you mean 'steps'"),
    "unknown section": (["modle.dim=3"], "modle: unknown key", "did you mean 'model'"),
    "wrong type": (["plan.steps=many"], "plan.steps: 'many'", "valid integer"),
    "impossible heads": (["model.kv_heads=3"], "model: heads 2 is not a multiple of kv_heads 3", ""),
    "negative": (["model.dim=-4"], "model.dim: -4", "greater than 0"),
    "no such family": (["model.family=lama"], "model.family: unknown 'lama'", "did you mean 'llama'"),
    "no such optimizer": (["optimizer.name=adamv"], "optimizer.name: unknown 'adamv'", "did you mean 'adam'"),
    "empty portions": (["plan.accumulate=3"], "plan: accumulate 3 is more portions than a step has rows, 2", ""),
    "too little text": (["plan.context=100000"], "smaller than one window", "plan.context"),
    "vocab too small": (["model.vocab=100"], "model.vocab: 100 is less than the 259", "leave it out"),
    "context too long": (["model.context=8"], "plan.context 16 is more than model.context 8", ""),
    "no override": (["plan.steps"], "plan.steps: not an override", "key=value"),
    "no such device": (["plan.device=abacus"], "device: 'abacus' is not on this machine", "cpu"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_cannot_be(here, capsys, name):
    """A typo that trains something else, or fails after an hour."""
    overrides, expected, hint = RECIPES[name]
    lines = refused(capsys, "train", "recipe.yaml", *overrides, "--output", "out")
    assert any(expected in line and hint in line for line in lines), lines


def test_every_problem_is_named_at_once(here, capsys):
    """One error a run: fix, start again, find the next."""
    overrides = ["plan.stepz=3", "model.dim=x", "optimizer.rte=1", "data.trian=x"]
    lines = refused(capsys, "train", "recipe.yaml", *overrides, "--output", "out")
    assert len(lines) == 4, lines


def test_verbs_and_options_with_typos(here, capsys):
    """A usage page of twenty lines for one wrong letter."""
    assert "did you mean 'train'" in refused(capsys, "trian")[0]
    assert "--output" in refused(capsys, "train", "recipe.yaml", "--outptu", "x")[0]
    assert "did you mean 'demo'" in refused(capsys, "train", "dmo")[0]
    assert "recipe.yml" in refused(capsys, "train", "recipe.yml")[0]
    assert "generate.temperature" in refused(capsys, "generate", "run", "x", "--temperature", "-1")[0]


SHARDS = {
    "flipped": "damaged",
    "truncated": "",
    "missing": "missing",
    "outside": "../",
}


@pytest.mark.parametrize("name", SHARDS)
def test_shards_that_were_damaged(here, capsys, name):
    """Learning from damaged data without a word."""
    shard = here / "data" / "train-00000.safetensors"
    content = bytearray(shard.read_bytes())
    manifest = here / "data" / "manifest.json"
    if name == "flipped":
        content[-5] ^= 1
        shard.write_bytes(content)
    elif name == "truncated":
        shard.write_bytes(content[:-9])
    elif name == "missing":
        shard.unlink()
    else:
        shutil.move(shard, here / "train-00000.safetensors")
        manifest.write_text(manifest.read_text().replace("train-00000", "../train-00000"))
    lines = refused(capsys, "train", "recipe.yaml", "data.train=data", "--output", "out")
    assert any(SHARDS[name] in line and "train-00000" in line for line in lines), lines


def test_a_model_folder_that_cannot_be_trusted(here, capsys):
    """A pickle opened, code run, a foreign tokenizer paired with a model."""
    run = here / "run"
    canary = here / "canary"
    (run / "hanlin.json").unlink()
    (run / "model.safetensors").unlink()
    (run / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")
    assert "a pickle can run code and is never opened" in refused(capsys, "generate", "run", "x")[0]
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    (run / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    assert "auto_map" in refused(capsys, "generate", "run", "x")[0]
    assert not canary.exists()
    assert "no such" in refused(capsys, "generate", "./rum", "x")[0]


def test_a_folder_of_another_recipe_or_of_other_files(here, capsys):
    """Two recipes mixed in one run; a stranger's files overwritten."""
    lines = refused(capsys, "train", "recipe.yaml", "plan.steps=3", "model.dim=32", "--output", "run")
    assert "holds a run of another recipe" in lines[0]
    assert any("plan.steps: 2 -> 3" in line for line in lines)
    assert any("model.dim: 16 -> 32" in line for line in lines)
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("do not touch")
    for extra in ([], ["--fresh"]):
        lines = refused(capsys, "train", "recipe.yaml", "--output", "mine", *extra)
        assert "holds 'thesis.txt' and no run" in lines[0]
    assert (here / "mine" / "thesis.txt").read_text() == "do not touch"
    assert cli.run(["train", "recipe.yaml", "plan.steps=3", "--output", "run", "--fresh"]) == 0


def test_a_finished_run_is_not_trained_again(here, capsys):
    """Training twice over, or failing, when the command is repeated."""
    before = (here / "run" / "model.safetensors").read_bytes()
    assert cli.run(["train", "recipe.yaml", "--output", "run"]) == 0
    assert (here / "run" / "model.safetensors").read_bytes() == before
    assert "done at step 2 of 2" in capsys.readouterr().out


def test_a_full_disk(here, capsys, monkeypatch):
    """A half-written bundle, or a traceback, when the disk fills up."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    lines = refused(capsys, "prepare", "corpus.jsonl", "--output", "out", "--kind", "bytes")
    assert "space" in lines[0]
    assert not (here / "out").exists()
    lines = refused(capsys, "train", "recipe.yaml", "data.train=data", "--output", "new")
    assert "space" in lines[0]
    assert not (here / "new" / "config.json").exists()


@pytest.mark.multiprocess
def test_a_pipe_that_closes_and_json_alone(here):
    """Noise on standard output where JSON was asked for; a traceback when head has read enough."""
    command = [sys.executable, "-m", "hanlin", "evaluate", "run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    scores = json.loads(done.stdout)
    assert {"value", "low", "high", "n", "unit"} == set(scores["bits_per_byte"])
    shell = f"{sys.executable} -m hanlin inspect --schema | head -c 10"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("{")
