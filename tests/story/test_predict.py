"""Rows in, answers out: the same by command line and Python, whole after a kill, nothing of another model mixed in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hanlin import api, bundle, cli
from hanlin.models.bert import Config as Bert
from hanlin.tasks import classify, contract
from hanlin.text.tokenizer import byte_level

TASK = classify.Config(labels=("down", "up"))
ROWS = [
    {"id": f"r{at}", "text": f"text {at} 好" * (1 + at % 3), "label": "up", "kind": "ab"[at % 2]} for at in range(1500)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a model and its rows, some of them bad."""
    folder = tmp_path_factory.mktemp("predict")
    model = Bert(vocab=259, dim=16, layers=1, heads=2, hidden=32, context=64).build(seed=0, heads=TASK.heads())
    settings = {key: value for key, value in contract.saved(TASK).items() if key != "name"}
    bundle.write(folder / "model", model, byte_level(), task="classify", settings=settings, labels=TASK.labels)
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    lines[3], lines[700] = "{broken", json.dumps({"id": "empty", "text": " "})
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def here(made, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("model", "rows.jsonl"):
        (tmp_path / name).symlink_to(made / name)
    return tmp_path


def predict(*more, rows="rows.jsonl"):
    return cli.run(["predict", "model", "--input", rows, "--output", "out.jsonl", *more])


def answers(folder):
    return [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_ids_errors_and_the_same_answers_in_python(here):
    """An answer beside the wrong row after a bad one."""
    assert predict() == 0
    found = answers(here)
    assert [each["row"] for each in found] == list(range(1, 1501))
    assert "not JSON" in found[3]["error"]
    assert (found[700]["id"], "text: empty" in found[700]["error"]) == ("empty", True)
    assert [each["id"] for each in found[:3]] == ["r0", "r1", "r2"]
    texts = [ROWS[at]["text"] for at in (0, 4, 701, 1499)]
    for at, one in zip((0, 4, 701, 1499), api.load("model").predict(texts)):
        assert found[at]["probabilities"] == pytest.approx(one.probabilities, abs=1e-6)


def test_a_cut_output_goes_on_to_the_same_bytes(here, capsys):
    """Rows answered twice, or none where the file was cut in the middle of a line."""
    assert predict() == 0
    whole = (here / "out.jsonl").read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, ends[2], ends[2] + 1, ends[600] - 1, len(whole) - 1, len(whole)):
        (here / "out.jsonl").write_bytes(whole[:cut])
        assert predict() == 0
        assert (here / "out.jsonl").read_bytes() == whole
    assert "1,500 rows" in capsys.readouterr().out


def test_answers_of_another_model_or_rows_are_not_added_to(here, capsys):
    assert predict() == 0
    whole = (here / "out.jsonl").read_bytes()
    (here / "other.jsonl").write_text('{"text": "a"}\n')
    assert predict(rows="other.jsonl") == 1
    assert "made otherwise (rows)" in capsys.readouterr().err
    assert predict("--precision", "bf16") == 1
    assert (here / "out.jsonl").read_bytes() == whole
    assert predict("--fresh", rows="other.jsonl") == 0
    assert len(answers(here)) == 1
    (here / "out.jsonl").write_text("my notes\n")
    (here / ".out.jsonl.run").unlink()
    assert predict() == 1
    assert (here / "out.jsonl").read_text() == "my notes\n"


@pytest.mark.multiprocess
def test_killed_and_started_again(here):
    """A process that is killed while it writes."""
    words = [sys.executable, "-m", "hanlin", "predict", "model", "--input", "rows.jsonl", "--output", "out.jsonl"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            if (here / "out.jsonl").exists() and (here / "out.jsonl").stat().st_size:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.001)
    assert predict() == 0
    cut = (here / "out.jsonl").read_bytes()
    assert predict("--fresh") == 0
    assert (here / "out.jsonl").read_bytes() == cut


def test_slices_and_errors(here, capsys):
    """Scores of a slice that are those of other rows."""
    (here / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:60]), encoding="utf-8")
    assert cli.run(["evaluate", "model", "--data", "good.jsonl", "--slice", "kind", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    parts = [each["value"] * each["n"] for each in said["slices"].values()]
    assert {name: each["n"] for name, each in said["slices"].items()} == {"a": 30, "b": 30}
    assert sum(parts) == pytest.approx(60 * said["scores"]["accuracy"]["value"])
    assert cli.run(["evaluate", "model", "--data", "good.jsonl", "--slice", "kin", "--errors"]) == 1
    assert "did you mean 'kind'" in capsys.readouterr().err
    assert cli.run(["compare", "model", "model", "--data", "good.jsonl"]) == 0
    assert "no difference shown" in capsys.readouterr().out
