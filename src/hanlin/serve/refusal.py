"""Requests that get no answer, said the way OpenAI says it.

HanlinError ───────── 400          {"error": {"message": one line a problem,
Refused ───────────── its status              "type": what kind of mistake,
Full ──────────────── 429                     "param": the field, or null,
Failed ────────────── 500, 503                "code": a word for programs, or null}}
HTTPException ─────── its status
anything else ─────── 500, without a word about it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from hanlin.errors import HanlinError, problem
from hanlin.serve.scheduler import Full
from hanlin.serve.worker import Failed

TYPES = {403: "permission_error", 429: "rate_limit_error"}
LONGEST = 4_000  # characters of a message


class Refused(HanlinError):
    """A request turned away: the HTTP status, and what OpenAI's clients look at."""

    def __init__(
        self,
        status: int,
        *problems: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep one line a problem, as every HanlinError."""
        super().__init__(*problems)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def content(self) -> dict[str, object]:
        """Return what clients read, for JSON."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": str(self)[:LONGEST], "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        """Return the HTTP response."""
        return JSONResponse(self.content, self.status, self.headers)


def refusal(error: Exception, *, ready: bool = True) -> Refused:
    """Return any error as what a client is told; `ready` is False when the server starts or stops."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Full):
        return Refused(
            429, *error.problems, code="rate_limit_exceeded", headers={"Retry-After": str(error.retry_after_s)}
        )
    if isinstance(error, Failed):
        return Refused(500, *error.problems, code="engine_failed") if ready else unready()
    if isinstance(error, HanlinError):
        return Refused(400, *error.problems, param=field(error.problems[0]))
    if isinstance(error, HTTPException):
        return Refused(error.status_code, _said(error), code=_CODES.get(error.status_code), headers=error.headers)
    return Refused(500, problem("server", "an error of its own", do="the server's log says which"))


def unready() -> Refused:
    """Return what is said before the models are ready, and while the server stops."""
    line = problem("server", "not ready: it is loading or stopping", do="try again")
    return Refused(503, line, code="not_ready", headers={"Retry-After": "5"})


def field(line: str) -> str | None:
    """Return the request's field that a problem is about, as OpenAI writes it, or None.

    >>> field("messages.0.role: missing")
    'messages[0].role'
    """
    found = re.match(r"[a-z_]+(\.\w+)*(?=: )", line)
    return re.sub(r"\.(\d+)", r"[\1]", found[0]) if found else None


_CODES = {404: "unknown_url", 405: "method_not_allowed"}


def _said(error: HTTPException) -> str:
    """Return what a status of the framework's own means here."""
    if error.status_code == 404:
        return problem("url", "no such route", do="GET /openapi.json lists what there is")
    if error.status_code == 405:
        return problem("method", "not allowed here", f"allowed: {(error.headers or {}).get('Allow', 'another')}")
    return problem("request", HTTPStatus(error.status_code).phrase)
