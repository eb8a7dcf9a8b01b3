"""Digests of files, computed while the files arrive.

The parts of a file arrive in any order, but a digest needs the bytes in sequence. The thread that
completes a part therefore hashes, from the page cache, up to the first gap in the file. When the
last part arrives, little remains to be hashed, and no file waits for another file's digest.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import IntegrityError
from ...facts.address import mask
from ..disk import writing
from ..stores.store import BLOCK_BYTES
from .safetensors import check_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ..transfer.transfers import Delivery

SHA256 = "sha256"
GIT_SHA1 = "git-sha1"
MD5 = "md5"


@dataclass(frozen=True, kw_only=True, slots=True)
class Digest:
    """An algorithm and its expected value, which is empty if the source reports none."""

    algorithm: str = SHA256
    value: str = ""
    is_certain: bool = True
    """False if the source's value may belong to other bytes, such as the ETag of an encrypted
    object."""

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


class DigestMismatchError(IntegrityError):
    """A complete file differs from the one that its source describes.

    Args:
        message: See `InferenceError`.
        actual: The digest of the file.
    """

    # the same request would give the same bytes; the fetcher downloads the file once more itself
    retryable = False

    def __init__(self, message: str, *, actual: Digest) -> None:
        super().__init__(
            message,
            hint="The source, or a proxy before it, sends other bytes than it announces.",
        )
        self.actual = actual


def new_hash(algorithm: str, size: int) -> Any:
    """Return a hash object; git's starts with the header of a blob of `size` bytes.

    Source: git-scm.com/book, "Git Internals - Git Objects".
    """
    if algorithm == GIT_SHA1:
        # `usedforsecurity`: restricted builds of OpenSSL refuse SHA-1 and MD5 otherwise
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.new(algorithm, usedforsecurity=False)


def file_digest(path: Path, algorithm: str, stop: threading.Event | None = None) -> Digest:
    """Return the digest of a file on disk."""
    hashed = new_hash(algorithm, path.stat().st_size)
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while (count := file.readinto(buffer)) and not (stop and stop.is_set()):
            hashed.update(buffer[:count])
    return Digest(algorithm=algorithm, value=hashed.hexdigest())


class _RunningDigest:
    """The digest of an arriving file, up to the first gap."""

    def __init__(self, path: Path, size: int, missing: Sequence[int], algorithm: str) -> None:
        self._path = path
        self._size = size
        self._missing = set(missing)
        self._lock = threading.Lock()
        # two locks: noting a part must not wait for the thread that hashes
        self._hashing = threading.Lock()
        self._hashed = new_hash(algorithm, size)
        self._position = 0
        self._algorithm = algorithm

    def part(self, start: int) -> None:
        with self._lock:
            self._missing.discard(start)
        # otherwise another thread is hashing; `digest` hashes the rest after the last part
        if self._hashing.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._hashing.release()

    def digest(self) -> Digest:
        with self._lock:
            self._missing.clear()
        with self._hashing:
            self._catch_up()
        return Digest(algorithm=self._algorithm, value=self._hashed.hexdigest())

    def _complete_until(self) -> int:
        with self._lock:
            return min(self._missing, default=self._size)

    def _catch_up(self) -> None:
        if self._position >= self._complete_until():
            return
        buffer = memoryview(bytearray(BLOCK_BYTES))
        with writing(self._path), self._path.open("rb", buffering=0) as file:
            file.seek(self._position)
            while (size := min(len(buffer), self._complete_until() - self._position)) > 0:
                count = file.readinto(buffer[:size])
                if not count:
                    return
                self._hashed.update(buffer[:count])
                self._position += count


class Verifier:
    """A `transfers.TransferObserver` that makes a file visible only if its digest is correct.

    Args:
        expected: The digest of each delivery, by its path.
    """

    def __init__(self, expected: Mapping[str, Digest]) -> None:
        self._expected = expected
        self._growing: dict[str, _RunningDigest] = {}
        self._paths: dict[str, Path] = {}
        self._accepted: dict[str, Digest] = {}
        self.digests: dict[str, Digest] = {}
        """The digest of each verified file, by its path."""

    def accept(self, path: str, digest: Digest) -> None:
        """Also accept `digest` for `path`.

        Used when the source sent the same content twice, so its digest may belong to other bytes.
        """
        self._accepted[path] = digest

    def begin(self, delivery: Delivery, path: Path, missing: Sequence[int]) -> None:
        """See `transfers.TransferObserver`."""
        size = delivery.source.size
        # without a size, hashing starts at the end of the stream: git's digest begins with the size
        if size is not None:
            algorithm = self._expected[delivery.path].algorithm
            self._growing[delivery.path] = _RunningDigest(path, size, missing, algorithm)
        else:
            self._growing.pop(delivery.path, None)
        self._paths[delivery.path] = path

    def part(self, delivery: Delivery, start: int) -> None:
        """See `transfers.TransferObserver`."""
        if growing := self._growing.get(delivery.path):
            growing.part(start)

    def complete(self, delivery: Delivery) -> None:
        """See `transfers.TransferObserver`.

        Raises:
            DigestMismatchError: The content differs from the source's digest.
            IntegrityError: The file is a safetensors file that is truncated at its source.
        """
        name = delivery.path
        path = self._paths[delivery.path]
        expected = self._expected[delivery.path]
        growing = self._growing.pop(name, None)
        actual = growing.digest() if growing else file_digest(path, expected.algorithm)
        if expected.value and actual.value != expected.value and self._accepted.get(name) != actual:
            raise DigestMismatchError(
                f"{mask(delivery.source.uri)} has the digest {actual}; its source says {expected}.",
                actual=actual,
            )
        if name.endswith(".safetensors"):
            check_safetensors(path, mask(delivery.source.uri))
        self.digests[name] = actual


def in_parallel(action: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return `action` of every item, with one thread for each core."""
    from concurrent.futures import ThreadPoolExecutor

    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    executor = ThreadPoolExecutor(cores)
    try:
        return [future.result() for future in [executor.submit(action, item) for item in items]]
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
