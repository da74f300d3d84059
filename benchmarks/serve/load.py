"""Clients that ask a server at the same time, and what they see of it.

    client 0   asked ──── first ─ ─ ─ ─ last, asked ── first ─ ─ ─ ─ ─ last
    client 1   asked ────── first ─ ─ ─ ─ ─ last, asked ─── first ─ ─ ─ last
               └─ wait ───┘ └─ writing ────┘
               └───────────────────────── a round ──────────────────────────┘

Any server of OpenAI's `/v1/completions` will do, streamed, greedy. An answer counts when the server's own usage says
that prompt and answer had the tokens wanted; every other answer is a failure, and its tokens are not counted.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

LAST = 3  # events at the end of a stream among which the usage stands


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server to ask: its address up to `/v1`, the model's name there, its key, and what else each request says."""

    url: str
    model: str
    key: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What each request wants: tokens of the prompt and of the answer, and how long a silence may last."""

    prompt: int = 128
    answer: int = 64
    timeout_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request as its client saw it, moments in seconds of one clock; `problem` is None where all went well."""

    asked: float
    first: float  # the first event with text
    last: float  # the last event
    tokens: int
    problem: str | None = None

    @property
    def wait(self) -> float:
        """Return the seconds until the first token."""
        return self.first - self.asked

    @property
    def pace(self) -> float:
        """Return the seconds for each token after the first."""
        return (self.last - self.first) / max(1, self.tokens - 1)


@dataclass(frozen=True, kw_only=True)
class Round:
    """All answers of all clients, asked at the same time; client -> its answers one after the other."""

    clients: tuple[tuple[Answer, ...], ...]
    cpu_s: float = 0.0  # what the clients themselves computed

    @property
    def good(self) -> list[Answer]:
        """Return the answers that are whole."""
        return [answer for answers in self.clients for answer in answers if answer.problem is None]

    @property
    def problems(self) -> list[str]:
        """Return what went wrong, one for each answer that is not whole."""
        return [answer.problem for answers in self.clients for answer in answers if answer.problem is not None]

    @property
    def seconds(self) -> float:
        """Return how long the round took, from the first question to the end of the last answer."""
        answers = [answer for answers in self.clients for answer in answers]
        return max(each.last for each in answers) - min(each.asked for each in answers)

    @property
    def rate(self) -> float:
        """Return tokens a second over the whole round."""
        return sum(each.tokens for each in self.good) / self.seconds

    @property
    def slowest(self) -> float:
        """Return the time of the slowest client over that of the median client."""
        times = [answers[-1].last - answers[0].asked for answers in self.clients]
        return max(times) / statistics.median(times)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What several rounds say: rates by round, waits and paces over all answers."""

    rate: float  # median
    rates: tuple[float, float]  # lowest, highest
    wait50: float
    wait95: float
    pace: float  # median
    slowest: float  # the worst round's
    asked: int
    problems: Counter[str]
    cpu: float  # the clients' share of one core


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a `share` of the values lies, on the line between its two neighbours.

    >>> percentile([1.0, 2.0, 4.0], 0.75)
    3.0
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def summary(rounds: Sequence[Round]) -> Summary:
    """Return what the rounds say together; at least one answer must be whole."""
    good = [answer for each in rounds for answer in each.good]
    waits, rates = [answer.wait for answer in good], [each.rate for each in rounds]
    problems = Counter(problem for each in rounds for problem in each.problems)
    return Summary(
        rate=statistics.median(rates),
        rates=(min(rates), max(rates)),
        wait50=percentile(waits, 0.5),
        wait95=percentile(waits, 0.95),
        pace=statistics.median(answer.pace for answer in good),
        slowest=max(each.slowest for each in rounds),
        asked=len(good) + problems.total(),
        problems=problems,
        cpu=sum(each.cpu_s for each in rounds) / sum(each.seconds for each in rounds),
    )


def connect(target: Target, load: Load, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """Return an HTTP client for any number of requests at a time; no proxy stands between.

    Each request has its own connection: a server may close a kept one at the moment at which it is used again.
    """
    return httpx.AsyncClient(
        base_url=target.url,
        headers={"Authorization": f"Bearer {target.key}"} if target.key else {},
        timeout=httpx.Timeout(load.timeout_s, connect=30),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,
        transport=transport,
    )


async def play(
    http: httpx.AsyncClient,
    target: Target,
    load: Load,
    prompts: Sequence[Sequence[str]],
    clock: Callable[[], float] = time.perf_counter,
) -> Round:
    """Let one client for each list of prompts ask them one after the other, all clients at the same time."""

    async def client(own: Sequence[str]) -> tuple[Answer, ...]:
        return tuple([await ask(http, target, load, prompt, clock) for prompt in own])

    began = time.process_time()
    answers = await asyncio.gather(*(client(own) for own in prompts))
    return Round(clients=tuple(answers), cpu_s=time.process_time() - began)


async def ask(
    http: httpx.AsyncClient, target: Target, load: Load, prompt: str, clock: Callable[[], float] = time.perf_counter
) -> Answer:
    """Ask once and read the stream to its end; whatever goes wrong is the answer's `problem`."""
    body = {
        "model": target.model,
        "prompt": prompt,
        "max_tokens": load.answer,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **target.extra,
    }
    asked = clock()
    first = None
    tail: deque[str] = deque(maxlen=LAST)  # read at the end: the clients have little time of their own
    try:
        async with http.stream("POST", "completions", json=body) as reply:
            if reply.status_code != 200:
                text = (await reply.aread()).decode(errors="replace")
                return _failed(asked, clock(), f"status {reply.status_code}: {text[:200]}")
            last = asked
            async for line in reply.aiter_lines():
                event = line.removeprefix("data:").strip()
                if event == line or event == "[DONE]":
                    continue
                last = clock()
                tail.append(event)
                if first is None and any(_texts(event)):
                    first = last
        problem, tokens = _checked(tail, load)
    except (httpx.HTTPError, ValueError) as error:
        return _failed(asked, clock(), f"{type(error).__name__}: {error}")
    if problem is not None:
        return _failed(asked, last, problem)
    return Answer(asked=asked, first=last if first is None else first, last=last, tokens=tokens)


def _failed(asked: float, ended: float, problem: str) -> Answer:
    return Answer(asked=asked, first=ended, last=ended, tokens=0, problem=problem)


def _texts(event: str) -> Iterator[str]:
    return (choice.get("text") or "" for choice in json.loads(event).get("choices") or [])


def _checked(tail: Sequence[str], load: Load) -> tuple[str | None, int]:
    """Return what is wrong with a stream that ends so, if anything, and how many tokens it says it wrote."""
    events = [json.loads(event) for event in tail]
    error = next((event["error"] for event in events if event.get("error")), None)
    if error is not None:
        return f"the stream ends in an error: {error}"[:200], 0
    usage = next((event["usage"] for event in events if event.get("usage")), None)
    if usage is None:
        return "the stream ends without usage", 0
    counts = usage["prompt_tokens"], usage["completion_tokens"]
    if counts != (load.prompt, load.answer):
        return f"{counts[0]} tokens in and {counts[1]} out, not {load.prompt} and {load.answer}", 0
    return None, counts[1]
