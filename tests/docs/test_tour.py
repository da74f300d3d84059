"""The tour names at most six files, and a training really goes through them in that order."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from hanlin import cli

ROOT = Path(__file__).parents[2]
NUMBERED = re.compile(r"^\d\. `src/hanlin/([\w/]+)\.py:([\w.]+)`", re.MULTILINE)


def test_a_training_passes_the_tour_in_order(tmp_path, monkeypatch):
    """A tour that names functions nobody calls any more."""
    stops = NUMBERED.findall((ROOT / "docs" / "tour.md").read_text(encoding="utf-8"))
    assert 1 < len(stops) <= 6
    wanted = [(str(ROOT / "src" / "hanlin" / f"{file}.py"), name.split(".")[-1]) for file, name in stops]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text("a few words to learn from, again and again\n" * 40)
    seen: list[tuple[str, str]] = []

    def note(frame, event, _):
        here = (frame.f_code.co_filename, frame.f_code.co_name)
        if event == "call" and here in wanted and here not in seen:
            seen.append(here)

    # Not `demo` itself: a plan of two steps on toy sizes reaches the same code.
    recipe = "model: {family: llama, dim: 16, layers: 1, heads: 2}\ntokenizer: {kind: bytes}\n"
    recipe += "data: {train: corpus.txt, valid_fraction: 0}\nplan: {steps: 2, rows: 2, context: 16, precision: fp32}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        code = cli.run(["train", "recipe.yaml", "--output", "run"])
    finally:
        sys.setprofile(before)
    assert code == 0
    assert seen == wanted


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_every_name_in_the_docs_exists(page):
    """A page that points at a file or function that was renamed."""
    for file, name in re.findall(
        r"`((?:src|tests|tools|benchmarks)/[\w/.-]+\.py)(?::([\w.]+))?`", page.read_text(encoding="utf-8")
    ):
        path = ROOT / file
        assert path.is_file(), f"{page.name} names {file}"
        if name:
            last = name.split(".")[-1]
            pattern = rf"^\s*(?:async )?(?:def|class) {last}\b|^\s*{last}\s*[:=]"
            assert re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE), (
                f"{page.name} names {file}:{name}"
            )
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)\)", prose):
        assert link.startswith("http") or (page.parent / link).exists(), f"{page.name} links to {link}"
