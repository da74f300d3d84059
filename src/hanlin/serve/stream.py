"""What the worker brings, as OpenAI's answers: one JSON, or events as they come.

    tickets ─ steps ─> (prompt, pieces) ─┬─ whole ──> one object, choices in order of prompt and n
                                         └─ events ─> opening │ deltas │ finish_reason │ usage │ [DONE]

Choice `prompt * n + i` is the i-th answer to a prompt. JSON goes out in ASCII: an event must be one line, and readers
differ on whether U+2028 ends one.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import Any, ClassVar, Final, Literal

from hanlin.errors import problem
from hanlin.generate.decode import after
from hanlin.serve.protocol import Chat, Completion
from hanlin.serve.refusal import Refused
from hanlin.serve.worker import Failed, Piece, Served, Ticket
from hanlin.text.stream import Stream
from hanlin.text.tokenizer import Tokenizer

Json = dict[str, Any]
Finish = Literal["stop", "length"]
Steps = AsyncGenerator[tuple[int, list[Piece]], None]

DONE: Final = b"data: [DONE]\n\n"
UNLIKELY = -9999.0  # what OpenAI writes for a log-probability that JSON has no number for


async def steps(tickets: Sequence[Ticket]) -> Steps:
    """Yield which prompt gained what, as it comes; Failed when a ticket ends before its answers."""
    if len(tickets) == 1:  # no task a step
        async for pieces in tickets[0]:
            yield 0, pieces
        return
    waiting = {asyncio.ensure_future(_next(ticket)): index for index, ticket in enumerate(tickets)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(each)
                if (gained := each.result()) is not None:
                    yield index, gained
                    waiting[asyncio.ensure_future(_next(tickets[index]))] = index
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)  # several may have failed; asyncio logs unseen errors


async def _next(ticket: Ticket) -> list[Piece] | None:
    """Return a ticket's next pieces, or None after the last."""
    return await anext(ticket, None)


def packed(data: Json) -> bytes:
    """Return data as JSON without spaces."""
    return json.dumps(data, separators=(",", ":")).encode()


def event(data: Json) -> bytes:
    """Return one server-sent event."""
    return b"data: " + packed(data) + b"\n\n"


def failure(error: Refused) -> bytes:
    """Return the event with which a stream ends that cannot go on; no [DONE] follows."""
    return event(error.content)


class Spelling:
    """How single tokens are written: as text where they are some, else by their bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Spell the tokens of one tokenizer."""
        self.tokenizer = tokenizer
        self.known: dict[int, tuple[str, list[int] | None]] = {}

    def of(self, id: int) -> tuple[str, list[int] | None]:
        r"""Return a token's text and bytes; `bytes:\xe5\xa5` for part of a character, as OpenAI writes it."""
        if id not in self.known:
            self.known[id] = self._of(id)
        return self.known[id]

    def _of(self, id: int) -> tuple[str, list[int] | None]:
        data = self.tokenizer.bytes_of(id)
        if data is None:
            alone = self.tokenizer.decode([id], special=True)
            text = self.tokenizer.decode([id, id], special=True)[len(alone) :]  # as it stands behind another
            return (text, list(text.encode())) if "\ufffd" not in text else (alone, None)
        try:
            return data.decode(), list(data)
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data), list(data)


class Reply(ABC):
    """One request's answers in OpenAI's shapes."""

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, asked: Completion | Chat, served: Served, prompts: Sequence[Sequence[int]]) -> None:
        """Begin with nothing written."""
        self.asked = asked
        self.served = served
        self.prompts = prompts
        self.choices = len(prompts) * asked.answers
        self.written = 0  # tokens
        self.spelling = Spelling(served.tokenizer)
        self.head: Json = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
        }

    @abstractmethod
    def opening(self, index: int) -> Json | None:
        """Return the choice with which a stream opens, or None."""

    @abstractmethod
    def delta(self, index: int, text: str, logprobs: Json | None, finish: Finish | None) -> Json:
        """Return the choice of one chunk."""

    @abstractmethod
    def choice(self, index: int, text: str, logprobs: Json | None, finish: Finish) -> Json:
        """Return a whole choice."""

    @abstractmethod
    def logprobs(self, index: int, pieces: Sequence[Piece]) -> Json | None:
        """Return the log-probabilities of pieces that follow each other, or None where they were not asked for."""

    @property
    def usage(self) -> Json:
        """Return the tokens read and written; a prompt counts once, however many answers it gets."""
        read = sum(map(len, self.prompts))
        return {"prompt_tokens": read, "completion_tokens": self.written, "total_tokens": read + self.written}

    async def whole(self, found: Steps) -> bytes:
        """Return the answer as one JSON."""
        pieces: list[list[Piece]] = [[] for _ in range(self.choices)]
        async with aclosing(found) as each:
            async for prompt, some in each:
                for piece in some:
                    pieces[prompt * self.asked.answers + piece.n].append(piece)
                    self.written += piece.id is not None
        self._ended([bool(some) and some[-1].finish is not None for some in pieces])
        choices = [
            self.choice(
                index, "".join(each.text for each in some), self.logprobs(index, some), some[-1].finish or "stop"
            )
            for index, some in enumerate(pieces)
        ]
        return packed({**self.head, "object": self.whole_object, "choices": choices, "usage": self.usage})

    async def events(self, found: Steps) -> AsyncGenerator[bytes, None]:
        """Yield the answer as events, to the one [DONE]."""
        for index in range(self.choices):
            if (opening := self.opening(index)) is not None:
                yield self._chunk(opening)
        ended = [False] * self.choices
        async with aclosing(found) as each:
            async for prompt, some in each:
                for n, grouped in groupby(sorted(some, key=lambda piece: piece.n), key=lambda piece: piece.n):
                    pieces = list(grouped)
                    index = prompt * self.asked.answers + n
                    for choice in self._deltas(index, pieces):
                        yield self._chunk(choice)
                    ended[index] = pieces[-1].finish is not None
        self._ended(ended)
        if self.asked.with_usage:
            yield event({**self.head, "object": self.chunk_object, "choices": [], "usage": self.usage})
        yield DONE

    def _deltas(self, index: int, pieces: Sequence[Piece]) -> list[Json]:
        """Return the choices of the chunks that say what one answer gained; text held back is said later."""
        self.written += sum(piece.id is not None for piece in pieces)
        text, logprobs = "".join(piece.text for piece in pieces), self.logprobs(index, pieces)
        found = [self.delta(index, text, logprobs, None)] if text or logprobs else []
        if pieces[-1].finish is not None:
            found.append(self.delta(index, "", None, pieces[-1].finish))
        return found

    def _chunk(self, choice: Json) -> bytes:
        usage = {"usage": None} if self.asked.with_usage else {}
        return event({**self.head, "object": self.chunk_object, "choices": [choice], **usage})

    def _ended(self, each: Sequence[bool]) -> None:
        """Raise Failed unless every answer came to its end."""
        if not all(each):
            raise Failed(problem("server", "stopped before the answer ended", do="try again"))


class Completions(Reply):
    """The answers of /v1/completions."""

    prefix = "cmpl"
    whole_object = chunk_object = "text_completion"

    def __init__(self, asked: Completion, served: Served, prompts: Sequence[Sequence[int]]) -> None:
        """Begin each choice's text with its prompt where `echo` asks for it."""
        super().__init__(asked, served, prompts)
        self.echoes = [
            given if isinstance(given, str) else served.tokenizer.decode(given) for given in asked.prompt if asked.echo
        ]
        self.shown = [0] * self.choices  # characters before the next token
        self.streams: list[Stream] = []
        if asked.logprobs is not None:
            before = map(served.before, prompts)
            self.streams = [after(each, served.tokenizer) for each in before for _ in range(asked.answers)]

    def opening(self, index: int) -> Json | None:
        """Return the echo."""
        return self.delta(index, self.echoes[index // self.asked.answers], None, None) if self.echoes else None

    def delta(self, index: int, text: str, logprobs: Json | None, finish: Finish | None) -> Json:
        """Return a chunk's choice, which has the shape of a whole one."""
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def choice(self, index: int, text: str, logprobs: Json | None, finish: Finish) -> Json:
        """Return a whole choice."""
        echo = self.echoes[index // self.asked.answers] if self.echoes else ""
        return self.delta(index, echo + text, logprobs, finish)

    def logprobs(self, index: int, pieces: Sequence[Piece]) -> Json | None:
        """Return four lists with an entry a token; offsets count characters of the answer's text."""
        if self.asked.logprobs is None:
            return None
        found: Json = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for piece in pieces:
            if piece.id is None or piece.logprob is None:
                continue
            own = self.spelling.of(piece.id)[0]
            top = {
                self.spelling.of(id)[0]: number(logprob) for id, logprob in reversed(piece.top or ())
            }  # of two spelled alike, the likelier
            found["text_offset"].append(self.shown[index])
            found["tokens"].append(own)
            found["token_logprobs"].append(number(piece.logprob))
            found["top_logprobs"].append({**top, own: number(piece.logprob)})
            self.shown[index] += len(self.streams[index].push(piece.id))
        return found if found["tokens"] or any(piece.id is None for piece in pieces) else None


class Chats(Reply):
    """The answers of /v1/chat/completions."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, index: int) -> Json:
        """Return who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, index: int, text: str, logprobs: Json | None, finish: Finish | None) -> Json:
        """Return a chunk's choice; the last says nothing but how it ended."""
        delta = {} if finish else {"content": text}
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def choice(self, index: int, text: str, logprobs: Json | None, finish: Finish) -> Json:
        """Return a whole choice."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}

    def logprobs(self, index: int, pieces: Sequence[Piece]) -> Json | None:
        """Return an entry a token, each with its alternatives."""
        if not self.asked.logprobs:
            return None
        content = [
            {**self._token(piece.id, piece.logprob), "top_logprobs": [self._token(*each) for each in piece.top or ()]}
            for piece in pieces
            if piece.id is not None and piece.logprob is not None
        ]
        return {"content": content, "refusal": None}

    def _token(self, id: int, logprob: float) -> Json:
        text, data = self.spelling.of(id)
        return {"token": text, "logprob": number(logprob), "bytes": data}


def number(logprob: float) -> float:
    """Return a log-probability that JSON can write."""
    return logprob if logprob > UNLIKELY else UNLIKELY
