"""What a chat template may call, and how much of everything it may use.

    step    every call, filter, operator, turn of a loop            at most STEPS and SECONDS of one core
    fits    a value about to be made                                 at most VALUE bytes, everything in it counted
    keep    a value that was made                                    the same, and TOTAL bytes in the whole rendering

A list may hold the same list twice, so sixty small steps could write down 2^60 words: a value weighs what it would
weigh written out. Functions that could make much out of little, or compare for minutes, are checked before they run.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import filters as theirs
from jinja2.runtime import Context
from jinja2.utils import Namespace, pass_context
from markupsafe import escape

STEPS = 10_000_000  # a step is some tens of nanoseconds; a thousand messages in a long template take half a million
SECONDS = 0.3  # of this thread, counted twice at most; real templates need some milliseconds
VALUE = 4_000_000  # bytes, and four times those of the messages
TOTAL = 48_000_000  # bytes, and eight times those of the messages
SEARCH = 100_000_000  # characters compared, at worst, by one call of a method that is not clever
BITS = 64  # of a whole number
FORMAT = 1000  # characters of a text before %, and names in a path a.b.c
NARROW = 64  # characters of indentation
RANGE = 100_000

Value = Any  # whatever a template computes


class Refused(Exception):
    """The template does what none may do, or too much of it."""


class Allowance:
    """What is left of the steps, bytes and seconds of one rendering."""

    def __init__(self, size: int, now: datetime, *, brackets: bool) -> None:
        """Start with everything; `size` is the weight of what the template is given, in bytes."""
        self.steps = STEPS
        self.value = VALUE + 4 * size
        self.total = TOTAL + 8 * size
        self.end = time.thread_time() + SECONDS
        self.paused = False  # once: this thread may have to collect the garbage of the whole process
        self.depth = 0  # of macros that call macros
        self.now = now
        self.brackets = brackets  # show where the assistant's words begin and end

    def step(self, count: int = 1) -> None:
        """Count steps; none are ever given back."""
        self.steps -= max(count, 1)
        if self.steps < 0:
            raise Refused(f"it takes more than {STEPS:,} steps")
        now = time.thread_time()
        if now > self.end:
            if self.paused:
                raise Refused(f"it takes more than {SECONDS} seconds")
            self.paused, self.end = True, now + SECONDS

    def fits(self, size: int) -> None:
        """Refuse to make a value of more bytes than one may have."""
        if size > self.value:
            raise Refused(f"it makes a value of more than {self.value:,} bytes")

    def spend(self, size: int) -> None:
        """Count bytes."""
        self.total -= size
        if self.total < 0:
            raise Refused("it makes more text than a rendering may")

    def keep(self, value: Value) -> Value:
        """Count a value that was made, and return it."""
        self.step()
        if value is not None and value is not True and value is not False:
            self.weigh(value)
            self.spend(sys.getsizeof(value))
        return value

    def weigh(self, value: Value) -> int:
        """Return the bytes of a value written out: what it holds twice counts twice."""
        return weight(value, self.value)

    def text(self, value: Value) -> str:
        """Return a value as a template shows it."""
        self.step()
        if type(value) is str:
            return value
        self.weigh(value)
        shown = str(value)
        self.spend(sys.getsizeof(shown))
        return shown

    def joined(self, pieces: Iterable[str], between: str = "") -> str:
        """Return pieces as one text."""
        kept: list[str] = []
        size = 0
        for piece in pieces:
            size += bytes_of(piece) + bytes_of(between)
            self.fits(size)
            kept.append(piece)
        self.spend(size)
        return between.join(kept)


CURRENT: ContextVar[Allowance] = ContextVar("CURRENT")  # of the rendering that this thread is in


def bytes_of(text: str) -> int:
    """Return how many bytes the characters of a text need, at most."""
    return len(text) if text.isascii() else 4 * len(text)


def weight(value: Value, most: float = float("inf")) -> int:
    """Return the bytes of a value written out; Refused when there are more than `most`."""
    total, left = 0, [value]
    while left:
        each = left.pop()
        kind = type(each)
        total += sys.getsizeof(each)
        if kind is list or kind is tuple:
            left.extend(each)
        elif kind is dict:
            left.extend(each)
            left.extend(each.values())
        elif kind is int and each.bit_length() > BITS:
            raise Refused(f"it makes a whole number of more than {BITS} bits")
        if total > most:
            raise Refused(f"it makes a value of more than {int(most):,} bytes")
    return total


class Function:
    """Something a template may call: a method of a value, or a function given to it."""

    __slots__ = ("call", "name", "owner")

    def __init__(self, call: Callable[..., Value], name: str, owner: Value = None) -> None:
        """Keep the function and the value it is a method of."""
        self.call = call
        self.name = name
        self.owner = owner

    def __call__(self, *args: Value, **kwargs: Value) -> Value:
        """Check the arguments, call, and make a list of what would be computed later."""
        check = CHECKS.get(self.name) if type(self.owner) is str else None
        if check:
            check(CURRENT.get(), self.owner, *args, **kwargs)
        made = self.call(*args, **kwargs)
        return (
            list(made) if isinstance(made, Iterator | type({}.keys()) | type({}.values()) | type({}.items())) else made
        )

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Names(Namespace):
    """What `namespace()` makes: names that can be set from inside a loop. It shows nothing of what it holds."""

    def __repr__(self) -> str:
        return "<namespace>"


# Checks of methods and operators ----------------------------------------------------------------------------------


def _check_search(left: Allowance, text: str, other: Value = None, *_: Value) -> None:
    """Strip and the searches from the right compare every character with every other, at worst."""
    if type(other) is str and len(other) * len(text) > SEARCH:
        raise Refused("it searches for too long a text")


def _check_split(left: Allowance, text: str, sep: Value = None, maxsplit: int = -1) -> None:
    _check_search(left, text, sep)
    left.fits((text.count(sep) if type(sep) is str and sep else _blanks(text)) * 60)  # 60: an object and its place


def _check_lines(left: Allowance, text: str, *_: Value, **__: Value) -> None:
    left.fits(sum(map(text.count, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")) * 60)


def _check_replace(left: Allowance, text: str, old: Value, new: Value, count: Value = -1) -> None:
    if type(old) is str and type(new) is str:
        found = text.count(old)
        found = min(found, count) if type(count) is int and count >= 0 else found
        left.fits(bytes_of(text) + found * bytes_of(new))


def _check_join(left: Allowance, between: str, pieces: Value) -> None:
    left.fits(left.weigh(pieces) + bytes_of(between) * len(pieces))


def _blanks(text: str) -> int:
    """Return at least as many as there are white spaces."""
    return sum(map(text.count, " \t\n\r\v\f\x1c\x1d\x1e\x1f")) if text.isascii() else len(text) // 2


CHECKS: Mapping[str, Callable[..., None]] = {
    **dict.fromkeys(("strip", "lstrip", "rstrip", "rfind", "rpartition"), _check_search),
    **dict.fromkeys(("split", "rsplit"), _check_split),
    "splitlines": _check_lines,
    "replace": _check_replace,
    "join": _check_join,
}


def check_operator(left: Allowance, sign: str, one: Value, two: Value) -> None:
    """Refuse an operation that would make too much: 10**10**10, 'a' * 10**9, '%1000000000d' % 1."""
    left.weigh([one, two])
    if sign == "**" and (not isinstance(two, int | float) or abs(two) > BITS):
        raise Refused(f"it raises to a power that is not a number up to {BITS}")
    if sign == "*":
        for value, times in ((one, two), (two, one)):
            if isinstance(value, str | list | tuple) and isinstance(times, int):
                left.fits(left.weigh(value) * max(times, 0))
    if sign == "%" and isinstance(one, str):
        if len(one) > FORMAT:
            raise Refused(f"it formats by a text of more than {FORMAT:,} characters")
        if re.search(r"\*|[0-9]{3}", "".join(re.findall(r"%(?:\([^)]*\))?([^a-zA-Z%]*)", one))):
            raise Refused("it formats into a field of a hundred characters or more")
        left.fits(left.weigh(one) + one.count("%") * 4 * left.weigh(two))


# Filters ----------------------------------------------------------------------------------------------------------

TEXTS = ("capitalize", "lower", "title", "trim", "upper")  # filters of a text
PLAIN = ("abs", "count", "d", "default", "dictsort", "float", "int", "items", "length", "reverse")
BY_ENVIRONMENT = ("first", "last", "max", "min", "sort", "unique")
BY_CONTEXT = ("map", "reject", "rejectattr", "select", "selectattr")
SPREAD = ("title", "list", "sort", "unique", *BY_CONTEXT)  # these take a text to pieces
TESTS = (
    *("boolean", "callable", "defined", "divisibleby", "even", "false", "float", "in", "integer", "iterable", "lower"),
    *("mapping", "none", "number", "odd", "sameas", "sequence", "string", "true", "undefined", "upper"),
    *("!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "le", "lessthan", "lt", "ne"),
)


def filters() -> dict[str, Callable[..., Value]]:
    """Return the filters that templates may use."""
    names = (*TEXTS, *PLAIN, *BY_ENVIRONMENT, *BY_CONTEXT)
    return {name: _guarded(name, theirs.FILTERS[name]) for name in names} | {
        name: _guarded(name, function) for name, function in OURS.items()
    }


def _guarded(name: str, function: Callable[..., Value]) -> Callable[..., Value]:
    """Return a filter that counts, and that has made all it makes when it returns."""

    @pass_context
    def guarded(context: Context, value: Value = None, *args: Value, **kwargs: Value) -> Value:
        left = CURRENT.get()
        left.step()
        if name in TEXTS:
            value = left.text(value)
        if type(value) is str and name in SPREAD:
            left.fits(len(value) * 80)  # an object a character
        if name in (*BY_ENVIRONMENT, *BY_CONTEXT):  # which look up paths
            _check_paths(*args, *kwargs.values())
        first: tuple[Value, ...] = (context,) if name in BY_CONTEXT else ()
        first = (context.environment,) if name in BY_ENVIRONMENT else first
        made = function(*first, value, *args, **kwargs)
        return left.keep(list(made) if isinstance(made, Iterator) else made)

    return guarded


def _check_paths(*args: Value) -> None:
    if any(isinstance(each, str) and each.count(".") > FORMAT for each in args):
        raise Refused(f"it looks up a path of more than {FORMAT:,} names")


def _join(value: Iterable[Value], d: Value = "", attribute: Value = None) -> str:
    left = CURRENT.get()
    if attribute is not None:
        raise Refused("join takes no attribute; map(attribute=...) before it does the same")
    return left.joined((left.text(each) for each in value), left.text(d))


def _replace(value: Value, old: Value, new: Value, count: int | None = None) -> str:
    left = CURRENT.get()
    text, old, new = left.text(value), left.text(old), left.text(new)
    _check_replace(left, text, old, new, count)
    return text.replace(old, new, -1 if count is None else count)


def _format(value: Value, *args: Value, **kwargs: Value) -> str:
    text = CURRENT.get().text(value)
    check_operator(CURRENT.get(), "%", text, kwargs or args)
    return text % (kwargs or args)


def _indent(value: Value, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    if (len(width) if isinstance(width, str) else width) > NARROW:
        raise Refused(f"it indents by more than {NARROW}")
    text = CURRENT.get().text(value)
    _check_lines(CURRENT.get(), text)
    CURRENT.get().fits(bytes_of(text) + text.count("\n") * 4 * NARROW)
    return theirs.do_indent(text, width, first, blank)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:  # noqa: ANN401  # a word of jinja's
    if abs(precision) > 20:
        raise Refused("it rounds to more than 20 digits")
    return theirs.do_round(value, precision, method)


def _sum(value: Iterable[Value], attribute: Value = None, start: Value = 0) -> Value:
    numbers = [start, *value]
    if attribute is not None or not all(isinstance(each, int | float) for each in numbers):
        raise Refused("it adds up what are not numbers")
    return sum(numbers)


def _json(
    value: Value,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,  # noqa: ANN401  # a pair, or what is wrong with it
    sort_keys: bool = False,
) -> str:
    """Return JSON as transformers' templates know it: no escapes for HTML, and none for what is not ASCII."""
    wide = [*(separators or ()), indent if isinstance(indent, str) else ""]
    if any(len(each) > 8 for each in wide) or (isinstance(indent, int) and indent > 8):
        raise Refused("it indents JSON by more than 8")
    CURRENT.get().weigh(value)
    text = json.dumps(value, indent=indent, separators=separators, sort_keys=sort_keys, ensure_ascii=False)
    # Noncharacters stay: they stand for characters of ASCII (control.py).
    return re.sub(r"[^\x00-\x7e\ufdd0-\ufdef]", _escaped, text) if ensure_ascii else text


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _html(value: Value) -> str:
    text = CURRENT.get().text(value)
    CURRENT.get().fits(len(text) + 5 * sum(map(text.count, "&<>'\"")))
    return str(escape(text))


def _charge(cost: int, *_: Value) -> str:
    """Count the nodes of a macro's body."""
    CURRENT.get().step(cost)
    return ""


def turns(value: Value, cost: int = 1) -> Iterator[Value]:
    """Return what a loop goes over, counting the nodes of its body at each turn."""
    left = CURRENT.get()
    if type(value) is str:
        left.fits(len(value) * 80)
    for each in value:
        left.step(cost)
        yield each


def _bracket(value: str) -> str:
    return value if CURRENT.get().brackets else ""


def _same(value: Value) -> Value:
    return value


def _text(value: Value) -> str:
    return CURRENT.get().text(value)


def _concat(value: Iterable[Value]) -> str:
    return CURRENT.get().joined(map(_text, value))


OURS: Mapping[str, Callable[..., Value]] = {
    "e": _html,
    "escape": _html,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "list": list,
    "replace": _replace,
    "round": _round,
    "safe": _text,
    "string": _text,
    "sum": _sum,
    "tojson": _json,
    # What sandbox.py puts into the tree; a template that finds them by name gains nothing.
    ".bracket": _bracket,
    ".charge": _charge,
    ".concat": _concat,
    ".same": _same,
}


# Functions --------------------------------------------------------------------------------------------------------


def _range(*args: int) -> range:
    made = range(*args)
    if made and abs(made[-1] - made[0]) // abs(made.step) >= RANGE:  # its len() may be too large for Python
        raise Refused(f"it counts to more than {RANGE:,}")
    return made


def _raise(message: Value = "") -> None:
    raise Refused(f"it refuses: {CURRENT.get().text(message)}")


def _now(form: str) -> str:
    if len(form) > 100 or re.search(r"%[^a-zA-Z]*[0-9]", form):  # '%1000000000d' is a wide date
        raise Refused("it asks for a date of unusual form")
    return CURRENT.get().now.strftime(form)


def functions() -> dict[str, Value]:
    """Return the functions that templates may call."""
    given: dict[str, Callable[..., Value]] = {
        "dict": lambda *args, **kwargs: dict(*args, **kwargs),
        "namespace": Names,
        "raise_exception": _raise,
        "range": _range,
        "strftime_now": _now,
    }
    return {name: Function(call, name) for name, call in given.items()}
