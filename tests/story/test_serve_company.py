"""Company: many clients at once, and each answer is the one that it gets alone; nobody waits for ever."""

from __future__ import annotations

import asyncio
import json
import random
import threading

import httpx
import pytest
import serving
from serving import KEY

CLIENTS = 32


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = serving.models(tmp_path_factory.mktemp("root"), "bytes", "bpe", "chat")
    with serving.serving(root) as running:
        yield running


def bodies(seed, count):
    """Return requests, some of everything, for three models."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        body = {
            "model": draw.choice(["bytes", "bpe"]),
            "prompt": draw.choice(["a", "The quick brown fox", "床前明月光" * 2, ["one", "two"], [0, 50, 60, 70]]),
            "max_tokens": draw.randrange(1, 30),
            "n": draw.choice([1, 1, 1, 2, 3]),
            "temperature": draw.choice([0, 1, 0.7]),
            "seed": number,
            "presence_penalty": draw.choice([0, 0, 1]),
            "top_p": draw.choice([1, 0.9]),
            "stop": draw.choice([None, ["e"], ["月", "zz"]]),
            "logprobs": draw.choice([None, None, 2]),
            "stream": draw.random() < 0.5,
        }
        if draw.random() < 0.2:
            for key in ("prompt", "logprobs"):
                body.pop(key)
            body |= {"model": "chat", "messages": [{"role": "user", "content": f"number {number}"}]}
        found.append(body)
    return found


async def ask(http, body):
    """Return {choice: (text, finish)} of a request, streamed or not, and when its first and last bytes came."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    times, data = [], b""
    loop = asyncio.get_running_loop()
    async with http.stream("POST", path, json=body) as reply:
        async for chunk in reply.aiter_bytes():
            times.append(loop.time())
            data += chunk
        assert reply.status_code == 200, data
    chunks = serving.events(data.decode()) if body["stream"] else [json.loads(data)]
    found = {}
    for choice in [choice for chunk in chunks for choice in chunk["choices"]]:
        said = choice.get("delta") or choice.get("message") or {}
        text, _ = found.get(choice["index"], ("", None))
        found[choice["index"]] = (text + (choice.get("text") or said.get("content") or ""), choice["finish_reason"])
    return found, times


def gather(server, requests, together):
    """Return what each request gets, all at once or one after the other."""

    async def main():
        limits = httpx.Limits(max_connections=CLIENTS)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(
            base_url=server.url, headers=headers, limits=limits, timeout=60, trust_env=False
        ) as http:
            if together:
                return await asyncio.gather(*(ask(http, body) for body in requests))
            return [await ask(http, body) for body in requests]

    return asyncio.run(main())


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_an_answer_in_company_is_the_answer_alone(server, seed):
    """Guards against rows, seeds, penalties, stops, streams or models mixed up between clients."""
    requests = bodies(seed, CLIENTS)
    alone = [found for found, _ in gather(server, requests, together=False)]
    together = [found for found, _ in gather(server, requests, together=True)]
    for body, one, other in zip(requests, alone, together):
        assert one == other, body
        assert all(finish in ("stop", "length") for _, finish in one.values())
    serving.until(server.idle)


def counted(server, model, monkeypatch, opened=None):
    """Count the steps that a model's engine takes, the first no earlier than `opened` is set; the list grows."""
    engine, steps, step = server.engine(model), [], server.engine(model).step

    def slow(plan):
        steps.append(plan)
        assert opened is None or opened.wait(30)
        serving.time.sleep(0.001)
        return step(plan)

    monkeypatch.setattr(engine, "step", slow)
    return steps


def test_nobody_is_starved(tmp_path, monkeypatch):
    """Guards against a client with hundreds of answers that keeps one with a single short question waiting."""
    serving.models(tmp_path, "bytes")
    keys = {"greedy": KEY, "modest": "the-key-of-another"}
    with serving.serving(tmp_path, keys=keys) as server:
        opened = threading.Event()
        steps = counted(server, "bytes", monkeypatch, opened)

        async def main():
            limits = httpx.Limits(max_connections=CLIENTS)
            async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60, trust_env=False) as http:
                many = {"model": "bytes", "prompt": "a" * 40, "max_tokens": 50, "n": 8, "seed": 1, "stream": True}
                http.headers["Authorization"] = f"Bearer {KEY}"
                greedy = [asyncio.create_task(ask(http, many))]
                await serving.reached(lambda: steps)
                greedy += [asyncio.create_task(ask(http, {**many, "seed": seed})) for seed in range(2, 9)]
                await serving.reached(lambda: server.worker.load().waiting == 7)
                headers = {"Authorization": f"Bearer {keys['modest']}"}
                body = {"model": "bytes", "prompt": "b", "max_tokens": 5, "seed": 1}
                modest = asyncio.create_task(http.post("/v1/completions", json=body, headers=headers))
                await serving.reached(lambda: server.worker.load().waiting == 8)
                opened.set()
                reply = await modest
                waited = len(steps)
                left = sum(not each.done() for each in greedy)
                return reply.json(), waited, left, await asyncio.gather(*greedy)

        reply, waited, left, rest = asyncio.run(main())
    assert reply["usage"]["completion_tokens"] == 5
    assert left >= 6, "it came before most of those that had asked earlier"
    assert waited <= 50 + 40 + 15, "one generation of rows, their prompt, and its own"
    assert all(finish in ("stop", "length") for found, _ in rest for _, finish in found.values())


def test_a_long_prompt_holds_nobody_up(server, monkeypatch):
    """Guards against a prompt read in one go while everybody who writes waits."""
    steps = counted(server, "bytes", monkeypatch)
    requests = [
        {"model": "bytes", "prompt": "a", "max_tokens": 60, "temperature": 0, "stream": True},
        {"model": "bytes", "prompt": "b" * 90, "max_tokens": 2, "temperature": 0, "stream": False},
    ]
    gather(server, requests, together=True)
    read = [sum(each.stop - each.start for each in plan.reads) for plan in steps]
    assert max(read) <= 16, "a chunk"
    assert sum(read) == 2 + 91


def test_two_models_share_the_machine(server, monkeypatch):
    """Guards against a second model that waits until the first has nothing to do."""
    first, second = counted(server, "bytes", monkeypatch), counted(server, "bpe", monkeypatch)
    long = {"prompt": "a", "max_tokens": 90, "temperature": 0, "stream": True}
    short = {"model": "bpe", "prompt": "a", "max_tokens": 10, "temperature": 0, "stream": True}
    seen = []

    async def main():
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60, trust_env=False) as http:
            slow = asyncio.create_task(ask(http, {**long, "model": "bytes"}))
            await serving.reached(lambda: len(first) >= 10)
            seen.append(len(first))
            await ask(http, short)
            seen.append(len(first))
            await slow

    asyncio.run(main())
    assert len(second) == 10
    assert seen[1] - seen[0] < 60, "in turn, step by step"
