"""Tasks and vectors over HTTP: what is served, what is refused and how, and that company changes no answer."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time

import httpx
import numpy as np
import openai
import pytest
import serving
import tasked
from serving import KEY

from hanlin import bundle
from hanlin.api import LanguageModel
from hanlin.config import dump
from hanlin.serve.limits import Limits

NAMES = ("classify", "tag", "lm", "sentences")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tasked.models(tmp_path_factory.mktemp("root"), *NAMES)
    with serving.serving(root, limits=Limits(inputs=40)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=30) as made:
        yield made


def post(server, path, body, **options):
    with server.client() as client:
        return client.post(path, json=body, **options)


def refused(reply, status, param, said):
    """Check an error in OpenAI's shape."""
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert said in error["message"]
    assert len(error["message"].splitlines()) == 1
    assert "Traceback" not in reply.text


@pytest.mark.parametrize("name", ["sentences", "lm"])
@pytest.mark.parametrize("form", ["float", "base64", None])
def test_vectors_are_those_of_embed(server, client, name, form):
    """Guards against vectors in another order, of another pooling, rounded, or with their bytes turned round."""
    texts = ["One", "a longer TEXT", "好", "One"]
    given = {} if form is None else {"encoding_format": form}
    found = client.embeddings.create(model=name, input=texts, **given)
    wanted = server.model(name).embed(texts).vectors
    assert [each.index for each in found.data] == [0, 1, 2, 3]
    vectors = [
        np.frombuffer(base64.b64decode(each.embedding), "<f4") if form == "base64" else each.embedding
        for each in found.data
    ]
    np.testing.assert_array_equal(np.array(vectors, np.float32), wanted)
    read = sum(len(server.model(name).tokenizer.encode(text).ids) for text in texts)
    assert found.usage.prompt_tokens == found.usage.total_tokens == read
    assert found.model == name


def test_one_text_and_ids(server, client):
    """Guards against a text taken for its letters, and ids that are encoded again."""
    model = server.model("sentences")
    wanted = model.embed(["hello"]).vectors[0]
    ids = list(model.tokenizer.encode("hello").ids)
    for given in ("hello", ids, [ids]):
        (found,) = client.embeddings.create(model="sentences", input=given).data
        np.testing.assert_array_equal(np.array(found.embedding, np.float32), wanted)


VECTORS = {
    "nothing": ({"input": []}, "input", "none of them empty"),
    "an empty text": ({"input": ""}, "input[0]", "empty"),
    "an empty text among others": ({"input": ["a", ""]}, "input[1]", "empty"),
    "no input": ({}, "input", "missing"),
    "a number": ({"input": 7}, "input", "a string, token ids"),
    "both kinds": ({"input": ["a", [5]]}, "input", "a string, token ids"),
    "a long text": ({"input": ["a", "x" * 33]}, "input[1]", "34 tokens; this model reads 32 of a text"),
    "too many": ({"input": ["a"] * 41}, "input", "41 of them; at most 40"),
    "a foreign token": ({"input": [300]}, "input", "token 300; ids from 0 to 299"),
    "a negative token": ({"input": [-1]}, "input", "a string, token ids"),
    "cut vectors": ({"input": "a", "dimensions": 8}, "dimensions", "16, or left out"),
    "a form nobody knows": ({"input": "a", "encoding_format": "hex"}, "encoding_format", "hex"),
    "a typo": ({"input": "a", "dimension": 16}, "dimension", "did you mean 'dimensions'?"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_refused(server, name):
    """Guards against a 500, a text cut in silence, and an error that does not say which field."""
    body, param, said = VECTORS[name]
    refused(post(server, "/v1/embeddings", {"model": "sentences", **body}), 400, param, said)


def test_the_dimensions_there_are_are_no_error(client):
    """Guards against a client that says what is true and is refused."""
    assert len(client.embeddings.create(model="sentences", input="a", dimensions=16).data[0].embedding) == 16


def test_every_model_says_its_task_and_the_other_doors_are_shut(server):
    """Guards against a server that breaks where a model cannot do what is asked."""
    with server.client() as client:
        tasks = {each["id"]: each["task"] for each in client.get("/v1/models").json()["data"]}
    assert tasks == {"classify": "classify", "lm": "generate", "sentences": "", "tag": "tag"}
    for name, do in (("classify", "/v1/tasks/classify or /v1/embeddings"), ("sentences", "/v1/embeddings")):
        for path, body in (("completions", {"prompt": "a"}), ("chat/completions", {"messages": []})):
            body = {"messages": [{"role": "user", "content": "a"}]} if "messages" in body else body
            refused(
                post(server, f"/v1/{path}", {"model": name, **body}), 400, "model", f"does not continue text; use {do}"
            )
    one = {"inputs": ["a"]}
    refused(post(server, "/v1/tasks/tag", {"model": "classify", **one}), 400, "model", "POST /v1/tasks/classify")
    refused(
        post(server, "/v1/tasks/tag", {"model": "lm", **one}), 400, "model", "'lm' is made for generate, not for tag"
    )
    refused(post(server, "/v1/tasks/tga", {"model": "tag", **one}), 404, None, "did you mean 'tag'?")
    refused(post(server, "/v1/tasks/tag", {"model": "tga", **one}), 404, "model", "did you mean 'tag'?")


BODIES = {
    "nothing": ({"inputs": []}, "inputs", "at least one"),
    "one text": ({"inputs": "good"}, "inputs", "a list of texts"),
    "numbers": ({"inputs": ["a", 7]}, "inputs", "number 1 is neither"),
    "no inputs": ({}, "inputs", "missing"),
    "too many": ({"inputs": ["a"] * 41}, "inputs", "41 of them; at most 40"),
    "a typo": ({"inputs": ["a"], "input": 1}, "input", "did you mean 'inputs'?"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_refused(server, name):
    """Guards against a 500, and against a body that is answered in part."""
    body, param, said = BODIES[name]
    refused(post(server, "/v1/tasks/classify", {"model": "classify", **body}), 400, param, said)


def test_a_wrong_input_has_its_reason_and_the_others_their_answer(server):
    """Guards against one bad row that takes the others with it, or shifts them."""
    bad = ["", {"txet": "a"}, {}, {"text": 7}, {"text": "a", "label": "up"}, {"text": "a", "pair": [1]}]
    inputs = ["good", *bad, "坏"]
    reply = post(server, "/v1/tasks/classify", {"model": "classify", "inputs": inputs}).json()
    assert [each["index"] for each in reply["data"]] == list(range(len(inputs)))
    assert ["error" in each for each in reply["data"]] == [False, *[True] * len(bad), False]
    assert "did you mean 'text'?" in reply["data"][2]["error"]
    assert "an answer" in reply["data"][5]["error"]
    wanted = [dump(each) for each in server.model("classify").predict(["good", "坏"])]
    assert [reply["data"][at]["probabilities"] for at in (0, -1)] == [each["probabilities"] for each in wanted]
    every = post(server, "/v1/tasks/classify", {"model": "classify", "inputs": bad}).json()
    assert all("error" in each for each in every["data"])
    assert every["usage"]["total_tokens"] == 0


def test_what_is_cut_is_counted(server):
    """Guards against a long text that is answered from its beginning, without a word."""
    reply = post(server, "/v1/tasks/classify", {"model": "classify", "inputs": ["x" * 100, "a"]}).json()
    assert reply["usage"]["truncated_tokens"] == 101 - tasked.CONTEXT
    assert reply["usage"]["prompt_tokens"] == tasked.CONTEXT + 2


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/tasks/classify", "/v1/tasks/none", "/v1/audio/transcriptions"])
def test_every_route_wants_the_key_and_a_body_of_its_kind(server, path):
    """Guards against a route that was added beside the guard."""
    with server.client(key=None) as client:
        assert client.post(path, json={}).status_code == 401
    with server.client() as client:
        if path != "/v1/tasks/none":
            assert client.post(path, content=b"a=1", headers={"Content-Type": "text/plain"}).status_code == 415
            assert client.get(path).status_code == 405
        if "audio" not in path and "none" not in path:
            assert client.post(path, content=b"{" + b" " * 2_000_001).status_code == 413
            twice = b'{"model": "classify", "model": "tag"}'
            assert client.post(path, content=twice).status_code == 400
            deep = b'{"model": "classify", "inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}"
            assert client.post(path, content=deep).status_code == 400


def test_company_changes_no_answer(server):
    """Guards against padding, order or another client's rows that show in an answer; all at once against alone."""
    texts = [text * k for k in (1, 3, 9) for text in tasked.TEXTS[:4]]
    alone = {text: server.model("classify").predict([text])[0].probabilities for text in texts}
    vectors = {text: server.model("sentences").embed([text]).vectors[0] for text in texts if len(text.encode()) < 31}

    async def main():
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False, timeout=60) as client:

            def asked(path, body):
                return client.post(path, json=body)

            write = {"model": "lm", "prompt": "The", "max_tokens": 30, "temperature": 0}
            jobs = [asked("/v1/completions", write) for _ in range(4)]
            jobs += [asked("/v1/tasks/classify", {"model": "classify", "inputs": texts[at:]}) for at in range(12)]
            jobs += [asked("/v1/embeddings", {"model": "sentences", "input": list(vectors)}) for _ in range(4)]
            return await asyncio.gather(*jobs)

    replies = [reply.json() for reply in asyncio.run(main())]
    assert len({reply["choices"][0]["text"] for reply in replies[:4]}) == 1
    for at, reply in enumerate(replies[4:16]):
        for text, found in zip(texts[at:], reply["data"], strict=True):
            assert found["probabilities"] == pytest.approx(alone[text], abs=1e-5)
    for reply in replies[16:]:
        for found, wanted in zip(reply["data"], vectors.values(), strict=True):
            np.testing.assert_allclose(found["embedding"], wanted, atol=1e-5)
    serving.until(server.idle)


def slowed(bulk, monkeypatch, gate):
    compute = bulk.compute
    monkeypatch.setattr(bulk, "compute", lambda units: (gate.wait(20), compute(units))[1])


def test_requests_that_wait_are_answered_together(server, monkeypatch):
    """Guards against a batch for each request, and against a wait for a batch to fill."""
    bulk, gate, seen = server.lines["classify"].bulks["predict"], threading.Event(), []
    compute = bulk.compute
    monkeypatch.setattr(bulk, "compute", lambda units: (gate.wait(20), seen.append(len(units)), compute(units))[2])
    body = {"model": "classify", "inputs": ["a", "b"]}
    threads = [threading.Thread(target=post, args=(server, "/v1/tasks/classify", body)) for _ in range(5)]
    threads[0].start()
    serving.until(lambda: server.worker.load().running == 2)
    for each in threads[1:]:
        each.start()
    serving.until(lambda: server.worker.load().waiting == 4)
    gate.set()
    for each in threads:
        each.join(20)
    assert seen == [2, 8]


def test_a_client_that_leaves_gives_its_place_back(server, monkeypatch):
    """Guards against work for nobody: what waits is dropped, what is computed is thrown away."""
    gate = threading.Event()
    slowed(server.lines["classify"].bulks["predict"], monkeypatch, gate)
    body = {"model": "classify", "inputs": ["a"]}
    for _ in range(2):
        with pytest.raises(httpx.ReadTimeout):
            post(server, "/v1/tasks/classify", body, timeout=0.3)
    serving.until(lambda: server.worker.load().waiting == 0, seconds=5)
    gate.set()
    serving.until(server.idle)
    monkeypatch.undo()
    assert post(server, "/v1/tasks/classify", body).status_code == 200


def test_a_full_queue_says_when_to_come_back(server, monkeypatch):
    """Guards against memory that grows with waiting requests."""
    bulk, gate = server.lines["classify"].bulks["predict"], threading.Event()
    slowed(bulk, monkeypatch, gate)
    monkeypatch.setattr(bulk, "queue", 1)
    body = {"model": "classify", "inputs": ["a"]}
    threads = []
    for waiting in (0, 1):
        threads.append(threading.Thread(target=post, args=(server, "/v1/tasks/classify", body)))
        threads[-1].start()
        serving.until(lambda wanted=(1, waiting): server.worker.load() == wanted)
    reply = post(server, "/v1/tasks/classify", body)
    gate.set()
    assert reply.status_code == 429, reply.text
    assert 1 <= int(reply.headers["Retry-After"]) <= 60
    for each in threads:
        each.join(20)


def test_what_breaks_breaks_alone(server, monkeypatch, caplog):
    """Guards against one poisonous row that ends the requests of others, or the thread."""
    bulk, gate = server.lines["classify"].bulks["predict"], threading.Event()
    compute = bulk.compute

    def fragile(units):
        gate.wait(20)
        if any(len(row.ids) == 9 for row in units):
            raise RuntimeError("out of memory")
        return compute(units)

    monkeypatch.setattr(bulk, "compute", fragile)
    found = {}

    def ask(text):
        found[text] = post(server, "/v1/tasks/classify", {"model": "classify", "inputs": [text]})

    threads = [threading.Thread(target=ask, args=(text,)) for text in ("a", "poisoned", "b")]
    for each in threads:
        each.start()
    time.sleep(0.2)
    gate.set()
    for each in threads:
        each.join(20)
    assert [found[text].status_code for text in ("a", "poisoned", "b")] == [200, 500, 200]
    refused(found["poisoned"], 500, None, "the engine failed")
    assert "out of memory" in caplog.text
    assert server.worker.ready


def test_an_answer_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    """Guards against a request that waits for ever, and a place that it keeps."""
    root = tasked.models(tmp_path, "classify")
    with serving.serving(root, limits=Limits(request_s=0.2)) as server:
        gate = threading.Event()
        slowed(server.lines["classify"].bulks["predict"], monkeypatch, gate)
        reply = post(server, "/v1/tasks/classify", {"model": "classify", "inputs": ["a"]})
        gate.set()
        refused(reply, 504, None, "no whole answer after 0.2 s")
        serving.until(server.idle)


def test_the_description_shows_what_a_task_takes_and_gives(server):
    """Guards against a description without the tasks, or with answers among what is asked."""
    found = server.app.openapi()
    assert {"/v1/tasks/classify", "/v1/tasks/tag", "/v1/embeddings", "/v1/audio/transcriptions"} <= set(found["paths"])
    parts = found["components"]["schemas"]
    assert set(parts["classify.Example"]["properties"]) == {"text", "pair"}
    assert {"label", "probabilities"} <= set(parts["classify.Prediction"]["properties"])
    names = {line.split('"')[0] for line in json.dumps(found).split("#/components/schemas/")[1:]}
    assert names <= set(parts)


def test_bundles_of_tasks_open_alone(tmp_path):
    """Guards against a context for writing that is asked of a model which does not write."""
    root = tasked.models(tmp_path, "classify")
    with serving.serving(root / "classify", sizes=serving.folder.Sizes(context=4096)) as server:
        assert post(server, "/v1/tasks/classify", {"model": "classify", "inputs": ["a"]}).status_code == 200
        model = LanguageModel(bundle.read(root / "classify"))
        assert model.predict(["a"])
