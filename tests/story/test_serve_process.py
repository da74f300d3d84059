"""The real command: it starts, says what it serves, and stops the way it is told to."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time

import httpx
import pytest
import serving
from serving import KEY

from hanlin import cli

pytestmark = pytest.mark.multiprocess
CONTEXT = 1200
LONG = {
    "model": "long",
    "prompt": "a",
    "max_tokens": CONTEXT - 2,
    "temperature": 0,
    "logit_bias": {"1": -100},
    "stream": True,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a model whose longest answer takes a second or more."""
    folder = tmp_path_factory.mktemp("models") / "long"
    serving.write(folder, config=serving.LLAMA.model_copy(update={"context": CONTEXT, "vocab": 259}))
    return folder


@contextlib.contextmanager
def streaming(http):
    """Ask for a long answer; yields its lines, of which the first have come."""
    with http.stream("POST", "/v1/completions", json=LONG) as reply:
        assert reply.status_code == 200
        lines = reply.iter_lines()
        first = next(lines)
        assert first.startswith("data: ")
        yield first, lines


def ended(started, seconds):
    """Return the exit code of a server that ends in time."""
    began = time.monotonic()
    code = started.process.wait(20)
    assert time.monotonic() - began < seconds
    started.reader.join(5)
    return code


def test_sigterm_lets_answers_end_and_takes_no_new_ones(folder):
    """Guards against answers cut off by a new version, new work taken in meanwhile, and secrets in what is printed."""
    with serving.command(folder) as started, started.client() as http, started.client() as other:
        assert other.get("/ready").status_code == 200
        other.get(f"/v1/models?api_key={KEY}&q=SECRET")
        other.get("/a%0Aforged")
        other.post("/v1/completions", json={**LONG, "prompt": "SECRET", "max_tokens": 1, "stream": False})
        with streaming(http) as (first, lines):
            started.process.send_signal(signal.SIGTERM)
            serving.until(lambda: other.get("/ready").status_code == 503)
            assert other.get("/health").status_code == 200
            reply = other.post("/v1/completions", json={**LONG, "max_tokens": 1})
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "not_ready")
            assert int(reply.headers["retry-after"]) > 0
            found = serving.events("\n".join([first, *lines]) + "\n")
        assert found[-1]["choices"][0]["finish_reason"] == "length"
        assert len(found) > CONTEXT // 4
        assert ended(started, 5) == 0
        with pytest.raises(httpx.ConnectError):
            other.get("/health")
    said = "".join(started.said)
    assert "stopped" in said
    assert "serving long at http://127.0.0.1:" in said
    assert "GET /v1/models 200" in said
    for word in (KEY, "SECRET", "\nforged", "Traceback"):
        assert word not in said


def test_a_second_ctrl_c_does_not_wait(folder):
    """Guards against a server that cannot be stopped while somebody reads a long answer."""
    with serving.command(folder) as started, started.client() as http:
        with contextlib.suppress(httpx.RemoteProtocolError), streaming(http) as (_, lines):
            started.process.send_signal(signal.SIGINT)
            time.sleep(0.1)
            assert started.process.poll() is None, "the first lets it end"
            started.process.send_signal(signal.SIGINT)
            assert "[DONE]" not in "\n".join(lines)
        assert ended(started, 3) == 0
    assert "Traceback" not in "".join(started.said)


def test_what_does_not_end_in_time_is_ended(folder):
    """Guards against a server that waits for ever to be stopped, and a stream that ends as if it were whole."""
    with serving.command(folder, "--drain-s", "0.1") as started, started.client() as http:
        text = ""
        with contextlib.suppress(httpx.RemoteProtocolError), streaming(http) as (_, lines):
            started.process.send_signal(signal.SIGTERM)
            for line in lines:
                text += line
        assert "[DONE]" not in text
        assert '"error"' in text
        assert ended(started, 5) == 0
    assert "Traceback" not in "".join(started.said)


def test_a_key_is_made_where_none_is_given(folder):
    """Guards against a server without a key because nobody thought of one."""
    with serving.command(folder, env={"HANLIN_API_KEY": ""}) as started:
        serving.until(lambda: any("Ctrl-C" in line for line in started.said))
        printed = next(line for line in started.said if line.startswith("key: "))
        key = printed.split()[1]
        assert len(key) > 24
        with started.client(key) as http:
            assert http.get("/v1/models").json()["data"][0]["id"] == "long"
        with started.client("") as http:
            assert http.get("/v1/models", headers={"Authorization": "Bearer x"}).status_code == 401
        started.process.send_signal(signal.SIGTERM)
        assert ended(started, 5) == 0


def test_a_taken_port_is_an_answer_at_once(folder, capsys):
    """Guards against a traceback, and a minute of loading before it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.run(["serve", str(folder), "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in said
    assert "choose another port" in said


@pytest.mark.parametrize("words", [["nowhere"], ["."], ["--context", "9999"], ["--key-file", "none.txt"]])
def test_what_cannot_be_served_is_one_line(folder, tmp_path, monkeypatch, capsys, words):
    """Guards against a server that starts with nothing, more than the model can read, or no keys."""
    monkeypatch.chdir(tmp_path)
    path = [str(folder)] if words[0].startswith("--") else []
    assert cli.run(["serve", *path, *words, "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert json.dumps(KEY) not in said
