"""What the README says is run; English and Chinese say the same."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hanlin import cli

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the code blocks of a page, comments aside."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(kind, re.sub(r"\s*#.*", "", body)) for kind, body in BLOCK.findall(text)]


def test_both_languages_have_the_same_blocks_and_links():
    """A command or page that one language has and the other lacks."""
    assert blocks("README.md") == blocks("README.zh-CN.md")
    links = [
        re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text("utf-8"))[1:] for page in ("README.md", "README.zh-CN.md")
    ]
    assert sorted(links[0]) == sorted(link.replace("docs/zh/", "docs/") for link in links[1])
    for link in {*links[0], *links[1]}:
        assert (ROOT / link).exists(), f"README links to {link}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "zh").glob("*.md")), ids=lambda path: path.stem)
def test_pages_in_both_languages_have_the_same_blocks_and_names(page):
    """A command, an option or a file that one language names and the other does not."""
    here, there = f"docs/zh/{page.name}", f"docs/{page.name}"
    assert blocks(here) == blocks(there)
    names = [re.findall(r"`([^`]+)`", BLOCK.sub("", (ROOT / each).read_text("utf-8"))) for each in (here, there)]
    assert sorted(names[0]) == sorted(names[1])


def _serve(words: list[str], folder: Path) -> None:
    """Start the server as written, but for a free port, and stop it as a person does."""
    command = [sys.executable, "-m", *words, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        said = ""
        while "Ctrl-C stops it" not in said:
            line = server.stdout.readline()
            assert line, said
            said += line
        server.send_signal(signal.SIGINT)
        said += server.stdout.read()
        assert server.wait(30) == 0, said
    assert "serving x at http://127.0.0.1:" in said
    assert "stopped" in said


@pytest.mark.multiprocess
def test_the_commands_and_the_python_run_as_written(tmp_path, monkeypatch, capsys):
    """A README that shows what does not work."""
    monkeypatch.chdir(tmp_path)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = [json.dumps({"text": f"Once upon a time there were {n} ducks. 从前有{n}只鸭子。" * 8}) for n in range(300)]
    (corpus / "tales.jsonl").write_text("\n".join(rows), encoding="utf-8")
    commands = [line[2:] for kind, body in blocks("README.md") if kind == "console" for line in body.splitlines()]
    ours = [line for line in commands if line.startswith("hanlin ")]
    assert len(ours) == 6
    for line in ours:
        if line.startswith("hanlin serve"):
            _serve(shlex.split(line), tmp_path)
            continue
        words = shlex.split(line.replace("plan.minutes=10", "plan.steps=3 plan.context=96 plan.rows=2 plan.threads=1"))
        if words[1] == "prepare":
            words += ["--vocab", "512"]  # three hundred tales hold no larger vocabulary's merges
        assert cli.run(words[1:]) == 0, (line, capsys.readouterr().err)
    python = next(body for kind, body in blocks("README.md") if kind == "python")
    exec(python, {})  # as a reader would run it
    assert "torch.Size([" in capsys.readouterr().out
    for line in commands:
        if line.startswith("make "):
            assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
