"""Rows that survive a kill, progress that never touches standard output, a picture that draws what was logged."""

import io
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from hanlin.errors import MissingExtra, RunError
from hanlin.report import Report, _clock_face, _running_mean, rows


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock():
    """A clock for the progress lines."""
    return Clock()


@pytest.fixture
def ends_its_threads():
    """Fails a test that leaves a thread running."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=1)
        assert not thread.is_alive(), thread


def log_steps(folder, first, last):
    """Log the steps `first` to `last`, as a run does that goes on after the step before."""
    with Report(folder) as report:
        report.rewind(first - 1)
        for step in range(first, last + 1):
            report.log(step, {"loss": 10 / step, "rate": 1e-3})
            report.time(step, {"seconds": 0.5})


def test_rows_are_exact(tmp_path):
    """Guards against rounded floats, reordered keys and buffered rows: a resumed run is compared byte for byte."""
    with Report(tmp_path) as report:
        report.log(1, {"loss": 0.1 + 0.2, "tokens": 4096, "best": 1e-300})
        wanted = '{"step": 1, "loss": 0.30000000000000004, "tokens": 4096, "best": 1e-300}\n'
        assert (tmp_path / "metrics.jsonl").read_text() == wanted


def test_nan_is_null(tmp_path):
    """Guards against NaN and Infinity in the file, which most JSON readers refuse."""
    with Report(tmp_path) as report:
        report.log(1, {"loss": math.nan, "norm": -math.inf, "rate": 0.5})

    def refuse(name):
        raise AssertionError(name)

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert row == {"step": 1, "loss": None, "norm": None, "rate": 0.5}


def test_numbers_of_other_libraries(tmp_path):
    """Guards against a crash on numpy's numbers, which json does not know."""
    with Report(tmp_path) as report:
        report.log(3, {"a": np.float32(0.5), "b": np.float64(0.1), "c": np.array(2.0), "d": np.float32("nan")})
    assert list(rows(tmp_path / "metrics.jsonl")) == [{"step": 3, "a": 0.5, "b": 0.1, "c": 2.0, "d": None}]


def test_clock_stays_out_of_metrics(tmp_path):
    """Guards against seconds in metrics.jsonl: two equal runs would differ there."""
    log_steps(tmp_path, 1, 2)
    assert "seconds" not in (tmp_path / "metrics.jsonl").read_text()
    assert list(rows(tmp_path / "timing.jsonl")) == [{"step": 1, "seconds": 0.5}, {"step": 2, "seconds": 0.5}]


@pytest.mark.parametrize("killed_at", [3, 5, 9])
def test_resumed_equals_never_stopped(tmp_path, killed_at):
    """Guards against lost or repeated rows after a resume from the checkpoint of step 3."""
    log_steps(tmp_path / "whole", 1, 9)
    log_steps(tmp_path / "killed", 1, killed_at)
    log_steps(tmp_path / "killed", 4, 9)
    for name in ("metrics.jsonl", "timing.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_rewind_at_every_broken_end(tmp_path):
    """Guards against a half-written last line that stays, or takes the good line before it along."""
    log_steps(tmp_path, 1, 3)
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start, len(whole)):
        file.write_bytes(whole[:end])
        Report(tmp_path).rewind(3)
        assert file.read_bytes() == whole[:start]
    for tail in (b"\0" * 40, b"\0" * 40 + b"\n", b"\xff\xfe\n", b"[1]\n", b'{"loss": 1}\n'):
        file.write_bytes(whole + tail)
        assert len(list(rows(file))) == 3
        Report(tmp_path).rewind(3)
        assert file.read_bytes() == whole


def test_rewind_of_nothing(tmp_path):
    """Guards against a crash, or empty files made, when a run that has logged nothing is resumed."""
    with Report(tmp_path / "new") as report:
        report.rewind(0)
        report.flush()
    assert list(tmp_path.iterdir()) == []
    assert list(rows(tmp_path / "metrics.jsonl")) == []


def test_flush_reaches_the_disk(tmp_path, monkeypatch):
    """Guards against a checkpoint that outlives the rows it relies on."""
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Report(tmp_path) as report:
        report.flush()
        assert synced == []
        report.log(1, {"loss": 1.0})
        report.flush()
        assert len(synced) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without room")
def test_full_disk(tmp_path):
    """Guards against a traceback, or silence, when the disk has no room for a row."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with Report(tmp_path) as report, pytest.raises(RunError, match=r"metrics.jsonl: cannot be written: no space left"):
        report.log(1, {"loss": 1.0})


def test_short_write_is_noticed(tmp_path):
    """Guards against a row of which the disk took only the first half: it is taken back, and said."""

    class Small(io.BytesIO):
        def write(self, line):
            return super().write(line[: 30 - self.tell()])

    small = Small()
    with Report(tmp_path) as report:
        report._metrics._file = small
        report.log(1, {"loss": 1.0})
        with pytest.raises(RunError, match="cannot be written: no space left"):
            report.log(2, {"loss": 1.0})
        assert small.getvalue() == b'{"step": 1, "loss": 1.0}\n'


def read_board(folder):
    """Return tag -> [(step, value)] as TensorBoard sees it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder))
    board.Reload()
    return {tag: [(each.step, each.value) for each in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


@pytest.mark.usefixtures("ends_its_threads")
def test_tensorboard_reads_back(tmp_path):
    """Guards against event files TensorBoard cannot read, and against steps that a resumed run shows twice."""
    pytest.importorskip("tensorboard")
    with Report(tmp_path, tensorboard=True) as report:
        for step in (1, 2, 3):
            report.log(step, {"loss": 1 / step, "norm": math.nan})
            report.time(step, {"seconds": 2.0})
    board = read_board(tmp_path / "tensorboard")
    assert board["loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert board["seconds"] == [(1, 2.0), (2, 2.0), (3, 2.0)]
    assert "norm" not in board
    with Report(tmp_path, tensorboard=True) as report:
        report.rewind(1)
        report.log(2, {"loss": 9.0})
    assert read_board(tmp_path / "tensorboard")["loss"] == [(1, 1.0), (2, 9.0)]


def test_tensorboard_missing(tmp_path, monkeypatch):
    """Guards against an ImportError after hours, at the first row, instead of one line at the start."""
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(MissingExtra, match=r"tensorboard: not installed; run: pip install 'hanlin\[track\]'"):
        Report(tmp_path, tensorboard=True)
    assert list(tmp_path.iterdir()) == []


def test_import_is_light():
    """Guards against a slow `hanlin --help`: none of the large guests is imported before it is used."""
    code = "import sys, hanlin.report; print(*{'torch', 'rich', 'matplotlib', 'tensorboard'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def test_plain_lines(tmp_path, capsys, clock):
    """Guards against a bar's control characters in a log file, and against a line for every step."""
    report = Report(tmp_path, clock=clock)
    report.start(1000, unit="step", title="training")
    for step in range(1, 1001):
        clock.now += 0.01
        report.advance(1, note=f"loss {10 / step:.2f}")
    report.stop()
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert "\r" not in err
    lines = err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "training 100/1,000 steps (10 %), 100 steps/s, 0:09 left, loss 0.10"
    assert lines[-1] == "training 1,000/1,000 steps (100 %), 100 steps/s, loss 0.01"


def test_plain_lines_of_a_slow_run(tmp_path, capsys, clock):
    """Guards against minutes of silence on the way to the first tenth, and against more than a line in ten seconds."""
    report = Report(tmp_path, clock=clock)
    report.start(100_000, done=50_000, title="training")
    for _ in range(60):
        clock.now += 1
        report.advance()
    report.stop()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[0] == "training 50,010/100,000 steps (50 %), 1 steps/s, 13:53:10 left"


def test_plain_lines_of_a_quick_run(tmp_path, capsys, clock):
    """Guards against ten lines about work of no time: one says it all."""
    report = Report(tmp_path, clock=clock)
    report.start(30, unit="document", title="reading")
    for _ in range(30):
        clock.now += 0.001
        report.advance()
    report.stop()
    report.stop()
    assert capsys.readouterr().err == "reading 30/30 documents (100 %), 1,000 documents/s\n"


def test_unknown_total(tmp_path, capsys, clock):
    """Guards against a division by a total that is not known, or zero."""
    report = Report(tmp_path, clock=clock)
    for total in (None, 0):
        report.start(total, unit="document", title="reading")
        clock.now += 20
        report.advance(7)
        report.stop()
    assert capsys.readouterr().err == "reading 7 documents, 0.35 documents/s\n" * 2


def test_no_bar(tmp_path, capsys):
    """Guards against progress where none was asked for; what is said is still said."""
    with Report(tmp_path, bar=False) as report:
        report.start(10)
        report.advance(10)
        report.say("saved [bold]runs/x[/bold] 语言")
    assert capsys.readouterr().err == "saved [bold]runs/x[/bold] 语言\n"


@pytest.mark.usefixtures("ends_its_threads")
def test_terminal_bar(tmp_path, monkeypatch, capsys):
    """Guards against a bar on standard output, markup read into texts, and a thread or hidden cursor left behind."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Report(tmp_path) as report:
        report.start(200, done=100, title="training")
        report.advance(50, note="loss [3.2]")
        report.say("kept [best] checkpoint")
        print("a result")
        report.advance(50)
    drawn = screen.getvalue()
    assert "kept [best] checkpoint\n" in drawn
    assert "200/200 steps (100 %)" in drawn
    assert "loss [3.2]" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")
    assert capsys.readouterr().out == "a result\n"


def test_dumb_terminal(tmp_path, monkeypatch):
    """Guards against control characters in terminals that cannot read them (editors, CI)."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "dumb")
    with Report(tmp_path) as report:
        report.start(2)
        report.advance(2)
    assert screen.getvalue().startswith("step 2/2 steps (100 %)")


def test_clock_face():
    """Guards against 1:60 and 0:7."""
    assert [_clock_face(each) for each in (0.2, 7, 59.6, 3599.4, 3661)] == ["0:00", "0:07", "1:00", "59:59", "1:01:01"]


def test_picture(tmp_path):
    """Guards against a picture that fails on gaps, on one row or on several validation columns, or is half written."""
    with Report(tmp_path) as report:
        assert report.picture() is None
        report.log(0, {"valid_loss": 9.0})
        assert report.picture() is None
        report.log(1, {"loss": 9.0})
        assert report.picture() == tmp_path / "loss.png"
        for step in range(2, 200):
            report.log(step, {"loss": math.nan if step == 50 else 9 / step} | ({"valid_news": 1.0} if step < 9 else {}))
        report.picture()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]


def test_picture_draws_what_was_logged(tmp_path):
    """Guards against points at wrong steps, ticks at half steps, a missing unit, a label that hides a better step."""
    from hanlin.report import _draw

    found = [{"step": i, "loss": 5.0 - i, "valid_loss": value} for i, value in enumerate((4.0, 3.0, 3.5))]
    axes = _draw(found).axes[0]
    train, mean, valid = axes.lines
    assert train.get_xydata().tolist() == [[0, 5], [1, 4], [2, 3]]
    assert mean.get_label() == "train 3.000"
    assert valid.get_xydata().tolist() == [[0, 4], [1, 3], [2, 3.5]]
    assert valid.get_label() == "valid loss 3.500, best 3.000"
    assert valid.get_linestyle() == "None"
    assert all(tick == round(tick) for tick in axes.get_xticks())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss (nats/token)")


def test_running_mean():
    """Guards against a mean that lags behind the curve, or reads past its ends."""
    line = [100.0 - step for step in range(1000)]
    assert _running_mean(line)[:980] == pytest.approx(line[:980])
    assert _running_mean(line)[-1] == pytest.approx(sum(line[-21:]) / 21)
    assert _running_mean([]) == []
    assert _running_mean([2.0, 1.0]) == [2.0, 1.0]
