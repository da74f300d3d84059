"""Who may ask, how much, how slowly, and what is written down of it."""

import json
import logging
import socket
import threading
import time
from contextlib import contextmanager, suppress

import httpx
import pytest
from fake_worker import HEADERS, KEY, Worker, answer
from starlette.testclient import TestClient

from hanlin.errors import ConfigError
from hanlin.serve import api, guard
from hanlin.serve.guard import Keys
from hanlin.serve.limits import Limits
from hanlin.serve.listen import Server, bind
from hanlin.serve.worker import Piece

ROUTES = ["/metrics", "/openapi.json", "/v1/models", "/v1/models/toy", "/v1/nothing", "/docs"]
POSTS = ["/v1/completions", "/v1/chat/completions", "/v1/tokenize", "/v1/detokenize"]
BODY = {"model": "toy", "prompt": "ab", "seed": 1}


def client(headers=HEADERS, worker=None, **keys):
    """Return a client of the routes."""
    app = api.app(worker or Worker(), keys={"me": KEY, "you": "another-key"}, **keys)
    return TestClient(app, base_url="http://localhost:8000", headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": "Bearer é".encode()},
        {"X-Api-Key": KEY},
    ],
)
def test_every_route_but_the_empty_ones_wants_the_key(headers):
    """A route, an error or an unknown path answers to anyone."""
    some = client(headers)
    for response in (*map(some.get, ROUTES), *(some.post(path, json=BODY) for path in POSTS)):
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/health", "/ready"):
        assert (some.get(path).status_code, some.get(path).content) == (200, b"")


def test_every_key_opens_and_names_its_owner():
    """Only the first key is compared; two people share one place in the queue."""
    worker = Worker()
    for name, key in {"me": KEY, "you": "another-key"}.items():
        some = client({"authorization": f"bearer {key}"}, worker)
        assert some.post("/v1/completions", json=BODY).status_code == 200
        assert worker.asked[-1].client == f"{name} testclient"


@pytest.mark.parametrize("key", [None, "", "tiny", "with a space", "ключ-ключ-ключ", "line\nbreak"])
def test_keys_that_guard_nothing_are_refused(key):
    """A server without a key, or with an empty one, is open to whoever reaches the port."""
    with pytest.raises(ConfigError) as caught:
        Keys({} if key is None else {"good": KEY, "a": key})
    assert not key or key not in str(caught.value)


def test_every_key_is_compared(monkeypatch):
    """The time an answer takes says which key was nearly right."""
    seen = []
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda one, two: seen.append(two) or one == two)
    keys = Keys({"a": "first-key", "b": "second-key"})
    assert keys.owner([(b"authorization", b"Bearer first-key")]) == "a"
    assert len(seen) == 2
    assert keys.owner([(b"authorization", b"Bearer first-key")] * 2) is None  # whose word would count?
    assert all(isinstance(each, bytes) and len(each) == 32 for each in seen)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("localhost:80.evil.example", 403),
        ("localhost@evil.example", 403),
        ("", 403),
    ],
)
def test_host_of_another_name_is_refused(host, status):
    """A page that rebinds its own name to 127.0.0.1 reads the server through the browser."""
    for path in ("/health", "/v1/models"):
        assert client().get(path, headers={"Host": host}).status_code == status
    assert client(hosts=None).get("/v1/models", headers={"Host": host}).status_code == 200


def test_pages_may_call_only_where_they_are_named():
    """Any page in the browser may use the server."""
    origin = {"Origin": "https://page.example"}
    asks = {**origin, "Access-Control-Request-Method": "POST"}
    assert not [name for name in client().get("/v1/models", headers=origin).headers if "access-control" in name]
    assert client({}).options("/v1/completions", headers=asks).status_code == 401
    named = client(origins=["https://page.example"])
    found = named.options("/v1/completions", headers=asks)
    assert found.headers["access-control-allow-origin"] == "https://page.example"
    assert "access-control-allow-credentials" not in found.headers
    assert named.options("/v1/completions", headers={**asks, "Origin": "https://evil.example"}).status_code == 400
    with pytest.raises(ConfigError):
        client(origins=["*"])


def test_body_is_bounded_with_and_without_a_length():
    """A chunked body has no length, and fills the memory."""
    some = client(limits=Limits(body_bytes=2_000))
    assert some.post("/v1/completions", json={**BODY, "user": "x" * 1_800}).status_code == 200
    for content in (b"x" * 2_001, iter([b"x" * 1_000] * 3)):
        response = some.post("/v1/completions", content=content)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "too_large"


def test_headers_are_bounded():
    """Headers that come in one piece pass the parser's bound, which counts what is incomplete."""
    some = client(limits=Limits(header_bytes=2_000))
    assert some.get("/health", headers={"X": "x" * 1_000}).status_code == 200
    assert some.get("/health", headers={"X": "x" * 2_000}).status_code == 431


def test_log_has_no_text_no_query_no_key_and_one_line(caplog):
    """A prompt, a key or a forged line stands in the log."""
    caplog.set_level(logging.DEBUG, "hanlin.serve")
    some = client()
    some.post("/v1/completions?q=hidden", json={**BODY, "prompt": "hidden"})
    some.get("/v1/models/x%0AINFO%20forged%1b[31m")
    some.get("/v1/models", headers={"Authorization": "Bearer hidden-key"})
    lines = [each.getMessage() for each in caplog.records if each.name == "hanlin.serve"]
    assert len(lines) == 3
    assert lines[0].startswith("testclient me POST /v1/completions 200 ")
    assert r"x\nINFO forged\x1b[31m 404" in lines[1]
    assert "- GET /v1/models 401" in lines[2]
    assert not any(word in line for line in lines for word in ("hidden", KEY, "\n", "\x1b"))


@contextmanager
def listening(worker=None, drain_s=1.0, **limits):
    """Serve on a free port, and stop."""
    app = api.app(worker or Worker(), keys={"me": KEY}, limits=Limits(**limits))
    up = threading.Event()
    server = Server(app, bind("127.0.0.1", 0), drain_s=drain_s, listening=lambda url: up.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    assert up.wait(5)
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


def raw(server, *parts):
    """Send bytes and return all that comes until the server closes."""
    with socket.create_connection(server.address.getsockname(), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while piece := connection.recv(65536):
            found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


HEAD = f"Host: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n".encode()


def test_slow_and_broken_clients_are_turned_away():
    """A client that sends a byte a minute keeps a connection for ever; what is no HTTP gets a page of text."""
    with listening(header_s=0.2, body_s=0.2) as server:
        assert raw(server, b"GET /health HTTP/1.1\r\nHost: local")[0] == 408
        assert raw(server, b"")[0] == 408
        status, error = raw(server, b"POST /v1/completions HTTP/1.1\r\n" + HEAD + b"Content-Length: 50\r\n\r\n{")
        assert (status, error["code"]) == (408, "timeout")
        assert raw(server, b"\x16\x03\x01 not http\r\n\r\n")[0] == 400
        assert (
            raw(server, b"POST /v1/completions HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")[0]
            == 400
        )
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_dribbled_headers_do_not_wind_the_clock_up():
    """Each byte buys a new deadline."""
    with listening(header_s=0.3) as server, socket.create_connection(server.address.getsockname(), timeout=5) as slow:
        began = time.monotonic()
        with suppress(OSError):  # reset, or a broken pipe
            while time.monotonic() - began < 5:
                slow.sendall(b"X")
                time.sleep(0.05)
        assert time.monotonic() - began < 3


def test_body_that_goes_on_after_its_refusal_ends_the_connection():
    """What comes after a 413 is read for ever, or breaks the connection's state with a traceback."""
    head = b"POST /v1/completions HTTP/1.1\r\n" + HEAD
    with listening(header_s=0.2, body_bytes=2_000) as server:
        for more in (b"Content-Length: 9000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + b"x" * 4096):
            with socket.create_connection(server.address.getsockname(), timeout=5) as connection:
                connection.sendall(head + more)
                found = connection.recv(65536)
                while not found.endswith(b"}}"):
                    found += connection.recv(65536)
                assert b" 413 " in found
                connection.sendall(b"!!")
                assert connection.recv(65536) == b""


def test_connections_are_bounded():
    """Idle connections use up every file descriptor."""
    with listening(connections=3, header_s=5) as server:
        idle = [socket.create_connection(server.address.getsockname()) for _ in range(3)]
        time.sleep(0.1)
        status, error = raw(server)
        assert (status, error["code"]) == (429, "rate_limit_exceeded")
        for each in idle:
            each.close()
        time.sleep(0.1)
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_port_that_is_taken_is_said_in_one_line():
    """A traceback where a port is taken."""
    with listening() as server:
        for port in (server.address.getsockname()[1], 70_000):
            with pytest.raises(ConfigError):
                bind("127.0.0.1", port)


def test_stop_lets_what_runs_end_and_takes_nothing_new():
    """A stop cuts answers short, or waits for ever; a balancer goes on sending requests."""
    halted = threading.Event()

    class Slow(Worker):
        def stop(self, drain_s):
            self.ready = False
            halted.wait(5)
            for ticket in self.tickets:
                ticket.script = iter([[Piece(0, 104, "h", None, None, "stop")]])

    worker = Slow(script=lambda asked: iter(lambda: [Piece(0, 104, "h", None, None, None)], None))
    with (
        listening(worker) as server,
        httpx.Client(base_url=server.url, headers=HEADERS, timeout=10) as some,
        some.stream("POST", "/v1/completions", json={**BODY, "stream": True}) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.stop()
        while worker.ready:
            time.sleep(0.01)
        assert httpx.get(f"{server.url}/ready").status_code == 503
        assert httpx.post(f"{server.url}/v1/completions", json=BODY, headers=HEADERS).status_code == 503
        halted.set()
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_client_that_hangs_up_frees_its_place():
    """Over a real connection nobody notices that the client has left."""
    worker = Worker(forever=True, script=lambda asked: answer(asked)[:1])
    with listening(worker) as server:
        for stream in (True, False):
            body = json.dumps({**BODY, "stream": stream}).encode()
            length = f"Content-Length: {len(body)}\r\n\r\n".encode()
            with socket.create_connection(server.address.getsockname(), timeout=5) as connection:
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\n" + HEAD + length + body)
                while len(worker.tickets) < 1 + (not stream):
                    time.sleep(0.005)
            began = time.monotonic()
            while not worker.tickets[-1].cancelled and time.monotonic() - began < 2:
                time.sleep(0.005)
            assert time.monotonic() - began < 1
