"""From prompts to an HTTP answer: queued, counted, written, and given up when nobody waits for it.

prompts ─ worker.submit ─> tickets ─ stream.steps ─ Meter ─> Reply.whole ──> one JSON
                              │                          └─> Reply.events ─> Events
                              └── cancel: the client left, time is up, the answer is out, anything broke
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hanlin.errors import ConfigError, HanlinError, nearest, problem
from hanlin.generate.constrain import Guide
from hanlin.serve import guard, protocol, stream
from hanlin.serve.limits import Limits
from hanlin.serve.refusal import Refused, refusal, unready
from hanlin.serve.telemetry import Meter, Telemetry
from hanlin.serve.worker import Asked, Served, Ticket, Worker

log = logging.getLogger("hanlin.serve")

T = TypeVar("T")
R = TypeVar("R", bound=protocol.Request)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where requests are handed in."""

    worker: Worker
    limits: Limits
    telemetry: Telemetry
    compiling: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))  # a grammar at a time


class Work:
    """One request in the worker's hands."""

    def __init__(self, desk: Desk, reply: stream.Reply, client: str, guides: Sequence[Guide | None]) -> None:
        """Queue every prompt, or none; Refused where the context has no room, Full where the queue has none."""
        self.reply = reply
        self.tickets: list[Ticket] = []
        limit = protocol.needed(reply.asked, reply.prompts, reply.served)
        try:
            for prompt, guide in zip(reply.prompts, guides, strict=True):
                settings = protocol.sampling(reply.asked, limit, reply.served.never)
                asked = Asked(
                    model=reply.served.name, prompt=tuple(prompt), sampling=settings, client=client, guide=guide
                )
                self.tickets.append(desk.worker.submit(asked))
        except BaseException:
            self._cancel()
            raise
        self.meter = Meter(desk.telemetry, reply.served.name, sum(map(len, reply.prompts)))

    async def steps(self) -> stream.Steps:
        """Yield what the prompts gain, and count it."""
        async with aclosing(stream.steps(self.tickets)) as found:
            async for index, pieces in found:
                self.meter.wrote(sum(piece.id is not None for piece in pieces))
                yield index, pieces
        self.meter.ended = True

    def close(self) -> None:
        """Give back every place that is still held."""
        self._cancel()
        self.meter.close()

    def _cancel(self) -> None:
        for ticket in self.tickets:
            ticket.cancel()


def desk(request: Request) -> Desk:
    """Return the desk of the application that a request came to."""
    found = request.app.desk
    assert isinstance(found, Desk)
    return found


async def read(kind: type[R], request: Request) -> tuple[R, Served]:
    """Return a request's body, read and checked, and the model it names."""
    here = desk(request)
    if not here.worker.ready:
        raise unready()
    data = await guard.body(request, here.limits)
    asked = await asyncio.to_thread(protocol.request, kind, data)
    return asked, model_of(request, asked.model)


def model_of(request: Request, name: str) -> Served:
    """Return the model of a name; Refused (404) when there is none."""
    known = desk(request).worker.models
    request.scope["hanlin.model"] = name
    if name not in known:
        near = nearest(name[:256], known)
        line = problem("model", f"{name[:256]!r} is not served here", f"known: {', '.join(known)}", near)
        raise Refused(404, line, param="model", code="model_not_found")
    return known[name]


async def answer(desk: Desk, request: Request, reply: stream.Reply) -> Response:
    """Return the answer to a request, whole or as events."""
    work = Work(desk, reply, guard.client(request), await _guides(desk, reply))
    if reply.asked.stream:
        return Events(work, desk)
    try:
        async with asyncio.timeout(desk.limits.request_s):
            data = await while_there(request.receive, reply.whole(work.steps()))
    except TimeoutError:
        raise overdue(desk.limits) from None
    finally:
        work.close()
    return Response(data, media_type="application/json")


async def _guides(desk: Desk, reply: stream.Reply) -> Sequence[Guide | None]:
    """Return a guide for each prompt where the answers have a format; Refused (400) for one that cannot be kept.

    Grammars are compiled in a thread, one at a time: hostile ones take each other's time, nobody else's.
    """
    grammar, words = protocol.grammar(reply.asked), reply.served.words
    if grammar is None:
        return [None] * len(reply.prompts)
    try:
        async with desk.compiling:
            return await asyncio.to_thread(
                lambda: [words.guide(grammar, reply.served.before(each)) for each in reply.prompts]
            )
    except ConfigError as error:
        lines = [line.replace("grammar: ", "response_format: ", 1) for line in error.problems]
        raise Refused(400, *lines, param="response_format") from None


def overdue(limits: Limits) -> Refused:
    """Return what is said when an answer takes too long."""
    return Refused(504, problem("server", f"no whole answer after {limits.request_s:g} s"), code="timeout")


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; ClientDisconnect, and the work cancelled, as soon as the client has left."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    """Return once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Events(Response):
    """A stream of server-sent events, which gives its places back however it ends."""

    media_type = "text/event-stream"

    def __init__(self, work: Work, desk: Desk) -> None:
        """Keep the work; it is read when the response is sent."""
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.work = work
        self.desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the last, or until the client leaves."""
        try:
            await while_there(receive, self._write(send))
        finally:
            self.work.close()

    async def _write(self, send: Send) -> None:
        """Send the events; where something breaks on the way, that is the last one."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        last = b""
        try:
            async with asyncio.timeout(self.desk.limits.request_s):
                await self._send(send)
        except TimeoutError:
            last = stream.failure(overdue(self.desk.limits))
        except Exception as error:
            if not isinstance(error, HanlinError):
                log.exception("a stream failed")
            last = stream.failure(refusal(error, ready=self.desk.worker.ready))
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send(self, send: Send) -> None:
        async with aclosing(self.work.reply.events(self.work.steps())) as events:
            async for each in events:
                await send({"type": "http.response.body", "body": each, "more_body": True})
