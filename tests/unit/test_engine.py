"""The engine: in any company, order and chunking, every row's answer is the one that it has alone."""

import random

import pytest
import torch
from folders import BART, GPT2, LLAMA, PAIR, RNN, T5, build

from hanlin.batch import Tokens
from hanlin.errors import AbilityError
from hanlin.generate import decode, sources
from hanlin.generate.sampling import Sampling
from hanlin.models import bert
from hanlin.serve.engine import Engine
from hanlin.serve.scheduler import Job, Key, Plan, Read, Scheduler
from hanlin.text.tokenizer import byte_level

STOPS = frozenset([1])
TOKENIZER = byte_level()


def asked(rnd, number):
    """Return a prompt and a Sampling, some of everything."""
    prompt = [rnd.randrange(3, 259) for _ in range(rnd.randrange(1, 20))]
    return prompt, Sampling(
        limit=rnd.randrange(1, 12),
        n=rnd.choice([1, 1, 2, 3]),
        temperature=rnd.choice([0, 1.0]),
        seed=number,
        presence=rnd.choice([0, 0, 1.0]),
        repetition=rnd.choice([1, 1.3]),
        top_k=rnd.choice([0, 5]),
        logprobs=rnd.choice([None, 3]),
        stop=rnd.choice([(), ("a",)]),
        logit_bias=rnd.choice([{}, {70: 4.0}]),
    )


def play(engine, scheduler, jobs, rnd, cancels=()):
    """Run jobs that arrive at random times; return row -> steps."""
    got, waiting = {}, list(enumerate(jobs))
    while waiting or not scheduler.idle:
        if waiting and rnd.random() < 0.5:
            number, (prompt, sampling) = waiting.pop(0)
            scheduler.admit(Job(id=number, client=str(number % 3), prompt=len(prompt), n=sampling.n))
            for n in range(sampling.n):
                engine.open(Key(number, n), prompt, sampling)
        if cancels and rnd.random() < 0.2:
            gone = rnd.choice(cancels)
            for key in scheduler.cancel(gone):
                engine.close(key)
            for n in range(3):
                engine.close(Key(gone, n))
        plan = scheduler.plan()
        for key, step in engine.step(plan) if plan != Plan((), (), ()) else ():
            got.setdefault(key, []).append(step)
            if step.finish:
                scheduler.finish(key)
    return got


def alone(model, prompt, sampling):
    """Return the answers to one prompt, by the generator that has no lanes."""
    how = {"stop_ids": STOPS, "tokenizer": TOKENIZER}
    if sources.reads(model):
        with torch.inference_mode():
            memory = model.encode(Tokens(ids=torch.tensor([prompt])))
        return decode.answers(model, [sources.opening(model, TOKENIZER)], sampling, memory=memory, **how)
    return decode.answers(model, [prompt], sampling, **how)


@pytest.mark.parametrize(
    "config", [LLAMA, GPT2, RNN, T5, BART, PAIR], ids=["llama", "gpt2", "lstm", "t5", "bart", "pair"]
)
@pytest.mark.parametrize("seed", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 2))])
def test_company_changes_nothing(config, seed):
    """Guards against lanes mixed up by joining, copying, leaving; noise, penalties or settings of a neighbour."""
    model, rnd = build(config), random.Random(seed)
    jobs = [asked(rnd, number) for number in range(30)]
    engine = Engine(model, TOKENIZER, STOPS, slots=rnd.choice([3, 5, 8]), length=32)
    cancelled = list(range(0, 30, 5))
    scheduler = Scheduler(slots=engine.slots, chunk=rnd.choice([1, 7, 50]), queue=99, shares=engine.shares)
    got = play(engine, scheduler, jobs, rnd, cancelled)
    compared = 0
    for number, (prompt, sampling) in enumerate(jobs):
        if number in cancelled:
            continue
        for answer in alone(model, prompt, sampling):
            steps = got[Key(number, answer.n)]
            assert tuple(step.id for step in steps) == answer.ids
            assert "".join(step.text for step in steps) == answer.text
            assert steps[-1].finish == answer.finish
            if answer.logprobs is not None:
                found = torch.tensor([step.logprob for step in steps])
                torch.testing.assert_close(found, torch.tensor(answer.logprobs), atol=1e-4, rtol=1e-4)
                assert [len(step.top) for step in steps] == [3] * len(steps)
            compared += 1
    assert compared > 24


def test_nothing_is_left_behind():
    """Guards against rows that stay in memory after they ended or were cancelled."""
    engine, rnd = Engine(build(), TOKENIZER, STOPS, slots=4, length=32), random.Random(0)
    jobs = [asked(rnd, number) for number in range(20)]
    play(engine, Scheduler(slots=4, chunk=9, queue=99), jobs, rnd, cancels=list(range(20)))
    for name in ("_rows", "_prompts", "_order", "_last"):
        assert len(getattr(engine, name)) == 0, name
    assert engine._writing == 0


def test_penalties_begin_when_a_row_asks_for_them():
    """Guards against a history that lacks the prompt of a row that joins writers without penalties."""
    model = build()
    prompt, plain = [5, 6, 7, 8], Sampling(limit=20, temperature=0)
    tired = Sampling(limit=8, temperature=0, repetition=1.5, frequency=1.0)
    engine = Engine(model, TOKENIZER, frozenset(), slots=4, length=32)
    engine.open(Key(0, 0), prompt, plain)
    engine.open(Key(1, 0), prompt, tired)
    engine.step(Plan((), (Read(Key(0, 0), 0, 4, True),), ()))
    steps = [engine.step(Plan((), (Read(Key(1, 0), 0, 4, True),), (Key(0, 0),)))]
    steps += [engine.step(Plan((), (), (Key(0, 0), Key(1, 0)))) for _ in range(7)]
    ids = tuple(step.id for each in steps for key, step in each if key == Key(1, 0))
    assert ids == decode.answers(model, [prompt], tired, stop_ids=frozenset())[0].ids


def test_a_reset_engine_begins_anew():
    """Guards against an engine that stays broken after a step failed half way."""
    engine = Engine(build(), TOKENIZER, frozenset(), slots=2, length=32)
    sampling = Sampling(limit=3, temperature=0)
    engine.open(Key(0, 0), [5, 6], sampling)
    with pytest.raises(KeyError):
        engine.step(Plan((), (Read(Key(0, 0), 0, 2, True), Read(Key(9, 0), 0, 2, True)), ()))
    engine.reset()
    engine.open(Key(1, 0), [5, 6], sampling)
    first = engine.step(Plan((), (Read(Key(1, 0), 0, 2, True),), ()))
    expected = decode.answers(engine.model, [[5, 6]], sampling, stop_ids=frozenset())[0].ids
    assert first[0][1].id == expected[0]


def test_only_models_that_write_are_served():
    """Guards against an encoder opened as if it could write."""
    encoder = build(bert.Config(vocab=300, dim=16, layers=1, heads=2, hidden=24, context=32))
    with pytest.raises(AbilityError, match="cannot decode step by step"):
        Engine(encoder, TOKENIZER, STOPS, slots=2, length=32)
