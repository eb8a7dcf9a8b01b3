"""A file on its way: its parts, and the rename that makes it visible once it is complete."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING

from ..disk import writing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .transfer_journal import TransferJournal

MIN_PART_BYTES = 16 * 1024 * 1024
MAX_PART_BYTES = 64 * 1024 * 1024
NOTE_BYTES = 2 * 1024 * 1024
"""How much of a part arrives between two notes in the journal, and so what a kill costs each
connection at most."""


def part_bytes(size: int) -> int:
    """Return how much of a file of `size` bytes one request fetches.

    A sixty-fourth, so that the last parts keep all connections busy; within bounds, because a
    signed request costs about 2 ms of processor time and a repeated part costs its time once more.
    """
    return min(max(-(-size // 64), MIN_PART_BYTES), MAX_PART_BYTES)


class PartialFile:
    """A file of known size that arrives in parts, or of unknown size that arrives as one.

    Args:
        path: Where it grows.
        key: Its name in the journal.
        size: Bytes; None when only the end of the stream tells.
        ranges: Whether it can arrive in parts.
        journal: Knows the parts that an earlier run brought, or None when they cannot be trusted.

    Raises:
        DestinationError: The disk is too small or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: str,
        size: int | None,
        ranges: bool,
        journal: TransferJournal | None,
    ) -> None:
        self.path = path
        self._key = key
        self._size = size
        self._journal = journal
        self.started = time.monotonic()
        with writing(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            known = (
                journal.parts.get(key, {})
                if journal and os.fstat(self._file).st_size == size
                else {}
            )
            if not known:
                # before it has its size again: what an earlier file of this key had is not in this
                # one
                if journal:
                    journal.add("new", key)
                os.ftruncate(self._file, 0)
                _allocate(self._file, size or 0)
        step = part_bytes(size) if ranges and size is not None else size
        starts = [0] if size is None else range(0, size, step or 1)
        parts = [
            (start, size if step is None or size is None else min(size, start + step))
            for start in starts
        ]
        reached = [
            (start if end is None else _reached(known, start, end), end) for start, end in parts
        ]
        self.missing = [(start, end) for start, end in reached if end is None or start != end]
        """The parts to fetch, none for an empty file: start and end (exclusive; None: to the end of
        the stream)."""
        self.present = (size or 0) - sum((end or 0) - start for start, end in self.missing)
        """Bytes that an earlier run brought."""
        self._left, self._lock = len(self.missing), threading.Lock()

    def write(self, offset: int, block: bytes | memoryview) -> None:
        """Write `block` at `offset`.

        Raises:
            DestinationError: The disk is full or broken.
        """
        with writing(self.path):
            view = memoryview(block)
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written

    def note(self, start: int, end: int) -> int:
        """Note that the bytes from `start` to `end` of a part are here, unless they are few.

        Returns:
            Where the notes end now.
        """
        if end - start < NOTE_BYTES:
            return start
        if self._journal:
            self._journal.add("part", self._key, start, end)
        return end

    def finish_part(self, start: int, end: int) -> bool:
        """Note that a part, `start` to `end`, is here; return whether it was the last one."""
        with self._lock:
            self._left -= 1
            last = self._left == 0
        # an attempt that was lost may have brought more than the one that ended
        if self._size is None:
            with writing(self.path):
                os.ftruncate(self._file, end)
            self._size = end
        if self._journal:
            self._journal.add("part", self._key, start, end)
        return last

    def place(self, final: Path) -> int:
        """Make the complete file visible as `final`, readable by everybody, and return its size."""
        with writing(final):
            os.fchmod(self._file, 0o644)
            status = os.fstat(self._file)
            os.close(self._file)
            if self._journal:  # before the rename: a kill between the two costs nothing
                self._journal.add("done", self._key, status.st_mtime_ns)
            if final.is_dir() and not final.is_symlink():  # an earlier run's, of something else
                shutil.rmtree(final)
            self.path.replace(final)
        return status.st_size


def _reached(known: Mapping[int, int], start: int, end: int | None) -> int:
    """Return how far an earlier run came in the part from `start` to `end`."""
    # each note begins where the one before it ends
    while start != end and (further := known.get(start, start)) > start:
        start = further
    return start


def _allocate(file: int, size: int) -> None:
    """Reserve `size` bytes, where the file system can, so that a full disk is noticed now."""
    try:
        if size:
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.ftruncate(file, size)
