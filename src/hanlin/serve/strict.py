"""JSON that every reader reads the same way, or not at all.

refused: a key that stands twice · NaN, Infinity, 1e400 · numbers of many digits · NUL and halves of surrogate pairs
· deep nesting · objects of many keys · anything but one object · anything but UTF-8
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from hanlin.errors import problem
from hanlin.serve.refusal import Refused

DEEPEST = 32  # nesting levels; a chat with content parts has five, a JSON schema two for each of its own
LONGEST_NUMBER = 32  # characters; a 64-bit seed has twenty
MOST_KEYS = {0: 128, 1: 1024}  # of an object, by its depth: fields, entries of logit_bias
MOST_KEYS_INSIDE = 64  # of deeper ones; each unknown key is compared with all known ones
ESCAPES = re.compile(r"\\u(0000|[dD][89a-fA-F])")  # the only way for NUL or half a pair to enter


def read_json(data: bytes) -> dict[str, Any]:
    """Return the object that a body holds; Refused (400) where other readers might see something else in it."""
    try:
        text = data.decode()
        loaded = json.loads(
            text, object_pairs_hook=_once, parse_constant=_constant, parse_int=_integer, parse_float=_finite
        )
        _plain(loaded, 0, ESCAPES.search(text) is not None)
    except RecursionError:
        raise Refused(400, problem("body", "nested too deep", f"at most {DEEPEST} levels")) from None
    except ValueError as error:
        raise Refused(400, problem("body", f"not usable JSON: {error}"[:300])) from None
    if not isinstance(loaded, dict):
        raise Refused(400, problem("body", f"a JSON {type(loaded).__name__}", "expected an object"))
    return loaded


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys each stand once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} stands twice")
    return found


def _constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {digits[:LONGEST_NUMBER]} is too large")
    return number


def _plain(value: object, depth: int, suspect: bool) -> None:
    """Raise ValueError for what is nested too deep, and in `suspect` data for NUL and halves of surrogate pairs."""
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    if isinstance(value, str):
        if suspect and "\0" in value:
            raise ValueError("text with a NUL character")
        if suspect and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("text with half a surrogate pair")
    elif isinstance(value, dict):
        if len(value) > (most := MOST_KEYS.get(depth, MOST_KEYS_INSIDE)):
            raise ValueError(f"an object of {len(value)} keys, {depth} levels deep; at most {most}")
        for key, item in value.items():
            _plain(key, depth + 1, suspect)
            _plain(item, depth + 1, suspect)
    elif isinstance(value, list):
        for item in value:
            if type(item) is not int:  # ids come by the hundred thousand
                _plain(item, depth + 1, suspect)
