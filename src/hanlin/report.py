"""Where a run's numbers go: files a resumed run repeats byte for byte, a bar for the person, a picture.

    log(step, numbers)  ─┬─> metrics.jsonl   {"step": 7, "loss": 3.21}: same seed, same bytes ── picture() ─> loss.png
                         ├─> tensorboard/    if asked
    time(step, numbers) ─┴─> timing.jsonl    what depends on the clock, kept apart

    start · advance · say · stop ─> standard error: a bar in a terminal, a plain line now and then elsewhere

A line is written in one piece and in step order, so what a killed run left behind is a good beginning and at most
one broken end: `rewind` cuts the file there and is done.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Self

from hanlin.errors import MissingExtra
from hanlin.files import explained, write

QUIET_S = 10.0  # without a terminal: a line after this long ...
TENTH_S = 1.0  # ... or at each tenth of the way, but not sooner than this
TRAIN, VALID, INK = "#2f6f9f", "#c8553d", "#444444"


class Report:
    """The one place a run writes numbers to and talks to the person through; close it when done, or use `with`."""

    def __init__(
        self,
        folder: Path,
        *,
        bar: bool = True,
        tensorboard: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Report into `folder`; MissingExtra when TensorBoard is asked for and not installed."""
        self.folder = folder
        self._metrics = _Rows(folder / "metrics.jsonl")
        self._timing = _Rows(folder / "timing.jsonl")
        self._board = _Board(folder / "tensorboard") if tensorboard else None
        self._show = bar
        self._clock = clock
        self._bar: _Bar | _Lines | None = None

    def rewind(self, step: int) -> None:
        """Forget every row after `step` and a half-written last line; what is left is untouched, byte for byte."""
        self._metrics.rewind(step)
        self._timing.rewind(step)
        if self._board:
            self._board.rewind(step)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a row of deterministic numbers; NaN and infinity are written as null, which JSON can hold."""
        self._metrics.append(step, numbers)
        if self._board:
            self._board.add(step, numbers)

    def time(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a row of numbers that depend on the clock: seconds, tokens a second."""
        self._timing.append(step, numbers)
        if self._board:
            self._board.add(step, numbers)

    def flush(self) -> None:
        """Return once every row of metrics.jsonl is on the disk; called before a checkpoint that relies on them."""
        self._metrics.sync()

    def start(self, total: int | None, done: int = 0, unit: str = "step", title: str = "") -> None:
        """Begin to show progress towards `total` (None: unknown), `done` of it made before; ends an earlier bar."""
        self.stop()
        if self._show:
            terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
            self._bar = (_Bar if terminal else _Lines)(total, done, f"{unit}s", title or unit, self._clock)

    def advance(self, n: int = 1, note: str = "") -> None:
        """Show `n` more units as done, and a note such as "loss 3.2" beside them."""
        if self._bar:
            self._bar.advance(n, note)

    def stop(self) -> None:
        """End the bar; nothing happens when there is none."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Print one line on standard error, above the bar if there is one."""
        if isinstance(self._bar, _Bar):
            self._bar.say(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def picture(self) -> Path | None:
        """Draw metrics.jsonl as loss.png and return its path; None when no loss has been logged yet."""
        found = list(rows(self.folder / "metrics.jsonl"))
        if not any(row.get("loss") is not None for row in found):
            return None
        drawn = io.BytesIO()
        _draw(found).savefig(drawn, format="png", dpi=160)
        path = self.folder / "loss.png"
        write(path, drawn.getvalue())
        return path

    def close(self) -> None:
        """End the bar and close every file."""
        self.stop()
        self._metrics.close()
        self._timing.close()
        if self._board:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a metrics.jsonl or timing.jsonl in order, up to the first that is not whole."""
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                row = _row(line)
                if row is None:
                    return
                yield row


def _row(line: bytes) -> dict[str, Any] | None:
    """Return the row that a line holds, or None when it was cut short or damaged."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _number(value: float) -> float | None:
    """Return a number JSON can hold: whole ones stay whole, and what is not finite becomes None."""
    number = value if isinstance(value, int) else float(value)
    return number if isinstance(number, int) or math.isfinite(number) else None


class _Rows:
    """A file of JSON lines that grows at its end; opened at the first row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def append(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write one row, whole or not at all; RunError when the disk has no room for it."""
        assert "step" not in numbers, "the step is given apart from the numbers"
        row = {"step": step} | {name: _number(value) for name, value in numbers.items()}
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with explained(self.path):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)  # unbuffered: a kill loses no finished row
            written = self._file.write(line)
            if written != len(line):
                self._file.truncate(self._file.tell() - written)
                raise OSError(errno.ENOSPC, "short write")

    def rewind(self, step: int) -> None:
        """Cut the file before the first row that is later than `step`, or not whole; one call, so never half done."""
        self.close()
        if not self.path.exists():
            return
        with explained(self.path), self.path.open("r+b") as file:
            kept = 0
            for line in file:
                row = _row(line)
                if row is None or row["step"] > step:
                    break
                kept += len(line)
            file.truncate(kept)
            os.fsync(file.fileno())

    def sync(self) -> None:
        """Wait until the disk has every row."""
        if self._file is not None:
            with explained(self.path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; the next row opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _Board:
    """TensorBoard's event file, written by the tensorboard package itself."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise MissingExtra("tensorboard", "track") from None
        self._event, self._summary, self._log = event_pb2.Event, summary_pb2.Summary, event_pb2.SessionLog
        self._writer = EventFileWriter(str(folder))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the finite ones of the numbers as scalars."""
        finite = {name: _number(value) for name, value in numbers.items()}
        values = [self._summary.Value(tag=name, simple_value=each) for name, each in finite.items() if each is not None]
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))

    def rewind(self, step: int) -> None:
        """Tell readers that a session starts after `step`: they forget what earlier files hold from there on."""
        start = self._log(status=self._log.START)
        self._writer.add_event(self._event(wall_time=time.time(), step=step + 1, session_log=start))

    def close(self) -> None:
        """Write what is queued and end the writer's thread."""
        self._writer.close()


class _Bar:
    """A live bar in a terminal: title, bar, count, rate, time left, note."""

    def __init__(self, total: int | None, done: int, units: str, title: str, clock: Callable[[], float]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._pace = _Pace(total, done, units, clock)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}", markup=False),
            console=Console(stderr=True, highlight=False),
            refresh_per_second=4,  # each refresh takes time from the training thread
            redirect_stdout=False,  # standard output is for results: rich would send it to standard error
        )
        self._task = self._progress.add_task(title, total=total, completed=done, said=self._pace.said())
        self._progress.start()

    def advance(self, n: int, note: str) -> None:
        """Move the bar; the screen follows four times a second."""
        self._pace.advance(n, note)
        self._progress.update(self._task, advance=n, said=self._pace.said())

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Leave the bar as it stands and give the terminal back."""
        self._progress.stop()


class _Lines:
    """What the bar says, as plain lines: at each tenth of the way, every ten seconds, and at the end."""

    def __init__(self, total: int | None, done: int, units: str, title: str, clock: Callable[[], float]) -> None:
        self._pace = _Pace(total, done, units, clock)
        self._title = title
        self._clock = clock
        self._last, self._tenth, self._told = clock(), self._pace.tenth, done

    def advance(self, n: int, note: str) -> None:
        """Count, and print a line when one is due."""
        self._pace.advance(n, note)
        waited = self._clock() - self._last
        if waited >= QUIET_S or (waited >= TENTH_S and self._pace.tenth > self._tenth):
            self._print()

    def stop(self) -> None:
        """Print where it ended, unless the last line said so."""
        if self._told != self._pace.done:
            self._print()

    def _print(self) -> None:
        self._last, self._tenth, self._told = self._clock(), self._pace.tenth, self._pace.done
        print(f"{self._title} {self._pace.said()}", file=sys.stderr, flush=True)


class _Pace:
    """How far, how fast, how long still: from the units done since the start."""

    def __init__(self, total: int | None, done: int, units: str, clock: Callable[[], float]) -> None:
        self.total, self.done, self.units, self.note = total, done, units, ""
        self._clock, self._began, self._before = clock, clock(), done

    def advance(self, n: int, note: str) -> None:
        """Count `n` more; an empty note keeps the last one."""
        self.done += n
        self.note = note or self.note

    @property
    def tenth(self) -> int:
        """Return how many tenths of the way are done."""
        return 10 * self.done // self.total if self.total else 0

    def said(self) -> str:
        """Return "120/500 steps (24 %), 3.2 steps/s, 1:59 left, loss 3.2", without what is not known."""
        seconds, made = self._clock() - self._began, self.done - self._before
        rate = made / seconds if seconds > 0 else 0.0
        count = f"{self.done:,}/{self.total:,} {self.units}" if self.total else f"{self.done:,} {self.units}"
        parts = [f"{count} ({100 * self.done // self.total} %)" if self.total else count]
        if rate:
            parts.append(f"{rate:,.0f} {self.units}/s" if rate >= 100 else f"{rate:.3g} {self.units}/s")
        if rate and self.total and self.done < self.total:
            parts.append(f"{_clock_face((self.total - self.done) / rate)} left")
        return ", ".join([*parts, self.note] if self.note else parts)


def _clock_face(seconds: float) -> str:
    """Return seconds as 0:07, 12:03 or 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _draw(found: list[dict[str, Any]]) -> Any:  # noqa: ANN401  # a matplotlib Figure, imported where it is drawn
    """Return the figure of a run: training loss thin, its mean thick, every `valid…` column as points."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    steps, losses = _column(found, "loss")
    mean = _running_mean(losses)
    axes.plot(steps, losses, color=TRAIN, linewidth=0.7, alpha=0.35)
    axes.plot(
        steps, mean, color=TRAIN, linewidth=1.8, marker="." if len(steps) == 1 else "", label=_label("train", mean)
    )
    names = dict.fromkeys(name for row in found for name in row if name.startswith("valid"))
    for name, marker in zip(names, "osD^v*" * len(names)):
        steps, values = _column(found, name)
        axes.plot(steps, values, marker, color=VALID, markersize=5, markeredgecolor="white", label=_label(name, values))
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss (nats/token)", color=INK)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
    axes.margins(x=0.02)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def _column(found: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return the steps at which a number was logged, and its values there."""
    pairs = [(row["step"], row[name]) for row in found if row.get(name) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _label(name: str, values: list[float]) -> str:
    """Return "valid loss 2.451" or, when it was lower before, "valid loss 2.451, best 2.440"."""
    if not values:
        return name
    best = f", best {min(values):.3f}" if name != "train" and min(values) < values[-1] else ""
    return f"{name.replace('_', ' ')} {values[-1]:.3f}{best}"


def _running_mean(values: list[float]) -> list[float]:
    """Return means over the rows around each one: a fiftieth of the run to either side, fewer on the steep start."""
    sums = [0.0, *accumulate(values)]
    widest, means = len(values) // 50, []
    for row in range(len(values)):
        reach = min(widest, row // 8)
        first, last = row - reach, min(row + reach, len(values) - 1)
        means.append((sums[last + 1] - sums[first]) / (last + 1 - first))
    return means
