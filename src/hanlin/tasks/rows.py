"""Labelled rows from files: what each column is taken for is guessed once, shown, and can be said.

    reviews.csv ─ read ─> Raw, Raw, … ─ guess ─> {text: review, label: stars} ─ examples ─> Example, Example, …

.jsonl .json .csv .tsv .parquet and .txt (a row a line), each also .gz or .zst. Nothing is dropped in silence: a row
that cannot be an example ends training with its number; `hanlin predict` writes the reason beside it and goes on.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from hanlin import files
from hanlin.data import compressed
from hanlin.data.split import share
from hanlin.data.tally import Document
from hanlin.errors import ConfigError, DataError, HanlinError, nearest, problem
from hanlin.tasks.contract import Example, Raw, Task

LONGEST = 1 << 24  # characters of a field
SHOWN = 5  # bad rows that are told one by one
E = TypeVar("E", bound=Example)


def read(path: Path, more: Mapping[str, Callable[[IO[str], str], Iterator[Raw]]] | None = None) -> Iterator[Raw]:
    """Yield the rows of a file in order; a row that is none comes with its error. DataError for a file that is none.

    `more` adds or replaces readers: ending -> a function of (text, the file's name).
    """
    names = path.name.lower().split(".")
    packing = f".{names[-1]}" if f".{names[-1]}" in compressed.ENDINGS else ""
    ending = names[-2] if packing and len(names) > 2 else names[-1]
    own = {"jsonl": _jsonl, "ndjson": _jsonl, "json": plain_json, "csv": _csv, "tsv": _tsv, "txt": _txt}
    reader = {**own, **(more or {})}.get(ending)
    if not path.is_file():
        siblings = [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        raise DataError(problem(str(path), "no such file", near=near and str(path.parent / near)))
    if ending == "parquet":
        yield from _parquet(path)
        return
    if reader is None:
        others = "".join(f" .{each}" for each in more or {} if each not in own)
        allowed = f".jsonl .json .csv .tsv .parquet .txt{others}, each also .gz or .zst"
        raise DataError(problem(str(path), f"a file ending in '.{ending}'", allowed))
    try:
        with (
            compressed.open(path) as stream,
            io.TextIOWrapper(cast("IO[bytes]", stream), "utf-8-sig", newline="") as text,
        ):
            yield from reader(text, str(path))
    except UnicodeDecodeError as error:
        raise DataError(problem(str(path), f"not UTF-8 at byte {error.start}", do="convert it with iconv")) from None
    except (*compressed.DAMAGED, OSError) as error:
        raise DataError(problem(str(path), f"cannot be read: {error}")) from None


def _jsonl(text: IO[str], where: str) -> Iterator[Raw]:
    for number, line in enumerate(text, 1):
        if line.strip():
            yield _object(number, _loads(line))


def plain_json(text: IO[str], where: str) -> Iterator[Raw]:
    """Yield the rows of a JSON list, or of the one list in an object."""
    found = _loads(text.read())
    lists = [each for each in found.values() if isinstance(each, list)] if isinstance(found, dict) else [found]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise DataError(problem(where, "no list of rows", "a list of objects, or an object with one such list"))
    for number, row in enumerate(lists[0], 1):
        yield _object(number, row)


def _loads(text: str) -> Any:  # noqa: ANN401  # JSON
    """Return what JSON says; an exception where it says nothing."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return ValueError(f"not JSON: {error}"[:120])


def _object(number: int, row: object) -> Raw:
    if isinstance(row, dict):
        return Raw(number=number, values=row)
    return Raw(number=number, values={}, error=str(row) if isinstance(row, ValueError) else "not an object")


def _csv(text: IO[str], where: str) -> Iterator[Raw]:
    return _table(text, where, csv.excel)


def _tsv(text: IO[str], where: str) -> Iterator[Raw]:
    class Tabs(csv.excel_tab):
        quoting = csv.QUOTE_NONE  # in .tsv a quotation mark is text

    return _table(text, where, Tabs)


def _table(text: IO[str], where: str, dialect: type[csv.Dialect]) -> Iterator[Raw]:
    csv.field_size_limit(LONGEST)
    table = csv.reader(text, dialect)
    head = next(table, [])
    if not any(name.strip() for name in head) or len(set(head)) < len(head):
        raise DataError(problem(where, f"a first line of {', '.join(head)[:100]!r}", "the names of the columns"))
    try:
        for cells in table:
            if cells:
                error = "" if len(cells) == len(head) else f"{len(cells)} fields, the head names {len(head)}"
                yield Raw(number=table.line_num, values=dict(zip(head, cells)), error=error)
    except csv.Error as error:
        raise DataError(problem(f"{where}:{table.line_num}", f"not CSV: {error}")) from None


def _txt(text: IO[str], where: str) -> Iterator[Raw]:
    for number, line in enumerate(text, 1):
        yield Raw(number=number, values={"text": line.rstrip("\r\n")})


def _parquet(path: Path) -> Iterator[Raw]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield Raw(number=number, values=row)
    except (pa.ArrowException, OSError) as error:
        raise DataError(problem(str(path), f"damaged: {error}"[:200])) from None


def columns(pairs: Sequence[str]) -> dict[str, str]:
    """Return field -> column of `field=column` pairs; ConfigError for what is none."""
    wrong = [each for each in pairs if "=" not in each]
    if wrong:
        raise ConfigError(problem("--columns", wrong[0], "field=column"))
    return dict(each.split("=", 1) for each in pairs)


def guess(
    task: Task[Any, Any], columns: Sequence[str], chosen: Mapping[str, str], where: str, *, labelled: bool
) -> dict[str, str]:
    """Return field -> column for the columns of a file: as chosen, else by the names that are usual.

    A field's own name comes first; a file of one column is the plain field. DataError names what is not there.
    """
    unknown = [
        (field, column) for field, column in chosen.items() if field not in task.columns or column not in columns
    ]
    if unknown:
        field, column = unknown[0]
        allowed = f"fields: {', '.join(task.columns)}; columns: {', '.join(columns)}"
        raise DataError(problem(f"{where}: data.columns.{field}", f"{column}", allowed, nearest(column, columns)))
    lower = {column.lower().strip(): column for column in reversed(columns)}
    found = dict(chosen)
    for field, names in task.columns.items():
        usual = next((lower[name] for name in (field, *names) if name in lower), None)
        if field not in found and usual is not None and usual not in found.values():
            found[field] = usual
    if task.plain not in found and len(columns) == 1:
        found[task.plain] = columns[0]
    wanted = [*task.needed, *(task.answers[:1] if labelled else ())]
    missing = [field for field in wanted if field not in found]
    if missing:
        do = f"say which it is: data.columns.{missing[0]}=COLUMN"
        raise DataError(problem(where, f"no column for '{missing[0]}'", f"columns: {', '.join(columns)}", do=do))
    return found


def examples(
    task: Task[E, Any],
    path: Path,
    chosen: Mapping[str, str],
    *,
    labelled: bool,
    limit: int | None = None,
    keep: Callable[[Raw], bool] | None = None,
    spare: int = 0,
    say: Callable[[str], None] | None = None,
) -> tuple[list[E], dict[str, str]]:
    """Return every row of a file, or those to keep, as examples, and which column was taken for which field.

    DataError with the first bad rows' numbers when more rows than `spare` cannot be one, or when there is none; up to
    `spare` are left out, each named by `say`, without which none is.
    """
    found: list[E] = []
    problems: list[str] = []
    bad = 0
    taken: dict[str, str] = {}
    with files.explained(path):
        for raw in task.read(path):
            if limit is not None and len(found) + bad >= limit:
                break
            if keep is not None and not keep(raw):
                continue
            try:
                if not raw.error:  # what is no row has no columns
                    taken = taken or guess(task, list(raw.values), chosen, str(path), labelled=labelled)
                found.append(example(task, raw, taken, f"{path}:{raw.number}", labelled=labelled))
            except HanlinError as error:
                if not taken and not raw.error:
                    raise
                problems += error.problems
                bad += 1
    if bad <= spare and say is not None:
        for each in problems:
            say(f"{each}; left out")
    elif problems:
        more = [problem(str(path), f"{len(problems) - SHOWN:,} more bad rows")] if len(problems) > SHOWN else []
        *others, last = *problems[:SHOWN], *more
        raise DataError(*others, last if say is None else f"{last}; data.bad_rows={bad} leaves out as many")
    if not found:
        raise DataError(problem(str(path), "no rows", "at least one"))
    return found, taken


def example(task: Task[E, Any], raw: Raw, taken: Mapping[str, str], where: str, *, labelled: bool) -> E:
    """Return one row as an example; DataError with its place when it cannot be one."""
    if raw.error:
        raise DataError(problem(where, raw.error))
    values = {field: raw.values.get(column) for field, column in taken.items()}
    absent = [each for each in (*task.needed, *(task.answers[:1] if labelled else ())) if values.get(each) is None]
    if absent:
        raise DataError(problem(where, f"no {absent[0]}"))
    try:
        return task.example({field: value for field, value in values.items() if value is not None})
    except HanlinError as error:
        raise DataError(*(problem(where, each) for each in error.problems)) from None


def divided(task: Task[E, Any], given: Sequence[E], valid_fraction: float, seed: int) -> tuple[list[E], list[E]]:
    """Return the examples to learn from and those held out; the same question always goes to one side.

    ConfigError when nothing is left to learn from.
    """
    kept, held = list[E](), list[E]()
    for each in given:
        key = json.dumps([getattr(each, field) for field in task.needed], ensure_ascii=False, default=str)
        place = share(Document(text=" ".join(key.split()), source=""), seed)
        (held if place < valid_fraction else kept).append(each)
    if not kept:
        raise ConfigError(problem("data.valid_fraction", f"{valid_fraction}", "leaves no row to learn from"))
    return kept, held
