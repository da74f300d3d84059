"""The routes of an index: passages found, and questions answered from them with the place where the answer stands.

POST  /v1/search   {query, limit, way}        ─┐                        ┌─> {object: list, data: [{source, start, …}]}
POST  /v1/ask      {question, passages}       ─┴─ worker.order ─ units ─┴─> {found, answer: {text, source, start, …}}

The worker's one thread does both, beside the first model that is served: torch is never asked twice at once. Answers
are those of `hanlin search query` and `hanlin ask`: the same functions give them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from hanlin.config import Config
from hanlin.errors import ConfigError, problem
from hanlin.serve import answer, guard, protocol
from hanlin.serve.refusal import unready
from hanlin.serve.search.ask import PASSAGES, Asker
from hanlin.serve.tasks import whole
from hanlin.serve.tasks.bulk import Bulk
from hanlin.serve.tasks.routes import described
from hanlin.serve.worker import Line, Served

KIND = "search"  # of orders
WEIGHT = 512  # tokens that a question counts for, in the worker's turns

Json = dict[str, Any]
Words = Annotated[str, Field(min_length=1, max_length=8192)]


class Search(Config):
    """The body of /v1/search."""

    query: Words
    limit: int = Field(10, ge=1, le=100)  # passages
    way: Literal["hybrid", "dense", "words"] | None = None  # hybrid where the index has vectors

    def problems(self) -> list[str]:
        """Return what is impossible."""
        return [] if self.query.strip() else [problem("query", "empty")]


class Question(Config):
    """The body of /v1/ask."""

    question: Words
    passages: int = Field(PASSAGES, ge=1, le=20)  # looked into

    def problems(self) -> list[str]:
        """Return what is impossible."""
        return [] if self.question.strip() else [problem("question", "empty")]


B = TypeVar("B", Search, Question)


class Finder:
    """An index beside the models that are served."""

    bodies: ClassVar[tuple[type[Config], ...]] = (Search, Question)

    def __init__(self, asker: Asker) -> None:
        """Keep the index and what answers from it."""
        self.asker = asker
        self.model = ""

    def beside(self, line: Line, queue: int) -> Line:
        """Return the line of a model with the index's work added to its own."""
        self.model = line.served.name
        bulk = Bulk(lambda units: [self._answer(each) for each in units], lambda _: WEIGHT, queue=queue)
        return replace(line, bulks={**line.bulks, KIND: bulk})

    def routes(self) -> APIRouter:
        """Return the two routes."""
        made = APIRouter()

        async def search(request: Request) -> Response:
            """Find passages in the index."""
            return await _answered(self, request, await _read(Search, request))

        async def ask(request: Request) -> Response:
            """Answer a question from the index, with the place where the answer stands, or say that there is none."""
            return await _answered(self, request, await _read(Question, request))

        for path, route, kind in (("/v1/search", search, Search), ("/v1/ask", ask, Question)):
            told = described({"$ref": f"#/components/schemas/{kind.__name__}"})
            made.add_api_route(path, route, methods=["POST"], response_class=Response, openapi_extra=told)
        return made

    def _answer(self, asked: Search | Question) -> Json:
        """Return what a body asks for."""
        if isinstance(asked, Search):
            hits = self.asker.index.search(asked.query, way=asked.way, limit=asked.limit)
            return {"object": "list", "data": [asdict(each) for each in hits]}
        found = self.asker(asked.question, passages=asked.passages)
        return {"object": "answer", "found": found is not None, "answer": None if found is None else asdict(found)}


async def _read(kind: type[B], request: Request) -> B:
    """Return a request's body, read and checked."""
    here = answer.desk(request)
    if not here.worker.ready:
        raise unready()
    return await asyncio.to_thread(protocol.request, kind, await guard.body(request, here.limits))


async def _answered(finder: Finder, request: Request, asked: Search | Question) -> Response:
    """Return the answer to a body; what the index has not is the asker's error."""
    served: Served = answer.desk(request).worker.models[finder.model]
    if isinstance(asked, Search) and asked.way in ("hybrid", "dense") and finder.asker.index.encoder is None:
        raise ConfigError(problem("way", f"'{asked.way}' needs vectors", "words, which is all that the index has"))
    units: Sequence[Search | Question] = [asked]
    (found,) = await whole.outputs(request, served, KIND, units, 0)
    return whole.json(found)
