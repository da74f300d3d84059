"""The routes that answer whole: what a bundle's task says, vectors, transcripts.

POST  /v1/tasks/{task}             inputs ─ asked, encoded ─> rows ──┐                        ┌─> predictions
POST  /v1/embeddings               texts ── encoded ──> ids ─────────┼─ worker.order ─ units ─┼─> vectors
POST  /v1/audio/transcriptions     a form ─ heard ──> windows ───────┘   (the one thread)     └─> a transcript

Reading inputs and writing answers happen in threads of their own. A client that leaves gives its place back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from hanlin.config import Config
from hanlin.errors import nearest, problem
from hanlin.serve import answer
from hanlin.serve.limits import Limits
from hanlin.serve.refusal import Refused
from hanlin.serve.tasks import inputs, protocol, whole
from hanlin.serve.tasks.hearing import Hearing
from hanlin.serve.worker import Served
from hanlin.tasks.contract import Task

Json = dict[str, Any]


def routes(models: Iterable[Served], limits: Limits) -> APIRouter:
    """Return the routes: one for each task that a model is made for, and one that says which there are."""
    made = APIRouter()
    for name in _tasks(models):
        body = protocol.ask_schema(f"#/components/schemas/{name}.Example")
        said = described(body, answers=f"{name}.Answers")
        made.add_api_route(
            f"/v1/tasks/{name}", ask, methods=["POST"], response_class=Response, name=f"task_{name}",
            openapi_extra=said, description=f"Answer by the task {name}.",
        )  # fmt: skip
    made.add_api_route("/v1/tasks/{task}", no_such_task, methods=["POST"], include_in_schema=False)
    one = {"$ref": "#/components/schemas/Embeddings"}
    made.add_api_route(
        "/v1/embeddings", embeddings, methods=["POST"], response_class=Response, openapi_extra=described(one)
    )
    form = described({"$ref": "#/components/schemas/Transcription"}, "multipart/form-data")
    made.add_api_route(
        "/v1/audio/transcriptions", Hearing(limits).transcriptions, methods=["POST"], response_class=Response,
        openapi_extra=form,
    )  # fmt: skip
    return made


def schemas(models: Iterable[Served]) -> dict[str, Json]:
    """Return the schemas of bodies and answers by name, for the description."""
    found = {**schema("Embeddings", protocol.Embeddings), **schema("Transcription", protocol.Transcription)}
    sound = {"type": "string", "format": "binary"}
    form = found["Transcription"]
    found["Transcription"] = {
        **form, "properties": {**form["properties"], "file": sound}, "required": [*form["required"], "file"]
    }  # fmt: skip
    for name, task in _tasks(models).items():
        found |= {**schema(f"{name}.Example", task.example_type), **schema(f"{name}.Prediction", task.prediction_type)}
        example = found[f"{name}.Example"]
        asked = {key: each for key, each in example["properties"].items() if key not in (*task.answers, *task.files)}
        found[f"{name}.Example"] = {**example, "properties": asked}
        found[f"{name}.Answers"] = protocol.answers_schema(f"#/components/schemas/{name}.Prediction")
    return found


def schema(name: str, kind: type[Config]) -> dict[str, Json]:
    """Return a type's schema under a name, and its parts under names that begin with it."""
    found = kind.model_json_schema(ref_template=f"#/components/schemas/{name}.{{model}}")
    return {**{f"{name}.{part}": each for part, each in found.pop("$defs", {}).items()}, name: found}


async def ask(request: Request) -> Response:
    """Answer inputs by the task that the model was made for; what is wrong with one is said in its place."""
    asked, served = await answer.read(protocol.Ask, request)
    answers = whole.predictor(served, request.url.path.rpartition("/")[2])
    whole.few("inputs", len(asked.inputs), answer.desk(request).limits.inputs)
    given = await asyncio.to_thread(inputs.read, answers, asked.inputs)
    outputs = await whole.outputs(request, served, "predict", given.rows, given.tokens)
    data = await asyncio.to_thread(inputs.told, answers, given, outputs)
    usage = {**protocol.usage(given.tokens), "truncated_tokens": given.truncated}
    return whole.json({"object": "list", "model": served.name, "task": served.task, "data": data, "usage": usage})


async def no_such_task(request: Request, task: str) -> Response:
    """Say which tasks there are."""
    known = _tasks(answer.desk(request).worker.models.values())
    served = f"served: {', '.join(known)}" if known else "no model here was made for a task"
    raise Refused(404, problem("task", f"{task[:60]!r}", served, nearest(task[:60], known)), code="task_not_found")


async def embeddings(request: Request) -> Response:
    """Return a vector for each input."""
    asked, served = await answer.read(protocol.Embeddings, request)
    pooling = None if served.able is None else served.able.pooling
    if pooling is None:
        raise Refused(400, problem("model", f"'{served.name}' makes no vectors"), param="model")
    whole.few("input", len(asked.input), answer.desk(request).limits.inputs)
    if asked.dimensions not in (None, served.dim):
        given = f"{asked.dimensions}, which would cut vectors that were not trained for it"
        raise Refused(400, problem("dimensions", given, f"{served.dim}, or left out"), param="dimensions")
    ids = await asyncio.to_thread(inputs.sequences, asked.input, served, pooling)
    tokens = sum(map(len, ids))
    vectors = await whole.outputs(request, served, "embed", ids, tokens)
    packed = asked.encoding_format == "base64"
    return whole.json(await asyncio.to_thread(protocol.embedded, served.name, vectors, tokens, packed=packed))


def _tasks(models: Iterable[Served]) -> dict[str, Task[Any, Any]]:
    """Return the tasks that models are made for, by name."""
    able = [model.able for model in models if model.able is not None]
    return {each.task: each.predictor.task for each in able if each.predictor is not None}


def described(body: Json, kind: str = "application/json", answers: str | None = None) -> Json:
    """Return how a route is described."""
    told = {"schema": {"$ref": f"#/components/schemas/{answers}"}} if answers else {}
    return {
        "requestBody": {"required": True, "content": {kind: {"schema": body}}},
        "responses": {"200": {"description": "The answer", "content": {"application/json": told}}},
    }
