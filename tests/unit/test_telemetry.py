"""The numbers of a server: counted once, by names that no client makes up."""

import pytest
from fake_worker import HEADERS, KEY, Worker, answer
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from hanlin.serve import api
from hanlin.serve.limits import Limits

BODY = {"model": "toy", "prompt": "secret words", "seed": 1, "max_tokens": 4, "n": 2}


@pytest.fixture
def some():
    """Return a client and its numbers' reader."""
    return TestClient(api.app(Worker(), keys={"me": KEY}), base_url="http://localhost", headers=HEADERS)


def numbers(some):
    """Return {(name, labels): value} of /metrics."""
    response = some.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_and_times_are_counted(some, stream):
    """The prompt is counted once an answer, or a streamed answer not at all."""
    some.post("/v1/completions", json={**BODY, "stream": stream})
    found = numbers(some)
    assert found["hanlin_prompt_tokens_total", "toy"] == 13
    assert found["hanlin_completion_tokens_total", "toy"] == 8
    assert found["hanlin_first_token_seconds_count", "toy"] == 1
    assert found["hanlin_token_seconds_count", "toy"] == 1
    assert found["hanlin_requests_total", "toy", "/v1/completions", "200"] == 1
    assert found["hanlin_request_seconds_count", "/v1/completions"] == 1
    assert (found["hanlin_running",], found["hanlin_waiting",]) == (2, 1)
    assert ("hanlin_cancelled_total", "toy") not in found


def test_requests_given_up_are_counted():
    """A request that ended before its answer looks like any other."""
    worker = Worker(forever=True, script=lambda asked: answer(asked)[:1])
    app = api.app(worker, keys={"me": KEY}, limits=Limits(request_s=0.05))
    some = TestClient(app, base_url="http://localhost", headers=HEADERS)
    some.post("/v1/completions", json=BODY)
    assert numbers(some)["hanlin_cancelled_total", "toy"] == 1


def test_clients_cannot_grow_the_table_or_write_into_it(some):
    """Each made-up path or model is a new row, until the memory is full; a prompt stands in a label."""
    for each in range(20):
        some.get(f"/made-up-{each}")
        some.get(f"/v1/models/made-up-{each}")
        some.post("/v1/completions", json={**BODY, "model": f"made-up-{each}"})
        some.request(f"MADE{each}", "/v1/completions")
        some.get("/v1/models", headers={"Authorization": f"Bearer made-up-{each}"})
    some.post("/v1/completions", json=BODY)
    text = some.get("/metrics").text
    rows = [line for line in text.splitlines() if line.startswith("hanlin_requests_total")]
    assert len(rows) < 10
    assert not any(word in text.lower() for word in ("made", "secret", KEY))
    assert numbers(some)["hanlin_requests_total", "other", "/v1/models/{name:path}", "404"] == 20


def test_two_servers_count_apart(some):
    """The registry is the process's own, and a second server cannot start or counts into the first."""
    other = TestClient(api.app(Worker(), keys={"me": KEY}), base_url="http://localhost", headers=HEADERS)
    some.post("/v1/completions", json=BODY)
    assert ("hanlin_completion_tokens_total", "toy") not in numbers(other)
    assert not [each for each in REGISTRY.collect() if each.name.startswith("hanlin")]
