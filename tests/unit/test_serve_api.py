"""The routes, in front of a worker without a model: shapes, streams, errors, and what happens when clients leave."""

import asyncio
import json
import math

import pytest
from fake_worker import BROKEN, CONTEXT, HEADERS, KEY, TOKENIZER, Worker, answer
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.testclient import TestClient

from hanlin.serve import api
from hanlin.serve.limits import Limits
from hanlin.serve.worker import Piece

USER = [{"role": "user", "content": "hi"}]
COMPLETION = {"model": "toy", "prompt": "ab", "seed": 1}
CHAT = {"model": "toy", "messages": USER, "seed": 1}
TEXT = "héllo\u2028, 世界"


def client(worker=None, **keys):
    """Return a client of the routes."""
    app = api.app(worker or Worker(), keys={"me": KEY}, **keys)
    return TestClient(app, base_url="http://localhost", headers=HEADERS)


def post(path, body, worker=None, **keys):
    """Return the response to one request."""
    return client(worker, **keys).post(path, json=body)


def completions(worker=None, **keys):
    """Return a whole completion."""
    response = post("/v1/completions", {**COMPLETION, **keys}, worker)
    assert response.status_code == 200, response.text
    Completion.model_validate(response.json(), strict=True)
    return response.json()


def chats(worker=None, **keys):
    """Return a whole chat answer."""
    response = post("/v1/chat/completions", {**CHAT, **keys}, worker)
    assert response.status_code == 200, response.text
    ChatCompletion.model_validate(response.json(), strict=True)
    return response.json()


def events(path, body, worker=None, **keys):
    """Return a stream's chunks, and the lines that are not JSON."""
    response = post(path, {**body, "stream": True}, worker, **keys)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.content.decode("ascii").splitlines()  # U+2028 must not split one
    assert all(line.startswith("data: ") for line in lines[::2])
    assert not any(lines[1::2])
    data = [line.removeprefix("data: ") for line in lines[::2]]
    return [json.loads(each) for each in data if each.startswith("{")], [each for each in data if each[0] != "{"]


def error(response, status):
    """Return the error of a response, which must have OpenAI's shape."""
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    return response.json()["error"]


def test_completion_has_openais_shape():
    """A client's types do not fit, or a choice stands in the wrong place."""
    worker = Worker()
    found = completions(worker, prompt=["ab", "c"], n=2, max_tokens=4)
    assert found["id"].startswith("cmpl-")
    assert (found["object"], found["model"], found["system_fingerprint"]) == ("text_completion", "toy", "abc")
    assert [each["index"] for each in found["choices"]] == [0, 1, 2, 3]
    assert {(each["text"], each["finish_reason"]) for each in found["choices"]} == {("hél", "length")}
    assert found["usage"] == {"prompt_tokens": 5, "completion_tokens": 16, "total_tokens": 21}
    assert [each.prompt for each in worker.asked] == [tuple(TOKENIZER.encode(text).ids) for text in ("ab", "c")]
    assert all(ticket.cancelled for ticket in worker.tickets)


def test_chat_has_openais_shape():
    """A client's types do not fit, or the limit is not what the context leaves."""
    worker = Worker()
    found = chats(worker)
    assert found["id"].startswith("chatcmpl-")
    assert found["object"] == "chat.completion"
    assert found["choices"][0]["message"] == {"role": "assistant", "content": TEXT, "refusal": None}
    assert found["choices"][0]["finish_reason"] == "stop"
    prompt = worker.asked[0].prompt
    assert TOKENIZER.decode(prompt) == "user: hi\n"
    assert worker.asked[0].sampling.limit == CONTEXT - len(prompt)
    assert worker.asked[0].client == "me testclient"


@pytest.mark.parametrize("keys", [{}, {"n": 3}, {"logprobs": 2}, {"prompt": ["a", [5, 6]][0:1]}, {"max_tokens": 3}])
def test_streamed_completion_equals_the_whole_one(keys):
    """Streamed text loses characters cut between tokens, or log-probabilities of tokens whose text is held back."""
    keys = {"max_tokens": 30, **keys}
    whole = completions(**keys)["choices"]
    chunks, rest = events("/v1/completions", {**COMPLETION, **keys})
    assert rest == ["[DONE]"]
    for choice in whole:
        mine = [each["choices"][0] for each in chunks if each["choices"][0]["index"] == choice["index"]]
        assert "".join(each["text"] for each in mine) == choice["text"]
        assert [each["finish_reason"] for each in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
        if choice["logprobs"]:
            for key, values in choice["logprobs"].items():
                assert [x for each in mine if each["logprobs"] for x in each["logprobs"][key]] == values


@pytest.mark.parametrize("keys", [{}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}, {"max_tokens": 3}])
def test_streamed_chat_equals_the_whole_one(keys):
    """The role is missing, said twice, or finish_reason is on the wrong chunk."""
    whole = chats(**keys)["choices"]
    chunks, rest = events("/v1/chat/completions", {**CHAT, **keys})
    assert rest == ["[DONE]"]
    for each in chunks:
        ChatCompletionChunk.model_validate(each, strict=True)
    for choice in whole:
        mine = [each["choices"][0] for each in chunks if each["choices"][0]["index"] == choice["index"]]
        assert [each["delta"].get("role") for each in mine] == ["assistant"] + [None] * (len(mine) - 1)
        assert "".join(each["delta"].get("content", "") for each in mine) == choice["message"]["content"]
        assert [each["finish_reason"] for each in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
        assert mine[-1]["delta"] == {}
        if choice["logprobs"]:
            said = [x for each in mine if each["logprobs"] for x in each["logprobs"]["content"]]
            assert said == choice["logprobs"]["content"]


@pytest.mark.parametrize(("path", "body"), [("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)])
def test_usage_ends_a_stream_that_asks_for_it(path, body):
    """The usage chunk is missing, comes unasked, or does not add up."""
    chunks, _ = events(path, {**body, "n": 2, "max_tokens": 5, "stream_options": {"include_usage": True}})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 10
    assert chunks[-1]["usage"]["total_tokens"] == 10 + chunks[-1]["usage"]["prompt_tokens"]
    assert all(each["usage"] is None for each in chunks[:-1])
    assert all("usage" not in each for each in events(path, body)[0])


def test_completion_logprobs_are_openais():
    """Halves of characters share one name and swallow each other; offsets count bytes; -inf is no JSON."""
    found = completions(max_tokens=4, logprobs=2)["choices"][0]["logprobs"]
    assert found["tokens"] == ["h", "bytes:\\xc3", "bytes:\\xa9", "l"]
    assert found["text_offset"] == [0, 1, 1, 2]
    assert found["token_logprobs"] == [-0.5] * 4
    assert found["top_logprobs"][1] == {"bytes:\\xc3": -0.5, "bytes:\\xc4": -1.5}
    script = [[Piece(0, 107, "h", -math.inf, ((108, -0.1),), "stop")]]
    found = completions(Worker(script=lambda asked: script), logprobs=1)["choices"][0]["logprobs"]
    assert found["top_logprobs"] == [{"i": -0.1, "h": -9999.0}]


def test_chat_logprobs_are_openais():
    """A token's bytes are not those it stands for, so that a client cannot join them."""
    content = chats(max_tokens=3, logprobs=True, top_logprobs=1)["choices"][0]["logprobs"]["content"]
    assert bytes(byte for each in content for byte in each["bytes"]) == "hé".encode()
    assert content[0] == {
        "token": "h",
        "logprob": -0.5,
        "bytes": [104],
        "top_logprobs": [{"token": "h", "logprob": -0.5, "bytes": [104]}],
    }
    assert chats(logprobs=True)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_echo_comes_first_and_whole():
    """The echo is counted as written, or a stream leaves it out."""
    assert [each["text"] for each in completions(prompt=["ab", "c"], echo=True, max_tokens=1)["choices"]] == [
        "abh",
        "ch",
    ]
    assert completions(prompt=[107, 108], echo=True, max_tokens=0)["choices"][0]["text"] == "hi"
    chunks, _ = events("/v1/completions", {**COMPLETION, "echo": True, "max_tokens": 1})
    assert [each["choices"][0]["text"] for each in chunks] == ["ab", "h", ""]


def test_pieces_of_several_answers_in_one_step_stay_apart():
    """A step's pieces are joined in the order they came, whoever they belong to."""
    script = [
        [Piece(1, 5, "x", None, None, None), Piece(0, 6, "a", None, None, None), Piece(1, 7, "y", None, None, "stop")],
        [Piece(0, 8, "b", None, None, "length")],
    ]
    found = completions(Worker(script=lambda asked: script), n=2)
    assert [(each["text"], each["finish_reason"]) for each in found["choices"]] == [("ab", "length"), ("xy", "stop")]


def test_context_bounds_the_answer():
    """A prompt that fills the context is sent to the model, or the default of 16 tokens is too many at its end."""
    worker = Worker()
    long = "x" * (CONTEXT - 4)  # and BOS
    completions(worker, prompt=long)
    assert worker.asked[0].sampling.limit == 3
    for body in ({**COMPLETION, "prompt": long, "max_tokens": 4}, {**COMPLETION, "prompt": "x" * CONTEXT}):
        found = error(post("/v1/completions", body, worker), 400)
        assert (found["code"], found["param"]) == ("context_length_exceeded", "prompt")
    body = {**CHAT, "messages": [{"role": "user", "content": "x" * CONTEXT}]}
    assert error(post("/v1/chat/completions", body, worker), 400)["param"] == "messages"
    assert len(worker.asked) == 1


def test_full_queue_is_429_and_takes_nothing():
    """Of several prompts the first ones stay queued when a later one finds no room."""
    worker = Worker(room=1)
    response = post("/v1/completions", {**COMPLETION, "prompt": ["a", "b"]}, worker)
    assert error(response, 429)["type"] == "rate_limit_error"
    assert response.headers["retry-after"] == "9"
    assert worker.tickets[0].cancelled


def test_broken_engine_is_500_or_an_error_event():
    """A stream that broke looks complete: it ends with [DONE], or with nothing."""
    worker = Worker(script=lambda asked: [*answer(asked)[:2], BROKEN])
    assert error(post("/v1/completions", COMPLETION, worker), 500)["code"] == "engine_failed"
    chunks, rest = events("/v1/chat/completions", CHAT, worker)
    assert chunks[-1]["error"]["type"] == "server_error"
    assert rest == []
    several = {**COMPLETION, "prompt": ["a", "b", "c"]}
    assert error(post("/v1/completions", several, worker), 500)["code"] == "engine_failed"
    worker = Worker(script=lambda asked: answer(asked)[:2])  # ends without having finished
    assert error(post("/v1/completions", COMPLETION, worker), 500)
    assert "error" in events("/v1/completions", COMPLETION, worker)[0][-1]


def test_error_of_our_own_is_said_without_a_word_about_it():
    """A traceback, or a text that was sent, goes to whoever asks."""
    worker = Worker(script=lambda asked: [ValueError("secret")])
    found = error(post("/v1/completions", COMPLETION, worker), 500)
    assert "secret" not in found["message"]
    chunks, rest = events("/v1/completions", COMPLETION, worker)
    assert "secret" not in chunks[-1]["error"]["message"]
    assert rest == []


def test_answer_that_takes_too_long_is_given_up():
    """A request without an end keeps its place for ever."""
    worker, limits = Worker(forever=True, script=lambda asked: answer(asked)[:2]), Limits(request_s=0.05)
    assert error(post("/v1/completions", COMPLETION, worker, limits=limits), 504)["code"] == "timeout"
    chunks, rest = events("/v1/completions", COMPLETION, worker, limits=limits)
    assert chunks[-1]["error"]["code"] == "timeout"
    assert rest == []
    assert [each.cancelled for each in worker.tickets] == [1, 1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
def test_client_that_leaves_frees_its_place(stream, prompt):
    """The model writes on for nobody."""
    worker = Worker(forever=True, script=lambda asked: answer(asked)[:2])
    app = api.app(worker, keys={"me": KEY})
    body = json.dumps({**COMPLETION, "prompt": prompt, "stream": stream}).encode()

    async def leave():
        gone, sent = asyncio.Event(), []
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {KEY}".encode())]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
        scope |= {"query_string": b"", "client": ("127.0.0.1", 5), "http_version": "1.1", "root_path": ""}
        request = asyncio.ensure_future(app(scope, receive, send))
        for _ in range(200):
            await asyncio.sleep(0.005)
            if len(worker.tickets) == len(prompt) and (sent or not stream):
                break
        assert not any(each.cancelled for each in worker.tickets)
        gone.set()
        await asyncio.wait_for(request, 1)
        return sent

    sent = asyncio.run(leave())
    assert all(each.cancelled for each in worker.tickets)
    assert bool(sent) is stream
    assert not stream or sent[-1].get("more_body") or sent[-1]["type"] == "http.response.start"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/tokenize", "/v1/detokenize"])
def test_nothing_is_taken_before_ready_and_while_stopping(path):
    """A server that stops takes work that it will not finish."""
    worker = Worker()
    worker.ready = False
    response = post(path, COMPLETION, worker)
    assert error(response, 503)["code"] == "not_ready"
    assert "retry-after" in response.headers
    assert client(worker).get("/ready").status_code == 503
    assert client(worker).get("/health").status_code == 200


def test_models_are_listed_and_found():
    """A name with a folder in it is taken for two parts of a path."""
    found = client().get("/v1/models").json()
    assert [each["id"] for each in found["data"]] == ["toy", "org/bare"]
    assert client().get("/v1/models/org/bare").json() == found["data"][1]
    known = {"id": "toy", "object": "model", "created": 7, "owned_by": "hanlin", "max_model_len": 64}
    assert found["data"][0] == {**known, "task": "generate"}
    response = client().get("/v1/models/toys")
    assert "did you mean 'toy'" in error(response, 404)["message"]
    found = error(post("/v1/completions", {**COMPLETION, "model": "../toy"}), 404)
    assert (found["code"], found["param"]) == ("model_not_found", "model")


def test_model_without_a_template_says_so():
    """A chat with a base model fails with a 500."""
    found = error(post("/v1/chat/completions", {**CHAT, "model": "org/bare"}), 400)
    assert "chat template" in found["message"]


def test_tokens_there_and_back():
    """/tokenize gives other ids than the model is asked with, or ids that it does not have are decoded."""
    found = post("/v1/tokenize", {"model": "toy", "prompt": "hé"}).json()
    assert found == {"count": 4, "max_model_len": CONTEXT, "tokens": list(TOKENIZER.encode("hé").ids)}
    bare = post("/v1/tokenize", {"model": "toy", "prompt": "hé", "add_special_tokens": False}).json()
    assert bare["tokens"] == found["tokens"][1:]
    assert post("/v1/detokenize", {"model": "toy", "tokens": bare["tokens"]}).json() == {"prompt": "hé"}
    assert error(post("/v1/detokenize", {"model": "toy", "tokens": [TOKENIZER.vocab]}), 400)["param"] == "tokens"
    body = {**COMPLETION, "prompt": [TOKENIZER.vocab]}
    assert error(post("/v1/completions", body), 400)["param"] == "prompt"


def test_unknown_routes_and_methods_have_openais_shape():
    """The framework's own error pages reach clients that read OpenAI's."""
    assert error(client().get("/v1/nothing"), 404)["code"] == "unknown_url"
    assert error(client().get("/docs"), 404)
    assert error(client().get("/v1/models/"), 404)
    response = client().get("/v1/completions")
    assert error(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"
    assert error(client().post("/v1/completions", content=b"{", headers={"Content-Type": "application/json"}), 400)
    assert error(client().post("/v1/completions", data={"a": "b"}), 415)


def test_description_of_the_routes_names_every_body():
    """A schema refers to a part that is not there, so that no tool can read it."""
    found = client().get("/openapi.json").json()
    text = json.dumps(found)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.split('"')[0] in found["components"]["schemas"]
    assert "/v1/chat/completions" in found["paths"]
    assert "minItems" in json.dumps(found["components"]["schemas"]["Chat"]["properties"]["messages"])


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    PLAIN | st.sampled_from([0, 1, 2, "a", "text", [1], ["a"]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(
    set(api.Completion.model_fields) | set(api.Chat.model_fields) | set(api.Tokenize.model_fields) | {"tokens", "x"}
)


SOUND = {
    "/v1/completions": COMPLETION,
    "/v1/chat/completions": CHAT,
    "/v1/tokenize": {"model": "toy", "prompt": "a"},
    "/v1/detokenize": {"model": "toy", "tokens": [104]},
}
CLIENT = client()


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(SOUND)), st.booleans(), st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3) | VALUES
)
def test_no_body_breaks_the_server(path, sound, body):
    """A body that nobody thought of is a 500, and the process may be next."""
    if isinstance(body, dict) and sound:
        body = {**SOUND[path], **body}
    response = CLIENT.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    assert response.status_code in {200, 400, 404}, response.text
    if response.status_code != 200:
        error(response, response.status_code)
