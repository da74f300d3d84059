"""The grammar of a database's queries in the form of form.py, as rules in Lark's syntax.

    start ─ a list of tables, one of those known ─> its own rules: only its columns, each with its own texts

Whatever these rules allow SQLite can plan: columns belong to the tables that are read, a query inside gives one column,
MAX and its kin stand only in what is chosen, after HAVING and, where rows are grouped, after ORDER BY.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hanlin.tasks.sql.database import Table
from hanlin.tasks.sql.form import literal

SLOT = "value"  # value0 … stands for a text of the question
SLOTS = 6
SHARED = r"""
COMPARE: "=" | "<>" | "<" | ">" | "<=" | ">="
AGGREGATE: "max" | "min" | "sum" | "avg"
BOTH: " and " | " or "
WAY: " asc" | " desc"
OPERATOR: " + " | " - " | " * " | " / "
NUMBER: /[0-9]{1,12}(\.[0-9]{1,6})?/
WHOLE: /[0-9]{1,4}/
"""


def rules(tables: Sequence[Table], lists: Sequence[str], slots: int = SLOTS) -> str:
    """Return the grammar of queries that read one table each, or several of those that stand in `lists` together.

    `slots` is how many texts the question has: no others can be named.
    """
    known = {each.name: each for each in tables}
    every = [*known, *(each for each in lists if each not in known)]
    found = [
        "start: " + " | ".join(f"query{at}" for at in range(len(every))),
        "one: " + " | ".join(f"one{at}" for at in range(len(every))),
        SHARED,
    ]
    if slots:
        found.append("SLOT: " + " | ".join(f'"{SLOT}{number}"' for number in range(slots)))
    texts: dict[tuple[str, ...], str] = {}
    for at, said in enumerate(every):
        found += _query(at, said, known, texts, slotted=slots > 0)
    found += [f"{name}: " + " | ".join(_quoted(literal(each)) for each in values) for values, name in texts.items()]
    return "\n".join(found) + "\n"


def _query(
    at: int, said: str, known: dict[str, Table], texts: dict[tuple[str, ...], str], *, slotted: bool
) -> list[str]:
    """Return the rules of queries over one list of tables."""
    names = [(part.split()[0], part.split()[-1]) for part in said.split(" , ")]
    columns, equal = [], []
    for table, own in names:
        for column in known[table].columns:
            called = _quoted(f"{own}.{column}" if len(names) > 1 else column)
            columns.append(called)
            values = known[table].values.get(column)
            if values:
                name = texts.setdefault(values, f"TEXT{len(texts)}")
                equal.append(f'{called} " " ("=" | "<>") " " {name}')
    item = f"column{at} | aggregate{at} | column{at} OPERATOR column{at} | aggregate{at} OPERATOR aggregate{at}"
    grouped = f'" group by " column{at} having{at}? (" order by " (column{at} | aggregate{at}) WAY? limit?)?'
    grouped = grouped.replace("limit?", '(" limit " WHOLE)?')
    tail = f'where{at}? ({grouped} | " order by " column{at} WAY? (" limit " WHOLE)? | " limit " WHOLE)?'
    inner = '"( " one " )"'
    tests = [
        *equal,
        *([f'column{at} " " ("=" | "<>" | "like") " " SLOT'] if slotted else []),
        f'column{at} " " COMPARE " " (column{at} | NUMBER | {inner})',
        f'column{at} " not"? " in " {inner}',
        f'column{at} " between " NUMBER " and " NUMBER',
        f'column{at} " is" " not"? " null"',
        f'"( " tests{at} " )"',
    ]
    head = _quoted(f"from {said} select ")
    return [
        f"column{at}: " + " | ".join(columns),
        f'aggregate{at}: (AGGREGATE | "count") " ( " "distinct "? column{at} " )" | "count" " ( " ("1" | "*") " )"',
        f"item{at}: {item}",
        f'query{at}: {head} "distinct "? item{at} (" , " item{at})* {tail}',
        f'one{at}: {head} "distinct "? item{at} {tail}',
        f'where{at}: " where " tests{at}',
        f"tests{at}: test{at} (BOTH test{at})*",
        f"test{at}: " + " | ".join(tests),
        f'having{at}: " having " aggregate{at} " " COMPARE " " (NUMBER | {inner})',
    ]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
