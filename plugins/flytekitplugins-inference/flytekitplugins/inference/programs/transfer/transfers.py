"""Downloads files from stores: in parallel, resumable, each visible only when it is complete.

A file grows in `<root>/.incoming/` and is renamed when it has all its bytes; a journal lists the
parts that have arrived. Nothing here knows what the files are for.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...errors import FetchError, InferenceError, IntegrityError
from ...facts.address import mask
from ..disk import check_space, is_file, make_directories, make_root, writing
from ..retry import Crew, Retry
from ..stores.store import Block, SourceChangedError, Store, StoredFile
from .partial_file import PartialFile
from .transfer_journal import TransferJournal, read_record, transfer_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

INCOMING = ".incoming"
"""The directory below the root that holds incomplete files."""
PROGRESS_BYTES = 1024 * 1024
"""After an attempt that transferred this much, the count of attempts starts again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One file and its destination."""

    source: StoredFile
    path: str
    """Relative to the root; `local_names` guarantees that it stays inside."""

    @property
    def key(self) -> str:
        """Its name in the journal; another size, version or place is another delivery."""
        return transfer_key(self.source.uri, self.source.size, self.source.version, self.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """One file that has arrived."""

    delivery: Delivery
    size: int
    seconds: float
    """From the first request to the rename; 0 for a file of an earlier run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The results of deliveries."""

    delivered: list[Delivered] = field(default_factory=list)
    failures: list[tuple[Delivery, InferenceError]] = field(default_factory=list)


class TransferObserver(Protocol):
    """Receives events about arriving files, from any thread; see `Transfer`."""

    def begin(self, delivery: Delivery, path: Path, missing: Sequence[int]) -> None:
        """The file grows at `path`; the parts that start at `missing` have not arrived yet."""

    def part(self, delivery: Delivery, start: int) -> None:
        """The part that starts at `start` has arrived."""

    def complete(self, delivery: Delivery) -> None:
        """All parts have arrived; the file becomes visible when this returns.

        Raises:
            FetchError: It must not become visible.
        """


class TransferProgress:
    """Counts the files and bytes that arrive."""

    def __init__(self) -> None:
        self.files = self.total_files = self.bytes = self.total_bytes = 0
        self.started = time.monotonic()
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return (
            f"{self.files} of {self.total_files} files ({self.bytes} of {self.total_bytes} bytes)"
        )

    def add(self, *, files: int = 0, size: int = 0) -> None:
        """Add files and bytes to the counts."""
        with self._lock:
            self.files += files
            self.bytes += size


def missing_bytes(root: Path, deliveries: Sequence[Delivery]) -> int:
    """Return the free bytes that the missing files need at `root`.

    Changes nothing there.
    """
    done = read_record(root / INCOMING).done
    needed = 0
    for delivery in deliveries:
        size = delivery.source.size or 0
        partial = _partial(root, delivery)
        if not has_arrived(root, delivery, done):
            # in blocks: what an earlier run has reserved is no longer among the free bytes
            reserved = partial.lstat().st_blocks * 512 if partial.exists() else 0
            needed += max(0, size - reserved)
    return needed


def has_arrived(root: Path, delivery: Delivery, done: Mapping[str, int]) -> bool:
    """Whether an earlier run downloaded a file, perhaps without the rename.

    Args:
        root: The directory of the transfer.
        delivery: The file.
        done: `TransferRecord.done` of the journal.
    """
    modified = done.get(delivery.key)
    # without a version, nothing shows that the source still has these bytes
    if modified is None or not delivery.source.version:
        return False
    return any(
        is_file(path, delivery.source.size, modified)
        for path in (_partial(root, delivery), root / delivery.path)
    )


def _partial(root: Path, delivery: Delivery) -> Path:
    return root / INCOMING / f"{delivery.key}.partial"


class Transfer:
    """Downloads files to `root`.

    Args:
        store: The source of the files.
        root: A directory; created if it does not exist.
        jobs: Number of parallel downloads.
        retry: The attempts of each part, and the waits between them.
        tick: Called every few seconds with the progress.
        observer: Checks the files before they become visible.

    Raises:
        DestinationError: `root` cannot be written, or another process writes there.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        *,
        jobs: int,
        retry: Retry,
        tick: Callable[[TransferProgress], None] = lambda _: None,
        observer: TransferObserver | None = None,
    ) -> None:
        self._observer = observer
        self._store = store
        self._root = root
        self._retry = retry
        self._jobs = jobs
        self._incoming = root / INCOMING
        self.progress = TransferProgress()
        self._crew = Crew(jobs, lambda: tick(self.progress))
        with writing(root):
            make_root(root)
            make_directories(root, self._incoming)
        self._journal = TransferJournal(self._incoming)

    def fetch(self, deliveries: Sequence[Delivery]) -> Outcome:
        """Download `deliveries`, the largest first.

        After the first failure, active parts are finished and no further one starts. A file whose
        source was replaced meanwhile fails with `SourceChangedError`; look up the source again and
        repeat the call.

        Raises:
            DestinationError: The disk is too small or cannot be written.
        """
        self.progress = TransferProgress()
        outcome = Outcome()
        outcome.delivered.extend(
            Delivered(delivery=d, size=d.source.size or 0, seconds=0.0)
            for d in deliveries
            if self._finish_earlier(d)
        )
        present = {item.delivery for item in outcome.delivered}
        # the largest first: started last, it would run alone at the end
        missing = sorted(
            (d for d in deliveries if d not in present), key=lambda d: -(d.source.size or 0)
        )
        # before the check: partial files of other inputs must not count against the space
        self._remove_others({delivery.key for delivery in missing})
        check_space(self._root, missing_bytes(self._root, deliveries))
        self.progress.add(files=len(present), size=sum(item.size for item in outcome.delivered))
        self.progress.total_files = len(deliveries)
        self.progress.total_bytes = sum(delivery.source.size or 0 for delivery in deliveries)
        self._crew.run(self._tasks(missing, outcome))
        return outcome

    def write(self, path: str, data: bytes) -> None:
        """Write `data` to the file `path` below the root."""
        final = self._root / path
        partial = self._incoming / f"{transfer_key(path)}.partial"
        with writing(final):
            make_directories(self._root, final.parent)
            partial.write_bytes(data)
            partial.chmod(0o644)
            partial.replace(final)

    def prune(self, directory: str, keep: set[str]) -> None:
        """Create `directory`, and remove other files of an earlier run below it.

        Args:
            directory: Relative to the root.
            keep: The files that stay, relative to the root.
        """
        with writing(self._root / directory):
            make_directories(self._root, self._root / directory)
            for folder, folders, names in os.walk(self._root / directory, topdown=False):
                for path in (Path(folder, name) for name in (*folders, *names)):
                    if path.is_symlink() or (
                        path.is_file() and str(path.relative_to(self._root)) not in keep
                    ):
                        path.unlink()
                    # the walk is bottom-up, so a directory without files to keep is empty by now
                    elif path.is_dir() and not any(path.iterdir()):
                        path.rmdir()

    def forget(self, delivery: Delivery) -> None:
        """Delete the parts of `delivery`, so the next `fetch` starts it again."""
        self._journal.add("new", delivery.key)
        with writing(self._incoming):
            _partial(self._root, delivery).unlink(missing_ok=True)

    @property
    def is_fresh(self) -> bool:
        """Whether no earlier run has downloaded anything."""
        return not self._journal.parts

    def close(self) -> None:
        """Release the lock on the directory."""
        self._journal.close()

    def _finish_earlier(self, delivery: Delivery) -> bool:
        """Return whether an earlier run downloaded a file; rename it if that run did not."""
        if not has_arrived(self._root, delivery, self._journal.done):
            return False
        partial = _partial(self._root, delivery)
        final = self._root / delivery.path
        if is_file(partial, delivery.source.size, self._journal.done[delivery.key]):
            with writing(final):
                make_directories(self._root, final.parent)
                partial.replace(final)
        return True

    def _remove_others(self, keys: set[str]) -> None:
        with writing(self._incoming):
            for path in self._incoming.glob("*.partial"):
                if path.stem not in keys:
                    path.unlink()

    def _tasks(
        self, deliveries: Sequence[Delivery], outcome: Outcome
    ) -> Iterator[Callable[[], None]]:
        for delivery in deliveries:
            source = delivery.source
            # parts of an earlier run count only if the source shows that it is the same file
            journal = self._journal if source.version else None
            file = PartialFile(
                _partial(self._root, delivery),
                key=delivery.key,
                size=source.size,
                ranges=source.ranges,
                journal=journal,
            )
            self.progress.add(size=file.present)
            if self._observer:
                self._observer.begin(delivery, file.path, [start for start, _ in file.missing])
            # one part that is none: the file is empty, or an earlier run was killed after the last
            parts: Sequence[tuple[int, int | None] | None] = file.missing or [None]
            for part in parts:
                if outcome.failures:
                    return
                yield functools.partial(self._work, delivery, file, part, outcome)

    def _work(
        self,
        delivery: Delivery,
        file: PartialFile,
        part: tuple[int, int | None] | None,
        outcome: Outcome,
    ) -> None:
        """Download one part, or none of a complete file; after the last one, finish the file."""
        try:
            if part is not None:
                position = self._fetch_part(delivery.source, file, *part)
                if position is None:
                    return
                # before `finish_part`: after the last part, the observer must know all others
                if self._observer:
                    self._observer.part(delivery, part[0])
                if not file.finish_part(part[0], position):
                    return
            outcome.delivered.append(self._finish(delivery, file))
        except InferenceError as error:
            outcome.failures.append((delivery, error))

    def _fetch_part(
        self, source: StoredFile, file: PartialFile, start: int, end: int | None
    ) -> int | None:
        """Download one part, resuming after the last byte when the connection is lost.

        Returns:
            The end of the part, or None if the work was stopped meanwhile.
        """
        position = start
        attempt = 0
        noted = start
        if start == 0 and source.head and end is not None:
            position = self._write(file, 0, source.head[:end])
        while position != end:
            origin = position
            try:
                for block in self._store.read(source, position, end):
                    if self._crew.stop.is_set():
                        return None
                    if end is not None and position + len(block) > end:
                        raise IntegrityError(f"{mask(source.uri)} is longer than the store said.")
                    position = self._write(file, position, block)
                    noted = file.note(noted, position) if source.ranges else start
                if end is None or position == end:
                    return position
                raise IntegrityError(f"{mask(source.uri)} ended {end - position} bytes early.")
            except FetchError as error:
                has_advanced = position - origin >= PROGRESS_BYTES and source.ranges
                attempt = 1 if has_advanced else attempt + 1
                if isinstance(error, SourceChangedError) or self._retry.gives_up(attempt, error):
                    raise
                failure = error
            # a store without ranges sends the file from its start again
            if not source.ranges:
                self.progress.add(size=start - position)
                position = start
            self._retry.wait(attempt, self._crew.stop, error=failure)
        return position

    def _write(self, file: PartialFile, position: int, block: Block) -> int:
        file.write(position, block)
        self.progress.add(size=len(block))
        return position + len(block)

    def _finish(self, delivery: Delivery, file: PartialFile) -> Delivered:
        final = self._root / delivery.path
        with writing(final):
            make_directories(self._root, final.parent)
        if self._observer:
            self._observer.complete(delivery)
        size = file.place(final)
        self.progress.add(files=1)
        return Delivered(delivery=delivery, size=size, seconds=time.monotonic() - file.started)
