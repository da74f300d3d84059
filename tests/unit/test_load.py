"""The load generator's arithmetic, on a server that lives in a list and a clock that stands still."""

import asyncio
import json
import statistics
import sys
from collections import Counter
from itertools import islice

import httpx
import pytest

from benchmarks.serve import peers
from benchmarks.serve.__main__ import OURS, prompts, report
from benchmarks.serve.load import Answer, Load, Round, Target, ask, connect, percentile, play, summary
from hanlin.text.tokenizer import train_bpe

LOAD = Load(prompt=5, answer=3)
TARGET = Target(url="http://fake/v1/", model="m", key="k", extra={"ignore_eos": True})


def event(text="", **more):
    """Return one event of a stream."""
    return f"data: {json.dumps({'choices': [{'text': text}], **more})}\n\n"


def usage(prompt=5, answer=3):
    """Return the event in which a server says what it counted."""
    return event(usage={"prompt_tokens": prompt, "completion_tokens": answer})


class Script(httpx.AsyncByteStream):
    """Pieces of a body, each at its moment of a clock; an exception among them breaks the connection."""

    def __init__(self, clock, pieces):
        self.clock, self.pieces = clock, pieces

    async def __aiter__(self):
        for moment, piece in self.pieces:
            self.clock.now = moment
            if isinstance(piece, Exception):
                raise piece
            yield piece.encode()


class Clock:
    """A clock that stands still until a script moves it."""

    now = 0.0

    def __call__(self):
        return self.now


def asked(pieces, status=200, seen=None):
    """Return the answer that a client reports for a server with this script."""
    clock = Clock()

    def reply(request):
        if seen is not None:
            seen.append(request)
        return httpx.Response(status, stream=Script(clock, pieces))

    async def go():
        async with connect(TARGET, LOAD, httpx.MockTransport(reply)) as http:
            return await ask(http, TARGET, LOAD, "a b c", clock)

    return asyncio.run(go())


def whole(first, last, tokens=3, start=0.0):
    """Return an answer without a problem."""
    return Answer(asked=start, first=first, last=last, tokens=tokens)


def test_times_of_an_answer():
    """An empty first event, [DONE], or an event cut in two moves neither the first token nor the last."""
    cut = event("c")
    pieces = [
        *((1.0, event("")), (2.0, event("a") + event("b")), (3.0, cut[:9]), (4.0, cut[9:])),
        *((6.0, usage()), (9.0, "data: [DONE]\n\n")),
    ]
    answer = asked(pieces)
    assert answer.problem is None
    assert (answer.wait, answer.last, answer.tokens) == (2.0, 6.0, 3)
    assert answer.pace == 2.0  # two tokens after the first in four seconds


def test_what_is_asked():
    """A request without stream, key or the server's own switch would measure something else."""
    seen = []
    asked([(1.0, event("a") + usage())], seen=seen)
    body = json.loads(seen[0].content)
    assert str(seen[0].url) == "http://fake/v1/completions"
    assert seen[0].headers["Authorization"] == "Bearer k"
    assert body["stream"] is True
    assert (body["temperature"], body["max_tokens"], body["ignore_eos"]) == (0, 3, True)


@pytest.mark.parametrize(
    ("pieces", "status", "says"),
    [
        ([(1.0, "busy")], 429, "status 429: busy"),
        ([(1.0, event("a")), (2.0, 'data: {"error": "broke"}\n\n')], 200, "error: broke"),
        ([(1.0, event("a"))], 200, "without usage"),
        ([(1.0, usage(answer=2))], 200, "5 tokens in and 2 out"),
        ([(1.0, usage(prompt=6))], 200, "6 tokens in and 3 out"),
        ([(1.0, event("a")), (2.0, httpx.ReadError("gone"))], 200, "ReadError: gone"),
        ([(1.0, "data: {broken\n\n")], 200, "JSONDecodeError"),
        ([], 200, "without usage"),
    ],
)
def test_failures_are_told_and_count_no_tokens(pieces, status, says):
    """A server that refuses, breaks off or stops early must not look fast."""
    answer = asked(pieces, status)
    assert says in answer.problem
    assert answer.tokens == 0


def test_clients_ask_at_the_same_time_and_each_one_after_the_other():
    """Clients that wait for each other would measure one client N times."""
    inside, most, order = Counter(), [], []

    async def reply(request):
        prompt = json.loads(request.content)["prompt"]
        inside[prompt[0]] += 1
        most.append(inside.copy())
        order.append(prompt)
        for _ in range(3):
            await asyncio.sleep(0)
        inside[prompt[0]] -= 1
        return httpx.Response(200, text=event("a") + usage())

    async def go():
        async with connect(TARGET, LOAD, httpx.MockTransport(reply)) as http:
            return await play(http, TARGET, LOAD, [["a1", "a2"], ["b1", "b2"], ["c1", "c2"]])

    done = asyncio.run(go())
    assert [len(answers) for answers in done.clients] == [2, 2, 2]
    assert not done.problems
    assert max(each.total() for each in most) == 3
    assert max(max(each.values()) for each in most) == 1
    assert all(order.index(f"{name}1") < order.index(f"{name}2") for name in "abc")


def test_a_round():
    """Tokens of failures, times from the wrong end, or a mean instead of the median client hide a starved one."""
    bad = Answer(asked=1.0, first=8.0, last=8.0, tokens=0, problem="broke")
    one = Round(clients=((whole(1, 2), whole(3, 4, start=2.0)), (whole(1, 4),), (bad, whole(9, 10, 5, start=8.0))))
    assert one.seconds == 10.0
    assert one.rate == (3 + 3 + 3 + 5) / 10
    assert one.slowest == 9 / 4  # 4, 4 and 9 seconds
    assert one.problems == ["broke"]


def test_summary():
    """Waits are pooled over rounds, rates are medians of rounds, the slowest client is the worst round's."""
    rounds = [
        Round(clients=((whole(1, 4),), (whole(2, 4),)), cpu_s=1.0),
        Round(clients=((whole(3, 6),), (whole(4, 12),)), cpu_s=1.0),
        Round(clients=((whole(5, 8),), (Answer(asked=0, first=8, last=8, tokens=0, problem="broke"),))),
    ]
    found = summary(rounds)
    assert found.rates == (3 / 8, 6 / 4)
    assert found.rate == 6 / 12
    assert (found.wait50, found.wait95) == pytest.approx((3.0, 4.8))
    assert found.pace == 1.5
    assert found.slowest == 12 / 9
    assert (found.asked, found.problems) == (6, {"broke": 1})
    assert found.cpu == pytest.approx(2 / 24)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95, 0.99, 1.0])
def test_percentiles_are_the_usual_ones(share):
    """An off-by-one at the upper end reports the maximum as p95."""
    values = [7.0, 1.0, 5.0, 2.0, 2.0, 11.0, 3.0]
    cuts = [min(values), *statistics.quantiles(values, n=100, method="inclusive"), max(values)]
    assert percentile(values, share) == pytest.approx(cuts[round(share * 100)])
    assert percentile([4.0], share) == 4.0


def test_prompts_have_exactly_the_tokens():
    """A prompt one token off makes every answer a failure; the same prompt twice measures a cache."""
    tokenizer = train_bpe(["the cat sat on the mat and the dog sat on the cat " * 20], 300)
    found = list(islice(prompts(tokenizer, 12, seed=1), 20))
    assert {len(tokenizer.encode(text).ids) for text in found} == {12}
    assert len(set(found)) == 20
    assert found == list(islice(prompts(tokenizer, 12, seed=1), 20))


def test_the_table_says_who_is_faster():
    """A ratio the wrong way round praises the slower server."""

    def rounds(seconds):
        return summary([Round(clients=((whole(1, seconds, 12),),))])

    found = {("peer", 1): rounds(6), (OURS, 1): rounds(4), ("peer", 8): rounds(3), (OURS, 8): rounds(2)}
    cells = [[cell.strip() for cell in line.split("|")[1:7]] for line in report(found).splitlines()[2:6]]
    assert [line[:2] for line in cells] == [["1", "peer"], ["1", OURS], ["8", "peer"], ["8", OURS]]
    assert [line[3] for line in cells] == ["1.00 x", "1.00 x", "2.00 x", "2.00 x"]  # against one client
    assert [line[4] for line in cells] == ["1.50 x", "1.00 x", "1.50 x", "1.00 x"]  # hanlin against it


def server(port, *command):
    """Return a server that this Python runs."""
    url = f"http://127.0.0.1:{port}/"
    return peers.Server(name="it", command=[sys.executable, *command], ready=url, target=Target(url=url, model="m"))


def test_a_server_that_ends_says_why(tmp_path):
    """A peer that does not start must not leave an empty table without a reason."""
    broken = server(peers.free_port(), "-c", "print('no memory'); raise SystemExit(3)")
    with pytest.raises(peers.Dead, match=r"(?s)it ended with 3.*no memory"), peers.running(broken, tmp_path / "log"):
        pass
    missing = peers.Server(name="it", command=["/nowhere"], ready="", target=TARGET)
    with pytest.raises(peers.Dead, match="nowhere"), peers.running(missing, tmp_path / "log"):
        pass


@pytest.mark.multiprocess
def test_a_server_is_stopped_whatever_happens(tmp_path):
    """A server left behind takes the cores from the next one, and keeps them after Ctrl-C."""
    port = peers.free_port()
    files = server(port, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path))
    started = []

    def interrupted():
        with peers.running(files, tmp_path / "log") as process:
            started.append(process)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [process.poll() is None for process in started] == [False]
