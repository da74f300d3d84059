"""Recordings over HTTP: OpenAI's client, hostile sounds and forms, and a transcript as the command line gives it."""

from __future__ import annotations

import io
import json

import numpy as np
import openai
import pytest
import serving
import tasked
from serving import KEY

from hanlin.config import dump
from hanlin.serve.limits import Limits

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

RATE = 16_000
SILENCE = np.zeros(RATE)
ROUTE = "/v1/audio/transcriptions"
LIMITS = Limits(upload_bytes=2_000_000, audio_s=20.0)


@pytest.fixture(scope="module")
def spoken():
    """Return eight seconds in which somebody speaks, twice with a pause: two windows at the least."""
    said = tasked.voice(1.5)
    return tasked.wav(np.concatenate([said, np.zeros(3 * RATE), said, np.zeros(RATE)]))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tasked.models(tmp_path_factory.mktemp("root"), "speech", "classify")
    with serving.serving(root, limits=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=60) as made:
        yield made


def post(server, sound, **fields):
    with server.client() as client:
        return client.post(ROUTE, files={"file": ("a.wav", sound)}, data={"model": "speech", **fields})


def refused(reply, status, param, said):
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error["param"] == param, error
    assert said in error["message"]


def test_the_transcript_is_that_of_python(server, client, spoken, tmp_path):
    """Guards against a second way from sound to text, and against times that are left out."""
    path = tmp_path / "a.wav"
    path.write_bytes(spoken)
    (wanted,) = server.model("speech").predict([str(path)])
    assert len(wanted.segments) >= 2
    found = client.audio.transcriptions.create(model="speech", file=path)
    assert found.text == wanted.text
    whole = client.audio.transcriptions.create(
        model="speech", file=path, response_format="verbose_json", language="en", temperature=0,
        timestamp_granularities=["segment"],
    )  # fmt: skip
    assert (whole.text, whole.language) == (wanted.text, "en")
    assert float(whole.duration) == pytest.approx(7.0, abs=0.01)
    assert [(each.start, each.end, each.text) for each in whole.segments] == [
        (each.start, each.end, each.text) for each in wanted.segments
    ]
    assert dump(wanted)["text"] == wanted.text


def test_the_other_forms(server, client, spoken):
    """Guards against subtitles that players refuse."""
    create = client.audio.transcriptions.create
    plain = create(model="speech", file=("a.wav", spoken))
    assert create(model="speech", file=("a.wav", spoken), response_format="text").rstrip("\n") == plain.text
    for form, head, point in (("srt", "1\n00:00:00,", ","), ("vtt", "WEBVTT\n\n00:00:00.", ".")):
        found = create(model="speech", file=("a.wav", spoken), response_format=form)
        assert found.startswith(head)
        cues = [line for line in found.splitlines() if "-->" in line]
        assert len(cues) >= 2
        assert all(line.count(point) == 2 for line in cues)
        kind = post(server, spoken, response_format=form).headers["content-type"]
        assert kind == {"srt": "text/srt; charset=utf-8", "vtt": "text/vtt; charset=utf-8"}[form]


@pytest.mark.parametrize("form", ["json", "text", "verbose_json", "srt", "vtt"])
def test_silence_says_nothing(server, form):
    """Guards against words that nobody said, and a worker that is asked for nothing."""
    reply = post(server, tasked.wav(SILENCE), response_format=form)
    assert reply.status_code == 200
    if "json" in form:
        assert reply.json()["text"] == ""
    else:
        assert reply.text.strip() in ("", "WEBVTT")


SOUNDS = {
    "nothing": (b"", "empty"),
    "text": (b"hello " * 100, "not a sound file"),
    "a cut header": (tasked.wav(SILENCE)[:30], ""),
    "cut off": (tasked.wav(SILENCE)[:9000], "cut off"),
    "NaN": (tasked.wav(np.full(RATE, np.nan), subtype="FLOAT"), "samples between -1 and 1"),
    "far too loud": (tasked.wav(np.full(RATE, 1e6), subtype="FLOAT"), "samples between -1 and 1"),
    "too long": (tasked.wav(np.zeros(21 * 8000), rate=8000), "at most 20 s"),
    "an absurd rate": (tasked.wav(SILENCE, rate=100), "samples a second"),
    "many channels": (tasked.wav(np.zeros((RATE // 10, 64))), "64 channels"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_hostile_sounds(server, name):
    """Guards against a 500, a decoder that never ends, and an error that does not say what is wrong."""
    sound, said = SOUNDS[name]
    refused(post(server, sound), 400, "file", said)


FIELDS = {
    "a warm answer": ({"temperature": "0.7"}, "temperature", "0 alone"),
    "no number": ({"temperature": "cold"}, "temperature", "not a number"),
    "a form nobody knows": ({"response_format": "docx"}, "response_format", "docx"),
    "a stream": ({"stream": "true"}, "stream", "not supported"),
    "a prompt": ({"prompt": "spell it so"}, "prompt", "not supported"),
    "no language": ({"language": "../../etc"}, "language", ""),
    "times of words": ({"timestamp_granularities[]": "word", "response_format": "verbose_json"}, None, "segment"),
    "times without a place": ({"timestamp_granularities[]": "segment"}, None, "only with verbose_json"),
    "a typo": ({"langauge": "en"}, "langauge", "did you mean 'language'?"),
    "a long field": ({"language": "e" * 5000}, "language", "too long"),
    "another task's model": ({"model": "classify"}, "model", "made for classify, not for transcribe"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_refused(server, name):
    """Guards against what would change the answer and is ignored."""
    fields, param, said = FIELDS[name]
    reply = post(server, tasked.wav(SILENCE), **fields)
    refused(reply, 400, reply.json()["error"]["param"] if param is None else param, said)


def test_too_much_of_it(server):
    """Guards against memory that a client chooses."""
    refused(post(server, b"\0" * 2_100_000), 413, None, "at most 2,000,000 bytes")


def test_few_at_a_time(tmp_path, server, spoken, monkeypatch):
    """Guards against as many recordings in memory as there are connections."""
    import threading

    bulk, gate = server.lines["speech"].bulks["predict"], threading.Event()
    compute = bulk.compute
    monkeypatch.setattr(bulk, "compute", lambda units: (gate.wait(20), compute(units))[1])
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(post(server, spoken).status_code)) for _ in range(10)]
    for each in threads:
        each.start()
    serving.until(lambda: len(replies) == 2)
    gate.set()
    for each in threads:
        each.join(30)
    assert sorted(replies) == [200] * 8 + [429] * 2


def test_no_file_of_the_server_is_read(server, tmp_path, spoken):
    """Guards against a path in JSON: whoever has a key could listen to every file of the machine."""
    path = tmp_path / "secret.wav"
    path.write_bytes(spoken)
    for given in (str(path), {"audio": str(path)}):
        with server.client() as client:
            reply = client.post("/v1/tasks/transcribe", json={"model": "speech", "inputs": [given]})
        assert reply.status_code == 200
        assert "/v1/audio/transcriptions" in reply.json()["data"][0]["error"]


def form(*parts, boundary=b"B", end=b"--B--\r\n"):
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end


def field(name, value, more=b""):
    return b'Content-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + value


MODEL = field(b"model", b"speech")
FILE = field(b"file", tasked.wav(SILENCE), b'; filename="a.wav"')
FORMS = {
    "no file": form(MODEL),
    "two files": form(MODEL, FILE, FILE),
    "a file by another name": form(MODEL, FILE.replace(b'"file"', b'"sound"', 1)),
    "a file as text": form(MODEL, field(b"file", b"abc")),
    "no model": form(FILE),
    "a field twice": form(MODEL, MODEL, FILE),
    "no end": form(MODEL, FILE, end=b""),
    "no name": form(b"Content-Type: text/plain\r\n\r\nabc", MODEL, FILE),
    "encoded": form(b"Content-Transfer-Encoding: base64\r\n" + MODEL, FILE),
    "not UTF-8": form(field(b"model", b"\xff\xfe"), FILE),
    "NUL": form(field(b"model", b"spe\0ech"), FILE),
    "a hundred parts": form(MODEL, FILE, *[field(b"x%d" % at, b"") for at in range(100)]),
    "a hundred headers": form(b"".join(b"X-%d: a\r\n" % at for at in range(100)) + MODEL, FILE),
    "a long header": form(b"X: " + b"a" * 10_000 + b"\r\n" + MODEL, FILE),
    "nothing": b"",
    "trash": b"\xff" * 1000,
    "line ends": b"\r\n" * 100_000,
    "nearly boundaries": b"--B" + b"\r\n--" * 200_000,
    "another boundary": form(MODEL, FILE, boundary=b"C"),
}


@pytest.mark.parametrize("name", FORMS)
def test_hostile_forms(server, name):
    """Guards against a form that is read in two ways, in part, or for ever."""
    with server.client() as client:
        kind = {"Content-Type": "multipart/form-data; boundary=B"}
        reply = client.post(ROUTE, content=FORMS[name], headers=kind)
        assert reply.status_code == 400, reply.text
        assert reply.elapsed.total_seconds() < 3
        assert set(json.loads(reply.text)["error"]) == {"message", "type", "param", "code"}
        for bare in ("multipart/form-data", "multipart/form-data; boundary=" + "b" * 300):
            assert client.post(ROUTE, content=b"--B--", headers={"Content-Type": bare}).status_code == 400


def test_the_form_of_every_client(server, client, spoken):
    """Guards against names of files that break the form."""
    wanted = client.audio.transcriptions.create(model="speech", file=io.BytesIO(spoken)).text
    for name in ("a b.wav", '"quoted".wav', "声音.wav", "../../etc/passwd", "x" * 300):
        assert client.audio.transcriptions.create(model="speech", file=(name, spoken)).text == wanted
