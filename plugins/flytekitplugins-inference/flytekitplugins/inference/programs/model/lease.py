"""Who works on or uses what on a volume that many pods share.

A lease is a file whose modification time its holder renews. Everybody else goes by that time as the
file system tells it, never by their own clock. A holder that was killed loses its lease by not
renewing it. On the same machine it is known at once: the kernel drops the lock (`flock`) of a
killed process. That counts only for a lease that was taken through the same mount, and where a lock
that is held is refused to others: some file systems have no locks, some grant every one of them,
and FUSE keeps them for each mount apart.
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
"""Who writes and has not renewed its lease for so long is dead."""
USE_EXPIRY_SECONDS = 300.0
"""The same of who only reads: being wrong costs a server its files, and waiting costs only disk
space."""
RENEWAL_SECONDS = 5.0


class Heartbeat:
    """Renews leases from a thread of its own."""

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
        """Leave `path` alone from now on."""
        with self._lock:
            self._paths.discard(path)

    def _run(self) -> None:
        while True:
            time.sleep(RENEWAL_SECONDS)
            with self._lock:
                for path in self._paths:
                    with contextlib.suppress(OSError):  # a volume that is away for a moment
                        os.utime(path)


def now(directory: Path) -> float:
    """Return the time as the file system of `directory` has it."""
    probe = directory / f".clock-{uuid.uuid4().hex}"
    with writing(probe):
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def is_live(lease: Path, moment: float, expiry: float = EXPIRY_SECONDS) -> bool:
    """Whether `lease` is held; `moment` is `now` of its file system."""
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
        self._path, self._heartbeat = path, heartbeat
        self._holder = uuid.uuid4().hex
        self._token = ""

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Yield whether the lock was free; it is held then until the block ends."""
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
                if self._read() == self._token:
                    self._path.unlink(missing_ok=True)
        finally:
            os.close(file)

    def check(self) -> None:
        """Make sure that the lock is still ours.

        Raises:
            SourceUnavailableError: It was not renewed in time and is somebody else's now.
        """
        if self._read() != self._token:
            raise SourceUnavailableError(
                f"The lease {self._path} was lost: its volume did not answer for too long."
            )

    def _take(self, locked_device: int | None) -> bool:
        """Make the lease ours unless somebody has it.

        Args:
            locked_device: The device on which we have the kernel's lock; None without one.
        """
        while not self._create():
            token = self._read()
            is_dead = locked_device is not None and _is_from(
                token, locked_device
            )  # or we would not have the lock
            if not is_dead and is_live(self._path, now(self._path.parent)):
                return False
            if not self._remove(token):
                return False
        return True

    def _create(self) -> bool:
        """Make the lease where there is none, with our name in it."""
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
        """Remove the lease that says `token`; put it back when it says something else by now."""
        aside = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return True
        is_it = aside.read_text(encoding="utf-8") == token
        if not is_it:
            # it may be taken meanwhile, or there are no hard links: its holder will notice
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
    """Whether this machine wrote `token` since it was started, through the mount of `device`."""
    try:
        fields = json.loads(token)
        return bool(fields["boot"] == boot_id() != "unknown" and fields["device"] == device)
    except (ValueError, TypeError, KeyError):
        return False


class Grant(Enum):
    """What became of asking for the kernel's lock."""

    GIVEN = auto()
    """Who had it before is dead, or has ended."""
    REFUSED = auto()
    MEANINGLESS = auto()
    """There are no locks, or they are given to everybody: the lease alone decides."""


def _lock(file: int, path: Path) -> Grant:
    """Ask for the lock of the open `file`, which lies at `path`.

    Asking twice shows whether a lock means anything: some file systems grant every one.
    """
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
