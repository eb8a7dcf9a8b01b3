"""Keeps finished rows on disk: it survives a kill at any moment, and restores the rows' order.

It is an SQLite file, which keeps a million keys out of memory, refuses duplicate keys, and holds
exactly what was committed after a `kill -9`. A run keeps no other copy of an answer: the output is
written from here, in order, so a straggler that delays the order costs disk, not memory.

    results   key → record, across runs
    seen      position → key, the rows of this run (a temporary table)

All methods block, and must be called from one thread.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DestinationError
from .faults import Fault
from .rows import Row

VERSION = 1
"""The version of the file's format. It is part of the run's parameters, so another version starts
anew."""
_APPLICATION_ID = int.from_bytes(b"ibat", "big")
"""Marks the file as ours in its header (https://sqlite.org/pragma.html#pragma_application_id)."""
# AUTOINCREMENT never reuses a number, so `since` also finds a row whose earlier result was deleted.
# `seen` is temporary: a position is one of this run, and a later run may have other rows before it.
_TABLES = """
CREATE TABLE IF NOT EXISTS main.parameters (json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS main.results (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    content BLOB NOT NULL,
    keep INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    record TEXT NOT NULL
);
CREATE TEMPORARY TABLE seen (position INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE);
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """One row that is finished."""

    key: bytes
    content: bytes
    keep: bool
    """Whether a rerun reuses the result; otherwise it retries the row."""
    failed: bool
    record: str
    """JSON, an object."""


class Journal:
    """The journal at `path`, locked for this process.

    Args:
        path: Its file; an existing journal of other parameters is moved to `….previous`.
        parameters: Everything that the answers of this run depend on.
        resume: Whether to continue an existing journal.

    Raises:
        DestinationError: It cannot be written, is in use, or is not a journal.
    """

    def __init__(self, path: Path, parameters: dict[str, Any], *, resume: bool = True) -> None:
        self.path = path
        self.changed: list[str] = []
        """The differences to an existing journal, if this one starts anew because of them."""
        # through JSON and back, because that is what those of an existing journal went through
        self._parameters = json.loads(
            json.dumps({**parameters, "version": VERSION}, sort_keys=True, default=repr)
        )
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(path)
            before = self._read_parameters()
            if before is not None and (not resume or before != self._parameters):
                self.changed = _differences(before, self._parameters)
                self._database.close()
                _move_away(path)
                self._database = _open(path)
            if not self._read_parameters():
                self._database.execute(
                    "INSERT INTO parameters VALUES (?)", [json.dumps(self._parameters)]
                )
        self.restored = self.count()
        """The number of results from earlier runs."""

    def register(self, rows: list[Row]) -> tuple[list[Row], list[bool]]:
        """Register rows of this run.

        A row with the id of an earlier row gets a fault. Rows of equal content are numbered to
        distinguish them.

        Returns:
            The rows to process, and for each of the others whether it failed.
        """
        todo, resumed = [], []
        # one transaction, because a commit costs about the same for one row as for hundreds
        with _writing(self.path), self._transaction():
            for row in rows:
                failed = self._note(row)
                if failed is None:
                    todo.append(row)
                else:
                    resumed.append(failed)
        return todo, resumed

    def add(self, finished: Iterable[Finished]) -> None:
        """Keep results; once this returns, they survive a kill of the process."""
        values = [
            (item.key, item.content, item.keep, item.failed, item.record) for item in finished
        ]
        with _writing(self.path), self._transaction():
            # REPLACE: a restored checkpoint may hold results that the journal has, too
            statement = (
                "INSERT OR REPLACE INTO results (key, content, keep, failed, record) "
                "VALUES (?, ?, ?, ?, ?)"
            )
            self._database.executemany(statement, values)

    def in_order(self, first: int) -> Iterator[tuple[int, bool, str]]:
        """Yield position, failed and record of rows, up to the first unfinished one."""
        columns = "position, failed, record FROM seen LEFT JOIN results USING (key)"
        cursor = self._database.execute(
            f"SELECT {columns} WHERE position >= ? ORDER BY position", [first]
        )
        for position, failed, record in cursor:
            if record is None:
                cursor.close()
                return
            yield position, bool(failed), record

    def since(self, number: int) -> Generator[tuple[int, Finished], None, None]:
        """Yield the results that were added after the one with this number, with their numbers."""
        cursor = self._database.execute(
            "SELECT number, key, content, keep, failed, record FROM results WHERE number > ? "
            "ORDER BY number",
            [number],
        )
        for added, key, content, keep, failed, record in cursor:
            yield added, Finished(key, content, bool(keep), bool(failed), record)

    def count(self) -> int:
        """Return how many results it holds."""
        return int(self._database.execute("SELECT count(*) FROM results").fetchone()[0])

    def close(self) -> None:
        """Release the journal for another process."""
        self._database.close()

    def _note(self, row: Row) -> bool | None:
        """Return whether the row's earlier result is a failure; None without a result to reuse."""
        key, occurrence = row.key, 0
        while not self._insert_seen(row):
            if row.id is not None:
                earlier = self._database.execute(
                    "SELECT position FROM seen WHERE key = ?", [row.key]
                ).fetchone()[0]
                row.fault = Fault(
                    "duplicate_id",
                    f"Row {row.position + 1} has the id {row.id!r}, which row {earlier + 1} has "
                    "too.",
                )
                # a key of its own: the row still needs its place in the output
                row.key = b"duplicate %d" % row.position
                continue
            occurrence = occurrence + 1 if occurrence else self._occurrences(key)
            # of fixed length and big-endian, so that `max(key)` is the last occurrence
            row.key = key + occurrence.to_bytes(5, "big")
        result = self._database.execute(
            "SELECT content, keep, failed FROM results WHERE key = ?", [row.key]
        ).fetchone()
        if result is None:
            return None
        content, keep, failed = result
        # under an id that the user gave, the content may have changed since
        if keep and content == row.content:
            return bool(failed)
        self._database.execute("DELETE FROM results WHERE key = ?", [row.key])
        return None

    def _insert_seen(self, row: Row) -> bool:
        cursor = self._database.execute(
            "INSERT OR IGNORE INTO seen VALUES (?, ?)", [row.position, row.key]
        )
        return cursor.rowcount == 1

    def _occurrences(self, key: bytes) -> int:
        last = self._database.execute(
            "SELECT max(key) FROM seen WHERE key BETWEEN ? AND ?", [key, key + b"\xff" * 5]
        ).fetchone()[0]
        return int.from_bytes(last[len(key) :], "big") + 1

    def _read_parameters(self) -> Any:
        row = self._database.execute("SELECT json FROM parameters").fetchone()
        return None if row is None else json.loads(row[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _open(path: Path) -> sqlite3.Connection:
    # timeout 0: whoever has the file keeps it for a whole run, so waiting is useless.
    # check_same_thread: the disk's thread opens and uses it, the event loop's closes it.
    database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        # An exclusive lock keeps other processes out. It also lets the write-ahead log work without
        # shared memory, which network file systems lack (https://sqlite.org/wal.html, section 8).
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        # Commits survive a kill of the process. A crash of the machine may lose the last ones, but
        # never corrupts the file.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA temp_store = FILE")
        _claim(database)
        database.executescript(_TABLES)
        # takes the lock now, so that a second process fails here and not in the middle of its run
        database.execute("BEGIN IMMEDIATE")
        database.execute("COMMIT")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _claim(database: sqlite3.Connection) -> None:
    """Mark a new file as ours; refuse one of another program."""
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application_id != _APPLICATION_ID:
        raise sqlite3.DatabaseError("file is not a database of this program")
    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


def _move_away(path: Path) -> None:
    path.replace(path.with_name(path.name + ".previous"))
    # if any remain, SQLite would take them for those of the new file
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    names = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    return [f"{name}: {before.get(name)!r} → {after.get(name)!r}"[:200] for name in names]


def _has_locks(directory: Path) -> bool:
    """Return whether a file can be locked there.

    SQLite reports a network file system without locks as a locked file: it takes `ENOLCK` for
    "busy" (`sqliteErrorFromPosixError` in `os_unix.c`).
    """
    import fcntl  # POSIX only

    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        code = getattr(error, "sqlite_errorname", "")  # since Python 3.11
        if code.startswith("SQLITE_BUSY") or "locked" in text:
            if not _has_locks(path.parent):
                raise DestinationError(
                    f"{path} cannot be written: its file system has no file locks, without which "
                    "two runs could write it at once.",
                    hint="Write output= to a local disk, and copy it when the run is over.",
                ) from error
            raise DestinationError(
                f"Another process is writing {path}.", hint="Wait for it, or end it."
            ) from error
        if code.startswith("SQLITE_NOTADB") or "not a database" in text:
            message = f"{path} is not the journal of a batch."
            raise DestinationError(
                message, hint="Move it away, or choose another output."
            ) from error
        raise DestinationError(f"{path} cannot be written: {text}.") from error
    except OSError as error:
        raise DestinationError(f"{path} cannot be written: {error.strerror or error}.") from error
