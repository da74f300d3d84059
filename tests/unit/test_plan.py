"""The plan: exactly one length, at most one portion, and every contradiction at once."""

from __future__ import annotations

import pytest

from hanlin.config import parse
from hanlin.errors import ConfigError
from hanlin.train.plan import Plan


def problems(**given):
    """Return the lines with which a plan is refused."""
    with pytest.raises(ConfigError) as caught:
        parse(Plan, given, "plan")
    return caught.value.problems


@pytest.mark.parametrize(
    ("given", "rows"),
    [({}, 16), ({"rows": 3}, 3), ({"tokens": 1024}, 4), ({"tokens": 1100}, 4), ({"tokens": 256}, 1)],
)
def test_rows_a_step(given, rows):
    """Tokens taken for rows, or rounded up past what was asked for."""
    assert parse(Plan, {"steps": 1, "context": 256, **given}).rows_a_step == rows


@pytest.mark.parametrize("length", [{"steps": 1}, {"epochs": 0.5}, {"epochs": 2}, {"minutes": 0.1}])
def test_one_length(length):
    """A length refused for being whole, or for being a fraction."""
    assert parse(Plan, length).model_dump(include=set(length)) == length


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "no length given; exactly one of steps, epochs, minutes is needed"),
        ({"steps": 1, "epochs": 1.0, "minutes": 1.0}, "steps and epochs and minutes given; exactly one"),
        ({"steps": 1, "rows": 1, "tokens": 512}, "rows and tokens given"),
        ({"steps": 1, "tokens": 100}, "tokens 100 is less than one row of context 256"),
        ({"steps": 1, "rows": 3, "accumulate": 4}, "accumulate 4 is more portions than a step has rows, 3"),
        ({"steps": 1, "rows": 6, "accumulate": 2, "portion": 99}, "portion and accumulate given"),
        ({"steps": 1, "grow": {"context": (100,)}}, "grow.context 100 does not divide context 256"),
        ({"steps": 1, "grow": {"context": (64, 32)}}, "grow.context [64, 32] does not grow"),
        ({"steps": 1, "rows": 8, "grow": {"rows": (4, 8)}}, "grow.rows [4, 8] does not grow to rows 8"),
        ({"steps": 1, "grow": {}}, "grow says neither context nor rows"),
    ],
)
def test_contradictions(given, expected):
    """A step of no rows, or of rows that no portion takes."""
    assert any(expected in line for line in problems(**given))


def test_all_contradictions_at_once():
    """One error a run."""
    assert len(problems(rows=6, tokens=100, accumulate=4)) == 4


@pytest.mark.parametrize(
    "given",
    [
        *({name: 0} for name in ("steps", "rows", "context", "accumulate", "keep", "patience", "save_every", "clip")),
        *({name: -1} for name in ("epochs", "minutes", "seed", "threads", "evaluate_every")),
        *({"steps": value} for value in (1.5, "3", True, None)),
        {"precision": "fp8"},
        {"minutes": float("inf")},
    ],
)
def test_impossible_values(given):
    """A number that a step would choke on, or a type that is read as something else."""
    (name,) = given
    length = {} if name in ("steps", "epochs", "minutes") else {"steps": 1}
    assert any(name in line for line in problems(**length, **given))


def test_no_clipping_is_a_choice():
    assert parse(Plan, {"steps": 1, "clip": None}).clip is None
