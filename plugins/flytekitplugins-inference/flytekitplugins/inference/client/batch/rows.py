"""Reads rows from an iterable, a table or a file, piece by piece and never as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ...dependencies import requires
from ...distribution import install_command
from ...errors import (
    ConfigError,
    InvalidSourceError,
    SourceNotFoundError,
    UnsupportedError,
)
from .faults import Fault, shortened
from .json_form import as_json
from .local_paths import local_path
from .tables import TABLE_ROWS, table_rows

RowId = str | int
IdSource = str | Callable[[Any], RowId]


@dataclass(slots=True)
class Row:
    """One row of the input."""

    position: int
    """From 0, in the order of the input."""
    value: Any
    id: RowId | None = None
    key: bytes = b""
    """Identifies the row across runs: its id, or its content and its number among rows with equal
    content."""
    content: bytes = b""
    """A digest of its content."""
    incomparable: str = ""
    """The type of a value in it that cannot be compared between runs."""
    fault: Fault | None = None
    """Why the row cannot be processed."""
    attempts: int = 0
    """Requests for the row that count towards its limit."""
    overloaded_since: float | None = None
    """When the server first refused it because it was busy, in this run."""
    refusals: int = 0
    """How often the server refused it or did not answer it while it answered nearly all others."""


@dataclass(frozen=True, slots=True)
class RowSource:
    """An opened input."""

    values: Iterator[Any] | AsyncIterator[Any]
    """The rows; a `Fault` in place of an unreadable one."""
    total: int | None
    """The number of rows, if it is known beforehand."""


def open_rows(rows: Any) -> RowSource:
    """Return the rows of any input that `batch` takes.

    Args:
        rows: A path of a `.jsonl`, `.ndjson` or `.parquet` file; a table or column of pandas,
            pyarrow or polars; any other iterable, also an asynchronous one.

    Raises:
        ConfigError: It is none of these.
        SourceNotFoundError: There is no such file.
        UnsupportedError: The file's format is not one of these.
        MissingDependencyError: It is a Parquet file, and pyarrow is not installed.
    """
    if isinstance(rows, (str, os.PathLike)):
        hint = "In a task, take a FlyteFile; elsewhere download it first."
        return _open_file(local_path("rows", rows, hint))
    table = table_rows(rows)
    if table is not None:
        return RowSource(*table)
    # these two are iterable, but nobody means their items as rows
    if isinstance(rows, (bytes, Mapping)) or not isinstance(rows, (Iterable, AsyncIterable)):
        raise ConfigError(
            f"rows is {_described(rows)}; expected an iterable of rows, a table, or the path of a "
            "file.",
            hint="A single row goes into a list: [row].",
        )
    if isinstance(rows, AsyncIterable):
        return RowSource(aiter(rows), None)
    return RowSource(iter(rows), len(rows) if isinstance(rows, Sized) else None)


def _open_file(path: Path) -> RowSource:
    if path.is_dir():
        raise SourceNotFoundError(
            f"rows={str(path)!r} is a directory.", hint="Name a .jsonl or .parquet file."
        )
    if not path.is_file():
        raise SourceNotFoundError(
            f"rows={str(path)!r} is a path, but there is no such file.",
            hint="A single text goes into a list: [text]." if " " in str(path) else "",
        )
    if path.suffix in (".jsonl", ".ndjson"):
        return RowSource(_json_lines(path), None)
    if path.suffix == ".parquet":
        return _open_parquet(path)
    raise UnsupportedError(
        f"rows={str(path)!r} is a file of type {path.suffix or 'unknown'!r}; expected .jsonl, "
        ".ndjson or .parquet.",
        hint="Read it yourself and pass an iterable of rows.",
    )


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                quoted = shortened(line.decode(errors="replace"), 80)
                yield Fault(
                    "invalid_row",
                    f"Line {number} of {path.name} is not JSON: {error}. It is: {quoted}",
                )


def import_pyarrow() -> Any:
    """Return the module pyarrow, with its part `parquet`.

    Raises:
        MissingDependencyError: It is not installed.
    """
    with requires(
        "pyarrow", "A Parquet file", hint=f"{install_command('batch')}, or use .jsonl files."
    ):
        import pyarrow.parquet
    return pyarrow


def _open_parquet(path: Path) -> RowSource:
    pyarrow = import_pyarrow()
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise InvalidSourceError(f"{path} is not a Parquet file: {error}") from error
    batches = file.iter_batches(batch_size=TABLE_ROWS)
    return RowSource(
        chain.from_iterable(batch.to_pylist() for batch in batches), file.metadata.num_rows
    )


def identify(value: Any, position: int, id_source: IdSource | None) -> Row:
    """Return the row for a value, with its identity.

    Args:
        value: The value from the source.
        position: Its number, from 0.
        id_source: The column with the id, or a function that returns it; None to identify rows by
            their content.
    """
    row = Row(position, value)
    try:
        if isinstance(value, Fault):
            raise value
        placeholders = _Placeholders() if id_source is not None else None
        row.content = _digest(_canonical(value, position, placeholders=placeholders))
        row.incomparable = placeholders.type if placeholders is not None else ""
        row.key = row.content
        if id_source is not None:
            row_id = _read_id(value, position, id_source)
            row.key = _digest(json.dumps(["id", row_id]).encode())
            row.id = row_id
    except Fault as fault:
        row.fault = fault
    except Exception as error:  # a row's own methods may raise anything
        text = shortened(f"{type(error).__name__}: {error}")
        row.fault = Fault("invalid_row", f"{describe(position, value)}; reading it raised {text}")
    if row.fault is not None:
        # such a row has nothing else by which a later run could recognise it
        row.key = _digest(b"position %d" % position)
    return row


def describe(position: int, value: Any) -> str:
    """Return a row's description for messages: its number, from 1 as in editors, and its value."""
    return f"Row {position + 1} is {_described(value)}"


def _read_id(value: Any, position: int, id_source: IdSource) -> RowId:
    if callable(id_source):
        try:
            row_id = id_source(value)
        except Exception as error:
            raise Fault(
                "invalid_row", f"{describe(position, value)}; id= raised {error!r} for it."
            ) from error
    elif not isinstance(value, Mapping) or id_source not in value:
        raise Fault(
            "invalid_row",
            f"{describe(position, value)}; expected a mapping with the column {id_source!r}.",
        )
    else:
        row_id = value[id_source]
    # a NumPy number equals the Python one, but JSON does not take it
    row_id = row_id.item() if hasattr(row_id, "item") else row_id
    # pandas makes floats of a column of numbers in which one is missing
    row_id = int(row_id) if isinstance(row_id, float) and row_id.is_integer() else row_id
    row_id = str(row_id) if isinstance(row_id, uuid.UUID) else row_id
    if isinstance(row_id, bool) or not isinstance(row_id, (str, int)):
        raise Fault(
            "invalid_row",
            f"Row {position + 1} has the id {row_id!r}; expected a text or a whole number.",
        )
    return row_id


def _canonical(value: Any, position: int, *, placeholders: _Placeholders | None) -> bytes:
    if isinstance(value, str):
        # no JSON begins with an `s`, so a text never equals a row of another type
        return b"s" + value.encode("utf-8", "surrogatepass")
    form = _content_form if placeholders is None else placeholders
    try:
        return json.dumps(value, sort_keys=True, default=form, ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
    except (TypeError, ValueError) as error:
        # such as keys that cannot be sorted
        if placeholders is not None:
            placeholders.type = type(value).__name__
            return b""
        message = (
            f"{describe(position, value)}, which has no form as JSON to know it by "
            f"({error}); pass id=."
        )
        raise Fault("invalid_row", message) from error


def _content_form(value: Any) -> Any:
    """Return a JSON form for a value that JSON lacks, to compare it between runs."""
    if isinstance(value, (bytes, bytearray)):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return as_json(value)


class _Placeholders:
    """Replaces what has no form, so that the rest of a row can be compared."""

    def __init__(self) -> None:
        self.type = ""
        """That of the last replaced value."""

    def __call__(self, value: Any) -> Any:
        try:
            return _content_form(value)
        except Exception:  # a row's own methods may raise anything
            self.type = type(value).__name__
            return f"of type {self.type}"


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _described(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        columns = ", ".join(repr(column) for column in list(value)[:8])
        return f"a {type(value).__name__} with {columns or 'no columns'}"
    try:
        return f"of type {type(value).__name__}: {shortened(repr(value), 60)}"
    except Exception:  # a value that is nested too deeply, or whose `__repr__` raises
        return f"of type {type(value).__name__}"
