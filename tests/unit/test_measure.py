"""What a run costs, whether it fits on the disk, and where its time goes."""

from __future__ import annotations

import json
import math
from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from hanlin.checkpoint import Checkpoints
from hanlin.data import shards
from hanlin.data.batches import Packed
from hanlin.errors import RunError
from hanlin.models import gpt2, llama
from hanlin.objectives import next_token
from hanlin.optim import adamw, muon
from hanlin.optim.schedules import Cosine
from hanlin.report import Report
from hanlin.runtime import Runtime
from hanlin.text.tokenizer import byte_level
from hanlin.train import loop
from hanlin.train.job import Job
from hanlin.train.measure import cost, disk, profile
from hanlin.train.plan import Plan

SIZES = llama.Config(vocab=259, dim=8, layers=1, heads=2, hidden=16, context=16)
CPU = Runtime(device=torch.device("cpu"), dtype=torch.float32, threads=2)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def job(tmp_path):
    """Return a small job in a folder."""
    tokenizer = byte_level()
    entries = (shards.Entry("train", tokenizer.document(f"text {n} 第{n}篇" * 3), 9, "x") for n in range(30))
    shards.write(tmp_path / "data", entries, vocab=tokenizer.vocab, tokenizer_hash=tokenizer.hash)
    report = Report(tmp_path, bar=False)
    yield Job(
        model=SIZES.build(),
        objective=next_token.Config(),
        source=Packed(shards.open(tmp_path / "data", "train"), rows=4, context=16, seed=0),
        optimizer=adamw.Config(),
        schedule=Cosine(),
        plan=Plan(steps=10, rows=4, context=16, precision="fp32", save_every=2, evaluate_every=2, keep=3),
        runtime=CPU,
        report=report,
        checkpoints=Checkpoints(tmp_path / "checkpoints", keep=3, say=print),
        examine=lambda model, step: {"valid_loss": 1.0},
    )
    report.close()


class TestCost:
    """Seconds, speed, share, energy."""

    def test_sums_what_was_timed(self, tmp_path):
        """The last start alone counted, a mean of speeds for their median, watts times seconds for hours."""
        rows = [{"step": n, "seconds": 2.0, "tokens_per_second": 100.0} for n in range(1, 4)]
        rows.append({"step": 4, "seconds": 8.0, "tokens_per_second": 25.0})
        (tmp_path / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = cost.cost(tmp_path, CPU, flops=1e6, peak=1e9, watts=90.0)
        assert (found.seconds, found.tokens, found.tokens_per_second) == (14.0, 800.0, 100.0)
        assert found.share == pytest.approx(0.1)
        assert found.watt_hours == pytest.approx(14 * 90 / 3600)
        told = dict(found.lines())
        assert told["of the machine"] == "10.0% of its measured matmul peak"
        assert told["energy"] == "0.35 Wh, an estimate: 90 W (plan.watts) for that time"
        assert cost.cost(tmp_path, CPU, flops=1e6, peak=1e7, watts=None).share is None  # no more than all of a machine
        usual = cost.cost(tmp_path, CPU, flops=1e6, peak=None, watts=None)
        assert (usual.watts, usual.share) == (2 * cost.CORE_W, None)
        assert "assumed" in dict(usual.lines())["energy"]

    def test_nothing_timed(self, tmp_path):
        assert cost.cost(tmp_path, CPU, flops=1.0, peak=1.0, watts=None) is None

    def test_the_peak_is_one(self, monkeypatch):
        """A product that is not computed, timed with what comes before it, or in a type that the run does not use."""
        made, ones = [], torch.ones
        monkeypatch.setattr(torch, "ones", lambda *sizes, **how: made.append(how["dtype"]) or ones(*sizes, **how))
        assert 1e8 < cost.peak(CPU) < 1e16
        assert 1e8 < cost.peak(replace(CPU, dtype=torch.bfloat16)) < 1e16
        assert made == [torch.float32, torch.bfloat16]

    @pytest.mark.parametrize("tied", [False, True])
    def test_flops_are_those_of_its_matrices(self, tied):
        """Lookups counted as products, a tied head forgotten, a window's reach taken for the context's."""
        config = llama.Config(vocab=100, dim=8, layers=2, heads=2, hidden=12, tied=tied)
        products = 2 * (4 * 8 * 8 + 3 * 8 * 12) + 100 * 8
        norms = 5 * 8
        assert cost.flops_a_token(config.build(), 64) == 6 * (products + norms) + 12 * 2 * 8 * 64
        windowed = config.model_copy(update={"kind": "mistral", "window": 16})
        assert cost.flops_a_token(windowed.build(), 64) == 6 * (products + norms) + 12 * 2 * 8 * 16
        first = gpt2.Config(vocab=100, dim=8, layers=1, heads=2, context=64).build()
        biases = 8 * (4 + 4 + 1) + 3 * 16
        assert cost.flops_a_token(first, 64) == 6 * (12 * 64 + 100 * 8 + biases) + 12 * 8 * 64

    def test_the_share_is_written_with_each_step(self, job):
        loop.train(replace(job, flops=100.0, peak=1e6))
        for line in (job.report.folder / "timing.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert math.isclose(row["share_of_peak"], row["tokens_per_second"] * 1e-4)


class TestDisk:
    """The forecast."""

    @pytest.mark.parametrize(("optimizer", "ema"), [(adamw.Config(), None), (muon.Config(), 0.9)])
    def test_is_what_a_run_takes_at_the_most(self, job, optimizer, ema):
        """A moment, the average or the best forgotten; a forecast of ten times as much."""
        job = replace(job, optimizer=optimizer, plan=job.plan.model_copy(update={"ema": ema}))
        loop.train(job)
        files = [each for each in (job.report.folder / "checkpoints").rglob("*") if each.is_file()]
        weights = 4 * sum(each.numel() for each in job.model.parameters())
        taken = sum(each.stat().st_size for each in files) / 4 * 5 + 2 * weights  # 3 and the best are there; one more
        assert len({each.parent for each in files}) == 4
        assert 0.8 < disk.foreseen(job) / taken < 1.1  # small files have long headers

    def test_too_little_room_is_one_line_before_step_0(self, job, monkeypatch):
        """A two-day run that ends with a full disk."""
        needed = disk.foreseen(job)
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: Usage(0, 0, needed - 1))
        with pytest.raises(
            RunError, match=r"the run needs 0\.\d MB more .*0\.\d MB are free; free some, lower plan.keep"
        ):
            disk.check(job, job.report.folder)
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: Usage(0, 0, needed))
        disk.check(job, job.report.folder)

    def test_what_is_there_already_is_not_needed_again(self, job, monkeypatch):
        """A finished run that cannot be opened any more because the disk is nearly full."""
        loop.train(job)
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: Usage(0, 0, disk.foreseen(job) // 2))
        disk.check(job, job.report.folder)


class TestProfile:
    """A trace, and words."""

    def test_three_steps_are_looked_at_and_no_bit_changes(self, job, tmp_path):
        """A profile of the warming up; a trace that nothing can open; other weights for being watched."""
        said: list[str] = []
        job.report.say = said.append
        loop.train(replace(job, plan=job.plan.model_copy(update={"profile": True})))
        trace = json.loads((tmp_path / "trace.json").read_text())
        names = [each.get("name", "") for each in trace["traceEvents"]]
        assert len([name for name in names if name.startswith("Optimizer.step#")]) == profile.STEPS
        assert len(said) == 2
        assert said[0].startswith("profile: a step of ")
        plain = replace(job, model=SIZES.build(), checkpoints=Checkpoints(tmp_path / "plain", keep=3, say=print))
        loop.train(plain)
        assert all(torch.equal(a, b) for a, b in zip(job.model.parameters(), plain.model.parameters()))

    def test_words_add_up(self):
        """Shares that sum to more than the step, an operator under the wrong kind, the rest left unsaid."""
        times = {"aten::mm": 0.05, "aten::addmm": 0.01, "aten::copy_": 0.02, "aten::_softmax": 0.01, "mystery": 0.004}
        times |= {"aten::_fused_adamw_": 0.001, "Optimizer.step#AdamW.step": 0.001, "aten::mul": 0.0001}
        (line,) = profile.words(times, 0.1)
        assert line.startswith(
            "profile: a step of 100.0 ms went to matrix products 60%; copies and changes of type 20%"
        )
        assert "softmax and loss 10%" in line
        assert "the optimizer and sums over all weights 2%" in line
        assert line.endswith("other operators 4%; between operators: Python, batches, waiting 4%")
