"""`hanlin prepare` killed at any moment, with all its processes, and started again: the same bytes, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = 60_000  # bytes of a part, so that a small corpus has many
COMMAND = f"""
import sys
from hanlin import cli
from hanlin.data.pipeline import parts
parts.SIZE = {SMALL}
parts.cut.__defaults__ = ({SMALL},)
sys.exit(cli.run(sys.argv[1:]))
"""
WORDS = (
    "a",
    "model",
    "learns",
    "from",
    "text",
    "and",
    "writes",
    "翰林",
    "院士",
    "学习",
    "春秋",
    "山水",
    "river",
    "stone",
)


@pytest.fixture
def corpus(tmp_path):
    """Return a folder with 1.5 MB of text in two languages, some of it twice, nearly twice, or under the same head."""
    draw = random.Random(0)
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in "abc":
        rows = [" ".join(draw.choices(WORDS, k=60)) + f" {name}{number}" for number in range(1500)]
        rows[100:150] = rows[:50]
        rows[200:250] = [row + " more" for row in rows[50:100]]
        lines = [json.dumps({"text": f"The head of every page\n{row}"}, ensure_ascii=False) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def prepare(corpus: Path, output: str) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    words = ["prepare", "corpus", "--output", output, "--near", "0.8", "--lines", "5", "--clean", "whitespace"]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words, "--vocab", "400", "--workers", "2"],
        cwd=corpus.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.multiprocess
@pytest.mark.slow  # a stop at every part is in tests/unit/test_pipeline.py
@pytest.mark.parametrize("kills", [10])
def test_killed_and_gone_on(corpus, kills):
    """Guards against documents lost or made twice, and half-written files that are taken for whole ones."""
    began = time.monotonic()
    with prepare(corpus, "whole") as alone:
        assert alone.wait(120) == 0, alone.stderr.read()
    seconds = time.monotonic() - began
    draw, done = random.Random(kills), 0
    work = corpus.parent / ".out.work"
    while done < kills:
        with prepare(corpus, "out") as killed:
            time.sleep(draw.uniform(0.3, 0.9) * seconds)
            killed.poll()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(killed.pid, signal.SIGKILL)
            killed.wait(20)
        done += killed.returncode != 0  # it may have been through before
        if (corpus.parent / "out").exists():  # whole, even where the process had not ended
            assert content(corpus.parent / "out") == content(corpus.parent / "whole")
            shutil.rmtree(corpus.parent / "out")
    with prepare(corpus, "out") as last:
        assert last.wait(120) == 0, last.stderr.read()
    assert content(corpus.parent / "out") == content(corpus.parent / "whole")
    assert not work.exists()
    left = [path.name for path in corpus.parent.iterdir() if path.name not in ("corpus", "whole", "out")]
    assert all("partial" in name for name in left), left
