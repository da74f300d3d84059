"""A run killed at any instant ends with the same bits as one never killed."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from hanlin import cli

RECIPE = """
model: {family: llama, dim: 64, layers: 2, heads: 2, hidden: 128, dropout: 0.1, attention_dropout: 0.1, tied: true}
tokenizer: {kind: bytes}
data: {train: corpus.jsonl, valid_fraction: 0.1}
optimizer: {name: adamw, rate: 3e-3}
plan: {steps: STEPS, rows: 8, accumulate: 2, context: 32, evaluate_every: 20, save_every: 5, patience: 1000, threads: 1}
"""
PATIENCE_S = 120  # a machine that is busy with other things may take this long to start a process


def make(folder: Path, steps: int) -> None:
    """Write a corpus and a recipe."""
    draw = random.Random(0)
    words = ["learn", "model", "text", "学习", "模型", "of", "the", "serve", "翰林", "number"]
    rows = [json.dumps({"text": " ".join(draw.choices(words, k=40)) + f" {index}"}) for index in range(200)]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.replace("STEPS", str(steps)), encoding="utf-8")


def start(folder: Path, output: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hanlin", "train", "recipe.yaml", "--output", output]
    with (folder / f"{output}.log").open("a") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, text=True)


def newest(run: Path) -> int:
    """Return the step of the newest finished checkpoint, 0 without any."""
    return max((int(path.name) for path in (run / "checkpoints").glob("[0-9]*")), default=0)


def wait(process: subprocess.Popen[str], until, pause: float = 0.001) -> bool:
    """Return whether `until` came true before the process ended."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        if until():
            return True
        time.sleep(pause)
    assert process.poll() is not None, "nothing happened for too long"
    return False


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def kill_often(folder: Path, output: str, kills: int, inside: int) -> int:
    """Kill a run `kills` times, `inside` of them within a save; return how many left an unfinished save behind."""
    draw = random.Random(1)
    proven = 0
    run = folder / output
    for number in range(kills):
        before = newest(run)
        process = start(folder, output)
        assert wait(process, lambda before=before: newest(run) > before), (folder / f"{output}.log").read_text()
        if number < inside:
            assert wait(process, lambda: any((run / "checkpoints").glob(".partial-*/model.safetensors")), pause=0)
        else:
            time.sleep(draw.uniform(0, 0.5))
        kill(process)
        proven += any((run / "checkpoints").glob(".partial-*"))
    return proven


def finish(folder: Path, output: str) -> str:
    """Run to the end, in this process: only what is killed needs one of its own."""
    log = folder / f"{output}.log"
    with chdir(folder), log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        code = cli.run(["train", "recipe.yaml", "--output", output])
    assert code == 0, log.read_text()
    return log.read_text()


def state(run: Path) -> dict[str, bytes]:
    """Return everything that must be equal: weights, optimizer, counters, rows of numbers, the bundle's weights."""
    last = run / "checkpoints" / f"{newest(run):06d}"
    names = ("model.safetensors", "optimizer.safetensors")
    facts = json.loads((last / "state.json").read_text())
    return {
        **{name: (last / name).read_bytes() for name in names},
        "facts": json.dumps(facts, sort_keys=True).encode(),
        "metrics": (run / "metrics.jsonl").read_bytes(),
        "bundle": (run / "model.safetensors").read_bytes(),
    }


def compare(folder: Path, kills: int, inside: int, steps: int) -> None:
    make(folder, steps)
    finish(folder, "whole")
    proven = kill_often(folder, "killed", kills, inside)
    assert proven >= inside, f"only {proven} of {inside} kills struck inside a save"
    log = finish(folder, "killed")
    whole, killed = state(folder / "whole"), state(folder / "killed")
    different = [name for name in whole if whole[name] != killed[name]]
    assert different == []
    found = [json.loads(line)["step"] for line in (folder / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert found == list(range(1, steps + 1)), "a row is missing or stands twice"
    resumed = [int(step) for step in re.findall(r"going on from step (\d+)", log)]
    assert len(resumed) == kills
    assert min(resumed) > 0, "a resumed run started from step 0"


@pytest.mark.multiprocess
def test_two_kills(tmp_path):
    """Random state, early stopping or the data's place lost between checkpoint and death."""
    compare(tmp_path, kills=2, inside=1, steps=70)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_ten_kills(tmp_path):
    """The same, ten times in one run, three of them provably inside a save."""
    compare(tmp_path, kills=10, inside=3, steps=600)


@pytest.mark.multiprocess
@pytest.mark.slow
def test_damaged_checkpoints_are_named_and_the_one_before_is_used(tmp_path):
    """A run that trusts a truncated or bit-flipped checkpoint, or begins again without a word."""
    make(tmp_path, 30)
    finish(tmp_path, "run")
    run = tmp_path / "run"
    whole = state(run)
    for damage in ("truncated", "flipped"):
        (run / "hanlin.json").unlink()
        file = run / "checkpoints" / "000030" / "model.safetensors"
        content = bytearray(file.read_bytes())
        if damage == "truncated":
            content = content[:-100]
        else:
            content[len(content) // 2] ^= 1
        file.write_bytes(content)
        log = finish(tmp_path, "run")
        assert "000030/model.safetensors: damaged" in log
        assert "going on from step 25" in log
        (tmp_path / "run.log").unlink()
    assert state(run) == whole


@pytest.mark.multiprocess
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_exits(tmp_path, number, code):
    """A traceback on Ctrl-C, or steps lost on SIGTERM."""
    make(tmp_path, 5000)
    run = tmp_path / "run"
    process = start(tmp_path, "run")
    assert wait(process, lambda: newest(run) > 0)
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == code
    log = (tmp_path / "run.log").read_text()
    assert "Traceback" not in log
    saved = newest(run)
    assert f"stopped and saved at step {saved} of 5000" in log
    assert len((run / "metrics.jsonl").read_text().splitlines()) == saved


@pytest.mark.multiprocess
def test_one_folder_one_run(tmp_path):
    """Two processes writing the same checkpoints."""
    make(tmp_path, 5000)
    process = start(tmp_path, "run")
    assert wait(process, lambda: newest(tmp_path / "run") > 0)
    second = start(tmp_path, "run")
    assert second.wait(PATIENCE_S) == 1
    assert "another run is at work here" in (tmp_path / "run.log").read_text()
    kill(process)
