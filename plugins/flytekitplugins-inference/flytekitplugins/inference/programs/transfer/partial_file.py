"""A partial file: its parts, and the rename that makes it visible when it is complete."""

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
"""Bytes of a part between two notes in the journal: a kill costs each connection at most these."""


def part_bytes(size: int) -> int:
    """Return the size of one request for a file of `size` bytes."""
    # a sixty-fourth, so the last parts keep all connections busy; at least the minimum, because a
    # signed request costs about 2 ms of processor time; at most the maximum, because a lost part
    # is downloaded again
    return min(max(-(-size // 64), MIN_PART_BYTES), MAX_PART_BYTES)


class PartialFile:
    """A file of known size that arrives in parts, or of unknown size that arrives as one.

    Args:
        path: The path of the incomplete file.
        key: Its name in the journal.
        size: Bytes; None if only the end of the stream shows it.
        ranges: Whether it can arrive in parts.
        journal: Lists the parts of an earlier run; None if they cannot be trusted.

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
            earlier = (
                journal.parts.get(key, {})
                if journal and os.fstat(self._file).st_size == size
                else {}
            )
            if not earlier:
                # before the file has its size: after a kill, the size alone would make the notes
                # about an earlier file of this key count for this one
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
        rests = [
            (start if end is None else _resume_position(earlier, start, end), end)
            for start, end in parts
        ]
        self.missing = [(start, end) for start, end in rests if end is None or start != end]
        """The parts to download, none for an empty file: start and end (exclusive; None: to the end
        of the stream)."""
        self.present = (size or 0) - sum((end or 0) - start for start, end in self.missing)
        """Bytes that an earlier run downloaded."""
        self._remaining = len(self.missing)
        self._lock = threading.Lock()

    def write(self, offset: int, block: bytes | memoryview) -> None:
        """Write `block` at `offset`.

        Raises:
            DestinationError: The disk is full or broken.
        """
        with writing(self.path):
            view = memoryview(block)
            while view:
                # `pwrite` may write less: Linux stops at 2 GiB, a full disk earlier
                count = os.pwrite(self._file, view, offset)
                view = view[count:]
                offset += count

    def note(self, start: int, end: int) -> int:
        """Note that the bytes from `start` to `end` of a part have arrived, unless they are few.

        Returns:
            The end of the last note.
        """
        if end - start < NOTE_BYTES:
            return start
        if self._journal:
            self._journal.add("part", self._key, start, end)
        return end

    def finish_part(self, start: int, end: int) -> bool:
        """Note that the part from `start` to `end` is complete; return whether it was the last."""
        with self._lock:
            self._remaining -= 1
            last = self._remaining == 0
        # an attempt that failed may have written more bytes than the one that succeeded
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
            # before the rename: after a kill between the two, the next run only renames
            if self._journal:
                self._journal.add("done", self._key, status.st_mtime_ns)
            # an earlier run with other inputs may have left a directory here
            if final.is_dir() and not final.is_symlink():
                shutil.rmtree(final)
            self.path.replace(final)
        return status.st_size


def _resume_position(notes: Mapping[int, int], start: int, end: int | None) -> int:
    """Return where an earlier run stopped in the part from `start` to `end`."""
    # each note begins where the previous one ends
    while start != end and (further := notes.get(start, start)) > start:
        start = further
    return start


def _allocate(file: int, size: int) -> None:
    """Reserve `size` bytes if the file system can, so a full disk fails before the download."""
    try:
        if size:
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.ftruncate(file, size)
