"""From a source to a complete version in the cache: resolve, wait or download, verify."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ...errors import FetchError, InferenceError, IntegrityError, SourceUnavailableError
from ..disk import make_directories, make_root, writing
from ..local_names import relative_paths
from ..retry import Crew, Retry
from ..start_budget import telling
from ..stores.store import SourceChangedError
from ..stores.throttled_store import ThrottledStore
from ..transfer.transfers import (
    INCOMING,
    Delivery,
    Outcome,
    Transfer,
    TransferProgress,
    missing_bytes,
)
from .cache import FILES, FileEntry, ModelCache, Version
from .digest import Digest, DigestMismatchError, Verifier, file_digest
from .lease import Heartbeat, Lock
from .source import ModelSource, Selection, Snapshot
from .sources import cache_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .source import SnapshotFile

MAX_ROUNDS = 3
"""How often a download starts again because somebody replaced the source meanwhile."""
WAIT_SECONDS = 0.25
"""Pause between two checks of another process's download."""


@dataclass(kw_only=True, slots=True)
class FetchResult:
    """A complete version, and how long each phase of the fetch took."""

    version: Version
    lease: Path | None
    """Protects the version from removal."""
    is_from_cache: bool = True
    seconds: dict[str, float] = field(
        default_factory=lambda: {"resolve": 0.0, "download": 0.0, "verify": 0.0}
    )

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the duration of the block to `seconds`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """The current version of a source, and whether the cache has it too."""

    version: Version
    snapshot: Snapshot | None
    """None if the cached version is used without reading the source."""
    files: tuple[SnapshotFile, ...] = ()
    """The selected files."""

    @property
    def is_cached(self) -> bool:
        """Whether no download is needed."""
        return self.snapshot is None or self.version.manifest() is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetcher:
    """Downloads versions into a cache.

    Args:
        cache: The cache.
        heartbeat: Renews this process's leases.
        holder: The name of this process in its leases.
        jobs: Number of parallel downloads.
        stall_seconds: How long a part may deliver nothing.
        retry: The attempts of each request, and the waits between them.
        say: Called with log messages.
        advance: Called from time to time while bytes arrive.
    """

    cache: ModelCache
    heartbeat: Heartbeat
    holder: str
    jobs: int
    stall_seconds: float
    retry: Retry
    say: Callable[[str], None]
    advance: Callable[[], None] = lambda: None

    def fetch(
        self,
        source: ModelSource,
        selection: Selection,
        check: Callable[[Sequence[str]], None],
        *,
        may_be_offline: bool = True,
    ) -> FetchResult:
        """Return the current version of `source`, downloading it unless the cache has it.

        Args:
            source: The model.
            selection: Selects its files.
            check: Called with the names of the files before the download; raises if they are not
                the right kind of files.
            may_be_offline: Whether the last known version is used if the source does not answer.
        """
        rounds_left = MAX_ROUNDS
        while True:
            start = time.monotonic()
            resolution = self.resolve(source, selection, check, may_be_offline=may_be_offline)
            seconds = {"resolve": round(time.monotonic() - start, 3)}
            if resolution.snapshot is None:
                if cached := self._cached(resolution.version, seconds):
                    return cached
                # damaged, or removed meanwhile: `resolve` no longer finds it in the cache
                continue
            try:
                result = self._complete(
                    resolution.version, resolution.snapshot, resolution.files, seconds
                )
            except SourceChangedError:
                rounds_left -= 1
                if not rounds_left:
                    raise
            else:
                self.cache.remember(
                    cache_key(source, selection), source.ref, resolution.version.revision
                )
                return result

    def resolve(
        self,
        source: ModelSource,
        selection: Selection,
        check: Callable[[Sequence[str]], None],
        *,
        may_be_offline: bool = True,
    ) -> Resolution:
        """Return the current version of `source`; see `fetch`. Changes nothing in the cache."""
        model = cache_key(source, selection)
        last = self.cache.version(model, self.cache.last(model, source.ref) or source.ref)
        is_here = last.revision != "" and last.manifest() is not None
        # a start from a pinned and cached version needs no network
        if source.is_pinned and is_here:
            return Resolution(version=last, snapshot=None)
        try:
            snapshot, files = self._read_source(
                source, selection, has_fallback=may_be_offline and is_here
            )
        except SourceUnavailableError as error:
            if not (may_be_offline and is_here):
                raise
            self.say(f"offline revision={last.revision} reason={error.message!r}")
            return Resolution(version=last, snapshot=None)
        check([file.path for file in files])
        return Resolution(
            version=self.cache.version(model, snapshot.revision), snapshot=snapshot, files=files
        )

    def missing_bytes(self, resolution: Resolution) -> int:
        """Return the bytes that `fetch` would need on the cache's volume. Changes nothing.

        If a download is needed, it also reads the first byte of the largest file (or the first
        block, from a store without ranges).
        """
        # a hub lists a gated model's files for everybody, and serves the bytes from another host:
        # only reading some shows whether the download will work
        if resolution.snapshot is None or resolution.is_cached:
            return 0
        store = ThrottledStore(
            resolution.snapshot.store, 1, self.stall_seconds, resolution.snapshot.slow_down
        )
        source = max(
            (file.source for file in resolution.files), key=lambda source: source.size or 0
        )
        if source.size and not resolution.snapshot.staging_bytes:
            # a replaced source is readable too, and `fetch` looks it up again
            with contextlib.suppress(SourceChangedError):
                self.retry.call(
                    lambda: next(store.read(source, 0, 1 if source.ranges else None), b""),
                    Crew(1).stop,
                )
        return (
            Download(
                self, resolution.snapshot, resolution.files, resolution.version
            ).missing_bytes()
            + resolution.snapshot.staging_bytes
        )

    def _read_source(
        self, source: ModelSource, selection: Selection, *, has_fallback: bool
    ) -> tuple[Snapshot, tuple[SnapshotFile, ...]]:
        """Return the source's snapshot and the selected files, with fewer attempts if cached."""
        # a hub that is down must not delay a start that has a cached version at hand
        retry = replace(self.retry, attempts=3) if has_fallback else self.retry
        snapshot = retry.call(source.resolve, Crew(1).stop)
        return snapshot, selection.select(snapshot.files, source.label)

    def _complete(
        self,
        version: Version,
        snapshot: Snapshot,
        files: Sequence[SnapshotFile],
        seconds: dict[str, float],
    ) -> FetchResult:
        """Return `version` from the cache, after another pod's download, or after our own."""
        is_logged = False
        while True:
            if cached := self._cached(version, seconds):
                return cached
            lock = self.cache.lock(version)
            with lock.held() as free:
                # again, with the lock: another process may have completed it since the last look
                if free and version.manifest() is None:
                    fresh = FetchResult(version=version, lease=None, is_from_cache=False)
                    fresh.seconds.update(seconds)
                    Download(self, snapshot, files, version).run(fresh, lock)
                    fresh.lease = version.use(self.holder, self.heartbeat)
                    return fresh
            if not free:
                if not is_logged:
                    self.say(
                        f"waiting revision={version.revision} reason='another process downloads it'"
                    )
                    is_logged = True
                start = time.monotonic()
                with telling(lambda: f"Another process was downloading {version.revision}."):
                    time.sleep(WAIT_SECONDS)
                seconds["wait"] = round(seconds.get("wait", 0.0) + time.monotonic() - start, 3)

    def _cached(self, version: Version, seconds: dict[str, float]) -> FetchResult | None:
        """Return `version` with a lease on it, or None if it is incomplete."""
        if not version.revision or version.manifest() is None:
            return None
        lease = version.use(self.holder, self.heartbeat)
        # checked again: another process may have removed it before this one had the lease
        if version.manifest() is None:
            return None
        cached = FetchResult(version=version, lease=lease)
        cached.seconds.update(seconds)
        with cached.phase("verify"):
            return cached if version.is_durable() or self._is_undamaged(version) else None

    def _is_undamaged(self, version: Version) -> bool:
        """Verify a version from another boot of the machine, in one process at a time."""
        self.say(
            f"verifying revision={version.revision} reason='it was written before this machine "
            "started'"
        )
        while not version.is_durable():
            with self.cache.lock(version).held() as free:
                if not free:
                    time.sleep(WAIT_SECONDS)
                # another process has found damage, and removed the manifest
                elif version.manifest() is None:
                    return False
                else:
                    try:
                        version.verify()
                    except IntegrityError as error:
                        self.say(f"damaged reason={error.message!r}")
                        return False
                    version.sync()
                    return True
        return True


class Download:
    """The download of one version into the cache.

    Args:
        fetcher: The settings of the download.
        snapshot: The source's files.
        files: The selected ones.
        version: The version in the cache.
    """

    def __init__(
        self, fetcher: Fetcher, snapshot: Snapshot, files: Sequence[SnapshotFile], version: Version
    ) -> None:
        self._fetcher = fetcher
        self._snapshot = snapshot
        self._version = version
        names = relative_paths([file.path for file in files])
        self._expected = {f"{FILES}/{names[file.path]}": file for file in files}
        self._deliveries = [
            Delivery(source=file.source, path=path) for path, file in self._expected.items()
        ]
        self._verifier = Verifier({path: file.digest for path, file in self._expected.items()})
        self._mismatches: dict[str, Digest] = {}
        self._reported = 0

    def missing_bytes(self) -> int:
        """Return the bytes that must be free on the cache's volume."""
        return missing_bytes(self._version.path, self._deliveries)

    def run(self, result: FetchResult, lock: Lock) -> None:
        """Download all files, and complete the version if this process still holds the lock."""
        size = sum(delivery.source.size or 0 for delivery in self._deliveries)
        self._fetcher.say(
            f"download revision={self._version.revision} files={len(self._deliveries)} "
            f"total_bytes={size}"
        )
        for removed in self._fetcher.cache.prune(size, keep=self._version):
            self._fetcher.say(f"pruned version={removed}")
        with writing(self._version.path):
            make_root(self._version.path)
            make_directories(self._version.path, self._version.files)
        with result.phase("download"):
            jobs, retry = self._fetcher.jobs, self._fetcher.retry
            store = ThrottledStore(
                self._snapshot.store, jobs, self._fetcher.stall_seconds, self._slow_down
            )
            transfer = Transfer(
                store,
                self._version.path,
                jobs=jobs,
                retry=retry,
                tick=self._report,
                observer=self._verifier,
            )
            try:
                transfer.prune(FILES, set(self._expected))
                with telling(
                    lambda: f"{transfer.progress} of {self._version.revision} had arrived."
                ):
                    self._fetch(transfer)
            finally:
                transfer.close()
        with result.phase("verify"):
            entries = [self._entry(path) for path in self._expected]
        # a process that lost its lease must not complete a version that another one writes
        lock.check()
        self._version.complete(entries)
        shutil.rmtree(self._version.path / INCOMING, ignore_errors=True)

    def _fetch(self, transfer: Transfer) -> None:
        """Download all files, and corrupt ones a second time."""
        while True:
            outcome = transfer.fetch(self._deliveries)
            if not outcome.failures:
                return
            self._judge(transfer, outcome)

    def _judge(self, transfer: Transfer, outcome: Outcome) -> None:
        """Prepare another attempt for corrupt files, or raise the error of any other failure."""
        for delivery, error in sorted(
            outcome.failures, key=lambda failure: isinstance(failure[1], SourceChangedError)
        ):
            if not isinstance(error, DigestMismatchError):
                raise _counted(error, outcome)
            earlier = self._mismatches.get(delivery.path)
            is_certain = self._expected[delivery.path].digest.is_certain
            if earlier == error.actual and not is_certain:
                # the same content twice: the source's digest must belong to other bytes
                self._verifier.accept(delivery.path, error.actual)
            elif earlier is not None:
                raise _counted(error, outcome)
            self._mismatches[delivery.path] = error.actual
            self._fetcher.say(f"corrupt reason={error.message!r}")
            transfer.forget(delivery)

    def _entry(self, path: str) -> FileEntry:
        """Return the manifest's entry of one file."""
        # a file of an earlier run has no digest here: that run verified it against the source's
        place = self._version.path / path
        verified = self._verifier.digests.get(path)
        digest = verified or self._expected[path].digest
        if not digest.value or (not digest.is_certain and verified is None):
            digest = file_digest(place, digest.algorithm)
        return FileEntry(
            path=path.removeprefix(f"{FILES}/"), size=place.stat().st_size, digest=str(digest)
        )

    def _slow_down(self, connections: int) -> None:
        self._fetcher.say(f"slower connections={connections}")
        self._snapshot.slow_down(connections)

    def _report(self, progress: TransferProgress) -> None:
        if progress.bytes > self._reported:
            self._fetcher.advance()
        self._reported = progress.bytes
        rate = progress.bytes / max(time.monotonic() - progress.started, 0.001)
        self._fetcher.say(
            f"progress files={progress.files}/{progress.total_files} bytes={progress.bytes} "
            f"total_bytes={progress.total_bytes} bytes_per_second={rate:.0f}"
        )


def _counted(error: InferenceError, outcome: Outcome) -> InferenceError:
    """Return `error` with the number of other files that failed as well."""
    others = len(outcome.failures) - 1
    if others and isinstance(error, FetchError):
        error.message = f"{error.message} So did {others} more."
    return error
