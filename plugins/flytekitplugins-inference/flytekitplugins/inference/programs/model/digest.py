"""What a file's content should be, computed while the file arrives.

The parts of a file arrive in any order, a digest wants the bytes in theirs: whoever has brought a
part hashes on as far as the file is complete from its start, out of the page cache. When the last
part is there little is left to do, and no file waits for another one's digest.
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
    """An algorithm and what it should say; no value where the source does not tell."""

    algorithm: str = SHA256
    value: str = ""
    is_certain: bool = True
    """False where a source's value may be of something else, as an ETag of an encrypted object
    is."""

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


class DigestMismatchError(IntegrityError):
    """A file arrived whole, and is not the one that its source describes.

    Args:
        message: See `InferenceError`.
        actual: The digest of what arrived.
    """

    retryable = False  # by the same request, that is; the file is fetched once more

    def __init__(self, message: str, *, actual: Digest) -> None:
        super().__init__(
            message,
            hint="The source or a proxy on the way to it hands out other bytes than it says.",
        )
        self.actual = actual


def new_hash(algorithm: str, size: int) -> Any:
    """Return a hash object.

    For git's it has seen the header that git puts before a blob of `size` bytes.

    Source: git-scm.com/book, "Git Internals - Git Objects".
    """
    if algorithm == GIT_SHA1:
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
    """A file that arrives, and how far it is hashed."""

    def __init__(self, path: Path, size: int, missing: Sequence[int], algorithm: str) -> None:
        self._path = path
        self._size = size
        self._missing = set(missing)
        self._lock, self._hashing = threading.Lock(), threading.Lock()
        self._hashed = new_hash(algorithm, size)
        self._position = 0
        self._algorithm = algorithm

    def part(self, start: int) -> None:
        with self._lock:
            self._missing.discard(start)
        # else another thread hashes on, or whoever brings the last part will
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
            while (wanted := min(len(buffer), self._complete_until() - self._position)) > 0:
                count = file.readinto(buffer[:wanted])
                if not count:
                    return
                self._hashed.update(buffer[:count])
                self._position += count


class Verifier:
    """A `transfers.TransferObserver` that lets a file become visible only when it is right.

    Args:
        expected: For each delivery's path, its digest.
    """

    def __init__(self, expected: Mapping[str, Digest]) -> None:
        self._expected = expected
        self._growing: dict[str, _RunningDigest] = {}
        self._paths: dict[str, Path] = {}
        self._accepted: dict[str, Digest] = {}
        self.digests: dict[str, Digest] = {}
        """For each path that was verified here, the digest of its content."""

    def accept(self, path: str, digest: Digest) -> None:
        """Let `path` pass with `digest` as well.

        The source sent the same content twice, and the digest that it tells may be of another.
        """
        self._accepted[path] = digest

    def begin(self, delivery: Delivery, path: Path, missing: Sequence[int]) -> None:
        """See `transfers.TransferObserver`."""
        size = delivery.source.size
        # without a size only the end of the stream tells it, and git's digest begins with the size
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
            DigestMismatchError: The content is not what the source says.
            IntegrityError: It is a safetensors file that was cut off where it comes from.
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
    """Return `action` of every item, one of them at a time on each core."""
    from concurrent.futures import ThreadPoolExecutor

    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    executor = ThreadPoolExecutor(cores)
    try:
        return [future.result() for future in [executor.submit(action, item) for item in items]]
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
