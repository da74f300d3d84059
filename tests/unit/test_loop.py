"""The loop: a row a step, and whatever stops it, the bits of a run that was never stopped."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from dataclasses import dataclass, replace

import pytest
import torch
from toys import RecurrentConfig

from hanlin.batch import IGNORE
from hanlin.checkpoint import Checkpoints
from hanlin.data import shards
from hanlin.data.batches import Packed
from hanlin.errors import CheckpointError, RunError, Stopped
from hanlin.models import llama
from hanlin.objectives import next_token
from hanlin.optim import adafactor, adamw, lion, muon
from hanlin.optim.schedules import Cosine
from hanlin.report import Report
from hanlin.runtime import Runtime
from hanlin.text.tokenizer import byte_level
from hanlin.train import guard, loop
from hanlin.train.grow import Grow, grown
from hanlin.train.job import Job
from hanlin.train.plan import Plan

STEPS = 12
LLAMA = llama.Config(vocab=259, dim=8, layers=1, heads=2, hidden=16, context=16, dropout=0.2, tied=True)
RECURRENT = RecurrentConfig(vocab=259, context=16)
CASES = {
    "adamw": (LLAMA, adamw.Config(), {}),
    "adamw, accumulated": (LLAMA, adamw.Config(), {"accumulate": 2}),
    "adamw, bf16": (LLAMA, adamw.Config(), {"precision": "bf16"}),
    "muon": (LLAMA, muon.Config(), {}),
    "muon, accumulated, bf16": (LLAMA, muon.Config(), {"accumulate": 4, "precision": "bf16"}),
    "averaged": (LLAMA, adamw.Config(layer_decay=0.5), {"ema": 0.9}),
    "averaged, cut by tokens, bf16": (LLAMA, lion.Config(), {"ema": 0.8, "portion": 33, "precision": "bf16"}),
    "grown": (LLAMA, adafactor.Config(), {"grow": Grow(context=(4, 8), rows=(1, 3), over=0.7)}),
    "recurrent": (RECURRENT, adamw.Config(), {}),
    "recurrent, accumulated, muon": (RECURRENT, muon.Config(), {"accumulate": 2}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Shards of short documents in two languages."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    tokenizer = byte_level()
    texts = [f"text {n} 第{n}篇" * (n % 4 + 1) for n in range(30)]
    entries = (shards.Entry("train", tokenizer.document(text), len(text.encode()), "x") for text in texts)
    shards.write(folder, entries, vocab=tokenizer.vocab, tokenizer_hash=tokenizer.hash)
    return shards.open(folder, "train")


@dataclass
class Watched:
    """A source of batches that tells a function each step it is asked for."""

    source: Packed
    before: object

    def batch(self, step):
        self.before(step)
        return self.source.batch(step)


class Spoiled(next_token.Config):
    """Next-token loss that is NaN at the steps given, told by the seed the step has set."""

    bad: tuple[int, ...]

    def __call__(self, model, batch):
        (part,) = super().__call__(model, batch)
        return (replace(part, total=part.total * math.nan),) if SEEN[-1] in self.bad else (part,)


SEEN: list[int] = []  # steps whose batches were asked for


def judge(model, step):
    """Return a loss that is best at step 4; drawing numbers on the way must not matter."""
    torch.manual_seed(99)
    torch.rand(3)
    assert not model.training
    return {"valid_loss": abs(step - 4) + 1.0}


def make(folder, data, case="adamw", *, before=lambda step: None, belongs="x", examine=judge, objective=None, **plan):
    """Return a job of the case in a folder."""
    config, optimizer, choices = CASES[case]
    numbers = {"steps": STEPS, "rows": 4, "context": 16, "evaluate_every": 2, "save_every": 3, "keep": 2}
    chosen = Plan(**{"precision": "fp32", **numbers, **choices, **plan})
    model = config.build(seed=0)
    dtype = torch.bfloat16 if chosen.precision == "bf16" else torch.float32
    packed = Packed(data, rows=4, context=16, seed=0, pack=model.packs)
    source = grown(packed, chosen.grow, context=16, steps=STEPS)

    def note(step):
        SEEN.append(step)
        before(step)

    return Job(
        model=model,
        objective=objective or next_token.Config(),
        source=Watched(source, note),
        optimizer=optimizer,
        schedule=Cosine(),
        plan=chosen,
        runtime=Runtime(device=torch.device("cpu"), dtype=dtype, threads=1),
        report=Report(folder, bar=False),
        checkpoints=Checkpoints(folder / "checkpoints", keep=chosen.keep, say=lambda line: None),
        examine=examine,
        belongs=belongs,
    )


def train(job):
    """Run the loop and close the report."""
    with job.report:
        return loop.train(job)


def newest(folder):
    return Checkpoints(folder / "checkpoints", keep=9, say=print).latest()


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def left(folder):
    """Return everything that a run leaves and that must be equal, byte for byte."""
    last = max((folder / "checkpoints").glob("[0-9]*"))
    return {each.name: each.read_bytes() for each in last.iterdir()} | {"rows": (folder / "metrics.jsonl").read_bytes()}


def stop_at(step, number=signal.SIGINT):
    """Return a function that sends a signal when the batch of a step is asked for."""

    def before(now):
        if now == step:
            os.kill(os.getpid(), number)

    return before


class TestRows:
    """metrics.jsonl and timing.jsonl."""

    def test_one_a_step_in_order(self, tmp_path, data):
        """A step without a row, a row before its step is taken, a score put to the step after."""
        outcome = train(make(tmp_path, data))
        found = rows(tmp_path)
        assert [row["step"] for row in found] == list(range(1, STEPS + 1))
        assert [row["step"] for row in found if "valid_loss" in row] == list(range(2, STEPS + 1, 2))
        assert all(math.isfinite(row[name]) for row in found for name in ("loss", "grad_norm", "rate"))
        timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
        assert [row["step"] for row in timing] == list(range(1, STEPS + 1))
        assert all(row["seconds"] > 0 for row in timing)
        assert not {"seconds", "tokens_per_second"} & {name for row in found for name in row}
        assert (outcome.progress.step, outcome.early, outcome.progress.best_step) == (STEPS, False, 4)
        assert outcome.numbers["loss"] == found[-1]["loss"]

    def test_the_rate_follows_the_schedule(self, tmp_path, data):
        """A schedule that is a step late, or restarts."""
        job = make(tmp_path, data)
        train(job)
        expected = [1e-3 * job.schedule(step, STEPS) for step in range(STEPS)]
        assert [row["rate"] for row in rows(tmp_path)] == expected

    def test_padding_is_not_counted_as_work(self, tmp_path, data):
        """A speed that grows with padding."""
        job = make(tmp_path, data, "recurrent")
        train(job)
        timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
        for row in timing:
            batch = job.source.source.batch(row["step"] - 1)
            real = int((batch.targets != IGNORE).sum())
            assert row["tokens_per_second"] * row["seconds"] == pytest.approx(real)

    def test_checkpoints_are_the_last_and_the_best(self, tmp_path, data):
        """The best thrown away with the old ones; a disk that fills up."""
        train(make(tmp_path, data))
        assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 9, 12]

    def test_the_last_step_is_examined_and_saved(self, tmp_path, data):
        """A run whose end falls between two examinations, and is never scored or kept."""
        train(make(tmp_path, data, steps=7, save_every=5))
        assert "valid_loss" in rows(tmp_path)[-1]
        assert (tmp_path / "checkpoints" / "000007").is_dir()


class TestGoingOn:
    """Interrupted and started again."""

    @pytest.mark.parametrize("case", CASES)
    def test_with_the_same_bits(self, tmp_path, data, case):
        """Something that is neither a function of the step nor in the checkpoint."""
        train(make(tmp_path / "whole", data, case))
        draw = random.Random(case)
        for step in sorted(draw.sample(range(STEPS - 1), 2)):
            with pytest.raises(Stopped, match=f"stopped and saved at step {step + 1} of {STEPS}"):
                train(make(tmp_path / "cut", data, case, before=stop_at(step)))
        outcome = train(make(tmp_path / "cut", data, case))
        assert outcome.progress.step == STEPS
        assert left(tmp_path / "cut") == left(tmp_path / "whole")

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_the_signal_gives_the_exit_status(self, tmp_path, data, number, code):
        """A script that takes an interrupted run for a finished one."""
        with pytest.raises(Stopped) as caught:
            train(make(tmp_path, data, before=stop_at(5, number)))
        assert caught.value.code == code

    def test_a_signal_in_the_last_step_is_too_late(self, tmp_path, data):
        """A finished run reported as stopped."""
        assert train(make(tmp_path, data, before=stop_at(STEPS - 1))).progress.step == STEPS

    def test_a_crash_between_two_checkpoints(self, tmp_path, data):
        """Rows past the checkpoint kept, so that they stand twice."""

        def crash(step):
            if step == 8:
                raise MemoryError

        train(make(tmp_path / "whole", data))
        with pytest.raises(MemoryError):
            train(make(tmp_path / "cut", data, before=crash))
        assert len(rows(tmp_path / "cut")) == 8
        SEEN.clear()
        train(make(tmp_path / "cut", data))
        assert list(range(6, STEPS)) == SEEN
        assert left(tmp_path / "cut") == left(tmp_path / "whole")

    def test_a_finished_run_takes_no_step(self, tmp_path, data):
        """A last step taken again at each start."""
        train(make(tmp_path, data))
        before = left(tmp_path)
        SEEN.clear()
        train(make(tmp_path, data))
        assert SEEN == []
        assert left(tmp_path) == before

    def test_waiting_goes_on_too(self, tmp_path, data):
        """Patience that starts anew, so that a run stopped often enough never ends."""
        with pytest.raises(Stopped):
            train(make(tmp_path, data, patience=3, before=stop_at(6)))
        outcome = train(make(tmp_path, data, patience=3))
        assert outcome.early
        assert (outcome.progress.step, outcome.progress.best_step, outcome.progress.best) == (10, 4, 1.0)
        SEEN.clear()
        assert train(make(tmp_path, data, patience=3)).early
        assert SEEN == []

    def test_another_runs_checkpoints_are_refused(self, tmp_path, data):
        """Weights learned from other data taken over."""
        train(make(tmp_path, data, steps=3))
        with pytest.raises(CheckpointError, match="belongs to other data"):
            train(make(tmp_path, data, belongs="y"))


class TestByTime:
    """plan.save_minutes."""

    def test_a_slow_run_is_saved_in_between(self, tmp_path, data, monkeypatch):
        """Hours lost between two saves that are counted in steps."""
        clock = iter(range(10**6))
        monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))  # a second each time it is read
        train(make(tmp_path / "often", data, save_every=99, keep=99, save_minutes=0.2, examine=None))
        train(make(tmp_path / "once", data, save_every=99, keep=99, save_minutes=None, examine=None))
        steps = [
            sorted(int(each.name) for each in (tmp_path / name / "checkpoints").iterdir()) for name in ("often", "once")
        ]
        assert steps[1] == [STEPS]
        assert 2 < len(steps[0]) < STEPS
        assert left(tmp_path / "often") == left(tmp_path / "once")


class TestNotFinite:
    """NaN."""

    def spoiled(self, folder, data, bad, **given):
        return make(folder, data, objective=Spoiled(bad=tuple(bad)), examine=None, **given)

    def test_one_bad_step_is_skipped(self, tmp_path, data):
        """A run that ends, or weights that are NaN, after one overflow."""
        train(self.spoiled(tmp_path, data, [5]))
        found = rows(tmp_path)
        assert [row["step"] for row in found if row["loss"] is None] == [6]
        assert len(found) == STEPS
        assert all(each.isfinite().all() for each in newest(tmp_path).model.values())

    def test_ten_in_a_row_end_the_run_and_the_last_checkpoint_is_sound(self, tmp_path, data):
        """A run that learns nothing for days; weights spoiled on the way; an end that is lost at the next start."""
        assert guard.PATIENCE == 10
        with pytest.raises(RunError, match=r"step 15: loss or gradient is not finite for 10 steps in a row"):
            train(self.spoiled(tmp_path, data, range(6, 99), steps=20))
        good = make(tmp_path / "good", data, examine=None, steps=20)
        with pytest.raises(Stopped):
            train(replace(good, source=Watched(good.source.source, stop_at(5))))
        kept, sound = newest(tmp_path), newest(tmp_path / "good")
        assert (kept.step, sound.step) == (15, 6)
        for part in ("model", "optimizer"):
            one, two = getattr(kept, part), getattr(sound, part)
            assert one.keys() == two.keys()
            assert all(torch.equal(one[name], two[name]) for name in one)
        with pytest.raises(RunError, match=r"step 15: "):
            train(self.spoiled(tmp_path, data, range(6, 99), steps=20))

    def test_a_score_that_is_no_number(self, tmp_path, data):
        """NaN taken for the best score, or written to JSON that nothing can read."""
        scores = {2: math.nan, 4: 3.0, 6: math.nan}
        job = make(tmp_path, data, steps=6, examine=lambda model, step: {"valid_loss": scores[step]})
        progress = train(job).progress
        assert (progress.best, progress.best_step, progress.waited, progress.valid) == (3.0, 4, 1, None)
        assert [row.get("valid_loss", "-") for row in rows(tmp_path)] == ["-", None, "-", 3.0, "-", None]
