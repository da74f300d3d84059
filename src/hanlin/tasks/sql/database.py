"""A SQLite database as questions see it: its tables, its texts, and what a query finds in it.

Queries run on a read-only connection that may only read, for so many seconds and so many rows; what goes beyond is cut,
and a cut result is none.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from hanlin.config import Config
from hanlin.errors import DataError, problem

HOME = "HANLIN_DATA"  # the folder below which relative paths are looked up, as those of recipes
READS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
ROWS = 100_000  # of a result
TICKS = 1000  # virtual instructions between two looks at the clock
PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
VALUES = 20_000  # distinct texts of a database that a grammar may know
LONGEST = 60  # characters of such a text
Result = list[tuple[object, ...]]


class Table(Config):
    """One table: its columns in order, and of those that hold text what stands in them."""

    name: str
    columns: tuple[str, ...]
    values: dict[str, tuple[str, ...]] = {}


class Database:
    """A database file, opened for reading."""

    def __init__(self, path: str, *, limit_s: float = 2.0) -> None:
        """Open a file; DataError in one line when it is none."""
        self.path = found(path)
        self.limit_s = limit_s
        with self._open() as connection:
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
            except sqlite3.Error as error:
                raise DataError(problem(path, f"no SQLite database: {error}")) from None

    def tables(self) -> tuple[Table, ...]:
        """Return the tables, and the distinct texts of their columns that are no longer than 60 characters."""
        made, known = [], 0
        with self._open() as connection:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in sorted(each for each in names if PLAIN.fullmatch(each) and not each.startswith("sqlite_")):
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
                columns = [each for each in columns if PLAIN.fullmatch(each)]
                values = {each: _texts(connection, name, each) for each in columns}
                known += sum(map(len, values.values()))
                kept = {each: texts for each, texts in values.items() if texts}
                made.append(
                    Table(name=name.lower(), columns=tuple(each.lower() for each in columns), values=_low(kept))
                )
        if not made:
            raise DataError(problem(str(self.path), "no tables", "at least one"))
        if known > VALUES:
            raise DataError(problem(str(self.path), f"{known:,} different texts", f"at most {VALUES:,}"))
        return tuple(made)

    def run(self, sql: str | None) -> Result | None:
        """Return the rows that a query finds; None where it fails, writes, or takes too long or too many rows."""
        if not sql:
            return None
        with self._reading() as connection:
            try:
                rows = connection.execute(sql).fetchmany(ROWS + 1)
            except (sqlite3.Error, sqlite3.Warning):
                return None
        return None if len(rows) > ROWS else rows

    def explains(self, sql: str) -> bool:
        """Return whether SQLite can plan a query: it has its form, and tables and columns are there."""
        with self._reading() as connection:
            try:
                connection.execute(f"EXPLAIN {sql}").fetchmany(1)
            except (sqlite3.Error, sqlite3.Warning):
                return False
        return True

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Open a connection that only reads, for a while."""
        with self._open() as connection:
            end = time.monotonic() + self.limit_s
            connection.set_progress_handler(lambda: int(time.monotonic() > end), TICKS)
            connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY)
            yield connection

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        uri = f"file:{quote(str(self.path.resolve()))}?mode=ro&immutable=1"
        try:
            connection = sqlite3.connect(uri, uri=True)
        except sqlite3.Error as error:
            raise DataError(problem(str(self.path), f"cannot be opened: {error}")) from None
        connection.text_factory = lambda held: held.decode(errors="replace")
        try:
            yield connection
        finally:
            connection.close()


def found(path: str) -> Path:
    """Return where a database lies: the path itself, or below the folder that HANLIN_DATA names."""
    home = os.environ.get(HOME)
    for each in (Path(path), *([Path(home) / path] if home else [])):
        if each.is_file():
            return each
    raise DataError(problem("task.database", f"'{path}' is not there", do=f"a SQLite file; or set {HOME}"))


def _texts(connection: sqlite3.Connection, table: str, column: str) -> tuple[str, ...]:
    asked = f"SELECT DISTINCT {column} FROM {table} WHERE typeof({column}) = 'text' AND length({column}) <= {LONGEST}"
    return tuple(sorted(row[0] for row in connection.execute(asked) if row[0].strip() and row[0].isprintable()))


def _low(values: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name.lower(): texts for name, texts in values.items()}
