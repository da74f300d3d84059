"""The number type that a run computes in: the faster one here, told once, and the same all along."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hanlin import cli, runtime
from hanlin.config import read_yaml
from hanlin.report import Report

RECIPE = """
model: {family: llama, dim: 8, layers: 1, heads: 2, hidden: 16}
tokenizer: {kind: bytes}
data: {train: corpus.txt, valid_fraction: 0}
plan: {steps: 2, rows: 2, context: 16}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return a folder with a recipe that leaves the precision open."""
    (tmp_path / "corpus.txt").write_text("天地玄黄 a model learns from text\n" * 20, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    monkeypatch.setattr(Report, "picture", lambda report: None)
    return tmp_path


def trained(capsys, *changes):
    """Train and return (the precision of the resolved recipe, what was said)."""
    assert cli.run(["train", "recipe.yaml", "--output", "run", *changes]) == 0
    said = capsys.readouterr().err
    return read_yaml(Path("run/recipe.yaml").read_text(), "recipe.yaml")["plan"]["precision"], said


@pytest.mark.parametrize(("times", "precision"), [(0.4, "bf16"), (1.1, "bf16"), (1.3, "fp32"), (9.0, "fp32")])
def test_the_faster_one_is_taken(here, capsys, monkeypatch, times, precision):
    """Guards against bf16 where a processor has no more of it than the name, which takes ten times as long."""
    monkeypatch.setattr(runtime, "slower", lambda dim, device: times)
    found, said = trained(capsys)
    assert found == precision
    assert said.count(f"precision auto: {precision}; a bf16 product takes {times:.2g} times as long") == 1


def test_a_run_goes_on_as_it_began(here, capsys, monkeypatch):
    """Guards against a second half in another type, where the machine is another one or is busy."""
    monkeypatch.setattr(runtime, "slower", lambda dim, device: 2.0)
    trained(capsys)
    Path("run/model.safetensors").unlink()
    monkeypatch.setattr(runtime, "slower", lambda dim, device: pytest.fail("measured again"))
    found, said = trained(capsys)
    assert (found, "going on from step 2" in said) == ("fp32", True)


def test_what_is_asked_for_is_not_measured(here, capsys, monkeypatch):
    """Guards against a choice of the machine over that of the person."""
    monkeypatch.setattr(runtime, "slower", lambda dim, device: pytest.fail("measured"))
    assert trained(capsys, "plan.precision=bf16")[0] == "bf16"


class Timed:
    """A matrix whose products move a clock."""

    def __init__(self, clock, kind):
        self.clock, self.costs = clock, iter([50.0, *[6.0 if kind == torch.bfloat16 else 2.0] * 99])

    def __matmul__(self, other):
        self.clock.now += next(self.costs)
        return {(0, 0): 1.0}


def test_the_measurement(monkeypatch):
    """Guards against one type timed twice, a ratio the wrong way round, and a first product that sets things up."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(runtime, "time", clock)
    monkeypatch.setattr(torch, "ones", lambda shape, dtype, device: Timed(clock, dtype))
    assert runtime.slower.__wrapped__(64, torch.device("cpu")) == 3.0


def test_this_machine_is_measured():
    """Guards against shapes that do not multiply."""
    assert 0.01 < runtime.slower.__wrapped__(64, torch.device("cpu")) < 1000
