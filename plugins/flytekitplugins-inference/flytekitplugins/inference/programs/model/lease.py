"""Leases on a volume that many pods share: which process writes or uses what.

A lease is a file whose modification time its holder renews. Other processes compare that time with
the file system's, never with their own clock. A killed holder loses its lease because nobody renews
it. On the same machine this shows immediately: the kernel drops the lock (`flock`) of a killed
process. That holds only for a lease taken through the same mount, and only if the file system
refuses a held lock to others: some file systems have no locks, some grant every one, and FUSE keeps
separate locks for each mount.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import uuid
from enum import Enum, auto
from typing import TYPE_CHECKING

from ...errors import SourceUnavailableError
from ..disk import writing
from ..kernel import boot_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXPIRY_SECONDS = 45.0
"""A writer that has not renewed its lease for this time counts as dead."""
USE_EXPIRY_SECONDS = 300.0
"""The same for a reader. It is longer, because an error costs a server its files, while waiting
costs only disk space."""
RENEWAL_SECONDS = 5.0


class Heartbeat:
    """Renews leases in its own thread."""

    def __init__(self) -> None:
        self._paths: set[Path] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, path: Path) -> None:
        """Renew `path` from now on."""
        with self._lock:
            self._paths.add(path)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def remove(self, path: Path) -> None:
        """Stop renewing `path`."""
        with self._lock:
            self._paths.discard(path)

    def _run(self) -> None:
        while True:
            time.sleep(RENEWAL_SECONDS)
            with self._lock:
                for path in self._paths:
                    # the volume may be away for a moment; `Lock.check` notices a lost lease
                    with contextlib.suppress(OSError):
                        os.utime(path)


def now(directory: Path) -> float:
    """Return the current time of the file system of `directory`."""
    probe = directory / f".clock-{uuid.uuid4().hex}"
    with writing(probe):
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def is_live(lease: Path, moment: float, expiry: float = EXPIRY_SECONDS) -> bool:
    """Whether a process holds `lease`; `moment` is `now` of its file system."""
    try:
        return lease.stat().st_mtime > moment - expiry
    except FileNotFoundError:
        return False


class Lock:
    """The right to write one thing, for one process at a time.

    Args:
        path: The lease; a file beside it, `<path>.lock`, is locked too.
        heartbeat: Renews it while it is held.
    """

    def __init__(self, path: Path, heartbeat: Heartbeat) -> None:
        self._path = path
        self._heartbeat = heartbeat
        self._holder = uuid.uuid4().hex
        self._token = ""

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Yield whether the lock was free; if so, hold it until the block ends."""
        with writing(self._path):
            place = self._path.with_name(f"{self._path.name}.lock")
            file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            device = os.fstat(file).st_dev
            self._token = json.dumps({"boot": boot_id(), "device": device, "holder": self._holder})
            grant = _lock(file, place)
            if grant is Grant.REFUSED or not self._take(device if grant is Grant.GIVEN else None):
                yield False
                return
            self._heartbeat.add(self._path)
            try:
                yield True
            finally:
                self._heartbeat.remove(self._path)
                # not if another process took it over because this one was suspended for too long
                if self._read() == self._token:
                    self._path.unlink(missing_ok=True)
        finally:
            os.close(file)

    def check(self) -> None:
        """Check that this process still holds the lock.

        Raises:
            SourceUnavailableError: The lease was not renewed in time, and another process took it.
        """
        if self._read() != self._token:
            raise SourceUnavailableError(
                f"The lease {self._path} was lost: its volume did not answer for too long."
            )

    def _take(self, locked_device: int | None) -> bool:
        """Take the lease unless another process holds it.

        Args:
            locked_device: The device on which this process has the kernel's lock, or None.
        """
        # only one of two processes that find the same dead lease creates the new one
        while not self._create():
            token = self._read()
            # the kernel gave this process the lock, so a holder on the same mount must be dead
            is_dead = locked_device is not None and _is_from(token, locked_device)
            if not is_dead and is_live(self._path, now(self._path.parent)):
                return False
            if not self._remove(token):
                return False
        return True

    def _create(self) -> bool:
        """Create the lease with this process's token, unless it exists."""
        with writing(self._path):
            try:
                file = os.open(
                    self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644
                )
            except FileExistsError:
                return False
            os.write(file, self._token.encode())
            os.close(file)
        return True

    def _remove(self, token: str) -> bool:
        """Remove the lease if it contains `token`; return whether it did."""
        # moved away first, because another process may replace it after the last read
        aside = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return True
        is_it = aside.read_text(encoding="utf-8") == token
        if not is_it:
            # fails if the lease was taken meanwhile, or without hard links; its holder will notice
            with contextlib.suppress(OSError):
                os.link(aside, self._path)
        aside.unlink(missing_ok=True)
        return is_it

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""


def _is_from(token: str, device: int) -> bool:
    """Whether this boot of this machine wrote `token`, through the mount of `device`."""
    try:
        fields = json.loads(token)
        return bool(fields["boot"] == boot_id() != "unknown" and fields["device"] == device)
    except (ValueError, TypeError, KeyError):
        return False


class Grant(Enum):
    """The kernel's answer to a request for the lock."""

    GIVEN = auto()
    """The previous holder has ended."""
    REFUSED = auto()
    MEANINGLESS = auto()
    """The file system has no locks, or grants every one: the lease alone decides."""


def _lock(file: int, path: Path) -> Grant:
    """Request the lock of the open `file` at `path`."""
    # requested twice: a file system that grants the second one grants every lock
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Grant.REFUSED
    except OSError:
        return Grant.MEANINGLESS
    try:
        other = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)
    except BlockingIOError:
        return Grant.GIVEN
    except OSError:
        pass
    return Grant.MEANINGLESS
