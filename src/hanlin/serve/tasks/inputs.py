"""From what a client sends to the units that the worker computes, and from their outputs to answers.

inputs ─ asked ─> examples ─ encode ─> rows        what is wrong with one input is kept in its place
texts or ids ─> sequences                          what does not fit is refused, not cut
a sound file ─> windows as rows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hanlin.config import dump
from hanlin.errors import DataError, HanlinError, MissingExtra, problem
from hanlin.models.sentences import Pooling
from hanlin.serve.refusal import Refused
from hanlin.serve.tasks.protocol import MOST_TOKENS
from hanlin.serve.worker import Served
from hanlin.tasks.contract import Example, Row, Task
from hanlin.tasks.predict import Predictor

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Given:
    """Inputs, read."""

    count: int
    examples: Mapping[int, Example]  # by the input's place; their order is that which rows count by
    rows: Sequence[Row]
    errors: Mapping[int, str]  # by the input's place

    @property
    def tokens(self) -> int:
        """Return the tokens, or frames of sound, that are read."""
        return sum(row.length for row in self.rows)

    @property
    def truncated(self) -> int:
        """Return the tokens that were cut off."""
        return sum(row.truncated for row in self.rows)


def read(predictor: Predictor[Any, Any], inputs: Sequence[Any]) -> Given:
    """Return inputs as a task's rows; one that cannot be answered has its error."""
    examples: dict[int, Example] = {}
    errors: dict[int, str] = {}
    for at, each in enumerate(inputs):
        try:
            examples[at] = _example(predictor.task, _plain(each))
        except HanlinError as error:
            errors[at] = " ".join(error.problems)
    try:
        rows = predictor.encode(list(examples.values()))
    except HanlinError:  # one of them, and the others are to be answered
        rows = []
        for at in list(examples):
            try:
                own = predictor.encode([examples[at]])
            except HanlinError as error:
                errors[at] = " ".join(error.problems)
                del examples[at]
            else:
                place = list(examples).index(at)
                rows += [replace(row, example=place) for row in own]
    return Given(count=len(inputs), examples=examples, rows=rows, errors=errors)


def _example(task: Task[Any, Any], given: Any) -> Example:  # noqa: ANN401  # whatever a client sends
    """Return the example that an input is; DataError for fields that hold answers, or name files of this machine."""
    for field in [task.plain] if isinstance(given, str) else given:
        if field in task.files:
            raise DataError(problem(f"input.{field}", "the name of a file", do="send it to /v1/audio/transcriptions"))
        if field in task.answers:
            raise DataError(problem(f"input.{field}", "an answer", "what is to be answered", do="leave it out"))
    return task.asked(given)


def _plain(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Return lists where a config holds tuples, so that a task sees what it sees in files."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def told(predictor: Predictor[Any, Any], given: Given, outputs: Sequence[Any]) -> list[Json]:
    """Return the prediction or the error of every input, in order."""
    found = predictor.decode(list(given.examples.values()), given.rows, outputs)
    answers = {at: dump(each) for at, each in zip(given.examples, found, strict=True)}
    errors = {at: {"error": error} for at, error in given.errors.items()}
    return [{"index": at, **{**answers, **errors}[at]} for at in range(given.count)]


def sequences(given: Sequence[str | tuple[int, ...]], served: Served, pooling: Pooling) -> Sequence[Sequence[int]]:
    """Return the ids of every input; Refused (400) for one that the model cannot read to its end, or does not know."""
    texts = [each.lower() if pooling.lowercase else each for each in given if isinstance(each, str)]
    ids_given = [each for each in given if not isinstance(each, str)]
    read: list[Sequence[int]] = [*ids_given, *(each.ids for each in served.tokenizer.encode_batch(texts))]
    room = min(pooling.context or served.context, served.context)
    for at, ids in enumerate(read):
        where = "input" if len(read) == 1 else f"input[{at}]"
        if len(ids) > room:
            line = problem(where, f"{len(ids):,} tokens", f"this model reads {room:,} of a text", do="cut it in pieces")
            raise Refused(400, line, param=where, code="context_length_exceeded")
        if ids and max(ids) >= served.vocab:
            line = problem(where, f"token {max(ids)}", f"ids from 0 to {served.vocab - 1}")
            raise Refused(400, line, param=where)
    if (total := sum(map(len, read))) > MOST_TOKENS:
        raise Refused(400, problem("input", f"{total:,} tokens", f"at most {MOST_TOKENS:,} a request"), param="input")
    return read


def heard(predictor: Predictor[Any, Any], sound: bytes, longest_s: float) -> tuple[Given, float]:
    """Return a recording as windows, and its seconds; Refused (400) for what is no sound, or too much of it."""
    from hanlin.data.audio.read import seconds
    from hanlin.tasks import transcribe

    assert isinstance(predictor.task, transcribe.Config)
    if not sound:
        raise Refused(400, problem("file", "empty", "a sound file"), param="file")
    task = predictor.task.model_copy(update={"longest_s": min(predictor.task.longest_s, longest_s)})
    try:
        example = task.example({"audio": sound})
        rows = task.encode([example], predictor.tokenizer, predictor.context)
        return Given(count=1, examples={0: example}, rows=rows, errors={}), seconds(sound)
    except MissingExtra:
        raise
    except HanlinError as error:
        lines = [line.removeprefix("sound: ") for line in error.problems]
        raise Refused(400, *(f"file: {line}" for line in lines), param="file") from None
