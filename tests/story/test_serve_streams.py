"""Streams: joined, they are the whole answer, wherever they are cut; and a client that leaves frees its place."""

from __future__ import annotations

import json
import socket

import httpx
import pytest
import serving
from serving import CONTEXT, SAID, events

BROKEN = "\N{REPLACEMENT CHARACTER}"
HOWS = ("say", "spell")  # tokens of words and parts of characters; bytes
CASES = [  # every script by both; of bytes, four to a character are enough for every day
    pytest.param(how, script, marks=[pytest.mark.slow] if how == "spell" and script != "emoji" else [])
    for how in HOWS
    for script in SAID
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    names = [f"{how}-{script}" for script in SAID for how in HOWS]
    root = serving.models(tmp_path_factory.mktemp("root"), "bytes", "chat", *names)
    with serving.serving(root) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with server.client() as client:
        yield client


def whole(http, **body):
    """Return text, finish_reason and usage of an answer that is not streamed."""
    reply = http.post("/v1/completions", json={"temperature": 0, **body})
    assert reply.status_code == 200, reply.text
    found = reply.json()
    return found["choices"][0]["text"], found["choices"][0]["finish_reason"], found["usage"]


def streamed(http, **body):
    """Return the same from a stream, and the pieces of text."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    reply = http.post("/v1/completions", json={"temperature": 0, **body, **options})
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = events(reply.text)
    *chunks, last = found
    assert last["choices"] == []
    assert all(each["usage"] is None for each in chunks)
    choices = [each["choices"][0] for each in chunks]
    finishes = [each["finish_reason"] for each in choices]
    assert finishes[:-1] == [None] * (len(finishes) - 1)
    pieces = [each["text"] for each in choices]
    return "".join(pieces), finishes[-1], last["usage"], pieces


@pytest.mark.parametrize(("how", "script"), CASES)
def test_every_limit_cuts_both_alike(server, http, how, script):
    """Guards against half characters in a stream, lost or doubled at an edge, and tokens miscounted."""
    name = f"{how}-{script}"
    tokenizer = server.model(name).tokenizer
    ids = tokenizer.encode(SAID[script]).ids[1:]
    for limit in range(1, len(ids) + 2):
        text, finish, usage = whole(http, model=name, prompt="", max_tokens=limit)
        joined, last, counted, pieces = streamed(http, model=name, prompt="", max_tokens=limit)
        assert (joined, last, counted) == (text, finish, usage)
        assert text == tokenizer.decode(ids[:limit])
        assert BROKEN not in text.rstrip(BROKEN)
        assert not any(BROKEN in piece for piece in pieces[:-2]), "only the end of a text may be broken"
        assert finish == ("length" if limit <= len(ids) else "stop")
        assert usage == {"prompt_tokens": 1, "completion_tokens": limit, "total_tokens": limit + 1}
    assert text == SAID[script]


@pytest.mark.parametrize(("how", "script"), CASES)
def test_every_stop_string_cuts_both_alike(server, http, how, script):
    """Guards against a stop string seen only inside one token, or shown in part because it came in pieces."""
    name, text = f"{how}-{script}", SAID[script]
    for place in range(1, len(text)):
        for stop in {text[place], text[place : place + 3]}:
            before = text[: text.index(stop)]
            body = {"model": name, "prompt": "", "max_tokens": CONTEXT - 1, "stop": [stop, "never said"]}
            assert whole(http, **body)[:2] == (before, "stop")
            joined, last, usage, pieces = streamed(http, **body)
            assert (joined, last) == (before, "stop")
            assert BROKEN not in joined
            assert usage == whole(http, **body)[2]
            assert all(before.startswith("".join(pieces[: end + 1])) for end in range(len(pieces)))


@pytest.mark.parametrize(("how", "script"), CASES)
def test_every_prompt_is_continued_where_it_ends(server, http, how, script):
    """Guards against an answer that begins broken because its prompt ended inside a character."""
    name, text = f"{how}-{script}", SAID[script]
    tokenizer = server.model(name).tokenizer
    ids = tokenizer.encode(text).ids
    for start in range(1, len(ids) + 1):
        found = whole(http, model=name, prompt=ids[:start], max_tokens=CONTEXT - start)
        joined, last, usage, _ = streamed(http, model=name, prompt=ids[:start], max_tokens=CONTEXT - start)
        assert (joined, last, usage) == found
        shown = tokenizer.decode(ids[:start]).rstrip(BROKEN)
        assert shown + joined == text
        assert usage["completion_tokens"] == len(ids) - start + 1, "the token that ends it is counted"


@pytest.mark.parametrize("script", SAID)
def test_chats_stream_what_they_say(server, http, script):
    """Guards against a chat stream with other rules than a completion's: content cut, or a second role."""
    body = {
        "model": "chat", "messages": [{"role": "user", "content": SAID[script]}], "seed": 1, "temperature": 0.8, "n": 2,
    }  # fmt: skip
    plain = http.post("/v1/chat/completions", json={**body, "max_tokens": 9}).json()
    for usage in (True, False):
        options = {"stream": True, "stream_options": {"include_usage": usage}}
        found = events(http.post("/v1/chat/completions", json={**body, "max_tokens": 9, **options}).text)
        assert len({each["id"] for each in found}) == 1
        assert {each["object"] for each in found} == {"chat.completion.chunk"}
        assert ("usage" in found[-1]) is usage
        if usage:
            assert found.pop()["usage"] == plain["usage"]
        for choice in plain["choices"]:
            own = [each["choices"][0] for each in found if each["choices"][0]["index"] == choice["index"]]
            assert own[0]["delta"]["role"] == "assistant"
            assert all("role" not in each["delta"] for each in own[1:])
            assert "".join(each["delta"].get("content", "") for each in own) == choice["message"]["content"]
            assert [each["finish_reason"] for each in own if each["finish_reason"]] == [choice["finish_reason"]]
            assert own[-1]["delta"] == {}


def test_events_are_lines_for_every_reader(server, http):
    """Guards against readers that end a line at U+2028 or U+0085, or that take text for the end of the stream."""
    text = "a\u2028b\u0085c\r\ndata: [DONE]\n\n"
    body = {"model": "bytes", "prompt": text, "echo": True, "max_tokens": 1, "temperature": 0, "stream": True}
    reply = http.post("/v1/completions", json=body)
    reply.content.decode("ascii")
    found = events(reply.text)
    assert found[0]["choices"][0]["text"] == text


def test_tokens_come_when_they_are_made(server, http, monkeypatch):
    """Guards against a stream that is kept back until the answer is whole."""
    engine, seen, step = server.engine("bytes"), [], server.engine("bytes").step
    monkeypatch.setattr(engine, "step", lambda plan: (serving.time.sleep(0.01), step(plan))[1])
    body = {"model": "bytes", "prompt": "a", "max_tokens": 30, "seed": 1, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as reply:
        for line in reply.iter_lines():
            if line:
                seen.append(serving.time.monotonic())
    assert seen[-1] - seen[0] > 0.1


def _raw(server, **body):
    """Return a socket on which a long answer has been asked for."""
    data = json.dumps({"model": "bytes", "prompt": "a", "max_tokens": CONTEXT - 2, "n": 3, **body}).encode()
    plug = socket.create_connection(server.address, timeout=10)
    plug.sendall(serving.head(Content_Type="application/json", Content_Length=len(data)) + data)
    return plug


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["closed", "reset", "half closed"])
def test_who_leaves_frees_the_place(server, http, monkeypatch, stream, how):
    """Guards against answers written for nobody, while others wait for the place."""
    engine, step = server.engine("bytes"), server.engine("bytes").step
    monkeypatch.setattr(engine, "step", lambda plan: (serving.time.sleep(0.05), step(plan))[1])  # 4.5 s a request
    plug = _raw(server, stream=stream)
    serving.until(lambda: server.worker.load().running == 3)
    if stream:
        assert plug.recv(100)
    if how == "reset":
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    if how == "half closed":
        plug.shutdown(socket.SHUT_WR)
    else:
        plug.close()
    assert serving.until(server.idle) < 1
    plug.close()


def test_who_leaves_the_queue_is_forgotten(server, http, monkeypatch):
    """Guards against a queue full of requests of clients that have gone."""
    with serving.held(server, "bytes", monkeypatch):
        plugs = [_raw(server) for _ in range(6)]
        serving.until(lambda: len(server.lines["bytes"].tickets) == 6)
        for plug in plugs:
            plug.close()
        assert serving.until(lambda: server.worker.load() == (0, 0)) < 1
    assert whole(http, model="bytes", prompt="a")[1] == "length"


def test_who_leaves_at_any_moment_frees_the_place(server, http):
    """Guards against a place lost to a client that leaves at an unlucky moment: before, between, after its tokens."""
    for place in range(60):
        plug = _raw(server, stream=bool(place % 2), seed=place)
        serving.time.sleep(place % 20 / 1000)
        plug.close()
    serving.until(server.idle)
    assert whole(http, model="bytes", prompt="a")[1] == "length"


def test_a_client_that_stops_reading_is_let_go(tmp_path):
    """Guards against answers that pile up in memory, and places kept, for a client that never reads."""
    serving.models(tmp_path, "bytes")
    limits = serving.Limits(stall_s=0.3)
    with serving.serving(tmp_path, limits=limits) as server, server.client() as http:
        server.server.address.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # connections inherit it
        data = json.dumps({"model": "bytes", "prompt": ["a"] * 32, "n": 8, "stream": True, "max_tokens": 94}).encode()
        with socket.create_connection(server.address, timeout=10) as plug:
            plug.sendall(serving.head(Content_Type="application/json", Content_Length=len(data)) + data)
            serving.until(lambda: server.worker.load().running > 0)
            serving.until(server.idle)
            assert 'hanlin_cancelled_total{model="bytes"} 1.0' in http.get("/metrics").text


def test_an_answer_has_its_time(tmp_path, monkeypatch):
    """Guards against a request that holds its place for ever."""
    serving.models(tmp_path, "bytes")
    with serving.serving(tmp_path, limits=serving.Limits(request_s=0.3)) as server, server.client() as http:
        step = server.engine("bytes").step
        monkeypatch.setattr(server.engine("bytes"), "step", lambda plan: (serving.time.sleep(0.05), step(plan))[1])
        body = {"model": "bytes", "prompt": "a", "max_tokens": 90}
        reply = http.post("/v1/completions", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
        cut = http.post("/v1/completions", json={**body, "stream": True}).text
        assert json.loads(cut.strip().split("\n")[-1].removeprefix("data: "))["error"]["code"] == "timeout"
        assert "[DONE]" not in cut
        assert serving.until(server.idle) < 1


def test_http_1_0_and_keep_alive(server):
    """Guards against a stream whose end an old client cannot see, and connections that are not used again."""
    data = json.dumps({"model": "spell-zh", "prompt": "", "max_tokens": 60, "temperature": 0, "stream": True}).encode()
    request = serving.head(Content_Type="application/json", Content_Length=len(data)).replace(b"HTTP/1.1", b"HTTP/1.0")
    reply = serving.wire(server.address, request + data)
    headers, _, body = reply.partition(b"\r\n\r\n")
    assert b"chunked" not in headers.lower()
    assert "".join(each["choices"][0]["text"] for each in events(body.decode())) == SAID["zh"]
    with server.client(limits=httpx.Limits(max_connections=1)) as http:
        for _ in range(3):
            assert streamed(http, model="spell-zh", prompt="", max_tokens=60)[0] == SAID["zh"]
            assert http.post("/v1/completions", json={"model": "nobody", "prompt": "a"}).status_code == 404


def test_small_answers_do_not_wait_for_the_network(server):
    """Guards against tokens that the system keeps back, 40 ms at a time, until the client has acknowledged the last."""
    with server.client() as http:
        http.get("/health")
        sockets = [each.transport.get_extra_info("socket") for each in server.server.server_state.connections]
        assert sockets
        assert all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets)
