"""The result file: one record per row, in the order of the input, written as answers come.

It is written as `….partial` and renamed when it is complete, so the file at the path is always a
complete result. A run that continues writes it again from the start, out of the journal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ...errors import DestinationError, UnsupportedError
from .rows import import_pyarrow

RECORD_FIELDS = (
    "index",
    "id",
    "output",
    "error",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "attempts",
    "seconds",
)
"""The fields of a record. `output` or `error` is null."""
_ROW_GROUP = 8192
_UNFIT = (TypeError, ValueError, OverflowError)
"""The errors of pyarrow for a value that its column cannot hold; its own errors extend these."""


class OutputFile(Protocol):
    """A result file that is being written."""

    path: Path

    def write(self, record: str) -> None:
        """Append a record, a JSON object."""

    def flush(self) -> None:
        """Make the records visible to readers, as far as the format allows."""

    def finish(self) -> None:
        """Rename the complete file to its final path."""

    def close(self) -> None:
        """Close the file, finished or not."""


def open_output(path: Path, *, vectors: bool = False) -> OutputFile:
    """Return the writer for a path, by its suffix.

    Args:
        path: Ends with `.jsonl`, `.ndjson` or `.parquet`.
        vectors: Whether outputs are lists of numbers; otherwise Parquet holds a text, of JSON where
            they are not texts.

    Raises:
        UnsupportedError: It ends with something else.
        MissingDependencyError: It ends with `.parquet`, and pyarrow is not installed.
        DestinationError: It cannot be written.
    """
    if path.suffix not in (".jsonl", ".ndjson", ".parquet"):
        raise UnsupportedError(
            f"output={str(path)!r}; expected a name that ends with .jsonl, .ndjson or .parquet."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return (
            ParquetOutput(path, vectors=vectors)
            if path.suffix == ".parquet"
            else JsonLinesOutput(path)
        )
    except OSError as error:
        raise DestinationError(f"{path} cannot be written: {error.strerror or error}.") from error


def partial_path(path: Path) -> Path:
    """Return the path of a result until it is complete."""
    return path.with_name(path.name + ".partial")


class JsonLinesOutput:
    """One JSON object per line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = partial_path(path).open(
            "w", encoding="utf-8", errors="surrogatepass", newline="\n"
        )

    def write(self, record: str) -> None:
        """Append a record."""
        self._file.write(record + "\n")

    def flush(self) -> None:
        """Make the records visible to readers of the partial file."""
        self._file.flush()

    def finish(self) -> None:
        """Rename the complete file to its final path."""
        self._file.flush()
        # else the rename may reach the disk before the content, and a crash leave a short file
        os.fsync(self._file.fileno())
        self._file.close()
        partial_path(self.path).replace(self.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ParquetOutput:
    """Columns as the record's fields; `error` is a struct."""

    def __init__(self, path: Path, *, vectors: bool) -> None:
        pyarrow = import_pyarrow()
        self.path = path
        self._vectors = vectors
        text, number = pyarrow.string(), pyarrow.int64()
        error = pyarrow.struct([("kind", text), ("message", text), ("status", number)])
        types = [number, text, pyarrow.list_(pyarrow.float32()) if vectors else text, error, text]
        types += [number, number, number, pyarrow.float64()]
        self._schema = pyarrow.schema(list(zip(RECORD_FIELDS, types, strict=True)))
        self._writer = pyarrow.parquet.ParquetWriter(partial_path(path), self._schema)
        self._records: list[dict[str, Any]] = []

    def write(self, record: str) -> None:
        """Append a record."""
        fields = json.loads(record)
        # a column has one type, and ids may be texts and numbers
        if fields["id"] is not None:
            fields["id"] = str(fields["id"])
        if (
            not self._vectors
            and fields["output"] is not None
            and not isinstance(fields["output"], str)
        ):
            fields["output"] = json.dumps(fields["output"], ensure_ascii=False)
        self._records.append(_encodable(fields))
        if len(self._records) >= _ROW_GROUP:
            self._write_group()

    def flush(self) -> None:
        """Do nothing: a Parquet file is readable only when it is complete."""

    def finish(self) -> None:
        """Rename the complete file to its final path."""
        self._write_group()
        self._writer.close()
        partial_path(self.path).replace(self.path)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write_group(self) -> None:
        pyarrow = import_pyarrow()
        if not self._records:
            return
        try:
            table = pyarrow.Table.from_pylist(self._records, schema=self._schema)
        # only then record by record, because nearly every group fits as a whole
        except _UNFIT:
            records = [self._fitting(record) for record in self._records]
            table = pyarrow.Table.from_pylist(records, schema=self._schema)
        self._writer.write_table(table)
        self._records = []

    def _fitting(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return a record, or an error record in place of one that does not fit the columns.

        Such a record comes from the journal of an earlier version.
        """
        pyarrow = import_pyarrow()
        try:
            pyarrow.Table.from_pylist([record], schema=self._schema)
        except _UNFIT as error:
            message = f"The answer does not fit the columns of a Parquet file: {error}"
            fault = {"kind": "invalid_output", "message": message, "status": None}
            return {"index": record["index"], "id": record["id"], "error": fault}
        return record


def _encodable(value: Any) -> Any:
    """Return a value with unpaired surrogates escaped: Parquet's texts are UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return (
        {key: _encodable(item) for key, item in value.items()} if isinstance(value, dict) else value
    )


def read_output(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a complete result file."""
    if path.suffix == ".parquet":
        for batch in import_pyarrow().parquet.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
        return
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        for line in file:
            yield json.loads(line)
