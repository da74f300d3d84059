"""Who computes next: joins at the next step, chunks, turns, bounds; no torch."""

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanlin.serve.scheduler import Copy, Full, Job, Key, Plan, Read, Scheduler

NOTHING = Plan((), (), ())


def job(id, prompt=4, client="a", n=1):
    return Job(id=id, client=client, prompt=prompt, n=n)


def reads(plan):
    return [(read.key.job, read.stop - read.start) for read in plan.reads]


def test_a_request_joins_at_the_next_step():
    """Guards against waiting for a batch to fill, or to empty."""
    scheduler = Scheduler(slots=4, chunk=8, queue=9)
    scheduler.admit(job(0))
    assert scheduler.plan() == Plan((), (Read(Key(0, 0), 0, 4, True),), ())
    scheduler.admit(job(1, prompt=3))
    assert scheduler.plan() == Plan((), (Read(Key(1, 0), 0, 3, True),), (Key(0, 0),))
    assert scheduler.plan() == Plan((), (), (Key(0, 0), Key(1, 0)))


def test_a_long_prompt_comes_in_chunks():
    """Guards against a prompt that stops the writers for longer than a chunk."""
    scheduler = Scheduler(slots=4, chunk=8, queue=9)
    scheduler.admit(job(0, prompt=2))
    scheduler.plan()
    scheduler.admit(job(1, prompt=20))
    plans = [scheduler.plan() for _ in range(4)]
    assert [plan.reads for plan in plans] == [
        (Read(Key(1, 0), 0, 8, False),),
        (Read(Key(1, 0), 8, 16, False),),
        (Read(Key(1, 0), 16, 20, True),),
        (),
    ]
    assert all(Key(0, 0) in plan.writes for plan in plans)


def test_short_prompts_pass_a_long_one():
    """Guards against one long prompt keeping others from their first token, of the same client or another."""
    for client in ("a", "b"):
        scheduler = Scheduler(slots=4, chunk=8, queue=9)
        scheduler.admit(job(0, prompt=1000))
        scheduler.plan()
        scheduler.admit(job(1, prompt=3, client=client))
        found = [reads(scheduler.plan()) for _ in range(2)]
        assert (1, 3) in found[0] + found[1]


def test_the_chunk_is_shared_within_a_step():
    """Guards against one prompt a step where several would fit."""
    scheduler = Scheduler(slots=8, chunk=10, queue=9)
    for each in range(4):
        scheduler.admit(job(each, prompt=4, client=str(each)))
    assert reads(scheduler.plan()) == [(0, 4), (1, 4), (2, 2)]
    assert reads(scheduler.plan()) == [(3, 4), (2, 2)]


def test_clients_share_the_slots():
    """Guards against a client with many requests keeping another out."""
    scheduler = Scheduler(slots=4, chunk=100, queue=50)
    for each in range(40):
        scheduler.admit(job(each, client="many"))
    scheduler.plan()
    for each in range(40, 44):
        scheduler.admit(job(each, client="few"))
    for done in range(3):
        scheduler.finish(Key(done, 0))
        scheduler.plan()
    assert [key.job for key in scheduler.plan().writes] == [3, 40, 41, 4]


def test_answers_copy_what_the_first_has_read():
    """Guards against a prompt that is read once for each of its answers."""
    scheduler = Scheduler(slots=4, chunk=4, queue=9)
    scheduler.admit(job(0, prompt=6, n=3))
    assert scheduler.plan().reads == (Read(Key(0, 0), 0, 4, False),)
    assert scheduler.plan() == Plan((), (Read(Key(0, 0), 4, 6, True),), ())
    plan = scheduler.plan()
    assert plan.copies == (Copy(Key(0, 0), Key(0, 1), 5), Copy(Key(0, 0), Key(0, 2), 5))
    assert plan.reads == (Read(Key(0, 1), 5, 6, True), Read(Key(0, 2), 5, 6, True))
    assert plan.writes == (Key(0, 0),)


def test_answers_read_again_when_nobody_is_left_to_copy_from():
    """Guards against a copy from a row that has gone."""
    scheduler = Scheduler(slots=1, chunk=9, queue=9)
    scheduler.admit(job(0, prompt=6, n=2))
    scheduler.plan()
    scheduler.finish(Key(0, 0))
    assert scheduler.plan() == Plan((), (Read(Key(0, 1), 0, 6, True),), ())


def test_a_prompt_of_one_token_is_not_copied():
    """Guards against a copy of nothing."""
    scheduler = Scheduler(slots=4, chunk=9, queue=9)
    scheduler.admit(job(0, prompt=1, n=2))
    scheduler.plan()
    assert scheduler.plan() == Plan((), (Read(Key(0, 1), 0, 1, True),), (Key(0, 0),))


def test_the_queue_is_bounded_for_each_client_and_for_all():
    """Guards against a queue that grows until memory ends, and a client that fills it for everybody."""
    scheduler = Scheduler(slots=1, chunk=9, queue=2)
    scheduler.admit(job(0, client="a"))
    scheduler.plan()
    scheduler.admit(job(1, client="a"))
    scheduler.admit(job(2, client="a"))
    with pytest.raises(Full, match="2 of your requests are waiting"):
        scheduler.admit(job(3, client="a"))
    for each, client in enumerate("bbccdd", start=4):
        scheduler.admit(job(each, client=client))
    assert scheduler.waiting == 8
    with pytest.raises(Full, match="8 requests are waiting"):
        scheduler.admit(job(99, client="e"))
    scheduler.cancel(1)
    scheduler.admit(job(99, client="e"))


def test_cancelling_frees_at_once_wherever_the_job_is():
    """Guards against a slot, a queue place or a client that is never given back."""
    scheduler = Scheduler(slots=2, chunk=4, queue=9)
    for each in range(3):
        scheduler.admit(job(each, prompt=6, client=str(each)))
    scheduler.plan()
    assert scheduler.cancel(2) == []  # waiting
    assert scheduler.cancel(0) == [Key(0, 0)]  # reading
    assert scheduler.cancel(0) == []
    scheduler.plan()
    scheduler.plan()
    assert scheduler.cancel(1) == [Key(1, 0)]  # writing
    assert scheduler.idle
    assert scheduler.running == scheduler.waiting == 0
    assert scheduler.plan() == NOTHING


def test_no_torch():
    """Guards against a scheduler that cannot be reasoned about without the engine."""
    code = "import sys, hanlin.serve.scheduler; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Machine:
    """Plays the engine: checks every plan against what an engine can do, and counts what each row got."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.jobs, self.limits = {}, {}
        self.held, self.written, self.writing = {}, {}, set()
        self.first, self.step = {}, 0

    def admit(self, each, limit):
        self.scheduler.admit(each)
        self.jobs[each.id], self.limits[each.id] = each, limit

    def cancel(self, number):
        for key in self.scheduler.cancel(number):
            self.leave(key)
        self.jobs.pop(number, None)

    def leave(self, key):
        self.held.pop(key, None)  # a row may have a slot and have read nothing yet
        self.writing.discard(key)

    def run(self):
        plan = self.scheduler.plan()
        self.step += 1
        assert set(plan.writes) == self.writing
        for source, target, tokens in plan.copies:
            assert source.job == target.job
            assert source in self.writing
            assert target not in self.held
            self.held[target] = tokens
        for key, start, stop, last in plan.reads:
            assert self.held.setdefault(key, 0) == start < stop <= self.jobs[key.job].prompt
            self.held[key] = stop
            assert last == (stop == self.jobs[key.job].prompt)
        assert sum(read.stop - read.start for read in plan.reads) <= self.scheduler.chunk
        assert len(self.held) <= self.scheduler.slots
        assert len(self.held) <= self.scheduler.running
        for key in [*plan.writes, *(read.key for read in plan.reads if read.last)]:
            self.writing.add(key)
            self.first.setdefault(key, self.step)
            self.written[key] = self.written.get(key, 0) + 1
            if self.written[key] == self.limits[key.job]:
                self.scheduler.finish(key)
                self.leave(key)


JOBS = st.tuples(st.integers(1, 40), st.sampled_from("abc"), st.integers(1, 4), st.integers(1, 9))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(JOBS, max_size=25), st.integers(1, 6), st.integers(1, 16), st.randoms(use_true_random=False), st.booleans()
)
def test_any_play_ends_with_everything_written_once(jobs, slots, chunk, rnd, cancels):
    """Guards against plans no engine can carry out, rows that starve, and rows computed twice."""
    machine = Machine(Scheduler(slots=slots, chunk=chunk, queue=100))
    waiting, gone = list(enumerate(jobs)), set()
    for _ in range(5000):
        if not waiting and machine.scheduler.idle:
            break
        while waiting and rnd.random() < 0.5:
            number, (prompt, client, n, limit) = waiting.pop(0)
            machine.admit(job(number, prompt, client, n), limit)
        if cancels and machine.jobs and rnd.random() < 0.1:
            gone.add(rnd.choice(sorted(machine.jobs)))
            machine.cancel(max(gone))
        machine.run()
    assert machine.scheduler.idle
    assert not machine.held
    for number, (_, _, n, limit) in enumerate(jobs):
        for each in range(n):
            assert machine.written.get(Key(number, each), 0) == limit or number in gone


def test_nobody_starves_among_unequal_clients():
    """Guards against first tokens that wait on how much others ask: 1 polite client against a flood."""
    machine = Machine(Scheduler(slots=8, chunk=64, queue=1000))
    rnd = random.Random(0)
    for number in range(200):
        machine.admit(job(number, rnd.randrange(1, 500), "flood", rnd.choice([1, 4])), 20)
    for _ in range(10):
        machine.run()
    begun = machine.step
    machine.admit(job(1000, 30, "polite"), 20)
    while Key(1000, 0) not in machine.first:
        machine.run()
    assert machine.first[Key(1000, 0)] - begun <= 20  # the longest that a slot takes to come free, and one chunk
