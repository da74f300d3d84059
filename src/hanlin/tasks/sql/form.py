"""SQL as a model writes it: what is read comes first, so that every column is known when it is named.

    SELECT CITYalias0.CITY_NAME FROM CITY AS CITYalias0 WHERE CITYalias0.POPULATION = ( SELECT MAX( … ) FROM … ) ;
    from city select city_name where population = ( from city select max ( population ) )                  the form

Tables have no aliases but where one stands twice; columns name their table only where there are several. A query of one
table means the same without: inside it, a column is that table's own. A query that looks at a table of the query around
it, or has joins with ON, derived tables or UNION, is `Foreign` to this form: it is counted, and nothing is learned
from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"'(?:[^']|'')*'|\"[^\"]*\"|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?|\d+(?:\.\d+)?|<>|!=|<=|>=|==|[-+*/=<>(),;]"
)
AFTER = ("where", "group", "order", "limit", "having")
FOREIGN = (
    "join",
    "left",
    "inner",
    "outer",
    "on",
    "union",
    "intersect",
    "except",
    "all",
    "case",
    "exists",
    "cast",
    "with",
)
WORDS = {
    *("select", "from", "where", "group", "order", "by", "limit", "having", "distinct", "and", "or", "not", "in", "as"),
    *("like", "between", "is", "null", "asc", "desc", "max", "min", "sum", "avg", "count"),
}
Columns = Mapping[str, Sequence[str]]  # table -> its columns


class Foreign(ValueError):
    """A query that this form cannot say."""


@dataclass
class _Reader:
    """The tokens of a query, and how far they are read."""

    tokens: list[str]
    columns: Columns
    lists: list[str] = field(default_factory=list)  # what stands after `from`, of every query inside
    at: int = 0

    def peek(self) -> str:
        return self.tokens[self.at].lower() if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.tokens[self.at] if self.at < len(self.tokens) else ""
        if not token or (wanted and token.lower() != wanted):
            raise Foreign(f"'{token}' where '{wanted}' is needed")
        self.at += 1
        return token


def formed(sql: str, columns: Columns) -> tuple[str, list[str]]:
    """Return a query in the form, and what stands after each `from` in it; Foreign where it cannot be said."""
    pieces = TOKEN.findall(sql)
    if "".join(pieces) != re.sub(r"\s+(?=(?:[^'\"]|'[^']*'|\"[^\"]*\")*$)", "", sql):
        raise Foreign("signs that are not read")
    while pieces and pieces[-1] == ";":
        pieces.pop()
    reader = _Reader(pieces, columns)
    found = _query(reader)
    if reader.peek():
        raise Foreign(f"'{reader.peek()}' after the end")
    return found, reader.lists


def _query(reader: _Reader) -> str:
    """Return one SELECT and everything inside, in the form."""
    reader.take("select")
    begin = reader.at
    _skip(reader, ("from",))
    items = reader.tokens[begin : reader.at]
    reader.take("from")
    names, said = _tables(reader)
    chosen = _clause(_Reader(items, reader.columns, reader.lists), names)
    rest = _clause(reader, names)
    reader.lists.append(said)
    return f"from {said} select {chosen} {rest}".strip()


def _skip(reader: _Reader, until: Sequence[str]) -> None:
    """Go on to one of some words outside of brackets."""
    depth = 0
    while reader.peek() and (depth or reader.peek() not in until):
        depth += {"(": 1, ")": -1}.get(reader.peek(), 0)
        reader.at += 1


def _tables(reader: _Reader) -> tuple[dict[str, tuple[str, str]], str]:
    """Return name -> (table, how its columns are called), and the list as the form has it."""
    listed = []
    while True:
        table = reader.take().lower()
        if table not in reader.columns:
            raise Foreign(f"'{table}' is no table")
        alias = table
        if reader.peek() == "as":
            reader.take()
            alias = reader.take().lower()
        listed.append((alias, table))
        if reader.peek() != ",":
            break
        reader.take()
    names, said, seen = {}, [], list[str]()
    for alias, table in listed:
        own = table if table not in seen else f"{table}{seen.count(table) + 1}"
        seen.append(table)
        said.append(table if own == table else f"{table} as {own}")
        names[alias] = (table, "" if len(listed) == 1 else own)
    return names, " , ".join(said)


def _clause(reader: _Reader, names: Mapping[str, tuple[str, str]]) -> str:
    """Return what follows up to the end of the query, columns called as the form calls them."""
    found: list[str] = []
    while reader.peek() not in ("", ")"):
        word = reader.take()
        low = word.lower()
        if low in FOREIGN:
            raise Foreign(f"'{low}'")
        if word == "(":
            inner = _query(reader) if reader.peek() == "select" else _clause(reader, names)
            reader.take(")")
            bare = " " not in inner and found[-1:] == ["by"]  # GROUP BY ( a )
            found.append(inner if bare else f"( {inner} )")
        elif word[0] in "'\"":
            text = word[1:-1].replace("''", "'") if word[0] == "'" else word[1:-1]
            found.append(literal(text))
        elif low in WORDS or not (word[0].isalpha() or word[0] == "_"):
            found.append({"!=": "<>", "==": "="}.get(low, low))
        else:
            found.append(_column(low, names, reader.columns))
    return " ".join(found)


def _column(word: str, names: Mapping[str, tuple[str, str]], columns: Columns) -> str:
    """Return how the form calls a column."""
    name, _, column = word.rpartition(".")
    if name:
        table, own = names.get(name, ("", ""))
        holders = [(table, own)] if table else []
    else:
        holders = [each for each in names.values() if column in columns[each[0]]]
    if len(holders) != 1 or column not in columns[holders[0][0]]:
        raise Foreign(f"column '{word}'")
    own = holders[0][1]
    return f"{own}.{column}" if own else column


def compared(form: str) -> set[str]:
    """Return the columns that a form compares with texts.

    >>> sorted(compared("from city select name where city.state = 'ohio' and size > 3"))
    ['state']
    """
    return set(re.findall(r"(\w+) (?:=|<>|like) '", form))


def literal(text: str) -> str:
    """Return a text as SQL writes it.

    >>> literal("coeur d'alene")
    "'coeur d''alene'"
    """
    return "'" + text.replace("'", "''") + "'"


def sql(form: str) -> str:
    """Return the SQL that a form says.

    >>> sql("from city select name where size = ( from city select max ( size ) )")
    'SELECT name FROM city WHERE size = ( SELECT max ( size ) FROM city )'
    """
    return " ".join(_ordered(iter(TOKEN.findall(form))))


def _ordered(tokens: Iterator[str]) -> list[str]:
    """Return the tokens of one query or bracket with SELECT before FROM."""
    parts: dict[str, list[str]] = {"": []}
    place = ""
    for token in tokens:
        if token == ")":
            break
        if token == "(":
            parts[place] += ["(", *_ordered(tokens), ")"]
        elif token in ("from", "select") or (token in AFTER and place != "rest"):
            place = token if token in ("from", "select") else "rest"
            parts.setdefault(place, []).append(token.upper())
        else:
            parts[place].append(token.upper() if token in WORDS and place == "rest" and token in AFTER else token)
    return [*parts[""], *parts.get("select", []), *parts.get("from", []), *parts.get("rest", [])]
