"""The command line, Python and HTTP give one answer: the same bytes, for every task that a bundle is made for."""

from __future__ import annotations

import json

import pytest
import serving
import tasked

from hanlin import bundle, cli
from hanlin.api import LanguageModel
from hanlin.config import dump


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tasked.models(tmp_path_factory.mktemp("root"), *tasked.ROWS)
    with serving.serving(root) as running:
        yield running


def plain(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", tasked.ROWS)
def test_three_doors_one_answer(server, name, tmp_path):
    """Guards against a second way of encoding, batching or rounding behind one of the doors."""
    rows = tasked.asked(name)
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.run(["predict", str(server.root / name), "--input", str(path), "--output", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    by_command = [{key: value for key, value in line.items() if key != "row"} for line in lines]
    model = LanguageModel(bundle.read(server.root / name))
    by_python = [plain(dump(each)) for each in model.predict(rows)]
    with server.client() as client:
        task = client.get(f"/v1/models/{name}").json()["task"]
        reply = client.post(f"/v1/tasks/{task}", json={"model": name, "inputs": rows})
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert (found["object"], found["model"], found["task"]) == ("list", name, task)
    assert [each.pop("index") for each in found["data"]] == list(range(len(rows)))
    assert found["data"] == by_python == by_command
    assert len({json.dumps(each) for each in by_python}) > 1, "a model that always says the same tells nothing"
