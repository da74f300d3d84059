"""The page that adds a task is followed word by word: its file, its entry point, its recipe, its commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "add-a-task.md"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_the_task_on_the_page_lives(tmp_path):
    """A contract that has moved on, and a page that has not."""
    blocks = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    site = tmp_path / "site"
    info = site / "mood-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "mood.py").write_text(blocks["python"], encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mood\nVersion: 1.0\n")
    line = blocks["toml"].splitlines()[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[hanlin.tasks]\n{line}\n")
    (tmp_path / "mood.yaml").write_text(blocks["yaml"])
    ends = {"asks": "?", "says": ".", "shouts": "!"}
    rows = [f'"{end}{word} {at}",{mood}' for at in range(20) for word in ("so", "好") for mood, end in ends.items()]
    (tmp_path / "moods.csv").write_text("sentence,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    said = ""
    for command in blocks["console"].splitlines():
        words = shlex.split(command.removeprefix("$ "))
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        said += done.stdout
    answers = [json.loads(each) for each in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(answers) == len(rows)
    assert {*answers[0]} == {"row", "mood"}
    assert re.search(r"accuracy +[01]\.\d{4}", said)


def test_both_languages_show_the_same():
    """A page whose other language was forgotten."""
    other = PAGE.parent / "zh" / PAGE.name
    assert BLOCK.findall(other.read_text(encoding="utf-8")) == BLOCK.findall(PAGE.read_text(encoding="utf-8"))
