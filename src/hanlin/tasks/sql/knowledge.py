"""What parsing to SQL knows of a database and of the queries it was taught, in one place for the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hanlin.generate import constrain
from hanlin.generate.constrain import Grammar
from hanlin.tasks.sql import form, grammar
from hanlin.tasks.sql.database import Database as Database
from hanlin.tasks.sql.database import Result as Result
from hanlin.tasks.sql.database import Table as Table
from hanlin.tasks.sql.slots import Slots as Slots
from hanlin.tasks.sql.slots import count, emptied, filled

FEW = 100  # training rows; of more, a column counts as named by questions from the second time on


def learned(queries: Sequence[str], tables: Sequence[Table]) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Return the lists of tables that queries read, the columns they compare with texts, and how many are foreign."""
    columns = {each.name: each.columns for each in tables}
    lists, named, foreign = set[str](), Counter[str](), 0
    for query in queries:
        try:
            said, read = form.formed(query, columns)
        except form.Foreign:
            foreign += 1
            continue
        lists |= {*read}
        named.update(form.compared(said))
    least = 1 if len(queries) < FEW else 2
    return tuple(sorted(lists)), tuple(sorted(each for each, times in named.items() if times >= least)), foreign


def said(query: str, columns: Mapping[str, Sequence[str]], texts: Sequence[str]) -> str:
    """Return a query in the form, slots in place of texts; "" for a foreign one."""
    try:
        return emptied(form.formed(query, columns)[0], texts)
    except form.Foreign:
        return ""


def answer(written: str, texts: Sequence[str]) -> str | None:
    """Return the SQL that a form says; None where it names a slot that has no text."""
    found = filled(written, texts)
    return None if found is None else form.sql(found)


def slots_of(sources: Iterable[str]) -> list[int]:
    """Return how many slots each question has."""
    return [min(count(each), grammar.SLOTS) for each in sources]


def keeps(tables: Sequence[Table], lists: Sequence[str], slots: int) -> Grammar:
    """Return the grammar of a database's queries that name so many slots."""
    return constrain.lark(grammar.rules(tables, lists, slots))


def own(rules: str | None) -> Grammar | None:
    """Return a grammar of one's own."""
    return None if rules is None else constrain.lark(rules)
