"""The bodies of the routes that answer whole, and their answers.

    {model, inputs: [text | {field: …}]}        ─> {object, model, task, data: [{index, …} | {index, error}], usage}
    {model, input, encoding_format, …}          ─> OpenAI's embeddings
    form: file, model, response_format, …       ─> OpenAI's transcriptions

What is neutral is taken and has no effect; what would change the answer and is not implemented is refused by name.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from hanlin.errors import problem
from hanlin.serve.protocol import Prompts, Request, Unsupported

MOST_TOKENS = 300_000  # of one request for vectors, as OpenAI has it

Json = dict[str, Any]


def _inputs(value: object) -> object:
    """Refuse what is neither a text nor a row, with one line for all of them."""
    if not isinstance(value, tuple) or not value:
        raise ValueError("a list of texts or of objects with the task's fields; at least one")
    wrong = next((at for at, each in enumerate(value) if not isinstance(each, str | Mapping)), None)
    if wrong is not None:
        raise ValueError(f"number {wrong} is neither a text nor an object with the task's fields")
    return value


Inputs = Annotated[
    tuple[Any, ...],
    BeforeValidator(
        _inputs, json_schema_input_type=Annotated[tuple[str | Mapping[str, Any], ...], Field(min_length=1)]
    ),
]


class Ask(Request):
    """The body of /v1/tasks/{task}."""

    inputs: Inputs
    user: str | None = None  # neutral


class Embeddings(Request):
    """The body of /v1/embeddings."""

    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None  # neutral

    def problems(self) -> list[str]:
        """Return what is impossible."""
        empty = [at for at, each in enumerate(self.input) if not each]
        return [problem(f"input.{empty[0]}", "empty", "a text or token ids")] if empty else []


def _number(value: object) -> object:
    """Return a form's text as the number it spells."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("not a number") from None


def _off(value: object) -> None:
    """Take what a form says for no."""
    if value not in (None, "", "false", "False", "0"):
        raise ValueError("not supported; leave it out")


def _zero(value: object) -> object:
    """Take temperature 0: the likeliest transcript."""
    number = _number(value)
    if number != 0:
        raise ValueError("0 alone: the likeliest transcript is the answer")
    return number


Off = Annotated[None, BeforeValidator(_off, json_schema_input_type=Literal["false"])]
Zero = Annotated[float, BeforeValidator(_zero, json_schema_input_type=Literal[0])]
Form = Literal["json", "text", "srt", "verbose_json", "vtt"]


class Transcription(Request):
    """The form of /v1/audio/transcriptions, its file aside."""

    response_format: Form | None = None
    temperature: Zero | None = None
    language: str | None = Field(
        None, pattern="^[a-zA-Z]{2,3}(-[a-zA-Z]{2,4})?$"
    )  # a hint: models hear what they learned
    timestamp_granularities: tuple[Literal["segment"], ...] | None = Field(None, alias="timestamp_granularities[]")
    prompt: Unsupported = None
    stream: Off = None
    include: Unsupported = Field(None, alias="include[]")
    chunking_strategy: Unsupported = None

    def problems(self) -> list[str]:
        """Return what is impossible together."""
        given = self.timestamp_granularities is not None and self.response_format != "verbose_json"
        return [problem("timestamp_granularities", "given", "only with verbose_json")] if given else []


def usage(tokens: int) -> Json:
    """Return OpenAI's count of what was read."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def embedded(model: str, vectors: Sequence[NDArray[np.float32]], tokens: int, *, packed: bool) -> Json:
    """Return vectors as OpenAI does, `packed` as base64 of little-endian float32."""
    data = [
        {"object": "embedding", "index": at, "embedding": _base64(each) if packed else each.tolist()}
        for at, each in enumerate(vectors)
    ]
    return {"object": "list", "data": data, "model": model, "usage": usage(tokens)}


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def ask_schema(example: str) -> Json:
    """Return the schema of a task's body; `example` refers to that of its rows."""
    inputs = {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, {"$ref": example}]}}
    texts: Json = {"type": "string"}
    properties = {"model": {**texts, "minLength": 1, "maxLength": 256}, "inputs": inputs, "user": texts}
    return {"type": "object", "required": ["model", "inputs"], "properties": properties, "additionalProperties": False}


def answers_schema(prediction: str) -> Json:
    """Return the schema of a task's answer; `prediction` refers to that of one row."""
    place: Json = {"type": "object", "required": ["index"], "properties": {"index": {"type": "integer"}}}
    wrong = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    row = {"allOf": [place, {"anyOf": [{"$ref": prediction}, wrong]}]}
    texts: Json = {"type": "string"}
    counts = {"type": "object", "additionalProperties": {"type": "integer"}}
    properties = {"object": {"const": "list"}, "model": texts, "task": texts, "usage": counts}
    return {"type": "object", "properties": {**properties, "data": {"type": "array", "items": row}}}
