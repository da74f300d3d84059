"""An index beside a served model: what HTTP finds and answers is what the commands find and answer."""

from __future__ import annotations

import json

import pytest
import serving

from hanlin import bundle, cli
from hanlin.config import parse
from hanlin.errors import ConfigError
from hanlin.models import bert
from hanlin.models.sentences import Pooling
from hanlin.text.tokenizer import byte_level
from hanlin.verbs import serve

MODEL = bert.Config(vocab=259, dim=8, layers=1, heads=2, hidden=12, context=64)
TEXTS = {
    "river.txt": "The bridge was closed in spring. People crossed the river by boat. Nobody minded.",
    "桥.txt": "旧桥在春天封了。镇上的人坐船过河。船夫很忙😀。",
}


def index(folder, *words):
    """Return an index of the texts."""
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for name, text in TEXTS.items():
        (corpus / name).write_text(text, encoding="utf-8")
    assert cli.run(["search", "index", str(corpus), "--output", str(folder / "index"), *map(str, words)]) == 0
    return folder / "index"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Return the folder of an encoder."""
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    bundle.write(folder, MODEL.build(seed=0), byte_level(), pooling=Pooling(context=64))
    return folder


@pytest.fixture(scope="module")
def running(encoder, tmp_path_factory):
    """Serve the encoder, and an index with its vectors."""
    place = index(tmp_path_factory.mktemp("with"), "--model", encoder)
    config = serve.Config(models=str(encoder), index=str(place), device="cpu", threads=1)
    with serving.serving(encoder, app=serve.application(config, {"tests": serving.KEY})) as server:
        yield server, place


def said(capsys, *words):
    assert cli.run([str(each) for each in words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("way", [None, "hybrid", "dense", "words"])
@pytest.mark.parametrize("query", ["boat on a river", "坐船过河"])
def test_search_is_the_command(running, capsys, query, way):
    """Another order or another number of passages; places counted in the passage and not in the document."""
    server, place = running
    body = {"query": query, "limit": 2, **({"way": way} if way else {})}
    with server.client() as http:
        found = http.post("/v1/search", json=body).json()
    capsys.readouterr()
    wanted = said(capsys, "search", "query", place, query, "--limit", 2, "--json", *(["--way", way] if way else []))
    assert found == {"object": "list", "data": wanted}
    for hit in found["data"]:
        assert TEXTS[hit["source"]][hit["start"] : hit["stop"]] == hit["text"]


@pytest.mark.parametrize("question", ["who crossed the river by boat?", "谁坐船过河？"])
def test_ask_is_the_command(running, capsys, question):
    """An answer without its place, or made by another rule than the command's."""
    server, place = running
    with server.client() as http:
        found = http.post("/v1/ask", json={"question": question, "passages": 2}).json()
    capsys.readouterr()
    (wanted,) = said(capsys, "ask", place, question, "--passages", 2, "--json")
    assert found["object"] == "answer"
    assert found["found"] == wanted.pop("found")
    assert (found["answer"] or {}) == wanted


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("search", {}, "query: missing"),
        ("search", {"query": " "}, "query: empty"),
        ("search", {"query": "a", "limit": 0}, "limit"),
        ("search", {"query": "a", "limit": 10**9}, "limit"),
        ("search", {"query": "a" * 9000}, "query"),
        ("search", {"query": "a", "way": "magic"}, "way"),
        ("search", {"query": "a", "lmit": 3}, "lmit"),
        ("ask", {"question": ""}, "question"),
        ("ask", {"question": "a", "passages": 21}, "passages"),
        ("ask", [], "object"),
    ],
)
def test_bad_bodies(running, path, body, words):
    """A search over everything, a traceback, a field that is silently ignored."""
    server, _ = running
    with server.client() as http:
        answer = http.post(f"/v1/{path}", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_no_key_no_answer(running):
    """Private documents read by anyone."""
    server, _ = running
    with server.client(key=None) as http:
        assert http.post("/v1/search", json={"query": "river"}).status_code == 401
        assert http.post("/v1/ask", json={"question": "river"}).status_code == 401


def test_described(running):
    """A route that nobody can find."""
    server, _ = running
    with server.client() as http:
        found = http.get("/openapi.json").json()
    assert {"/v1/search", "/v1/ask"} <= found["paths"].keys()
    assert {"Search", "Question"} <= found["components"]["schemas"].keys()


def test_words_alone(encoder, tmp_path):
    """A way that the index has not, refused as if the server had failed."""
    config = serve.Config(models=str(encoder), index=str(index(tmp_path)), device="cpu", threads=1)
    with (
        serving.serving(encoder, app=serve.application(config, {"tests": serving.KEY})) as server,
        server.client() as http,
    ):
        assert http.post("/v1/search", json={"query": "boat"}).json()["data"][0]["source"] == "river.txt"
        refused = http.post("/v1/search", json={"query": "boat", "way": "dense"})
        assert refused.status_code == 400
        assert "needs vectors" in refused.json()["error"]["message"]
        assert http.post("/v1/ask", json={"question": "capital of Peru?"}).json() == {
            "object": "answer",
            "found": False,
            "answer": None,
        }


def test_without_an_index(encoder):
    """Routes that are there and do nothing; a reader with nothing to read."""
    with serving.serving(encoder) as server, server.client() as http:
        assert http.post("/v1/search", json={"query": "river"}).status_code == 404
    with pytest.raises(ConfigError, match="needs --index"):
        parse(serve.Config, {"models": str(encoder), "reader": "x"})
