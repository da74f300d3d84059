"""One thread computes for every model; requests come from an event loop, and what they gain goes back there.

    event loop   submit ──> Ticket ── async for pieces ──> HTTP        cancel()
                   │ lock      ^ call_soon_threadsafe, once a step        │ lock
    thread         └> plan ─> step ─> deliver ─> plan …  models in turn  <┘

    event loop   order ──> Order.answered ──> HTTP      withdraw()     what is answered whole: predictions, vectors
    thread         └> take what waits ─> compute ─> settle             after each step of those who write

A step that fails ends the requests that were in it with `Failed`, and the engine starts over, empty.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from hanlin.errors import ConfigError, HanlinError, problem
from hanlin.generate.sampling import Sampling
from hanlin.serve.engine import Engine
from hanlin.serve.scheduler import Full as Full
from hanlin.serve.scheduler import Job, Key, Plan, Scheduler
from hanlin.serve.tasks.bulk import Bulk, Order, Settled, Taken, computed, settle

if TYPE_CHECKING:
    from hanlin.generate.constrain import Guide, Vocabulary
    from hanlin.serve.tasks.made import Abilities
    from hanlin.text.chat import Chat
    from hanlin.text.tokenizer import Tokenizer

log = logging.getLogger("hanlin.serve")

STOPPING = problem("server", "the server is stopping")
BROKEN = problem("server", "the engine failed; the server's log says why")
LONGEST_WAIT_S = 60  # what a full queue asks a client to wait at most


class Piece(NamedTuple):
    """What one answer of a request gained in one step."""

    n: int
    id: int | None
    text: str
    logprob: float | None
    top: tuple[tuple[int, float], ...] | None
    finish: Literal["stop", "length"] | None


class Failed(HanlinError):
    """The engine broke under this request, or was stopped."""


class Load(NamedTuple):
    """How busy the models are."""

    running: int  # rows that have a place
    waiting: int  # requests that have none


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One prompt, and how to continue it."""

    model: str
    prompt: tuple[int, ...]
    sampling: Sampling
    client: str
    guide: Guide | None = None  # where the answers keep to a grammar


@dataclass(frozen=True, kw_only=True)
class Served:
    """What clients may know of a model."""

    name: str
    created: int  # seconds since 1970
    tokenizer: Tokenizer
    chat: Chat | None
    context: int  # tokens of prompt and answer at most
    vocab: int
    words: Vocabulary
    fingerprint: str | None = None  # changes when the weights do
    able: Abilities | None = None  # None: it continues text, and that is all
    dim: int = 0  # of its vectors
    opening: tuple[int, ...] | None = None  # what an answer to a source begins with; None: prompts are continued
    never: tuple[int, ...] = ()  # tokens that it was told not to write

    @property
    def writes(self) -> bool:
        """Return whether it continues text, or answers it."""
        return self.able is None or self.able.writes

    def before(self, prompt: Sequence[int]) -> Sequence[int]:
        """Return the tokens that an answer stands behind: the prompt, or what every answer to a source begins with."""
        return prompt if self.opening is None else self.opening

    def room(self, prompt: Sequence[int]) -> int:
        """Return how many tokens can be written to a prompt; less than none where it is too long itself."""
        left = self.context - len(prompt)
        return left if self.opening is None or left < 0 else self.context - len(self.opening)

    @property
    def task(self) -> str:
        """Return what it is made for: "generate", a task's name, or "" where vectors are all it gives."""
        return "generate" if self.able is None else self.able.task


class Ticket:
    """The way back of one request: iterate over lists of pieces until every answer has ended."""

    def __init__(self, worker: Worker, model: str, job: int, n: int) -> None:
        """Open an empty way back to the running event loop."""
        self._worker = worker
        self._model = model
        self.loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[list[Piece] | Failed] = asyncio.Queue()
        self.n = n
        self._open = n  # answers that the reader has not seen end
        self.left = n  # answers that the thread has not seen end
        self.job = job

    def __aiter__(self) -> Self:
        """Return the ticket itself."""
        return self

    async def __anext__(self) -> list[Piece]:
        """Return what was gained since; Failed when nothing more can come."""
        if not self._open:
            raise StopAsyncIteration
        pieces = await self._queue.get()
        if isinstance(pieces, Failed):
            self._open = 0
            raise pieces
        self._open -= sum(piece.finish is not None for piece in pieces)
        return pieces

    def cancel(self) -> None:
        """Give the places up; they are free at the next step. Once more, or after the end, is no error."""
        self._open = 0
        self._worker.cancel(self._model, self.job)

    def put(self, pieces: list[Piece] | Failed) -> None:
        """Take in what a step brought; on the event loop."""
        self._queue.put_nowait(pieces)


@dataclass
class Line:
    """One model at work."""

    served: Served
    engine: Engine | None  # None: it does not continue text
    scheduler: Scheduler
    bulks: Mapping[str, Bulk] = field(default_factory=dict)  # of what is answered whole
    tickets: dict[int, Ticket] = field(default_factory=dict)
    leaving: list[Key] = field(default_factory=list)  # cancelled; their lanes are still taken
    asked: dict[int, Asked] = field(default_factory=dict)  # admitted since the last step


class Worker:
    """The thread and what it works on."""

    def __init__(self, lines: Iterable[Line]) -> None:
        """Keep the models; nothing runs yet."""
        self._lines = {line.served.name: line for line in lines}
        self.models: Mapping[str, Served] = {name: line.served for name, line in self._lines.items()}
        self._lock = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="hanlin-engine", daemon=True)
        self._open = False  # requests are taken
        self._stopping = False
        self._next = 0  # number of the next job
        self._seconds_per_job = 1.0  # lately, a running mean
        self._busy_s = 0.0  # since a request last ended
        self._computing: Taken = []  # by the step of a bulk that is under way

    @property
    def ready(self) -> bool:
        """Return whether requests are taken."""
        return self._open and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        self._open = True

    def stop(self, drain_s: float) -> None:
        """Refuse new requests, let the others end for `drain_s` seconds, end what is left with Failed, and join.

        Blocks: off the event loop, on which the answers still go out.
        """
        with self._lock:
            self._open = False
            self._lock.wait_for(lambda: not any(map(_open, self._lines.values())) and not self._computing, drain_s)
            self._stopping = True
            self._lock.notify_all()
        self._thread.join()
        for line in self._lines.values():
            self._fail(line, STOPPING)
            orders = [order for bulk in line.bulks.values() for order in bulk.orders]
            settle([(order, Failed(STOPPING)) for order in orders])

    def load(self) -> Load:
        """Return how busy all models are together."""
        with self._lock:
            lines = self._lines.values()
            whole = sum(bulk.waiting for line in lines for bulk in line.bulks.values())
            running = sum(line.scheduler.running for line in lines) + len(self._computing)
            return Load(running, sum(line.scheduler.waiting for line in lines) + whole)

    def submit(self, asked: Asked) -> Ticket:
        """Queue a request; Full when there is no room, ConfigError when it can never run. On the event loop."""
        line = self._lines[asked.model]
        _check(asked, line)
        with self._lock:
            if not self.ready:
                raise Failed(problem("server", "stopping", do="try another server"))
            job = Job(id=self._next, client=asked.client, prompt=len(asked.prompt), n=asked.sampling.n)
            self._next += 1
            ticket = Ticket(self, asked.model, job.id, job.n)
            if asked.sampling.limit == 0:
                ticket.put([Piece(n, None, "", None, None, "length") for n in range(job.n)])
                return ticket
            try:
                line.scheduler.admit(job)
            except Full as full:
                self._say_when(full, line.scheduler.waiting)
                raise
            line.tickets[job.id], line.asked[job.id] = ticket, asked
            self._lock.notify_all()
        return ticket

    def order(self, model: str, kind: str, client: str, units: Sequence[Any]) -> Order:
        """Queue what is answered whole, one unit or more; Full when there is no room. On the event loop."""
        bulk = self._lines[model].bulks[kind]
        order = Order(model, kind, client, units)
        with self._lock:
            if not self.ready:
                raise Failed(problem("server", "stopping", do="try another server"))
            try:
                bulk.admit(order)
            except Full as full:
                self._say_when(full, bulk.waiting)
                raise
            self._lock.notify_all()
        return order

    def withdraw(self, order: Order) -> None:
        """Forget an order, settled or not; what is being computed for it is thrown away."""
        with self._lock:
            self._lines[order.model].bulks[order.kind].withdraw(order)
            self._lock.notify_all()

    def _say_when(self, full: Full, waiting: int) -> None:
        """Note how long a client should wait where so many do already."""
        full.retry_after_s = max(1, min(LONGEST_WAIT_S, math.ceil(self._seconds_per_job * waiting)))

    def cancel(self, model: str, job: int) -> None:
        """Forget a job, finished or not."""
        line = self._lines[model]
        with self._lock:
            line.scheduler.cancel(job)
            ticket = line.tickets.pop(job, None)
            if ticket is not None and line.asked.pop(job, None) is None:  # the engine knows its rows
                line.leaving += [Key(job, n) for n in range(ticket.n)]
            self._lock.notify_all()

    def _run(self) -> None:
        """Step the models in turn while any has work."""
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._stopping or any(map(_busy, self._lines.values())))
                if self._stopping:
                    return
                lines = [line for line in self._lines.values() if _busy(line)]
            for line in lines:
                try:
                    self._step(line)
                except Exception:  # whatever breaks, the server lives on
                    log.exception("a step of %s failed", line.served.name)
                    self._fail(line, BROKEN)
                for bulk in line.bulks.values():
                    self._answer(bulk)

    def _answer(self, bulk: Bulk) -> None:
        """Compute what waits in a bulk, as far as one step goes, and hand out the orders that are whole."""
        with self._lock:
            self._computing = taken = bulk.take()
        if not taken:
            return
        began = time.perf_counter()
        results = computed(bulk, taken)
        with self._lock:
            out: Settled = []
            for (order, at), result in zip(taken, results, strict=True):
                order.left -= 1
                if isinstance(result, Exception):
                    bulk.withdraw(order)
                    out.append((order, result if isinstance(result, HanlinError) else Failed(BROKEN)))
                else:
                    order.outputs[at] = result
                    if not order.left:
                        out.append((order, order.outputs))
            self._computing = []
            self._count(len(out), time.perf_counter() - began)
            self._lock.notify_all()
        settle(out)

    def _step(self, line: Line) -> None:
        """Compute one step of one model and hand out what it brought."""
        if line.engine is None:
            return
        began = time.perf_counter()
        with self._lock:
            leaving, line.leaving = line.leaving, []
            opened, line.asked = line.asked, {}
            plan = line.scheduler.plan()
        for key in leaving:
            line.engine.close(key)
        for job, asked in opened.items():
            for n in range(asked.sampling.n):
                line.engine.open(Key(job, n), asked.prompt, asked.sampling, asked.guide)
        if plan == Plan((), (), ()):
            return
        pieces: dict[int, list[Piece]] = defaultdict(list)
        for key, step in line.engine.step(plan):
            pieces[key.job].append(Piece(key.n, step.id, step.text, step.logprob, step.top, step.finish))
        with self._lock:
            ended = [Key(job, each.n) for job, found in pieces.items() for each in found if each.finish is not None]
            for key in ended:
                line.scheduler.finish(key)
            out = [(line.tickets[job], found) for job, found in pieces.items() if job in line.tickets]
            self._count(len(ended), time.perf_counter() - began)
            for ticket, found in out:
                ticket.left -= sum(each.finish is not None for each in found)
                if not ticket.left:
                    del line.tickets[ticket.job]
            self._lock.notify_all()
        _deliver(out)

    def _count(self, ended: int, seconds: float) -> None:
        """Follow how long a request keeps the machine, for Retry-After."""
        self._busy_s += seconds
        if ended:
            self._seconds_per_job += 0.1 * (self._busy_s / ended - self._seconds_per_job)
            self._busy_s = 0.0

    def _fail(self, line: Line, why: str) -> None:
        """End every request of a model with Failed and start its engine over."""
        with self._lock:
            tickets = list(line.tickets.values())
            for ticket in tickets:
                line.scheduler.cancel(ticket.job)
            line.tickets.clear()
            line.asked.clear()
            line.leaving.clear()
            self._lock.notify_all()
        if line.engine is not None:
            line.engine.reset()
        _deliver([(ticket, Failed(why)) for ticket in tickets])


def _busy(line: Line) -> bool:
    return bool(line.leaving) or not line.scheduler.idle or any(bulk.waiting for bulk in line.bulks.values())


def _open(line: Line) -> bool:
    return bool(line.tickets) or any(bulk.waiting for bulk in line.bulks.values())


def _deliver(out: list[tuple[Ticket, list[Piece]]] | list[tuple[Ticket, Failed]]) -> None:
    """Put pieces into their tickets, on the event loop; a loop that has ended wants none."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, list[Piece] | Failed]]] = defaultdict(list)
    for ticket, found in out:
        loops[ticket.loop].append((ticket, found))
    for loop, each in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_put, each)


def _put(out: list[tuple[Ticket, list[Piece] | Failed]]) -> None:
    for ticket, found in out:
        ticket.put(found)


def _check(asked: Asked, line: Line) -> None:
    """Raise ConfigError with every reason why a request can never run."""
    problems = []
    tokens, sampling, known = len(asked.prompt), asked.sampling, f"ids from 0 to {line.served.vocab - 1}"
    if not tokens:
        problems.append(problem("prompt", "no tokens", "at least one, and this tokenizer adds no BOS"))
    elif not 0 <= min(asked.prompt) <= max(asked.prompt) < line.served.vocab:
        problems.append(problem("prompt", "a token that the model does not have", known))
    if sampling.limit > line.served.room(asked.prompt):
        given = f"{tokens} prompt tokens + {sampling.limit} to write"
        problems.append(problem("context", given, f"at most {line.served.context} together"))
    if sampling.n > line.scheduler.slots:
        problems.append(problem("n", f"{sampling.n}", f"at most {line.scheduler.slots}"))
    foreign = [token for token in sampling.logit_bias if token >= line.served.vocab]
    if foreign:
        problems.append(problem("logit_bias", f"token {foreign[0]}", known))
    if problems:
        raise ConfigError(*problems)
