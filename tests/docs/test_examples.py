"""The examples are short, run, and are the notebooks."""

from __future__ import annotations

import ast
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tools import notebooks

FILES = sorted(notebooks.EXAMPLES.glob("[0-9]*.py"))
ENDS = {  # what each ends with: the thing to look at
    "01": r"right on (8|9)\d% of the points",
    "02": r"adafactor .* lowest 0\.\d+",
    "03": r"\d+ modules that Python does not have yet",
    "04": r"99999 -> 九万九千九百九十九 *right",
    "05": r"planet -> aelnpt",
    "06": r"狗 \d+%",
    "07": r"2\.5: Beautiful is better",
    "08": r"早餐不好吃，前台太冷淡。 差评",
    "09": r"xz, after the manual",
    "10": r"English again: loss 0\.\d+",
    "11": r"'翰林': 24 tokens; the same alone and in company: True",
    "12": r" 8 bits .*22 of 22 right",
}


def test_there_are_twelve_short_ones_and_the_page_names_them():
    """An example too long to read, or one that no page tells of."""
    assert [path.name[:2] for path in FILES] == sorted(ENDS)
    page = (notebooks.EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 70, path.name
        assert sum(bool(line.strip()) for line in text.splitlines()) <= 60, path.name
        assert f"python examples/{path.name}" in (ast.get_docstring(ast.parse(text)) or "")
        assert f"`{path.name}`" in page


@pytest.mark.parametrize("number", ["01", "02", "06", "12"])
def test_the_quick_ones_run_shortened(number, capsys):
    """An example that an API has left behind."""
    (path,) = (each for each in FILES if each.name.startswith(number))
    runpy.run_path(str(path))["main"](steps=8)
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_runs_whole(path, tmp_path):
    """An example that ends in nothing worth seeing."""
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(ENDS[path.name[:2]], done.stdout), done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_notebook_is_the_example(path):
    """A notebook of an older file, or one without its output."""
    kept = json.loads((notebooks.FOLDER / f"{path.stem}.ipynb").read_text(encoding="utf-8"))
    assert kept["nbformat"] == 4
    made = [(each["cell_type"], "".join(each["source"])) for each in kept["cells"]]
    assert made == notebooks.cells(path), "python tools/notebooks.py"
    assert kept["cells"][-1]["outputs"], "python tools/notebooks.py without --dry"


def test_the_cells_of_a_notebook_run(tmp_path, capsys):
    """Cells cut in the wrong place."""
    space: dict[str, object] = {"__name__": "notebook"}
    for kind, text in notebooks.cells(Path(FILES[1])):
        if kind == "code":
            exec(compile(text, "<cell>", "exec"), space)
    assert "lowest" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["docs/models.md", "docs/zh/models.md"])
def test_the_table_of_sizes_is_what_the_models_are(page):
    """Sizes of an older family file."""
    from benchmarks import families

    text = (notebooks.EXAMPLES.parent / page).read_text(encoding="utf-8")
    for name, (small, usual) in families.FAMILIES.items():
        line = "| " + " | ".join([name, *families.memory(small), *families.memory(usual)]) + " |"
        assert line in text, line
