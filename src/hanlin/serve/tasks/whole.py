"""What the routes that answer whole share: the way through the worker, and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hanlin.errors import problem
from hanlin.serve import answer, guard, stream
from hanlin.serve.refusal import Refused
from hanlin.serve.worker import Served
from hanlin.tasks.predict import Predictor


async def outputs(request: Request, served: Served, kind: str, units: Sequence[Any], tokens: int) -> list[Any]:
    """Return what the worker makes of units; ClientDisconnect, and the place given back, when nobody waits for it."""
    if not units:
        return []
    here = answer.desk(request)
    order = here.worker.order(served.name, kind, guard.client(request), units)
    ended = False
    try:
        async with asyncio.timeout(here.limits.request_s):
            found = await answer.while_there(request.receive, order.answered())
        ended = True
        return found
    except TimeoutError:
        raise answer.overdue(here.limits) from None
    finally:
        here.worker.withdraw(order)
        here.telemetry.prompt.labels(served.name).inc(tokens)
        if not ended:
            here.telemetry.cancelled.labels(served.name).inc()


def predictor(served: Served, task: str) -> Predictor[Any, Any]:
    """Return what answers by a task; Refused (400) where the model was made for something else."""
    if served.able is None or served.able.predictor is None or served.task != task:
        made = f"made for {served.task}" if served.task else "made for no task"
        do = f"POST /v1/tasks/{served.task}" if served.task not in ("", "generate") else ""
        raise Refused(400, problem("model", f"'{served.name}' is {made}, not for {task}", do=do), param="model")
    return served.able.predictor


def few(where: str, given: int, most: int) -> None:
    """Refuse (400) a request for more than the server's bound."""
    if given > most:
        raise Refused(400, problem(where, f"{given:,} of them", f"at most {most:,}"), param=where)


def json(data: dict[str, Any]) -> Response:
    """Return data as an HTTP answer."""
    return Response(stream.packed(data), media_type="application/json")
