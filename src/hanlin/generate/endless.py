"""Whether a JSON schema can be satisfied by anything finite: a least fixed point over its references.

{"$ref": "#"}                                    never
{"properties": {"a": {"$ref": "#"}}}             {} is enough
… "required": ["a"]                              never: every object needs another one inside
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MOST = 200  # different references; where there are more, nothing is said


def endless(schema: object) -> bool:
    """Return whether no finite JSON satisfies a schema, as far as its references tell; unknown ones count as finite."""
    places = {ref: _resolve(schema, ref) for ref in _references(schema)}
    if len(places) > MOST:
        return False
    ending: set[str] = {ref for ref, place in places.items() if place is None}
    grown = True
    while grown:
        new = {ref for ref, place in places.items() if ref not in ending and _ends(place, ending)}
        ending |= new
        grown = bool(new)
    return not _ends(schema, ending)


def branches(schema: object) -> int:
    """Return how many ways the widest anyOf, oneOf or allOf offers."""
    return max(
        (len(_list(each.get(key))) for each in _objects(schema) for key in ("anyOf", "oneOf", "allOf")), default=0
    )


def _references(schema: object) -> Iterator[str]:
    """Yield every `$ref` inside."""
    return (each["$ref"] for each in _objects(schema) if isinstance(each.get("$ref"), str))


def _objects(schema: object) -> Iterator[Mapping[str, Any]]:
    """Yield every JSON object inside."""
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            yield each
            waiting.extend(each.values())
        elif isinstance(each, Sequence) and not isinstance(each, str):
            waiting.extend(each)


def _resolve(schema: object, ref: str) -> object:
    """Return what a `$ref` within the document points to, None when there is no such place."""
    if ref != "#" and not ref.startswith("#/"):
        return None
    here: Any = schema
    for part in ref.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, Mapping):
            here = here.get(name)
        elif isinstance(here, Sequence) and not isinstance(here, str) and name.isdigit() and int(name) < len(here):
            here = here[int(name)]
        else:
            return None
    return here


def _ends(schema: Any, ending: set[str]) -> bool:  # noqa: ANN401  # JSON
    """Return whether something finite satisfies a schema, given which references have been shown to."""
    if not isinstance(schema, Mapping):
        return schema is not False
    if "$ref" in schema and schema["$ref"] not in ending:
        return False
    if not all(_ends(each, ending) for each in _list(schema.get("allOf"))):
        return False
    for key in ("anyOf", "oneOf"):
        if _list(schema.get(key)) and not any(_ends(each, ending) for each in schema[key]):
            return False
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else _list(kinds)
    if any(kind not in ("object", "array") for kind in kinds) or not kinds:
        return True
    return any(_fits(kind, schema, ending) for kind in kinds)


def _fits(kind: str, schema: Mapping[str, Any], ending: set[str]) -> bool:
    """Return whether some finite object, or array, satisfies a schema."""
    if kind == "object":
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        return all(_ends(known.get(name, True), ending) for name in _list(schema.get("required")))
    least = schema.get("minItems", 0)
    first = _list(schema.get("prefixItems"))
    needed = first[: least if isinstance(least, int) else 0]
    more = [schema.get("items", True)] if isinstance(least, int) and least > len(first) else []
    return all(_ends(each, ending) for each in (*needed, *more))


def _list(value: object) -> Sequence[Any]:
    """Return a JSON list, or nothing where there is none."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()
