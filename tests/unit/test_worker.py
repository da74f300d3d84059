"""The engine's thread: pieces come back to the event loop, whatever happens on the way."""

import asyncio
import time

import pytest
from folders import build

from hanlin.errors import ConfigError
from hanlin.generate import decode
from hanlin.generate.constrain import Vocabulary
from hanlin.generate.sampling import Sampling
from hanlin.serve.engine import Engine
from hanlin.serve.scheduler import Scheduler
from hanlin.serve.worker import Asked, Failed, Full, Line, Served, Worker
from hanlin.text.tokenizer import byte_level

TOKENIZER = byte_level()


def line(name="m", slots=4, queue=8, seed=0):
    model = build(seed=seed)
    words = Vocabulary(TOKENIZER, frozenset([1]))
    served = Served(name=name, created=0, tokenizer=TOKENIZER, chat=None, context=32, vocab=300, words=words)
    engine = Engine(model, TOKENIZER, frozenset([1]), slots=slots, length=32)
    return Line(served=served, engine=engine, scheduler=Scheduler(slots=slots, chunk=16, queue=queue))


@pytest.fixture
def lines():
    return [line("m"), line("other", seed=1)]


@pytest.fixture
def worker(lines):
    worker = Worker(lines)
    worker.start()
    yield worker
    worker.stop(0)
    assert not worker._thread.is_alive()


def asked(prompt=(5, 6, 7), model="m", client="a", **sampling):
    return Asked(
        model=model, prompt=prompt, sampling=Sampling(**{"limit": 8, "temperature": 0} | sampling), client=client
    )


async def whole(worker, each):
    """Return n -> ids of one request."""
    found = {}
    async for pieces in worker.submit(each):
        for piece in pieces:
            found.setdefault(piece.n, []).append(piece.id)
    return found


def alone(line, each):
    answers = decode.answers(line.engine.model, [each.prompt], each.sampling, stop_ids=frozenset([1]))
    return {answer.n: list(answer.ids) for answer in answers}


def test_many_at_once_each_as_alone(worker, lines):
    """Guards against pieces that reach another request, and against a second model that waits for the first."""
    requests = [asked((5 + i, 9), n=1 + i % 3, seed=i, temperature=i % 2, client=str(i)) for i in range(8)]
    requests += [asked((5 + i, 9), model="other") for i in range(4)]

    async def main():
        return await asyncio.gather(*(whole(worker, each) for each in requests))

    for each, found in zip(requests, asyncio.run(main())):
        assert found == alone(lines[each.model == "other"], each)
    assert worker.load() == (0, 0)


def test_a_limit_of_nothing_needs_no_engine(worker):
    """Guards against a request that never ends because no row ever finishes."""
    assert asyncio.run(whole(worker, asked(limit=0, n=2))) == {0: [None], 1: [None]}


def test_ending_one_that_asked_for_nothing_ends_no_other(worker, lines):
    """Guards against a number given twice: who closes the first request would close the second."""

    async def main():
        nothing = worker.submit(asked(limit=0))
        other = asyncio.ensure_future(whole(worker, asked(limit=20)))
        await asyncio.sleep(0.01)
        nothing.cancel()
        return await asyncio.wait_for(other, 10)

    assert asyncio.run(main()) == alone(lines[0], asked(limit=20))


def test_cancelling_frees_the_place(worker, lines):
    """Guards against a client that has gone and keeps a lane, a queue place or memory."""

    async def main():
        tickets = [worker.submit(asked(limit=29, client=str(i), n=2)) for i in range(4)]
        await anext(aiter(tickets[0]))
        for ticket in tickets:
            ticket.cancel()
            ticket.cancel()
        until = time.monotonic() + 1
        while (worker.load() != (0, 0) or lines[0].engine._rows) and time.monotonic() < until:
            await asyncio.sleep(0.01)
        assert worker.load() == (0, 0)
        assert not lines[0].engine._rows
        assert [pieces async for pieces in tickets[0]] == []
        return await whole(worker, asked())

    assert asyncio.run(main()) == alone(lines[0], asked())


def test_a_full_queue_says_when_to_come_back():
    """Guards against memory that grows with waiting requests; a thread that is not started keeps all waiting."""
    worker = Worker([line(queue=2)])
    worker._open, worker._thread.is_alive = True, lambda: True

    async def main():
        for _ in range(2):
            worker.submit(asked())
        with pytest.raises(Full) as caught:
            worker.submit(asked())
        worker.submit(asked(client="b"))
        return caught.value.retry_after_s

    assert 1 <= asyncio.run(main()) <= 60
    assert worker.load() == (0, 3)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"prompt": ()}, "prompt: no tokens"),
        ({"prompt": (300,)}, "prompt: a token that the model does not have; ids from 0 to 299"),
        ({"prompt": (-1,)}, "prompt: a token that the model does not have"),
        ({"prompt": (5,) * 30}, "context: 30 prompt tokens + 8 to write; at most 32 together"),
        ({"n": 5}, "n: 5; at most 4"),
        ({"logit_bias": {300: 1.0}}, "logit_bias: token 300"),
    ],
)
def test_what_can_never_run_is_said_at_once(worker, given, line):
    """Guards against a request that waits for ever, or breaks the step that it shares with others."""

    async def main():
        with pytest.raises(ConfigError) as caught:
            worker.submit(asked(**given))
        assert len(caught.value.problems) == 1
        return caught.value.problems[0]

    assert asyncio.run(main()).startswith(line)


def test_a_failed_step_ends_its_requests_and_nothing_else(worker, lines, monkeypatch, caplog):
    """Guards against requests that hang after a failure, and a thread that dies of it."""
    engine = lines[0].engine
    step, calls = engine.step, []

    def broken(plan):
        calls.append(plan)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return step(plan)

    monkeypatch.setattr(engine, "step", broken)

    async def main():
        found = await asyncio.gather(
            whole(worker, asked()), whole(worker, asked((9, 9), n=2)), whole(worker, asked(model="other")),
            return_exceptions=True,
        )  # fmt: skip
        assert [type(each) for each in found] == [Failed, Failed, dict]
        assert str(found[0]) == "server: the engine failed; the server's log says why"
        return await whole(worker, asked())

    assert asyncio.run(main()) == alone(lines[0], asked())
    assert "out of memory" in caplog.text
    assert worker.ready


def test_stopping_lets_requests_end(lines):
    """Guards against answers cut off by a restart, and against requests taken in while stopping."""
    worker = Worker(lines)
    worker.start()

    async def main():
        running = asyncio.create_task(whole(worker, asked(limit=29)))
        await asyncio.sleep(0.02)
        stopping = asyncio.create_task(asyncio.to_thread(worker.stop, 30))
        await asyncio.sleep(0.01)
        assert not worker.ready
        with pytest.raises(Failed, match="stopping"):
            worker.submit(asked())
        await stopping
        return await running

    assert asyncio.run(main()) == alone(lines[0], asked(limit=29))


def test_stopping_ends_what_does_not_end_in_time():
    """Guards against a server that never stops."""
    slow = line()
    worker = Worker([slow])
    step = slow.engine.step
    slow.engine.step = lambda plan: (time.sleep(0.1), step(plan))[1]
    worker.start()

    async def main():
        running = asyncio.create_task(whole(worker, asked(limit=29)))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await asyncio.to_thread(worker.stop, 0.2)
        assert time.monotonic() - began < 1.5
        with pytest.raises(Failed, match="the server is stopping"):
            await running

    asyncio.run(main())
