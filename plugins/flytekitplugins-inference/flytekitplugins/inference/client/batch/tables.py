"""Reads the rows of tables, which are known by what they can do and not by their class.

A subclass, a wrapper and a library that nobody here has heard of work the same way. No library is
imported but pyarrow, and that only for a table that speaks its protocol alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from ...errors import UnsupportedError

TABLE_ROWS = 1024
"""Rows that are read from a table at once."""


def table_rows(rows: Any) -> tuple[Iterator[Any], int | None] | None:
    """Return the rows of a table and their number, if that is known; None when it is no table.

    Raises:
        UnsupportedError: It is a query that has no rows yet.
    """
    if isinstance(rows, type):
        return None
    if _has(rows, "iloc", "columns", "to_dict"):  # pandas, and what behaves like it
        # in parts, because the records of a whole table are a second copy of it
        parts = (rows.iloc[first : first + TABLE_ROWS] for first in range(0, len(rows), TABLE_ROWS))
        return chain.from_iterable(part.to_dict("records") for part in parts), len(rows)
    if _has(rows, "collect", "collect_schema"):
        raise UnsupportedError(
            f"rows is a {type(rows).__name__}, which has no rows yet.",
            hint="Pass frame.collect().",
        )
    if _has(rows, "iter_rows", "columns"):  # polars
        return rows.iter_rows(named=True), len(rows)
    return _arrow_rows(rows) or _cursor_rows(rows)


def _has(value: Any, *names: str) -> bool:
    return all(hasattr(value, name) for name in names)


def _arrow_rows(rows: Any) -> tuple[Iterator[Any], int | None] | None:
    if _has(rows, "to_batches", "schema"):  # a table or a dataset
        is_table = _has(rows, "num_rows")
        batches = rows.to_batches(TABLE_ROWS) if is_table else rows.to_batches()
        return _rows_of_batches(batches), rows.num_rows if is_table else None
    if _has(rows, "read_next_batch"):
        return _rows_of_batches(rows), None
    if _has(rows, "schema", "num_rows", "slice", "to_pylist"):  # a record batch
        return _rows_of_batches([rows]), rows.num_rows
    if _has(rows, "to_pylist", "type"):  # an array
        return (value.as_py() for value in rows), len(rows)
    if _has(rows, "__arrow_c_stream__") and not isinstance(rows, Iterable):
        from .rows import import_pyarrow

        # https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html
        return _rows_of_batches(import_pyarrow().RecordBatchReader.from_stream(rows)), None
    return None


def _rows_of_batches(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        # a chunk of a table may hold all of its rows
        for first in range(0, batch.num_rows, TABLE_ROWS):
            yield from batch.slice(first, TABLE_ROWS).to_pylist()


def _cursor_rows(rows: Any) -> tuple[Iterator[Any], None] | None:
    """Return the rows of a database's cursor (PEP 249) as mappings."""
    if not _has(rows, "description", "fetchmany", "execute"):
        return None
    names = [column[0] for column in rows.description or ()]
    return (dict(zip(names, tuple(row), strict=True)) for row in _fetched(rows)), None


def _fetched(cursor: Any) -> Iterator[Any]:
    while batch := _fetch(cursor):
        yield from batch


def _fetch(cursor: Any) -> Any:
    try:
        return cursor.fetchmany(TABLE_ROWS)
    except Exception as error:
        if "thread" not in str(error):
            raise
        raise UnsupportedError(
            f"rows is a cursor that only its own thread may read ({error}).",
            hint="A batch reads in a thread of its own: sqlite3.connect(…, "
            "check_same_thread=False), or pass cursor.fetchall().",
        ) from error
