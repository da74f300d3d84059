"""Labels of a text's words as files hold them: a tag a word, or spans of characters, each checked against the text.

["B-PER", "O"]   "B-PER O"                                                    a tag a word
[{"start": 0, "end": 3, "label": "PER", "text": "Ada"}]   [[0, 3, "PER"]]     characters, one past the last
{"PER": {"Ada": [[0, 2]]}}                                                    CLUENER: the last character's place
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hanlin.errors import DataError, problem
from hanlin.metrics.labels.entity_f1 import Span
from hanlin.tasks.reading.words import Cut, given, split

Tags = tuple[str, ...] | None
Spans = tuple[Span, ...] | None


def read(given_text: object, labels: object) -> tuple[str, Cut | None, Tags, Spans]:
    """Return the text, its words where they are known, and a tag a word or the spans; DataError where they do not fit.

    Tags that come with a plain text are of the words that white space parts.
    """
    text, cut = given(given_text)
    if labels is None:
        return text, cut, None, None
    if isinstance(labels, str):
        labels = labels.split()
    if isinstance(labels, list | tuple) and all(isinstance(each, str) for each in labels) and (labels or cut):
        if cut is None:
            cut = split(text)
        if len(labels) != len(cut):
            raise DataError(problem("tags", f"{len(labels)} tags for {len(cut)} words", do="one tag a word"))
        if not all(labels):
            raise DataError(problem("tags", f"tag {list(labels).index('') + 1} is empty"))
        return text, cut, tuple(labels), None
    if cut is not None:
        raise DataError(problem("tags", f"{labels!r}"[:60], "a tag a word, as the text is a list of words"))
    spans = sorted(_checked(text, *each) for each in _spans(labels))
    for one, other in pairwise(spans):
        if other[0] < one[1]:
            raise DataError(problem("tags", f"spans {list(one)} and {list(other)} overlap", "one label a word"))
    return text, None, None, tuple(spans)


def _spans(labels: object) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yield (start, end, label, what the text should be there) of whatever form the spans have."""
    if isinstance(labels, dict):
        for kind, surfaces in labels.items():
            if not isinstance(surfaces, dict):
                raise DataError(problem("tags", f"{labels!r}"[:60], "type -> text -> [[first, last], …]"))
            for surface, places in surfaces.items():
                for place in places if isinstance(places, list) else [places]:
                    first, last = place if isinstance(place, list) and len(place) == 2 else (place, None)
                    yield first, last + 1 if isinstance(last, int) else last, kind, surface
        return
    for each in labels if isinstance(labels, list | tuple) else [labels]:
        if isinstance(each, dict):
            label = next((each[key] for key in ("label", "type", "entity", "tag") if key in each), None)
            yield each.get("start"), each.get("end"), label, each.get("text")
        elif isinstance(each, list | tuple) and len(each) == 3:
            yield *each, None
        else:
            raise DataError(problem("tags", f"{each!r}"[:60], "tags, or spans with start, end and label"))


def _checked(text: str, start: object, end: object, label: object, surface: object) -> Span:
    """Return a span; DataError where it does not lie in the text, or the text is another there."""
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in (start, end))
    if not whole or not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= len(text):
        given = f"span from {start!r} to {end!r}"
        raise DataError(problem("tags", given, f"0 <= start < end <= {len(text)}, characters of the text"))
    if not isinstance(label, str) or not label:
        raise DataError(problem("tags", f"label {label!r} of the span from {start} to {end}", "a name"))
    if surface is not None and text[start:end] != surface:
        at = text.find(str(surface))
        do = f"it stands at {at}" if at >= 0 else "it is not in the text"
        raise DataError(
            problem("tags", f"'{surface}' from {start} to {end}, where the text is '{text[start:end]}'", do=do)
        )
    return start, end, label
