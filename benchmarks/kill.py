"""What a run survives: kill -9 at random times and inside saves, SIGTERM, a full disk, a read-only folder, NaN.

python -m benchmarks.kill [--kills 25] [--inside 5]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.torch import load_file

from benchmarks.table import heading, rows

RECIPE = """
model: {family: llama, dim: 48, layers: 2, heads: 2, hidden: 96, dropout: 0.1, tied: true}
tokenizer: {kind: bytes}
data: {train: corpus.jsonl, valid_fraction: 0.1}
optimizer: {name: adamw, rate: 3e-3}
plan: {steps: 800, rows: 4, accumulate: 3, context: 32, ema: 0.99, evaluate_every: 100, save_every: 8, threads: 1}
"""
PATIENCE_S = 600  # a busy machine may take this long for a whole run
# Python that runs the command line where every write of weights fails as the disk's refusal would make it fail.
REFUSED = """
import errno, os, sys
from hanlin import checkpoint, cli
real, seen = checkpoint.save_file, []
def save_file(tensors, file):
    seen.append(file)
    if len(seen) > {after}:
        open(file, "wb").write(b"half")
        raise OSError(errno.{code}, os.strerror(errno.{code}))
    real(tensors, file)
checkpoint.save_file = save_file
sys.exit(cli.run(sys.argv[1:]))
"""

# Python that runs the command line where the loss turns into NaN after so many portions.
SPOILED = """
import dataclasses, sys
from hanlin import cli
from hanlin.objectives import next_token
real, seen = next_token.Config.__call__, []
def call(self, model, batch):
    seen.append(batch.rows)
    (part,) = real(self, model, batch)
    return (dataclasses.replace(part, total=part.total * (float("nan") if len(seen) > {after} else 1.0)),)
next_token.Config.__call__ = call
sys.exit(cli.run(sys.argv[1:]))
"""
GOOD = 42  # steps before that


class Place:
    """A folder with a corpus and a recipe, and runs in it."""

    def __init__(self, folder: Path) -> None:
        """Write corpus and recipe."""
        self.folder = folder
        draw = random.Random(0)
        words = ["learn", "model", "text", "学习", "模型", "of", "the", "serve", "翰林", "number"]
        texts = [json.dumps({"text": " ".join(draw.choices(words, k=40)) + f" {index}"}) for index in range(300)]
        (folder / "corpus.jsonl").write_text("\n".join(texts), encoding="utf-8")
        (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")

    def start(self, run: str, *more: str, code: str = "") -> subprocess.Popen[bytes]:
        """Start a training; `code` is Python that stands for the command."""
        command = [sys.executable, *(["-c", code] if code else ["-m", "hanlin"])]
        command += ["train", "recipe.yaml", "--output", run, *more]
        with self.log(run).open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def finish(self, run: str, *more: str, code: str = "") -> tuple[int, str]:
        """Run to the end; return exit code and what was said."""
        exit_code = self.start(run, *more, code=code).wait(PATIENCE_S)
        return exit_code, self.log(run).read_text("utf-8")

    def log(self, run: str) -> Path:
        """Return the file that a run's words go to."""
        return self.folder / f"{run}.log"

    def newest(self, run: str) -> int:
        """Return the step of the newest finished checkpoint, 0 without any."""
        return max((int(each.name) for each in (self.folder / run / "checkpoints").glob("[0-9]*")), default=0)

    def left(self, run: str) -> dict[str, bytes]:
        """Return everything that must be equal: the last checkpoint, the rows of numbers, the bundle's weights."""
        last = self.folder / run / "checkpoints" / f"{self.newest(run):06d}"
        files = [*last.iterdir(), self.folder / run / "metrics.jsonl", self.folder / run / "model.safetensors"]
        return {str(each.relative_to(self.folder / run)): each.read_bytes() for each in files}


def wait(process: subprocess.Popen[bytes], until: Callable[[], bool], pause_s: float = 0.001) -> bool:
    """Return whether `until` came true before the process ended."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        if until():
            return True
        time.sleep(pause_s)
    return False


def killed(place: Place, kills: int, inside: int) -> list[str]:
    """Return the row of kill -9."""
    draw, proven, run = random.Random(1), 0, place.folder / "killed"
    for number in range(kills):
        before = place.newest("killed")
        process = place.start("killed")
        if not wait(process, lambda before=before: place.newest("killed") > before):
            return ["kill -9", f"kill {number + 1} never came to a save", "FAILED"]
        if number < inside:
            wait(process, lambda: any((run / "checkpoints").glob(".partial-*/model.safetensors")), pause_s=0)
        else:
            time.sleep(draw.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        proven += any((run / "checkpoints").glob(".partial-*"))
    _, said = place.finish("killed")
    resumed = [int(step) for step in re.findall(r"going on from step (\d+)", said)]
    same = place.left("killed") == place.left("whole") and len(resumed) == kills and min(resumed) > 0
    did = f"went on {len(resumed)} times, from steps {min(resumed)} to {max(resumed)}; {_same(same)}"
    return [f"kill -9, {kills} times, {proven} of them inside a save", did, _verdict(same and proven >= inside)]


def terminated(place: Place) -> list[str]:
    """Return the row of SIGTERM."""
    process = place.start("terminated")
    wait(process, lambda: place.newest("terminated") > 0)
    process.send_signal(signal.SIGTERM)
    code = process.wait(PATIENCE_S)
    saved = place.newest("terminated")
    said = f"stopped and saved at step {saved} of 800" in place.log("terminated").read_text("utf-8")
    place.finish("terminated")
    same = place.left("terminated") == place.left("whole")
    did = f"finished the step, saved step {saved}, exit {code}; gone on: {_same(same)}"
    return ["SIGTERM", did, _verdict(code == 143 and said and same)]


def refused(place: Place, run: str, what: str, code: str) -> list[str]:
    """Return the row of a disk that stops taking checkpoints in the middle of the run."""
    exit_code, said = place.finish(run, code=REFUSED.format(after=30, code=code))
    line = said.strip().splitlines()[-1].removeprefix("error: ")
    clean = "Traceback" not in said and not any((place.folder / run / "checkpoints").glob(".partial-*"))
    kept = place.newest(run)
    place.finish(run)
    same = place.left(run) == place.left("whole")
    did = f"exit {exit_code}, one line: `{line}`; step {kept} is whole; gone on once there was room: {_same(same)}"
    return [what, did, _verdict(exit_code == 1 and clean and kept > 0 and same)]


def read_only(place: Place) -> list[str]:
    """Return the row of a folder that nothing can be written to; root may write anywhere, so it gets a mount."""
    folder = place.folder / "readonly"
    folder.mkdir()
    mount = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o ro tmpfs {folder} && exec "$@"', "sh"]
    if os.geteuid() == 0 and subprocess.run([*mount, "true"], check=False, capture_output=True).returncode:
        return ["a read-only folder", "not tried: neither a user without rights nor a mount", "-"]
    folder.chmod(0o555)
    command = [sys.executable, "-m", "hanlin", "train", "recipe.yaml", "--output", "readonly/run"]
    command = [*mount, *command] if os.geteuid() == 0 else command
    done = subprocess.run(command, cwd=place.folder, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    folder.chmod(0o755)
    line = done.stderr.strip().splitlines()[-1].removeprefix("error: ")
    good = done.returncode == 1 and "Traceback" not in done.stderr and "read-only" in line + "permission denied"
    return ["a read-only folder", f"exit {done.returncode}, one line: `{line}`", _verdict(good)]


def not_finite(place: Place) -> list[str]:
    """Return the row of a loss that turns into NaN, and of the same run started again without its cause."""
    exit_code, said = place.finish("nan", code=SPOILED.format(after=3 * GOOD))
    line = said.strip().splitlines()[-1].removeprefix("error: ")
    newest = place.folder / "nan" / "checkpoints" / f"{place.newest('nan'):06d}"
    whole = all(bool(each.isfinite().all()) for each in load_file(newest / "model.safetensors").values())
    numbers = [json.loads(row) for row in (place.folder / "nan" / "metrics.jsonl").read_text("utf-8").splitlines()]
    bad = [row["step"] for row in numbers if row["loss"] is None]
    good = exit_code == 1 and whole and bad == list(range(GOOD + 1, GOOD + 10)) and "Traceback" not in said
    did = f"steps {bad[0]} to {bad[-1] + 1} changed nothing; exit {exit_code}: `{line}`; every saved number is finite"
    return [f"NaN from step {GOOD + 1} on", did, _verdict(good)]


def _same(same: bool) -> str:
    return "every byte as in a run never stopped" if same else "DIFFERENT from a run never stopped"


def _verdict(good: bool) -> str:
    return "yes" if good else "NO"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--inside", type=int, default=5)
    chosen = parser.parse_args(arguments)
    os.environ["PYTHONUNBUFFERED"] = "1"
    folder = Path(tempfile.mkdtemp(prefix="hanlin-kill-"))
    try:
        place = Place(folder)
        code, said = place.finish("whole")
        assert code == 0, said
        found = [
            killed(place, chosen.kills, chosen.inside),
            terminated(place),
            refused(place, "full", "a full disk in the middle of a save", "ENOSPC"),
            refused(place, "locked", "a disk that turns read-only", "EROFS"),
            read_only(place),
            not_finite(place),
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(heading("What a run survives", f"python -m benchmarks.kill --kills {chosen.kills} --inside {chosen.inside}"))
    print(rows(["what happened", "what the run did", "as it should"], found))


if __name__ == "__main__":
    main()
