"""What stands in front of every route: who asks, for which host, with how much, and what is written down.

request ─ Host known? ─ key known? ─────────────────────> route ─> answer
          403           401  (not /health, /ready)                   │
log       method, path, status, seconds, whose key  <────────────────┘    never a query, a body or a key
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hanlin.errors import ConfigError, problem
from hanlin.serve.limits import Limits
from hanlin.serve.refusal import Refused, refusal

if TYPE_CHECKING:
    from hanlin.serve.telemetry import Telemetry

log = logging.getLogger("hanlin.serve")

OPEN = frozenset({"/health", "/ready"})  # they say nothing, to anyone
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
SHORTEST = 8  # characters of a key
SHOWN = 200  # characters of each word in the log


class Keys:
    """The keys that open the server, kept as hashes alone."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """Take name -> key; ConfigError where there is none or one is too easily guessed."""
        found = [
            problem(f"key '{name}'", "too short, or not plain text", f"at least {SHORTEST} ASCII characters, no spaces")
            for name, key in keys.items()
            if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key
        ]
        if not keys:
            found.append(problem("keys", "none", "at least one: whoever reaches the port could use the models"))
        if found:
            raise ConfigError(*found)
        self._hashes = {name: hashlib.sha256(key.encode()).digest() for name, key in keys.items()}

    def owner(self, headers: Collection[tuple[bytes, bytes]]) -> str | None:
        """Return whose key `Authorization: Bearer KEY` holds, or None; every key is compared, in constant time."""
        found = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = (found[0] if len(found) == 1 else b"").partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        same = [name for name, kept in self._hashes.items() if hmac.compare_digest(given, kept)]
        return same[0] if same and scheme.lower() == b"bearer" else None


class Guard:
    """Middleware around all routes."""

    def __init__(
        self, app: ASGIApp, *, keys: Keys, hosts: Collection[str] | None, limits: Limits, telemetry: Telemetry
    ) -> None:
        """Wrap `app`; `hosts` are the names it answers to, None any."""
        self.app = app
        self.keys = keys
        self.hosts = hosts
        self.limits = limits
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; whatever breaks inside, the client reads OpenAI's JSON."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            self._admit(scope)
            await self.app(scope, receive, watched)
        except Exception as error:
            if not isinstance(error, Refused | ClientDisconnect):
                log.exception("a request failed")
            if not status and not isinstance(error, ClientDisconnect):
                await refusal(error).response()(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - began
            self.telemetry.request(scope, status or 499, seconds)
            log.info("%s", line(scope, status or 499, seconds))

    def _admit(self, scope: Scope) -> None:
        """Note whose request it is; Refused when it is nobody's, for another host, too large, or perhaps two."""
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:  # RFC 9112, 6.1
            both = problem("body", "both Content-Length and Transfer-Encoding", "one of them")
            raise Refused(400, both, code="bad_request", headers={"Connection": "close"})
        first = len(scope.get("raw_path", b"")) + len(scope["query_string"])
        if first + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self.limits.header_bytes:
            large = problem("headers", "too large", f"at most {self.limits.header_bytes:,} bytes")
            raise Refused(431, large, code="too_large")
        if self.hosts is not None and not _named(scope, self.hosts):
            raise Refused(
                403, problem("Host", "not this server", f"one of: {', '.join(sorted(self.hosts))}"), code="wrong_host"
            )
        if scope["path"] in OPEN:
            return
        owner = self.keys.owner(scope["headers"])
        if owner is None:
            wrong = problem("Authorization", "no key that this server knows", do="send Authorization: Bearer KEY")
            raise Refused(401, wrong, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        scope["hanlin.owner"] = owner


def _named(scope: Scope, hosts: Collection[str]) -> bool:
    """Return whether the one Host header names one of `hosts`: a page can rebind its own name to 127.0.0.1."""
    found = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    host = found[0].lower() if len(found) == 1 else ""
    name, colon, port = host.rpartition(":")
    return host in hosts or (bool(colon) and port.isdigit() and name in hosts)


def client(request: Request) -> str:
    """Return who asks, for a fair queue: the key's name and the address."""
    return f"{request.scope['hanlin.owner']} {request.client.host if request.client else ''}"


def line(scope: Scope, status: int, seconds: float) -> str:
    """Return one line for the log, in which nothing a client sends can look like another line."""
    address = scope["client"][0] if scope.get("client") else "-"
    words = (address, scope.get("hanlin.owner", "-"), scope["method"], scope["path"])
    return " ".join([*(ascii(each[:SHOWN])[1:-1] for each in words), str(status), f"{seconds:.3f} s"])


async def body(request: Request, limits: Limits, *, form: bool = False) -> bytes:
    """Return the request's body, JSON or a form; Refused: too large (413), too slow (408), not that (415)."""
    wanted = "multipart/form-data" if form else "application/json"
    most = limits.upload_bytes if form else limits.body_bytes
    seconds = limits.upload_s if form else limits.body_s
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != wanted:
        raise Refused(415, problem("Content-Type", f"{kind[:60]!a}", wanted), code="unsupported_media_type")
    too_large = Refused(413, problem("body", "too large", f"at most {most:,} bytes"), code="too_large")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > most:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                data += chunk
                if len(data) > most:
                    raise too_large
    except TimeoutError:
        slow = problem("body", f"not here after {seconds:g} s", do="send it faster, or in smaller requests")
        raise Refused(408, slow, code="timeout", headers={"Connection": "close"}) from None
    return bytes(data)
