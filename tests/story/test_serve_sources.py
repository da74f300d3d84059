"""Models that read a source and answer it are served like those that continue a text: `/v1/completions`."""

from __future__ import annotations

import json

import pytest
import serving
from folders import BART, PAIR, T5, write
from serving import CONTEXT, events

PROMPTS = ["a", "translate this: how do you do", "把这句话译成英语：你好。"]
FAMILIES = {"t5": T5, "bart": BART, "pair": PAIR}
NEVER = tuple(range(3, 100))  # half of the bytes: without the rule some of them are written


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    for name, config in FAMILIES.items():
        changes = {"context": CONTEXT, "vocab": 259, **({"never": NEVER} if name == "bart" else {})}
        write(root / name, config=config.model_copy(update=changes))
    with serving.serving(root) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with server.client() as client:
        yield client


def answered(http, **body):
    """Return a request's choices, in order."""
    reply = http.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_the_models_own(server, http, name):
    """Guards against sources mixed up, padding that is read, a second answer that lost its source, forbidden tokens."""
    choices = {"temperature": 1.0, "seed": 3, "n": 2}
    wanted = [text for each in PROMPTS for text in server.model(name).generate(each, limit=24, **choices)]
    assert len(set(wanted)) == 6
    found = answered(http, model=name, prompt=PROMPTS, max_tokens=24, **choices)
    assert [each["text"] for each in found["choices"]] == wanted
    sources = [len(server.model(name).tokenizer.encode(each).ids) for each in PROMPTS]
    assert found["usage"]["prompt_tokens"] == sum(sources)
    assert http.get(f"/v1/models/{name}").json()["task"] == "generate"


@pytest.mark.parametrize("name", FAMILIES)
def test_they_stream(http, name):
    """Guards against a stream of these that ends elsewhere than the whole answer."""
    body = {"model": name, "prompt": PROMPTS[1], "max_tokens": 20, "temperature": 0, "logprobs": 2}
    whole = answered(http, **body)["choices"][0]
    found = [each["choices"][0] for each in events(http.post("/v1/completions", json={**body, "stream": True}).text)]
    assert len(found) > 2
    assert "".join(each["text"] for each in found) == whole["text"]
    assert found[-1]["finish_reason"] == whole["finish_reason"]
    assert len(whole["logprobs"]["tokens"]) == 20 or whole["finish_reason"] == "stop"


@pytest.mark.parametrize("name", FAMILIES)
def test_source_and_answer_have_the_whole_context_each(server, http, name):
    """Guards against a long source that leaves no room for an answer, or an answer longer than the places there are."""
    model = server.model(name)
    opening = len(model.config.opening)
    longest = [5] * CONTEXT
    body = {"model": name, "temperature": 0, "seed": 1}
    found = answered(http, **body, prompt=longest, max_tokens=CONTEXT - opening, stop=["\n"])
    assert found["usage"]["prompt_tokens"] == CONTEXT
    for prompt, limit in ((longest, CONTEXT - opening + 1), ([*longest, 5], 1)):
        reply = http.post("/v1/completions", json={**body, "prompt": prompt, "max_tokens": limit})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_an_echo_is_refused(http):
    """Guards against a source shown as the beginning of its answer."""
    reply = http.post("/v1/completions", json={"model": "t5", "prompt": "a", "echo": True})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "echo")


def test_formats_hold(http):
    """Guards against a grammar that begins in the middle of the source."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = {"model": "t5", "prompt": PROMPTS[1], "max_tokens": CONTEXT - 1, "response_format": wanted, "seed": 1}
    choice = answered(http, **body, temperature=0.3)["choices"][0]
    if choice["finish_reason"] == "stop":
        assert set(json.loads(choice["text"])) == {"n"}
    else:
        assert choice["text"].lstrip().startswith("{")


def test_tokens_are_those_that_are_read(server, http):
    """Guards against ids of /v1/tokenize that a source does not have."""
    found = http.post("/v1/tokenize", json={"model": "t5", "prompt": PROMPTS[2]}).json()["tokens"]
    assert found == list(server.model("t5").tokenizer.encode(PROMPTS[2]).ids)
    body = {"model": "t5", "max_tokens": 9, "temperature": 0}
    assert answered(http, **body, prompt=found)["choices"] == answered(http, **body, prompt=PROMPTS[2])["choices"]
