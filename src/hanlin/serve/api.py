"""The routes: OpenAI's protocol in front of a worker.

GET   /health  /ready                         empty, for anyone
GET   /metrics  /openapi.json                 with a key, as everything below
GET   /v1/models  /v1/models/{name}
POST  /v1/completions  /v1/chat/completions   one JSON, or events
POST  /v1/tokenize  /v1/detokenize
POST  /v1/tasks/{task}  /v1/embeddings  /v1/audio/transcriptions       serve/tasks/routes.py
POST  /v1/search  /v1/ask                     beside an index          serve/search/routes.py

body ─ guard.body ─ protocol.request ─ ids ─ answer.answer ─> JSON or events
                                      (threads: a long prompt stops nobody)
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from hanlin.errors import ConfigError, HanlinError, problem
from hanlin.serve import guard, protocol, stream
from hanlin.serve.answer import Desk, answer, model_of, read
from hanlin.serve.limits import Limits
from hanlin.serve.protocol import Chat, Completion, Detokenize, Tokenize
from hanlin.serve.refusal import Refused, refusal
from hanlin.serve.tasks import routes as tasks
from hanlin.serve.telemetry import TYPE, Telemetry
from hanlin.serve.worker import Served, Worker
from hanlin.text.chat import Message

if TYPE_CHECKING:  # it comes with LanceDB, which is an extra
    from hanlin.serve.search.routes import Finder

ERRORS = (400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 503, 504)


class Api(FastAPI):
    """The application, and what its routes work with."""

    def __init__(self, worker: Worker, limits: Limits, finder: Finder | None = None) -> None:
        """Take the routes below; no pages, and no redirects, which would leave with the key's request."""
        super().__init__(title="Hanlin", version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
        self.worker = worker
        self.limits = limits
        self.telemetry = Telemetry(worker.models, worker.load)
        self.desk = Desk(worker=worker, limits=limits, telemetry=self.telemetry)
        self.include_router(routes)
        self.include_router(tasks.routes(worker.models.values(), limits))
        self.finder = finder
        if finder is not None:
            self.include_router(finder.routes())
        self.add_exception_handler(HanlinError, _refused)
        self.add_exception_handler(HTTPException, _refused)

    def openapi(self) -> dict[str, Any]:
        """Return the description of all routes, the bodies' schemas from the types that read them."""
        if self.openapi_schema is None:
            found = get_openapi(title=self.title, version=self.version, routes=self.routes)
            for operation in (each for path in found["paths"].values() for each in path.values()):
                errors = {str(each): {"description": "OpenAI's error"} for each in ERRORS}
                operation["responses"] = {"200": operation["responses"]["200"], **errors}
            parts = found.setdefault("components", {})
            schemas = parts.setdefault("schemas", {})
            for kind in (Completion, Chat, Tokenize, Detokenize):
                schemas |= tasks.schema(kind.__name__, kind)
            for beside in () if self.finder is None else self.finder.bodies:
                schemas |= tasks.schema(beside.__name__, beside)
            schemas |= tasks.schemas(self.worker.models.values())
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"key": []}]
            self.openapi_schema = found
        return self.openapi_schema


def app(
    worker: Worker,
    *,
    keys: Mapping[str, str],
    limits: Limits | None = None,
    hosts: Collection[str] | None = guard.LOOPBACK,
    origins: Sequence[str] = (),
    finder: Finder | None = None,
) -> Api:
    """Return the application: `keys` are name -> key, `hosts` the Host names answered (None: any).

    `origins` are the web pages that may call it from a browser, each by name: "*" is refused. `finder` is an index that
    stands beside one of the worker's models.
    """
    if "*" in origins:
        raise ConfigError(problem("origins", "'*'", "the pages that may call, such as https://example.org"))
    made = Api(worker, limits or Limits(), finder)
    made.add_middleware(guard.Guard, keys=guard.Keys(keys), hosts=hosts, limits=made.limits, telemetry=made.telemetry)
    if origins:
        made.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return made


def _api(request: Request) -> Api:
    """Return the application a request came to."""
    found = request.app
    assert isinstance(found, Api)
    return found


async def _refused(request: Request, error: Exception) -> Response:
    """Return what a client is told of an error."""
    return refusal(error, ready=_api(request).worker.ready).response()


def _takes(kind: type[protocol.Request], events: bool = False) -> dict[str, Any]:
    """Return how a POST route is described."""
    body = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}},
    }
    content: dict[str, Any] = {"application/json": {}, **({"text/event-stream": {}} if events else {})}
    return {"requestBody": body, "responses": {"200": {"description": "The answer", "content": content}}}


routes = APIRouter()


@routes.get("/health", include_in_schema=False)
async def health() -> Response:
    """Say that the process is alive."""
    return Response()


@routes.get("/ready", include_in_schema=False)
async def ready(request: Request) -> Response:
    """Say whether requests are taken."""
    return Response(status_code=200 if _api(request).worker.ready else 503)


@routes.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return the numbers of the server for Prometheus."""
    return Response(_api(request).telemetry.text(), media_type=TYPE)


@routes.get("/v1/models", response_class=Response)
async def models(request: Request) -> Response:
    """List the models."""
    return _json({"object": "list", "data": [_card(each) for each in _api(request).worker.models.values()]})


@routes.get("/v1/models/{name:path}", response_class=Response)
async def model(request: Request, name: str) -> Response:
    """Describe one model."""
    return _json(_card(model_of(request, name)))


@routes.post("/v1/completions", response_class=Response, openapi_extra=_takes(Completion, events=True))
async def completions(request: Request) -> Response:
    """Continue prompts; a model that reads sources answers them."""
    asked, served = await read(Completion, request)
    _writes(served)
    if asked.echo and served.opening is not None:
        given = problem("echo", f"'{served.name}' answers a prompt and does not continue it", "false")
        raise Refused(400, given, param="echo")
    protocol.within(asked, _api(request).limits)
    prompts = await asyncio.to_thread(lambda: [_ids(each, served) for each in asked.prompt])
    return await answer(_api(request).desk, request, stream.Completions(asked, served, prompts))


@routes.post("/v1/chat/completions", response_class=Response, openapi_extra=_takes(Chat, events=True))
async def chat(request: Request) -> Response:
    """Answer the last message of a chat."""
    asked, served = await read(Chat, request)
    _writes(served)
    protocol.within(asked, _api(request).limits)
    if served.chat is None:
        given = problem("model", f"'{served.name}' has no chat template", do="use /v1/completions")
        raise Refused(400, given, param="model")
    messages = [Message(role=each.role, content=each.content, name=each.name) for each in asked.messages]
    prompt = await asyncio.to_thread(served.chat.prompt, messages)
    return await answer(_api(request).desk, request, stream.Chats(asked, served, [prompt]))


@routes.post("/v1/tokenize", response_class=Response, openapi_extra=_takes(Tokenize))
async def tokenize(request: Request) -> Response:
    """Return the token ids of a text."""
    asked, served = await read(Tokenize, request)
    added = asked.add_special_tokens is not False
    ids = await asyncio.to_thread(_encoded, asked.prompt, served, added=added)
    return _json({"count": len(ids), "max_model_len": served.context, "tokens": ids})


@routes.post("/v1/detokenize", response_class=Response, openapi_extra=_takes(Detokenize))
async def detokenize(request: Request) -> Response:
    """Return the text of token ids."""
    asked, served = await read(Detokenize, request)
    _known(asked.tokens, served, "tokens")
    return _json({"prompt": await asyncio.to_thread(served.tokenizer.decode, asked.tokens, special=True)})


def _json(data: dict[str, Any]) -> Response:
    return Response(stream.packed(data), media_type="application/json")


def _card(served: Served) -> dict[str, Any]:
    """Return a model as OpenAI lists it, with its context as vLLM calls it, and what it is made for."""
    known = {"id": served.name, "object": "model", "created": served.created, "owned_by": "hanlin"}
    return {**known, "max_model_len": served.context, "task": served.task}


def _writes(served: Served) -> None:
    """Raise Refused (400) for a model that does not continue text."""
    if not served.writes:
        routes = " or ".join([*([f"/v1/tasks/{served.task}"] if served.task else []), "/v1/embeddings"])
        raise Refused(
            400, problem("model", f"'{served.name}' does not continue text", do=f"use {routes}"), param="model"
        )


def _ids(given: str | tuple[int, ...], served: Served) -> Sequence[int]:
    """Return a prompt's ids, text encoded as everywhere."""
    return _encoded(given, served) if isinstance(given, str) else _known(given, served, "prompt")


def _encoded(text: str, served: Served, *, added: bool = True) -> Sequence[int]:
    """Return the ids of a text that is continued, or of a source, which is read to its end."""
    if added and served.opening is None:
        return served.tokenizer.prompt(text)
    return served.tokenizer.encode(text, added=added).ids


def _known(ids: tuple[int, ...], served: Served, where: str) -> tuple[int, ...]:
    """Return ids that the model all has; ConfigError otherwise."""
    if ids and max(ids) >= served.vocab:
        raise ConfigError(problem(where, f"token {max(ids)}", f"ids from 0 to {served.vocab - 1}"))
    return ids
