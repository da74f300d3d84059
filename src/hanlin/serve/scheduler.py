"""Who computes next: pure bookkeeping over counts, no clock, no thread, no tensor.

    admit ──> waiting, by client ──> a slot is free ──> reading the prompt ──> writing ──> finish
                   │ queue full: Full    the client with     chunks; clients      one token
                   └ cancel, any time    the fewest rows     take turns           every step

Every step all writing rows write one token and at most `chunk` prompt tokens are read, so a long prompt holds nobody
up for longer than a chunk, and a request joins at the next step: nothing waits for a batch to fill (Orca, Yu et al.,
OSDI 2022; chunked prompts, Sarathi, arXiv:2308.16369). Of n answers to one prompt the first reads it; the others copy
what it read, all but the last token, whose logits they need. A recurrent state cannot be copied but for its last token:
there each answer reads the prompt itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hanlin.errors import HanlinError, problem


class Key(NamedTuple):
    """One row: an answer of a job."""

    job: int
    n: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """What there is to compute for one prompt."""

    id: int
    client: str  # clients share the machine evenly
    prompt: int  # tokens
    n: int = 1  # answers


class Copy(NamedTuple):
    """Row `target` begins as the first `tokens` of row `source`."""

    source: Key
    target: Key
    tokens: int


class Read(NamedTuple):
    """Row `key` takes in the prompt's tokens from `start` to before `stop`."""

    key: Key
    start: int
    stop: int
    last: bool  # the prompt ends here: the row's first token follows


class Plan(NamedTuple):
    """One step: copies first, then one forward over what is written and read."""

    copies: tuple[Copy, ...]
    reads: tuple[Read, ...]
    writes: tuple[Key, ...]


class Full(HanlinError):
    """The queue has no room; nothing was taken in."""

    retry_after_s = 1  # a guess; who knows the speed sets a better one


@dataclass
class _Row:
    """A row that has a slot."""

    job: Job
    read: int = 0  # tokens of the prompt

    @property
    def writing(self) -> bool:
        return self.read == self.job.prompt


@dataclass
class _Waiting:
    """A job some of whose answers have no slot yet."""

    job: Job
    next: int = 0  # the answer that comes next


@dataclass
class _Client:
    """One client's jobs."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    reading: deque[Key] = field(default_factory=deque)
    rows: int = 0


class Scheduler:
    """Plans steps for at most `slots` rows; methods take effect at the next `plan`."""

    def __init__(self, *, slots: int, chunk: int, queue: int, shares: bool = True) -> None:
        """Begin empty; `queue` jobs may wait for each client, and four times as many in all; `shares`: answers copy."""
        self.slots = slots
        self.shares = shares
        self.chunk = chunk
        self.queue = queue
        self.waiting = 0  # jobs none of whose answers has a slot
        self._clients: dict[str, _Client] = {}  # least recently served first
        self._rows: dict[Key, _Row] = {}

    @property
    def running(self) -> int:
        """Return how many rows have slots."""
        return len(self._rows)

    @property
    def idle(self) -> bool:
        """Return whether there is nothing to plan."""
        return not self._clients

    def admit(self, job: Job) -> None:
        """Take in a job; Full when its client, or everybody, has too many waiting."""
        mine = self._clients.get(job.client)
        if mine is not None and sum(each.next == 0 for each in mine.waiting) >= self.queue:
            raise Full(problem("queue", f"{self.queue} of your requests are waiting", do="try again later"))
        if self.waiting >= 4 * self.queue:
            raise Full(problem("queue", f"{self.waiting} requests are waiting", do="try again later"))
        self._clients.setdefault(job.client, _Client()).waiting.append(_Waiting(job))
        self.waiting += 1

    def cancel(self, job: int) -> list[Key]:
        """Forget a job, waiting or not, and return the rows that lose their slots; an unknown job has none."""
        for client in self._clients.values():
            for each in [each for each in client.waiting if each.job.id == job]:
                self.waiting -= each.next == 0
                client.waiting.remove(each)
        lost = [key for key in self._rows if key.job == job]
        for key in lost:
            self.finish(key)
        self._forget_idle()
        return lost

    def finish(self, key: Key) -> None:
        """Free the slot of a row that has ended; an unknown row has none."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        client = self._clients[row.job.client]
        client.rows -= 1
        if not row.writing:
            client.reading.remove(key)
        self._forget_idle()

    def plan(self) -> Plan:
        """Return the next step, and count it as done."""
        writes = tuple(key for key, row in self._rows.items() if row.writing)
        copies = tuple(self._join())
        return Plan(copies, tuple(self._read()), writes)

    def _join(self) -> Iterator[Copy]:
        """Give free slots away, one at a time, each to the client that holds the fewest."""
        while len(self._rows) < self.slots:
            ready = [name for name in self._clients if self._next(name) is not None]
            if not ready:
                return
            name = min(ready, key=lambda each: self._clients[each].rows)  # of equals, the least recently served
            client, waiting = self._clients[name], self._next(name)
            assert waiting is not None, "was ready"
            key, source = Key(waiting.job.id, waiting.next), self._sibling(waiting.job)
            self.waiting -= waiting.next == 0
            waiting.next += 1
            if waiting.next == waiting.job.n:
                client.waiting.remove(waiting)
            row = self._rows[key] = _Row(waiting.job)
            client.rows += 1
            client.reading.append(key)
            self._served(name)
            if source is not None and waiting.job.prompt > 1:
                row.read = waiting.job.prompt - 1
                yield Copy(source, key, row.read)

    def _next(self, name: str) -> _Waiting | None:
        """Return the client's first waiting job that can join: later answers wait until the prompt is read once."""
        for each in self._clients[name].waiting:
            reading = any(row.job.id == each.job.id and not row.writing for row in self._rows.values())
            if each.next == 0 or not self.shares or not reading or self._sibling(each.job) is not None:
                return each
        return None

    def _sibling(self, job: Job) -> Key | None:
        """Return a row that has read the job's prompt and is still here, where its reading can be shared."""
        if not self.shares:
            return None
        return next((key for key, row in self._rows.items() if key.job == job.id and row.writing), None)

    def _read(self) -> Iterator[Read]:
        """Deal the step's prompt tokens out; a client's turn gives one row what is left, up to all it needs."""
        left = self.chunk
        turns = [name for name, client in self._clients.items() if client.reading]
        while left and turns:
            name = turns.pop(0)
            client = self._clients[name]
            key = client.reading.popleft()
            row = self._rows[key]
            start, row.read = row.read, min(row.job.prompt, row.read + left)
            left -= row.read - start
            if not row.writing:
                client.reading.append(key)  # behind the client's other rows: its short prompts pass its long ones
            elif client.reading:
                turns.append(name)
            self._served(name)
            yield Read(key, start, row.read, row.writing)

    def _served(self, name: str) -> None:
        """Put a client at the end of the line."""
        self._clients[name] = self._clients.pop(name)

    def _forget_idle(self) -> None:
        """Drop clients that have nothing here, so that their names do not pile up."""
        for name in [name for name, each in self._clients.items() if not each.rows and not each.waiting]:
            del self._clients[name]
