"""A question before a passage, as a tokenizer encodes the two, and answers as files hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hanlin.errors import DataError, problem
from hanlin.text.encoding import require_unicode
from hanlin.text.tokenizer import Tokenizer

QUESTION = 2  # a question has at most one part in so many of what fits


@dataclass(frozen=True, kw_only=True)
class Read:
    """One encoded pair: what stands before the passage, the passage, what stands behind it."""

    head: tuple[int, ...]  # the question and what is added, cut where it is too long
    body: tuple[int, ...]
    tail: tuple[int, ...]
    kinds: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # of the three
    offsets: tuple[tuple[int, int], ...]  # of the body: characters of the passage
    room: int  # tokens of the body that a window holds
    truncated: int  # tokens cut off the question


def read(tokenizer: Tokenizer, question: str, passage: str, context: int) -> Read:
    """Return a question and its passage for windows of `context` tokens; DataError where they cannot hold both."""
    pair = tokenizer.encode(question, passage)
    own = [place for place, word in enumerate(pair.words) if word is not None]
    asked = len(tokenizer.encode(question, added=False).ids)
    body = own[asked:]
    added = len(pair.ids) - len(own)
    kept = min(asked, (context - added) // QUESTION)
    room = context - added - kept
    if kept < 1 or room < 2:
        raise DataError(problem("plan.context", f"{context}", f"at least {added + 4} tokens"))
    if not body:
        raise DataError(problem("context", f"{passage[:40]!r} has no tokens"))
    gone = {*own[kept:asked]}
    head = [place for place in range(body[0]) if place not in gone]
    tail = range(body[-1] + 1, len(pair.ids))
    ids, kinds = ([tuple(row[at] for at in part) for part in (head, body, tail)] for row in (pair.ids, pair.kinds))
    return Read(
        head=ids[0],
        body=ids[1],
        tail=ids[2],
        kinds=(kinds[0], kinds[1], kinds[2]),
        offsets=tuple(pair.offsets[at] for at in body),
        room=room,
        truncated=len(gone),
    )


def answers_of(context: str, given: object) -> tuple[tuple[str, int], ...]:
    """Return answers and where each begins; DataError for one that does not stand in the context where it should.

    They are [{"text": …, "answer_start": …}], {"text": […], "answer_start": […]}, or texts, whose first place is taken.
    """
    require_unicode(context)
    if isinstance(given, dict) and isinstance(given.get("text"), list):
        starts = given.get("answer_start")
        if not isinstance(starts, list) or len(starts) != len(given["text"]):
            raise DataError(problem("answers", "texts and answer_start of different lengths", "one start a text"))
        given = [{"text": text, "answer_start": start} for text, start in zip(given["text"], starts)]
    listed: Sequence[object] = given if isinstance(given, list | tuple) else [given]
    return tuple(_answer(context, each, place) for place, each in enumerate(listed, 1) if each != "")


def _answer(context: str, each: object, number: int) -> tuple[str, int]:
    """Return one answer."""
    text, start = each, None
    if isinstance(each, dict):
        text = each.get("text")
        start = next((each[key] for key in ("answer_start", "start") if key in each), None)
    if not isinstance(text, str) or not text or isinstance(start, bool) or not isinstance(start, int | None):
        raise DataError(problem(f"answers {number}", f"{each!r}"[:60], "a text, and the character at which it begins"))
    if start is None:
        start = context.find(text)
        if start < 0:
            raise DataError(problem(f"answers {number}", f"'{text[:60]}' does not stand in the context"))
    if start < 0 or context[start : start + len(text)] != text:
        at = context.find(text)
        do = f"it stands at {at}" if at >= 0 else "it is not in the context"
        there = context[max(0, start) : max(0, start) + len(text)][:60]
        raise DataError(
            problem(f"answers {number}", f"'{text[:60]}' at {start}, where the context is '{there}'", do=do)
        )
    return text, start
