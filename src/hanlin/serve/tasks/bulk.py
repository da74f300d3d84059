"""What can be answered together by one function: units of many requests, taken in turns, whatever is there by now.

    request ─ units ─> Order ─ admit ─> client A  ▪▪▪▪▪▪▪
    request ─ units ─> Order ─ admit ─> client B  ▪▪         ─ take ─> A B A B A A … ─ compute ─> outputs ─> orders
                          │                                   up to a budget; nothing waits for it to be reached
                          └ withdraw, any time

Pure bookkeeping, as serve/scheduler.py: no clock, no thread, no tensor; who holds the lock calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hanlin.errors import HanlinError, problem
from hanlin.serve.scheduler import Full

log = logging.getLogger("hanlin.serve")

TOKENS = 2_048  # taken together: the longest that those who write have to wait for one step
UNITS = 64


class Order:
    """The units of one request, and the way back of their outputs."""

    def __init__(self, model: str, kind: str, client: str, units: Sequence[Any]) -> None:
        """Open an empty way back to the running event loop."""
        self.model, self.kind, self.client, self.units = model, kind, client, units
        self.outputs: list[Any] = [None] * len(units)
        self.next = 0  # the first unit that nobody has taken
        self.left = len(units)  # without an output
        self.loop = asyncio.get_running_loop()
        self._settled: asyncio.Future[list[Any] | HanlinError] = self.loop.create_future()

    async def answered(self) -> list[Any]:
        """Return the output of every unit, once all are there; the error that ended the order otherwise."""
        found = await self._settled
        if isinstance(found, HanlinError):
            raise found
        return found

    def settle(self, found: list[Any] | HanlinError) -> None:
        """Take in what came of it, the first time alone; on the event loop."""
        if not self._settled.done():
            self._settled.set_result(found)


Taken = list[tuple[Order, int]]  # unit `int` of each order
Settled = list[tuple[Order, list[Any] | HanlinError]]


class Bulk:
    """Orders for one function of one model."""

    def __init__(
        self,
        compute: Callable[[Sequence[Any]], Sequence[Any]],
        size: Callable[[Any], int],
        *,
        queue: int,
        tokens: int = TOKENS,
        units: int = UNITS,
    ) -> None:
        """Begin empty; `size` counts a unit's tokens; `queue` orders a client may wait, four times that in all."""
        self.compute, self.size = compute, size
        self.queue, self.tokens, self.units = queue, tokens, units
        self._clients: dict[str, deque[Order]] = {}  # least recently served first

    @property
    def orders(self) -> list[Order]:
        """Return the orders that have units nobody has taken."""
        return [order for orders in self._clients.values() for order in orders]

    @property
    def waiting(self) -> int:
        """Return how many orders have units that nobody has taken."""
        return sum(map(len, self._clients.values()))

    def admit(self, order: Order) -> None:
        """Queue an order of one unit or more; Full where there is no room."""
        assert order.units, "an order of nothing"
        if self.waiting >= 4 * self.queue or len(self._clients.get(order.client, ())) >= self.queue:
            raise Full(problem("queue", "full", f"{self.queue} requests a client wait at most", do="try again"))
        self._clients.setdefault(order.client, deque()).append(order)

    def withdraw(self, order: Order) -> None:
        """Forget an order; an unknown one is no error."""
        if order in self._clients.get(order.client, ()):
            self._clients[order.client].remove(order)
        self._tidy(order.client)

    def take(self) -> Taken:
        """Return units within the budget, one at the least, a unit a client in turns."""
        taken: Taken = []
        held = 0
        turns = deque(self._clients)
        while turns and len(taken) < self.units:
            client = turns.popleft()
            order = self._clients[client][0]
            held += self.size(order.units[order.next])
            if taken and held > self.tokens:
                break
            taken.append((order, order.next))
            order.next += 1
            if order.next == len(order.units):
                self._clients[client].popleft()
            self._clients[client] = self._clients.pop(client)
            if self._tidy(client):
                turns.append(client)
        return taken

    def _tidy(self, client: str) -> bool:
        """Return whether a client has orders; forget it where it has none."""
        if not self._clients.get(client):
            self._clients.pop(client, None)
            return False
        return True


def computed(bulk: Bulk, taken: Taken) -> Sequence[Any]:
    """Return an output for each unit, or an Exception: what breaks them together is computed one by one."""
    try:
        return bulk.compute([order.units[at] for order, at in taken])
    except Exception as error:
        if len(taken) > 1:
            return [found for each in taken for found in computed(bulk, [each])]
        if not isinstance(error, HanlinError):
            log.exception("an answer failed")
        return [error]


def settle(out: Settled) -> None:
    """Hand orders what came of them, on their event loop; a loop that has ended wants nothing."""
    for order, found in out:
        if not order.loop.is_closed():
            order.loop.call_soon_threadsafe(order.settle, found)
