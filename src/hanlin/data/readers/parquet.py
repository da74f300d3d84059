"""Parquet: the column of the text, and `group` where there is one, a few rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hanlin.data.readers import contract
from hanlin.data.readers.contract import File
from hanlin.data.tally import Document, Unusable

ENDINGS = (".parquet",)
ROWS = 64  # decoded at once


def read(file: File) -> Iterator[Document]:
    """Yield the documents of the rows."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(contract.whole(file), pre_buffer=False, memory_map=False)
        kinds = {column.name: column.type for column in table.schema_arrow}
        field = contract.choose(file, list(kinds), [name for name, kind in kinds.items() if _is_text(kind)])
        if field not in kinds or not _is_text(kinds[field]):
            contract.of_row(dict.fromkeys(kinds), file.name, field)  # says what is there instead
        yield from contract.rows(file, _rows(table, [field, *({"group"} & (kinds.keys() - {field}))], file), field)
    except (pa.ArrowException, OSError, OverflowError, MemoryError) as error:
        raise Unusable("damaged", f"damaged: {error}"[:200]) from None


def _is_text(kind: Any) -> bool:  # noqa: ANN401  # pyarrow has no types
    """Return whether a column holds text or lists of it."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _rows(table: Any, columns: list[str], file: File) -> Iterator[tuple[int, Mapping[str, object]]]:  # noqa: ANN401
    """Yield number and row, decoding one value at a time: a dictionary may hold one long text for many rows."""
    number = 0
    for batch in table.iter_batches(batch_size=ROWS, columns=columns):
        for at in range(batch.num_rows):
            number += 1
            try:
                yield number, {name: batch.column(name)[at].as_py() for name in columns}
            except UnicodeDecodeError:
                file.tally.drop("not UTF-8", f"{file.name}:{number}")
