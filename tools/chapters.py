"""Run the chapters of docs/chapters: every block in order, its output beside what the page says it is.

    ```python   runs, in one namespace a page and one folder a page; what it prints must be the ```text after it
    ```console  lines that begin with `$ ` run as commands; `serve` is started and stopped

python tools/chapters.py             run every page and compare
python tools/chapters.py 03 --write  run one and write its outputs and pictures, in both languages
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES, TWINS = ROOT / "docs" / "chapters", ROOT / "docs" / "zh" / "chapters"
PICTURES = ROOT / "docs" / "images" / "chapters"
BLOCK = re.compile(r"```(\w+)\n(.*?)```\n?", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def blocks(text):
    """Return (kind, body) of the code blocks of a page."""
    return BLOCK.findall(text)


def prose(text):
    """Return a page without code blocks, `code`, links' targets, and arXiv numbers."""
    plain = BLOCK.sub("\n", text)
    plain = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`\n]*`", "", plain))
    return re.sub(r"arXiv[: ]\d+\.\d+", "", plain)


def numbers(text):
    """Return the numbers of some text as they are written, thousands separators aside."""
    return [each.replace(",", "").rstrip(".") for each in NUMBER.findall(text)]


def agree(said, printed):
    """Return whether two outputs are the same but for one unit in the last digit of a number with a fraction."""
    if re.sub(r"\s+", " ", NUMBER.sub("#", said)).strip() != re.sub(r"\s+", " ", NUMBER.sub("#", printed)).strip():
        return False
    return all(_near(*pair) for pair in zip(numbers(said), numbers(printed), strict=True))


def _near(said, printed):
    if "e" in said or "e" in printed:
        return abs(float(said) - float(printed)) <= 0.1 * abs(float(said)) + 1e-30
    places = len(said.partition(".")[2])
    return said == printed if not places else abs(float(said) - float(printed)) < 1.01 * 10**-places


def run(text, folder):
    """Run a page's blocks in `folder`; return what each python block printed, in order."""
    space = {"__name__": "chapter"}
    outputs = []
    with contextlib.chdir(folder):
        for kind, body in blocks(text):
            if kind == "python":
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    _execute(body, space)
                outputs.append(printed.getvalue())
            elif kind == "console":
                for line in body.splitlines():
                    if line.startswith("$ "):
                        command(line[2:])
    return outputs


def _execute(body, space):
    """Run a block; the value of a last line that is an expression is printed, as a notebook does."""
    tree = ast.parse(body)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<chapter>", "exec"), space)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "<chapter>", "eval"), space)
        if value is not None:
            print(value)


def command(line):
    """Run one command of a page; AssertionError with what it said when it fails."""
    words = shlex.split(line, comments=True)
    if words[0] == "hanlin":
        words = [sys.executable, "-m", *words]
    if "serve" in words[:4]:
        _serve([*words, "--port", "0"])
        return
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (line, done.stdout + done.stderr)


def _serve(words):
    """Start a server on a free port and stop it as a person does."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        said = ""
        while "Ctrl-C stops it" not in said:
            line = server.stdout.readline()
            assert line, said
            said += line
        server.send_signal(signal.SIGINT)
        said += server.stdout.read()
        assert server.wait(60) == 0, said


def expected(text):
    """Return, for every python block, the body of the text block right after it, '' where there is none."""
    found = [*blocks(text), ("", "")]
    return [after[1] if after[0] == "text" else "" for here, after in pairwise(found) if here[0] == "python"]


def written(text, outputs):
    """Return the page with what its python blocks printed in the text block after each."""
    parts, at, left = [], 0, list(outputs)
    matches = list(BLOCK.finditer(text))
    for index, match in enumerate(matches):
        if match[1] == "text" and index and matches[index - 1][1] == "python":
            continue  # written anew below
        parts.append(text[at : match.end()])
        at = match.end()
        if match[1] == "python":
            after = matches[index + 1] if index + 1 < len(matches) else None
            if after and after[1] == "text":
                at = after.end()
            printed = "\n".join(line.rstrip() for line in left.pop(0).rstrip().splitlines())
            if printed:
                parts.append(f"\n```text\n{printed}\n```\n")
    return "".join([*parts, text[at:]])


def main(words):
    """Run the pages that begin with one of the words, all when there are none."""
    write, chosen = "--write" in words, tuple(word for word in words if not word.startswith("-"))
    bad = 0
    for page in sorted(PAGES.glob("*.md")):
        if chosen and not page.name.startswith(chosen):
            continue
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            outputs = run(text, folder)
            if write:
                PICTURES.mkdir(parents=True, exist_ok=True)
                for picture in Path(folder).glob("*.png"):
                    shutil.copy(picture, PICTURES / picture.name)
        if write:
            page.write_text(written(text, outputs), encoding="utf-8")
            twin = TWINS / page.name
            twin.write_text(written(twin.read_text(encoding="utf-8"), outputs), encoding="utf-8")
        said = expected(page.read_text(encoding="utf-8"))
        wrong = [index for index, pair in enumerate(zip(said, outputs, strict=True)) if not agree(*pair)]
        bad += len(wrong)
        print(f"{page.name}: {len(said)} blocks, {len(wrong)} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    import torch

    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
