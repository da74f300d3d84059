"""What waits to be answered together: whose turn it is, and where there is no room."""

import asyncio

import pytest

from hanlin.serve.scheduler import Full
from hanlin.serve.tasks.bulk import Bulk, Order, computed


def bulk(**sizes):
    return Bulk(list, lambda unit: unit, **{"queue": 2, "tokens": 10, "units": 4, **sizes})


def order(client, *units):
    async def made():
        return Order("m", "k", client, units)

    return asyncio.run(made())


def taken(bulk):
    return [(order.client, at) for order, at in bulk.take()]


def test_clients_take_turns():
    """Guards against a client with a thousand inputs that everybody waits for."""
    queue = bulk()
    queue.admit(order("a", *[1] * 6))
    queue.admit(order("b", 1, 1))
    assert taken(queue) == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    queue.admit(order("c", 1))
    assert taken(queue) == [("a", 2), ("c", 0), ("a", 3), ("a", 4)]
    assert taken(queue) == [("a", 5)]
    assert (taken(queue), queue.waiting) == ([], 0)


def test_who_was_left_out_is_first():
    """Guards against a budget that the same client always takes."""
    queue = bulk()
    for client in "abc":
        queue.admit(order(client, 6, 6))
    assert [taken(queue) for _ in range(6)] == [[(client, at)] for at in (0, 1) for client in "abc"]


def test_the_budget_holds_but_one_always_goes():
    """Guards against a step without end, and against a long input that is never taken."""
    queue = bulk()
    queue.admit(order("a", 99, 5, 5, 1))
    assert [len(queue.take()) for _ in range(4)] == [1, 2, 1, 0]


def test_the_queue_is_bounded_and_a_withdrawn_order_leaves_it():
    """Guards against memory that grows with who waits, and places that are never free again."""
    queue = bulk()
    orders = [order("a", 1), order("a", 1)]
    for each in orders:
        queue.admit(each)
    with pytest.raises(Full):
        queue.admit(order("a", 1))
    for client in "bcdefg":
        queue.admit(order(client, 1))
    with pytest.raises(Full):
        queue.admit(order("h", 1))
    for _ in range(2):
        queue.withdraw(orders[0])
    queue.admit(order("h", 1))
    assert queue.waiting == 8


def test_what_breaks_together_is_computed_alone():
    """Guards against outputs handed to the wrong unit after one of them broke."""

    def fragile(units):
        if 3 in units:
            raise RuntimeError("no")
        return [unit * 10 for unit in units]

    queue = Bulk(fragile, lambda unit: 1, queue=9)
    queue.admit(order("a", 1, 2))
    queue.admit(order("b", 3))
    found = computed(queue, queue.take())
    assert (found[0], type(found[1]), found[2]) == (10, RuntimeError, 20)
