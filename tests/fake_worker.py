"""A worker without a model: it says back what it was asked, token by token, or whatever a test scripts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hanlin.errors import ConfigError
from hanlin.generate.constrain import Vocabulary
from hanlin.serve.worker import Asked, Failed, Full, Load, Piece, Served
from hanlin.text.tokenizer import byte_level

KEY = "a-key-for-tests"
HEADERS = {"Authorization": f"Bearer {KEY}"}
CONTEXT = 64
TOKENIZER = byte_level()


@dataclass(frozen=True)
class Lines:
    """A chat template: `role: content` lines."""

    def prompt(self, messages, *, options=None):
        text = "".join(f"{each.role}: {each.content}\n" for each in messages)
        return list(TOKENIZER.encode(text).ids)


def served(name="toy", chat=True, context=CONTEXT):
    """Return a model of bytes."""
    return Served(
        name=name,
        created=7,
        tokenizer=TOKENIZER,
        chat=Lines() if chat else None,
        context=context,
        vocab=TOKENIZER.vocab,
        words=Vocabulary(TOKENIZER, frozenset({1})),
        fingerprint="abc",
    )


class Ticket:
    """Plays a script: lists of pieces, or an exception to raise; `forever` then waits until cancelled."""

    def __init__(self, script, forever=False):
        self.script = iter(script)
        self.forever = forever
        self.cancelled = 0
        self.ended = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        found = next(self.script, None)
        if found is None and self.forever:
            await asyncio.Event().wait()
        if found is None:
            self.ended = True
            raise StopAsyncIteration
        if isinstance(found, Exception):
            raise found
        return found

    def cancel(self):
        self.cancelled += 1


def answer(asked: Asked, text="héllo\u2028, 世界"):
    """Return the script of an answer: `text` by bytes, cut at the limit; a character comes with its last byte."""
    sampling, script = asked.sampling, []
    if sampling.limit == 0:
        return [[Piece(n, None, "", None, None, "length") for n in range(sampling.n)]]
    ids = TOKENIZER.encode(text).ids[1:]
    streams = [TOKENIZER.stream() for _ in range(sampling.n)]
    for place, id in enumerate(ids[: sampling.limit]):
        last = place + 1 == min(len(ids), sampling.limit)
        finish = ("stop" if len(ids) <= sampling.limit else "length") if last else None
        step = []
        for n, stream in enumerate(streams):
            shown = stream.push(id) + (stream.finish() if last else "")
            top = tuple((id + k, -0.5 - k) for k in range(sampling.logprobs or 0))
            logprob = None if sampling.logprobs is None else -0.5
            step.append(Piece(n, id, shown, logprob, None if logprob is None else top, finish))
        script.append(step)
    return script


class Worker:
    """Answers at once; `script(asked)` gives another answer, `room` bounds the requests it takes."""

    def __init__(self, *models, script=answer, forever=False, room=1000):
        self.models = {each.name: each for each in models or (served(), served("org/bare", chat=False))}
        self.script = script
        self.forever = forever
        self.room = room
        self.asked = []
        self.tickets = []
        self.ready = True
        self.stopped = None

    def start(self):
        self.ready = True

    def stop(self, drain_s):
        self.ready = False
        self.stopped = drain_s

    def load(self):
        return Load(running=2, waiting=1)

    def submit(self, asked):
        if len(asked.prompt) + asked.sampling.limit > self.models[asked.model].context:
            raise ConfigError("context: too long")
        if len(self.tickets) >= self.room:
            full = Full("queue: full; at most 3")
            full.retry_after_s = 9
            raise full
        self.asked.append(asked)
        self.tickets.append(Ticket(self.script(asked), self.forever))
        return self.tickets[-1]


BROKEN = Failed("server: the engine failed")
