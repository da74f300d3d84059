"""`response_format`: answers that are the JSON that was asked for, through OpenAI's client, beside everyone else's."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import jsonschema
import openai
import pydantic
import pytest
import serving
from serving import KEY

CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "大小": {"enum": ["small", "大"]},
        "big": {"type": "boolean"},
    },
    "required": ["name", "大小"],
    "additionalProperties": False,
}
HELLO = [{"role": "user", "content": "Hi"}]


def schema(body, **more):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": body, **more}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = serving.models(tmp_path_factory.mktemp("root"), "bytes", "bpe", "chat")
    with serving.serving(root) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=60) as made:
        yield made


@pytest.mark.parametrize("model", ["bytes", "bpe"])
def test_completions_are_what_the_schema_says(client, model):
    """A schema that is taken and not kept."""
    given = {"model": model, "prompt": ["The", "霜"], "n": 3, "seed": 3, "max_tokens": 70}
    found = client.completions.create(**given, extra_body={"response_format": schema(CITY, strict=True)})
    whole = [each for each in found.choices if each.finish_reason == "stop"]
    assert len(found.choices) == 6
    assert len(whole) >= 4
    assert len({each.text for each in whole}) > 1
    for each in whole:
        jsonschema.validate(json.loads(each.text), CITY)


def test_chats_too_streamed_or_not(client):
    """A stream without its mask, or another answer."""
    given = {"model": "chat", "messages": HELLO, "seed": 5, "max_tokens": 60, "response_format": schema(CITY)}
    whole = client.chat.completions.create(**given).choices[0]
    pieces = list(client.chat.completions.create(**given, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == whole.message.content
    jsonschema.validate(json.loads(whole.message.content), CITY)
    assert whole.finish_reason == "stop"


class Answer(pydantic.BaseModel):
    yes: bool
    digit: pydantic.conint(ge=0, le=9)


def test_a_type_of_python_comes_back(client):
    """OpenAI's `parse`, which sends the schema of a type."""
    given = {"model": "chat", "messages": HELLO, "temperature": 0, "max_tokens": 40}
    found = client.chat.completions.parse(**given, response_format=Answer)
    assert isinstance(found.choices[0].message.parsed, Answer)


def test_any_object(client):
    """`json_object`: an answer that is no JSON, or half of it, called whole."""
    for seed in range(6):
        given = {"model": "bytes", "prompt": "a", "seed": seed, "max_tokens": 90, "logit_bias": {str(3 + ord("}")): 9}}
        found = client.completions.create(**given, extra_body={"response_format": {"type": "json_object"}}).choices[0]
        assert found.text.startswith("{")
        if found.finish_reason == "stop":
            assert isinstance(json.loads(found.text), dict)
    assert found.finish_reason == "stop"


def test_what_the_limit_cuts_says_so(client):
    """Half an object, called whole."""
    given = {"model": "bytes", "prompt": "a", "seed": 1, "max_tokens": 9}
    found = client.completions.create(**given, extra_body={"response_format": schema(CITY)}).choices[0]
    assert found.finish_reason == "length"


def test_neighbours_say_what_they_said_alone(client):
    """One request's mask on another's row."""

    def ask(seed):
        more = {"extra_body": {"response_format": schema(CITY)}} if seed % 2 else {}
        return client.completions.create(model="bytes", prompt="The", seed=seed, max_tokens=40, **more).choices[0].text

    alone = [ask(seed) for seed in range(12)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == alone


SELF = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
BRANCHES = {"anyOf": [{"type": "object", "properties": {f"k{at}": {}}, "required": [f"k{at}"]} for at in range(10_000)]}
HOSTILE = {
    "it needs itself": SELF,
    "ten thousand branches": BRANCHES,
    "a reference to nothing": {"$ref": "#/$defs/none"},
    "another machine's": {"$ref": "http://127.0.0.1:9/x.json"},
    "an unknown type": {"type": "strng"},
    "a pattern that is none": {"type": "string", "pattern": "("},
    "what is not implemented": {"not": {"type": "string"}},
    "pairs of pairs": {
        "allOf": [
            {"anyOf": [{"properties": {f"{c}{at}": {"type": "string"}}, "required": [f"{c}{at}"]} for c in "ab"]}
            for at in range(16)
        ]
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_kept_is_refused_and_nobody_waits(server, name):
    """A schema that hangs the event loop, kills the process, or is dropped in silence."""
    body = {"model": "bytes", "prompt": "a", "max_tokens": 4, "response_format": schema(HOSTILE[name])}
    with server.client() as client, ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        asked = [pool.submit(client.post, "/v1/completions", json=body) for _ in range(3)]
        waits = []
        while not all(each.done() for each in asked):
            start = time.monotonic()
            assert client.get("/health").status_code == 200
            waits.append(time.monotonic() - start)
        assert time.monotonic() - began < 20
        assert max(waits, default=0) < 2
        for each in asked:
            reply: httpx.Response = each.result()
            assert reply.status_code == 400
            error = reply.json()["error"]
            assert error["param"] == "response_format"
            assert "\n" not in error["message"]
    assert server.worker.ready
