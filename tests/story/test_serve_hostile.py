"""What nobody should send: refused in OpenAI's shape, and the next request is answered as if nothing had been."""

from __future__ import annotations

import http.client
import json
import random
import warnings

import pytest
import serving
from hypothesis import HealthCheck, given, settings
from serving import CONTEXT, KEY

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis

JSON = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
COMPLETION = {"model": "bytes", "prompt": "a", "max_tokens": 2}
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
BOMB = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "anyOf": [{"const": number} for number in range(10_000)]}
TEXT = {"type": "text", "text": "a"}

FIELDS = {
    "n": [0, -1, 17, 10**9, 1.5, "1", True, []],
    "best_of": [0, 2, 10**9, "1"],
    "logprobs": [-1, 21, 10**9, "2", 1.5, True],
    "stop": ["", [""], ["a"] * 17, "x" * 300, [1], {}, [[]], [None], 5, ["a", "x" * 10**5]],
    "logit_bias": [
        {"-1": 1}, {"a": 1}, {"5": 101}, {"5": "1"}, {"5": None}, {"1e3": 1}, {"999999": 1}, [], {"５": 1}, {"05": 1},
        {str(token): 0 for token in range(2000)}, {"9" * 5000: 1}, "5", {"": 1},
    ],
    "max_tokens": [-1, 1.5, "5", 10**10, True, 2**64, CONTEXT],
    "temperature": [-1, 2.1, "1", True, [], -1e-300],
    "seed": [2**63, -(2**63) - 1, 1.5, "a", True],
    "top_p": [-0.1, 1.1, "1"],
    "top_k": [-2, 1.5, 2**31],
    "min_p": [-1, 2],
    "presence_penalty": [2.1, -2.1, "0"],
    "frequency_penalty": [2.1, {}],
    "repetition_penalty": [0, -1, 10**6],
    "stream": ["true", 1, {}],
    "stream_options": [{"include_usage": True}, {"x": 1}, [], 1],
    "prompt": [
        None, 5, [], [[]], [1.5], [-1], [259], [2**31], [2**70], ["a", 5], [["a"]], {"a": 1}, [True], ["a"] * 33,
        [[1], "a"], "x" * CONTEXT, [5] * CONTEXT, [[5], []],
    ],
    "model": [None, 5, "", "x" * 300, ["bytes"], "bytes\n", "Bytes", " bytes"],
    "suffix": ["b"],
    "echo": ["yes", 1],
    "user": [5],
    "metadata": [{"a": 1}, "a"],
    "guided_regex": ["(a+)+$"],
    "grammar": ["root ::= root"],
    "temprature": [1],
    "response_format": [{"type": "json_schema"}],
}  # fmt: skip
CHAT_FIELDS = {
    "messages": [
        None, [], "hi", [{}], [[]], [5], [{"role": "root", "content": "a"}], [{"role": "user", "content": 5}],
        [{"role": "user"}], [{"role": "user", "content": None}], [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
        [{"role": "user", "content": [{**TEXT, "x": 1}]}], [{"role": "user", "content": [TEXT, 5]}],
        [{"role": "user", "content": "a", "tool_calls": [{}]}], [{"role": "user", "content": "a", "nane": "b"}],
        [{"role": "user", "content": "x" * CONTEXT}], [{"role": "user", "content": "a"}] * 2001,
        [{"role": "user", "content": "\ufdd0\ufdef"}],
    ],
    "response_format": [
        {"type": "json"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": BOMB}}, "json", {}, 5,
        {"type": "regex", "pattern": "(a+)+$"}, {"type": "text", "x": 1},
    ],
    "tools": [[{"type": "function", "function": {"name": "a", "parameters": BOMB}}]],
    "tool_choice": ["required", {"type": "function"}],
    "functions": [[{"name": "a"}]],
    "logprobs": [5, "true"],
    "top_logprobs": [3, -1, 21],
    "max_completion_tokens": [0, -1, 3],
    "modalities": [["audio"]],
    "audio": [{"voice": "a"}],
    "reasoning_effort": ["high"],
    "web_search_options": [{"a": 1}],
    "store": [True],
}  # fmt: skip
RAW = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "a string": b'"x"',
    "half": b'{"model": "bytes", "prom',
    "twice": b'{"model": "bytes", "prompt": "a", "prompt": "b"}',
    "twice inside": b'{"model": "bytes", "prompt": "a", "logit_bias": {"5": 1, "5": 2}}',
    "NaN": b'{"model": "bytes", "prompt": "a", "temperature": NaN}',
    "infinity": b'{"model": "bytes", "prompt": "a", "temperature": -Infinity}',
    "1e400": b'{"model": "bytes", "prompt": "a", "temperature": 1e400}',
    "10^5000": b'{"model": "bytes", "prompt": "a", "seed": 1' + b"0" * 5000 + b"}",
    "not UTF-8": b'{"model": "bytes", "prompt": "\xff\xfe"}',
    "UTF-16": '{"model": "bytes", "prompt": "a"}'.encode("utf-16"),
    "a mark": b'\xef\xbb\xbf{"model": "bytes", "prompt": "a"}',
    "NUL": b'{"model": "bytes", "prompt": "a\\u0000b"}',
    "half a pair": b'{"model": "bytes", "prompt": "\\ud83d"}',
    "half a pair as a key": b'{"model": "bytes", "prompt": "a", "\\ud83d": 1}',
    "deep": b'{"model": "bytes", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "many fields": json.dumps({f"field{number}": 1 for number in range(5000)}).encode(),
    "control characters": b'{"model": "bytes", "prompt": "a\x01"}',
    "something behind": b'{"model": "bytes", "prompt": "a"} x',
    "comments": b'{"model": "bytes", /* a */ "prompt": "a"}',
}
TABLE = [
    *((COMPLETIONS, json.dumps({**COMPLETION, key: value})) for key, each in FIELDS.items() for value in each),
    *((CHATS, json.dumps({**CHAT, key: value})) for key, each in CHAT_FIELDS.items() for value in each),
    *((COMPLETIONS, data) for data in RAW.values()),
    *((CHATS, data) for data in RAW.values()),
    ("/v1/tokenize", b'{"model": "bytes"}'),
    ("/v1/tokenize", b'{"model": "bytes", "prompt": 5}'),
    ("/v1/detokenize", b'{"model": "bytes", "tokens": [-1]}'),
    ("/v1/detokenize", b'{"model": "bytes", "tokens": [259]}'),
    ("/v1/detokenize", b'{"model": "bytes", "tokens": ["a"]}'),
    (COMPLETIONS, json.dumps({"prompt": "a"})),
    (COMPLETIONS, json.dumps({"model": "bytes"})),
    (COMPLETIONS, json.dumps({**COMPLETION, "echo": True, "logprobs": 1})),
    (CHATS, json.dumps({**CHAT, "model": "bytes"})),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = serving.models(tmp_path_factory.mktemp("root"), "bytes", "chat")
    with serving.serving(root) as running:
        yield running


@pytest.fixture
def alive(server):
    """Check afterwards that the server still answers, with what it answered before, and holds nothing."""

    def said():
        with server.client() as client:
            body = {"model": "bytes", "prompt": "The", "max_tokens": 20, "seed": 1}
            return client.post(COMPLETIONS, json=body).json()["choices"][0]["text"]

    before = said()
    yield
    assert said() == before
    serving.until(server.idle)
    assert server.worker.ready


def refused(reply):
    """Return the status of an answer that is an error in OpenAI's shape."""
    assert reply.headers["content-type"] == "application/json"
    error = json.loads(reply.content)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert 0 < len(error["message"]) <= 2000
    assert isinstance(error["type"], str)
    return reply.status_code


def test_absurd_bodies(server, alive):
    """Guards against absurd values that are taken, guessed at, or break something."""
    taken = []
    assert len(TABLE) >= 80
    with server.client() as client:
        for path, data in TABLE:
            reply = client.post(path, content=data, headers={"Content-Type": "application/json"})
            if reply.status_code == 200 or refused(reply) not in (400, 404):
                taken.append((path, data[:200], reply.status_code))
    assert not taken


def test_wrong_types_of_bodies(server, alive):
    """Guards against forms that a page on another site may send without asking (a simple request)."""
    with server.client() as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "x" * 900):
            reply = client.post(COMPLETIONS, json=COMPLETION, headers={"Content-Type": kind})
            assert refused(reply) == 415
        assert client.post(COMPLETIONS, json=COMPLETION, headers={"Content-Type": "application/JSON; a=b"}).is_success


VALUES = [
    None, True, False, 0, 1, -1, 2, 5, 20, 1.5, -0.0, 1e308, 2**31, 2**63, 10**30, "", "a", "霜", "\0", "\u2028",
    "x" * 999, [], {}, [[]], [{}], {"": ""}, ["a"], [1], [None], {"type": "text"}, {"a": {"a": {"a": {}}}}, "bytes",
    "chat", "../a",
]  # fmt: skip
SEEDS = [
    (COMPLETIONS, COMPLETION),
    (COMPLETIONS, {**COMPLETION, "stream": True, "stream_options": {"include_usage": True}, "n": 2, "seed": 1}),
    (COMPLETIONS, {**COMPLETION, "stop": ["a", "b"], "logit_bias": {"5": 1, "6": -1}, "logprobs": 2, "top_p": 0.5}),
    (COMPLETIONS, {**COMPLETION, "prompt": [[5, 6], [7]], "temperature": 0.5, "presence_penalty": 1, "top_k": 3}),
    (CHATS, CHAT),
    (CHATS, {**CHAT, "stream": True, "logprobs": True, "top_logprobs": 2, "response_format": {"type": "text"}}),
    (CHATS, {**CHAT, "messages": [{"role": "system", "content": [TEXT, TEXT]}, {"role": "user", "content": "b"}]}),
    ("/v1/tokenize", {"model": "bytes", "prompt": "abc", "add_special_tokens": False}),
    ("/v1/detokenize", {"model": "bytes", "tokens": [5, 6, 7]}),
]


def mutated(draw, value):
    """Return plain data with a value somewhere in it changed, dropped or doubled."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.15:
        return draw.choice(VALUES)
    if isinstance(value, list):
        place = draw.randrange(len(value))
        inner = [mutated(draw, value[place])] * draw.choice([0, 1, 1, 1, 2, 40])
        return [*value[:place], *inner, *value[place + 1 :]]
    key = draw.choice(list(value))
    rest = {name: each for name, each in value.items() if name != key}
    act = draw.random()
    if act < 0.15:
        return rest
    if act < 0.3:
        return {**rest, draw.choice([key.upper(), key + "s", "", "\ud800", "x" * 300, "stop", "n", "user"]): value[key]}
    return {**rest, key: mutated(draw, value[key])}


def spoilt(draw, data):
    """Return bytes that are no longer what they were."""
    place = draw.randrange(len(data) + 1)
    match draw.randrange(7):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + draw.randbytes(draw.randrange(1, 8)) + data[place:]
        case 2:
            return b"[" * draw.choice([1, 20, 5000]) + data
        case 3:
            return data.replace(b": ", b": " + b'{"a": ' * draw.choice([1, 30]), 1)
        case 4:
            return data[:-1] + b", " + data[1:]
        case 5:
            return draw.randbytes(draw.randrange(200))
        case _:
            return data.replace(b"1", draw.choice([b"1e999", b"NaN", b"01", b"1" * 999, b"0x1", b"-"]), 1)


def requests(seed, count):
    """Yield (method, path, headers, body), each valid once and then changed; the same for the same seed."""
    draw = random.Random(seed)
    for _ in range(count):
        path, body = draw.choice(SEEDS)
        for _ in range(draw.choice([0, 1, 1, 2, 4])):
            body = mutated(draw, body)
        data, headers, method = json.dumps(body).encode(), dict(JSON), "POST"
        if draw.random() < 0.35:
            data = spoilt(draw, data)
        if draw.random() < 0.1:
            headers["Content-Type"] = draw.choice(["text/plain", "", "application/json;" * 50, "*/*"])
        if draw.random() < 0.05:
            headers["Authorization"] = draw.choice(["", "Bearer", "Basic YQ==", f"Bearer {KEY}x", "Bearer \xff"])
        if draw.random() < 0.05:
            path = draw.choice(
                ["/", "/v1", "/v1/models/%2e%2e", "/v1//completions", "/metrics?a=%00", path + "/", "/%ff"]
            )
        if draw.random() < 0.05:
            method = draw.choice(["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "BREW"])
        yield method, path, headers, data


def storm(server, seed, count):
    """Send many requests on few connections; return how often each status came."""
    plug = http.client.HTTPConnection(*server.address, timeout=20)
    statuses = {}
    for method, path, headers, data in requests(seed, count):
        try:
            plug.request(method, path, data, headers)
            reply = plug.getresponse()
            content = reply.read()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            pytest.fail(f"closed without a word: {method} {path} {headers} {data[:300]!r}")
        given = f"{reply.status} to {method} {path} {headers} {data[:500]!r}: {content[:300]!r}"
        assert reply.status < 500, given
        assert reply.status != 422, given
        if reply.status >= 400 and method != "HEAD":
            assert json.loads(content)["error"].keys() == {"message", "type", "param", "code"}, given
            assert KEY.encode() not in content
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
    plug.close()
    return statuses


def test_a_storm_of_nonsense(server, alive):
    """Guards against any body, however broken, that makes a 5xx, ends a connection or slows the next one down."""
    statuses = storm(server, seed=0, count=500)
    assert statuses[400] > 200
    assert statuses[200] > 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_long_storm(server, alive, seed):
    """Guards against what comes once in thousands."""
    storm(server, seed=seed, count=1200)


TRASH = [
    b"GET\r\n\r\n", b"\r\n\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    b"GET / HTTP/1.1\r\n : a\r\n\r\n", b"GET /\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1e3\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
]  # fmt: skip


def test_what_is_no_http(server, alive):
    """Guards against a connection that hangs, or a traceback, where the first line already is nonsense."""
    for data in TRASH:
        reply = serving.wire(server.address, data, seconds=0.3)
        assert serving.status(reply) in (None, 400, 401, 403, 404, 405, 501), (data, reply)


def test_smuggled_requests_are_not_two(server, alive):
    """Guards against a body that a proxy and this server measure differently, so that its end is a request."""
    inner = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n"
    both = serving.head(Content_Length=len(inner) + 5, Transfer_Encoding="chunked") + b"0\r\n\r\n" + inner
    reply = serving.wire(server.address, both, seconds=0.5)
    assert b"hanlin_requests" not in reply
    assert reply.count(b"HTTP/1.1 ") <= 1


OPERATIONS = ["completions", "chat", "tokenize", "detokenize", "models", "model", "metrics"]
OPERATIONS += ["embeddings", "transcriptions"]


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_schemathesis(server, name, mode):
    """Guards against a description that is not true: what it allows breaks, or what comes back is not in it."""
    schema = schemathesis.openapi.from_dict(server.app.openapi())
    found = {each.ok().definition.raw["operationId"].split("_v1_")[0].split("_metrics")[0]: each.ok() for each in
             schema.get_all_operations()}  # fmt: skip
    assert set(found) == set(OPERATIONS)
    try:
        cases = found[name].as_strategy(generation_mode=schemathesis.GenerationMode(mode))
    except Exception as error:
        pytest.skip(f"{error}")

    @given(case=cases)
    @settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def check(case):
        reply = case.call(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=20)
        case.validate_response(reply, checks=[schemathesis.checks.not_a_server_error], headers=None)
        assert reply.status_code in (200, 400, 401, 404, 405, 413, 415), reply.text

    check()


def test_the_description_is_kept_from_strangers(server):
    """Guards against a description, or pages of it, that anyone can read."""
    for path in ("/openapi.json", "/docs", "/redoc"):
        with server.client(key=None) as client:
            assert client.get(path).status_code == 401
    with server.client() as client:
        assert client.get("/openapi.json").json()["paths"].keys() >= {COMPLETIONS, CHATS}
        assert client.get("/docs").status_code == 404
