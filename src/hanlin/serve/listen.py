"""One address, one server: from the first connection to the last answer.

    bind ─> worker.start ─> listening(url) ─> … ─ SIGTERM, Ctrl-C or stop() ─> /ready is 503, no new work
            ─> what runs may end, drain_s at most ─> the rest fails ─> connections close

uvicorn speaks HTTP; `Patient` adds what it leaves out: a deadline for headers, a bound on open connections, an end for
clients that stop reading, and errors in OpenAI's shape.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hanlin.errors import ConfigError, problem
from hanlin.serve.api import Api
from hanlin.serve.limits import Limits
from hanlin.serve.refusal import Refused

BACKLOG = 128  # connections that the system keeps until we take them
LAST_S = 5  # seconds for the last bytes to leave, once every answer has ended


class Settings(uvicorn.Config):
    """uvicorn's settings, and our limits beside them."""

    def __init__(self, app: Api, limits: Limits) -> None:
        """Switch off what uvicorn would log, trust or add by itself."""
        super().__init__(
            app,
            http=Patient,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            workers=1,
            h11_max_incomplete_event_size=limits.header_bytes,
            timeout_keep_alive=limits.idle_s,
            timeout_graceful_shutdown=LAST_S,
        )
        self.limits = limits


class Clock:
    """Does something once, unless stopped before."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        """Stand still."""
        self.seconds = seconds
        self.action = action
        self.running: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Run from now; a clock that runs is not wound up again."""
        if self.running is None:
            self.running = asyncio.get_running_loop().call_later(self.seconds, self.action)

    def stop(self) -> None:
        """Stand still."""
        if self.running is not None:
            self.running.cancel()
            self.running = None


class Patient(H11Protocol):
    """One connection, whose client may be slow, but not for ever."""

    config: Settings

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own
        """Set the clocks."""
        super().__init__(*args, **kwargs)
        limits = self.config.limits
        self.late = Clock(limits.header_s, self._too_late)  # for headers that do not come
        self.stalled = Clock(limits.stall_s, lambda: self.transport.abort())  # for an answer that is not read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request; turn the connection away when there are too many."""
        # asyncio does so for sockets that name TCP as their protocol; those of create_server do not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        if len(self.connections) > self.config.limits.connections:
            line = problem("connections", "too many", f"at most {self.config.limits.connections}", do="try again")
            self._refuse(Refused(429, line, code="rate_limit_exceeded", headers={"Retry-After": "1"}))
        else:
            self.late.start()

    def data_received(self, data: bytes) -> None:
        """Take bytes in; between requests the clock runs, and more bytes do not wind it up again."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.late.stop()
        elif not self.transport.is_closing():
            self.late.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self.late.stop()
        self.stalled.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the clock of a client that does not read."""
        super().pause_writing()
        self.stalled.start()

    def resume_writing(self) -> None:
        """Stop the clock: it reads again."""
        super().resume_writing()
        self.stalled.stop()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, and give up on one that leaves the last answer unread."""
        super().timeout_keep_alive_handler()
        self.stalled.start()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, with the status h11 means, and forget the request it may have been part of."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        given = "headers too large" if status == 431 else "not valid HTTP"
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refuse(Refused(status, problem("request", given), code="bad_request"))

    def _too_late(self) -> None:
        """Turn away a client whose headers did not come in time."""
        if not self.transport.is_closing():
            given = f"no whole headers after {self.config.limits.header_s:g} s"
            self._refuse(Refused(408, problem("request", given), code="timeout"))

    def _refuse(self, refused: Refused) -> None:
        """Close, with a refusal where nothing has been answered yet."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        answer = refused.response()
        headers = [*answer.raw_headers, (b"connection", b"close")]
        reason = HTTPStatus(refused.status).phrase.encode()
        head = h11.Response(status_code=refused.status, headers=headers, reason=reason)
        for each in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(each) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """A bound address, and what happens there until it is told to stop."""

    config: Settings

    def __init__(
        self, app: Api, address: socket.socket, *, drain_s: float, listening: Callable[[str], None] | None = None
    ) -> None:
        """Serve at `address`; `listening` is called with the URL once connections are taken."""
        super().__init__(Settings(app, app.limits))
        self.worker = app.worker
        self.address = address
        self.drain_s = drain_s
        self.listening = listening

    @property
    def url(self) -> str:
        """Return where the server is, with its real port."""
        host, port = self.address.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped: by a signal where this is the main thread, by `stop` anywhere."""
        super().run(sockets or [self.address])

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does; from any thread."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the worker, then take connections."""
        self.worker.start()
        await super().startup(sockets)
        if self.listening is not None:
            self.listening(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new work, still answering /ready, until what runs has ended; a second Ctrl-C does not wait."""
        draining = threading.Thread(target=self.worker.stop, args=(self.drain_s,), daemon=True)
        draining.start()
        while draining.is_alive():
            if self.force_exit:
                self.force_exit = False  # what runs ends with an error now, which leaves LAST_S seconds to say so
                await asyncio.to_thread(self.worker.stop, 0)
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and Ctrl-C as a wish to stop; unlike uvicorn's, a stop that went well raises them no more."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, any free port for 0; ConfigError when it is not to be had."""
    if not 0 <= port < 2**16:
        raise ConfigError(problem("port", f"{port}", "from 0 to 65535"))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(problem(f"{host}:{port}", f"{error}", do="choose another port; 0 finds a free one")) from None


def serve(
    app: Api,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    drain_s: float = 30.0,
    listening: Callable[[str], None] | None = None,
) -> None:
    """Start the worker, serve until SIGTERM or Ctrl-C, let what runs end for `drain_s` seconds, and return."""
    Server(app, bind(host, port), drain_s=drain_s, listening=listening).run()
