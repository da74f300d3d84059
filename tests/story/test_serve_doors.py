"""Doors: the key, the sizes, the clocks, the names, and what is never written down."""

from __future__ import annotations

import json
import logging
import socket
import time

import pytest
import serving
from serving import KEY, head, status, wire

from hanlin.serve.guard import OPEN

SECRET = "the-prompt-that-nobody-may-read"
LIMITS = serving.Limits(
    connections=12, header_bytes=4096, header_s=0.6, body_bytes=20_000, body_s=0.6, idle_s=1, request_s=20
)
COMPLETION = {"model": "bytes", "prompt": "a", "max_tokens": 2}
ORIGIN = "https://pages.example"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return models, and beside the root one that only a link inside leads to."""
    outside = serving.models(tmp_path_factory.mktemp("outside"), "bytes")
    root = serving.models(tmp_path_factory.mktemp("root"), "bytes", "chat", "say-zh")
    (root / "link").symlink_to(outside / "bytes")
    (root / "team").mkdir()
    (root / "say-zh").rename(root / "team" / "say-zh")
    return root


@pytest.fixture(scope="module")
def server(root):
    with serving.serving(root, limits=LIMITS, origins=[ORIGIN]) as running:
        yield running


@pytest.fixture
def http(server):
    with server.client() as client:
        yield client


def routes(server):
    """Return (method, path) of everything that the application routes, parameters filled in."""
    found, waiting = [], list(server.app.routes)
    while waiting:
        route = waiting.pop()
        waiting += getattr(getattr(route, "original_router", None), "routes", ())
        if getattr(route, "path", ""):
            path = route.path.replace("{name:path}", "bytes")
            found += [(method, path) for method in getattr(route, "methods", None) or {"GET"}]
    return sorted(set(found))


def test_every_route_is_listed(server):
    """Guards against tests of the key that miss a route."""
    paths = {path for _, path in routes(server)}
    assert paths >= {"/health", "/ready", "/metrics", "/openapi.json", "/v1/models", "/v1/models/bytes"}
    assert paths >= {"/v1/completions", "/v1/chat/completions", "/v1/tokenize", "/v1/detokenize"}


WRONG = {
    "none": {},
    "empty": {"Authorization": ""},
    "no key": {"Authorization": "Bearer"},
    "another": {"Authorization": "Bearer sk-somebody-else"},
    "half": {"Authorization": f"Bearer {KEY[:-1]}"},
    "more": {"Authorization": f"Bearer {KEY}x"},
    "upper case": {"Authorization": f"Bearer {KEY.upper()}"},
    "another scheme": {"Authorization": f"Basic {KEY}"},
    "no scheme": {"Authorization": KEY},
    "another header": {"X-API-Key": KEY, "api-key": KEY},
    "a cookie": {"Cookie": f"Authorization=Bearer {KEY}"},
    "bytes": {"Authorization": b"Bearer \xff\xfe"},
}


@pytest.mark.parametrize("name", WRONG)
def test_no_route_opens_without_the_key(server, name):
    """Guards against a route, a method or an unknown path that answers strangers."""
    elsewhere = [
        ("GET", "/nowhere"),
        ("POST", "/v1/nowhere"),
        ("DELETE", "/v1/models/bytes"),
        ("OPTIONS", "/v1/models"),
    ]
    with server.client(key=None) as http:
        for method, path in [*routes(server), *elsewhere]:
            reply = http.request(method, path, headers=WRONG[name], params={"api_key": KEY, "key": KEY})
            if path in OPEN:
                assert (reply.status_code, reply.content) in ((200, b""), (405, reply.content))
                continue
            assert reply.status_code == 401, (method, path)
            assert reply.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert reply.json()["error"]["code"] == "invalid_api_key"
                assert KEY not in reply.text


def test_every_route_opens_with_the_key(server, http):
    """Guards against a test above that passes because nothing works."""
    for method, path in routes(server):
        reply = http.request(method, path, json=COMPLETION if method == "POST" else None)
        otherwise = {"/v1/audio/transcriptions": 415, "/v1/tasks/{task}": 404}.get(path, 400)  # a form; no such task
        assert reply.status_code in (200, otherwise), (method, path, reply.text)


def test_two_keys_in_one_request_are_none(server):
    """Guards against a proxy that reads the first and a server that reads the last."""
    data = head("/v1/models", method="GET").replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer other\r\n\r\n")
    assert status(wire(server.address, data, seconds=0.3)) == 401


def test_names_of_keys_share_the_queue_apart(tmp_path):
    """Guards against one key for all, which cannot be taken from one without taking it from everybody."""
    serving.models(tmp_path, "bytes")
    keys = {"ann": "the-key-of-ann", "ben": "the-key-of-ben"}
    with serving.serving(tmp_path, keys=keys) as server:
        for key, expected in ((keys["ann"], 200), (keys["ben"], 200), ("ann", 401), (KEY, 401)):
            with server.client(key=key) as http:
                assert http.get("/v1/models").status_code == expected


def test_nothing_secret_is_written_down(server, http, caplog, capfd):
    """Guards against keys and people's text in logs, metrics and error messages; and against lines that they forge."""
    with caplog.at_level(logging.DEBUG):
        said = {"messages": [{"role": "user", "content": SECRET}], "model": "chat", "max_tokens": 3}
        http.post("/v1/completions", json={**COMPLETION, "prompt": SECRET, "max_tokens": 3, "user": SECRET})
        http.post("/v1/completions", json={**COMPLETION, "prompt": SECRET, "max_tokens": 30, "stream": True})
        http.post("/v1/chat/completions", json=said)
        http.post("/v1/chat/completions", json={**said, "tools": [{"a": SECRET}]})
        http.post("/v1/tokenize", json={"model": "bytes", "prompt": SECRET})
        http.post("/v1/completions", json={**COMPLETION, "model": SECRET})
        http.post("/v1/completions", json={**COMPLETION, SECRET: 1})
        http.post("/v1/completions", content=f'{{"prompt": "{SECRET}'.encode())
        http.get(f"/v1/models?api_key={KEY}&q={SECRET}", headers={"X-Secret": SECRET})
        http.get("/v1/models", headers={"Authorization": f"Bearer {KEY} {SECRET}"})
        http.post("/nowhere", content=SECRET)
        numbers = http.get("/metrics").text
    printed = "".join(capfd.readouterr())
    records = [each for each in caplog.records if each.name.startswith(("hanlin", "uvicorn.error", "asyncio"))]
    assert not logging.getLogger("uvicorn.access").propagate, "it writes queries down; pytest hears it all the same"
    for text in ("".join(each.getMessage() for each in records), numbers, printed):
        assert SECRET not in text
        assert KEY not in text
    assert len([each for each in records if each.name == "hanlin.serve"]) >= 11


def test_paths_cannot_forge_lines_of_the_log(server, http, caplog):
    """Guards against a line end, an escape sequence or a control character of a client's in the log."""
    with caplog.at_level(logging.INFO, "hanlin.serve"):
        for path in (
            "/a%0A2026-01-01 forged",
            "/a%0d%0aforged",
            "/%1b[31mforged",
            "/%E2%80%A8forged",
            "/" + "x" * 3000,
        ):
            assert http.get(path).status_code == 404
            assert http.get(f"/v1/models/{path}").status_code == 404
        # A line is written when its answer has been sent: the last may come after we have read it.
        serving.until(lambda: sum(each.name == "hanlin.serve" for each in caplog.records) >= 10)
    lines = [each.getMessage() for each in caplog.records if each.name == "hanlin.serve"]
    assert len(lines) == 10
    assert all(line.isascii() and line.isprintable() and len(line) < 400 for line in lines)


def test_metrics_do_not_grow_with_what_clients_make_up(server, http):
    """Guards against memory filled by paths, models and methods that nobody serves."""
    http.get("/nowhere")
    http.post("/v1/completions", json={**COMPLETION, "model": "x0"})
    before = len(http.get("/metrics").text.splitlines())
    for number in range(30):
        http.get(f"/nowhere/{number}")
        http.get(f"/v1/models/{number}")
        http.post("/v1/completions", json={**COMPLETION, "model": f"x{number}"})
    after = http.get("/metrics").text
    assert len(after.splitlines()) <= before + 20
    assert "x29" not in after


NAMES = [
    "../bytes", "team/../bytes", "./bytes", "bytes/", "/bytes", "//bytes", "bytes/../../outside", "link", "team", "",
    "..", ".", "/etc", "/etc/passwd", "team\\say-zh", "bytes\0", "bytes%00", "%2e%2e/bytes", "..%2fbytes", "~", "BYTES",
    "bytes\n", " bytes", "team//say-zh", "file:///etc", "\u2024\u2024/bytes", "bytes\ud83d", "C:\\bytes", "$HOME", "*",
]  # fmt: skip


def test_names_never_become_paths(server, http, root):
    """Guards against a model name that leaves the root, and a link out of it that is served."""
    assert set(server.worker.models) == {"bytes", "chat", "team/say-zh"}
    outside = str((root / "link").resolve())
    for name in [*NAMES, outside, f"{root}/bytes"]:
        for path in ("completions", "chat/completions", "tokenize", "detokenize"):
            extra = {"messages": [{"role": "user", "content": "a"}]} if "chat" in path else {"prompt": "a"}
            extra = {"tokens": [5]} if path == "detokenize" else extra
            data = json.dumps({"model": name, **extra}).encode()
            reply = http.post(f"/v1/{path}", content=data, headers={"Content-Type": "application/json"})
            bad = not name or "\0" in name or "\ud83d" in name
            assert reply.status_code == (400 if bad else 404), (name, path, reply.text)
            assert str(root) not in reply.text.replace(json.dumps(repr(name))[1:-1], "")
    assert http.post("/v1/completions", json={**COMPLETION, "model": "team/say-zh"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["../../bytes", "%2e%2e/bytes", "%2e%2e%2fbytes", "..%5cbytes", "bytes%00", "bytes%2f..", "link", "%ff", "a" * 900],
)
def test_names_in_urls_never_become_paths(server, path):
    """Guards against the same, spelled in the URL."""
    reply = wire(server.address, head(f"/v1/models/{path}", method="GET", Connection="close"))
    assert status(reply) == 404, reply
    assert status(wire(server.address, head("/v1/models/team/say-zh", method="GET", Connection="close"))) == 200
    assert status(wire(server.address, head("/v1/models/team%2fsay-zh", method="GET", Connection="close"))) == 200


def test_pages_of_others_may_not_read(server, tmp_path):
    """Guards against `*`, with or without credentials, and an origin that is only like the one allowed."""
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    with server.client() as http:
        for origin in ("https://evil.example", "null", f"{ORIGIN}.evil.example", "http://pages.example", "*"):
            for reply in (
                http.get("/v1/models", headers={"Origin": origin}),
                http.options("/v1/models", headers={"Origin": origin, **ask}),
            ):
                assert reply.headers.get("access-control-allow-origin") not in (origin, "*")
        for reply in (
            http.get("/v1/models", headers={"Origin": ORIGIN}),
            http.options("/v1/completions", headers={"Origin": ORIGIN, **ask}),
        ):
            assert reply.status_code == 200
            assert reply.headers["access-control-allow-origin"] == ORIGIN
            assert "origin" in reply.headers["vary"].lower()
            assert "access-control-allow-credentials" not in reply.headers
    serving.models(tmp_path, "bytes")
    with serving.serving(tmp_path) as closed, closed.client() as http:
        for reply in (http.get("/v1/models", headers={"Origin": ORIGIN}), http.options("/v1/models", headers=ask)):
            assert not [name for name in reply.headers if name.startswith("access-control")]


def test_other_hosts_are_not_answered(server):
    """Guards against a page whose name was made to mean this machine (DNS rebinding)."""
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1:80:80",
        "",
        "localhost.evil.example:8000",
        "[::2]",
    ):
        data = head("/v1/models", method="GET", Connection="close").replace(
            b"Host: 127.0.0.1", f"Host: {host}".encode()
        )
        assert status(wire(server.address, data)) in (400, 403), host
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:5"):
        data = head("/v1/models", method="GET", Connection="close").replace(
            b"Host: 127.0.0.1", f"Host: {host}".encode()
        )
        assert status(wire(server.address, data)) == 200, host


def test_a_body_has_its_size(server, http):
    """Guards against memory filled by a body: with its length said, without, and with a lie about it."""
    large = json.dumps({**COMPLETION, "user": "x" * 30_000}).encode()
    said = {"Content-Type": "application/json"}
    assert http.post("/v1/completions", content=large, headers=said).status_code == 413
    assert http.post("/v1/completions", content=iter([large]), headers=said).status_code == 413
    began = time.monotonic()
    reply = wire(server.address, head(Content_Type="application/json", Content_Length=10**12, Connection="close"))
    assert status(reply) == 413
    assert time.monotonic() - began < 0.5, "refused before it is sent"
    reply = wire(server.address, head(Content_Length="9" * 5000, Connection="close"))
    assert status(reply) in (400, 413, 431)
    assert http.post("/v1/completions", json={**COMPLETION, "user": "x" * 19_000}).status_code == 200


def test_headers_have_their_size(server, http):
    """Guards against memory filled by headers: one that is long, many that are short, a path."""
    for data in (
        head(method="GET", X="x" * 9000),
        head(method="GET", **{f"X{number}": "y" for number in range(2000)}),
        head("/" + "x" * 9000, method="GET"),
        b"GET / HTTP/1.1\r\n" + b"x" * 100_000,
    ):
        reply = wire(server.address, data, seconds=2)
        assert status(reply) == 431, reply[:200]
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert http.get("/v1/models", headers={"X": "x" * 3000}).status_code == 200


def drip(address, start, rest, pause):
    """Send a request byte by byte; return (its answer, seconds until it came)."""
    began = time.monotonic()
    with socket.create_connection(address, timeout=0.01) as plug:
        plug.sendall(start)
        for place in range(len(rest)):
            try:
                plug.sendall(rest[place : place + 1])
                if found := plug.recv(65536):
                    return found, time.monotonic() - began
                break
            except TimeoutError:
                time.sleep(pause)
            except ConnectionError:
                break
        plug.settimeout(2)
        try:
            return plug.recv(65536), time.monotonic() - began
        except OSError:
            return b"", time.monotonic() - began


def test_slow_headers_and_bodies_are_not_waited_for(server, http):
    """Guards against connections held open for ever by a client that sends a byte now and then (slowloris)."""
    reply, seconds = drip(server.address, head()[:-2], b"X: " + b"x" * 500, 0.02)
    assert status(reply) == 408
    assert 0.4 < seconds < 2
    data = json.dumps({**COMPLETION, "user": "x" * 500}).encode()
    reply, seconds = drip(server.address, head(Content_Type="application/json", Content_Length=len(data)), data, 0.02)
    assert status(reply) == 408
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["code"] == "timeout"
    assert 0.4 < seconds < 2
    assert http.get("/v1/models").status_code == 200


def test_silent_and_idle_connections_are_closed(server):
    """Guards against connections that say nothing at all, before the first request or after it."""
    for data in (b"", head("/v1/models", method="GET"), head("/v1/models", method="GET") + b"GET /v1"):
        began = time.monotonic()
        reply = wire(server.address, data, seconds=5)
        assert time.monotonic() - began < 3
        assert not data or status(reply) == 200


def test_connections_are_counted(server):
    """Guards against file descriptors used up by one client; and against a count that does not come down again."""
    plugs = [socket.create_connection(server.address, timeout=5) for _ in range(LIMITS.connections)]
    try:
        for plug in plugs:
            plug.sendall(head("/v1/models", method="GET"))
            assert status(plug.recv(65536)) == 200
        reply = wire(server.address, head("/v1/models", method="GET"))
        assert status(reply) == 429
        assert b"retry-after: 1" in reply.lower()
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["code"] == "rate_limit_exceeded"
    finally:
        for plug in plugs:
            plug.close()
    serving.until(lambda: status(wire(server.address, head(method="GET", Connection="close"))) == 405)


def test_a_full_queue_says_when_to_come_back(tmp_path, monkeypatch):
    """Guards against requests that pile up: each client's share ends at the queue, then it is 429 with Retry-After."""
    serving.models(tmp_path, "bytes")
    keys = {"ann": KEY, "ben": "the-key-of-ben"}
    sizes = serving.folder.Sizes(slots=1, chunk=16, queue=2)
    with serving.serving(tmp_path, sizes=sizes, keys=keys) as server, server.client("the-key-of-ben") as ben:
        with serving.held(server, "bytes", monkeypatch), server.client() as ann:
            data = json.dumps({**COMPLETION, "stream": True}).encode()
            request = head(Content_Type="application/json", Content_Length=len(data)) + data
            plugs = [socket.create_connection(server.address, timeout=5) for _ in range(3)]
            for count, plug in enumerate(plugs, start=1):
                plug.sendall(request)
                serving.until(lambda: sum(server.worker.load()) == count)  # noqa: B023
            for body in (COMPLETION, {**COMPLETION, "stream": True}, {**COMPLETION, "prompt": ["a", "b"]}):
                reply = ann.post("/v1/completions", json=body)
                assert reply.status_code == 429
                assert 1 <= int(reply.headers["retry-after"]) <= 60
                assert reply.json()["error"]["type"] == "rate_limit_error"
            assert sum(server.worker.load()) == 3, "a refused request leaves nothing behind"
            with ben.stream("POST", "/v1/completions", json={**COMPLETION, "stream": True}) as reply:
                assert reply.status_code == 200
            for plug in plugs:
                plug.close()
        assert ben.post("/v1/completions", json=COMPLETION).status_code == 200


def test_only_this_machine_is_listened_to():
    """Guards against a server that the whole network reaches, because nobody said it should not."""
    from hanlin.verbs.serve import Config

    assert Config(models="x").host == "127.0.0.1"
    with serving.listen.bind("127.0.0.1", 0) as plug:
        assert plug.getsockname()[0] == "127.0.0.1"
