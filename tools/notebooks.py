"""Make the notebooks of examples/: python tools/notebooks.py [01 …] [--dry]   (--dry leaves the outputs empty).

The docstring becomes text, every top-level part of the file a cell, and `main()` the last cell with what it printed.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
FOLDER = EXAMPLES / "notebooks"


def cells(path):
    """Return (kind, text) of a notebook's cells: markdown, then code."""
    text = path.read_text(encoding="utf-8")
    lines, tree = text.splitlines(), ast.parse(text)
    made = [("markdown", f"# {path.stem}\n\n{ast.get_docstring(tree)}")]
    gathered: list[str] = []
    for node in tree.body[1:]:
        if isinstance(node, ast.If):  # if __name__ == "__main__"
            continue
        part = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            made += [("code", "\n".join(gathered))] if gathered else []
            made.append(("code", part))
            gathered = []
        else:
            gathered.append(part)
    return [*made, *([("code", "\n".join(gathered))] if gathered else []), ("code", "main();")]


def notebook(path, printed):
    """Return the notebook as JSON text; `printed` stands below its last cell."""
    made = []
    for number, (kind, text) in enumerate(cells(path)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        if kind == "code":
            cell |= {"execution_count": number, "outputs": []}
        made.append(cell)
    if printed:
        lines = printed.splitlines(keepends=True)
        made[-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines}]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def output(path):
    """Return what an example prints, run in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, path], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{path.name}: {done.stderr}")
    return done.stdout


def main(words):
    """Write the notebooks of the examples that begin with one of the words, all when there are none."""
    chosen = tuple(word for word in words if not word.startswith("-"))
    FOLDER.mkdir(exist_ok=True)
    for path in sorted(EXAMPLES.glob("[0-9]*.py")):
        if not chosen or path.name.startswith(chosen):
            printed = "" if "--dry" in words else output(path)
            (FOLDER / f"{path.stem}.ipynb").write_text(notebook(path, printed), encoding="utf-8")
            print(f"{path.stem}.ipynb")


if __name__ == "__main__":
    main(sys.argv[1:])
