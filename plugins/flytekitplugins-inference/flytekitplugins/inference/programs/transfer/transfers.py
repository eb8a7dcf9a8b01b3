"""Files from stores to a directory: in parallel, resumable, each visible only when it is complete.

A file grows in `<root>/.incoming/` and is renamed when all its bytes are there; a journal remembers
its parts. Nothing here knows what the files are for.
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
"""The directory below the root that holds what is not complete."""
PROGRESS_BYTES = 1024 * 1024
"""An attempt that brought this much was no failure: the count of attempts begins again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One file and where it goes."""

    source: StoredFile
    path: str
    """Relative to the root; made by `local_names`, so that it stays inside."""

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
    """From the first request to the rename; 0 for a file that an earlier run brought."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of deliveries."""

    delivered: list[Delivered] = field(default_factory=list)
    failures: list[tuple[Delivery, InferenceError]] = field(default_factory=list)


class TransferObserver(Protocol):
    """Looks at files while they arrive. Called from any thread; see `Transfer`."""

    def begin(self, delivery: Delivery, path: Path, missing: Sequence[int]) -> None:
        """The file grows at `path`; the parts that start at `missing` are not there yet."""

    def part(self, delivery: Delivery, start: int) -> None:
        """The part that starts at `start` has arrived."""

    def complete(self, delivery: Delivery) -> None:
        """All parts have arrived; the file becomes visible when this returns.

        Raises:
            FetchError: It must not become visible.
        """


class TransferProgress:
    """Counts what arrives; printed by whoever wants to."""

    def __init__(self) -> None:
        self.files = self.total_files = self.bytes = self.total_bytes = 0
        self.started = time.monotonic()
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return (
            f"{self.files} of {self.total_files} files ({self.bytes} of {self.total_bytes} bytes)"
        )

    def add(self, *, files: int = 0, size: int = 0) -> None:
        """Count what has arrived."""
        with self._lock:
            self.files += files
            self.bytes += size


def missing_bytes(root: Path, deliveries: Sequence[Delivery]) -> int:
    """Return the bytes that must be free for what has not arrived at `root` yet.

    Changes nothing there.
    """
    done = read_record(root / INCOMING).done
    needed = 0
    for delivery in deliveries:
        size = delivery.source.size or 0
        partial = _partial(root, delivery)
        if not has_arrived(root, delivery, done):
            reserved = partial.lstat().st_blocks * 512 if partial.exists() else 0
            needed += max(0, size - reserved)
    return needed


def has_arrived(root: Path, delivery: Delivery, done: Mapping[str, int]) -> bool:
    """Whether an earlier run brought it, perhaps all but the rename; `done` is the journal's."""
    modified = done.get(delivery.key)
    if modified is None or not delivery.source.version:
        return False
    return any(
        is_file(path, delivery.source.size, modified)
        for path in (_partial(root, delivery), root / delivery.path)
    )


def _partial(root: Path, delivery: Delivery) -> Path:
    return root / INCOMING / f"{delivery.key}.partial"


class Transfer:
    """Brings files to `root`.

    Args:
        store: Where they come from.
        root: A directory; made where it is missing.
        jobs: Parts that are fetched at once.
        retry: How often and how fast a part is tried again.
        tick: Called every few seconds with the progress.
        observer: Looks at the files before they become visible.

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
        """Bring `deliveries`, the largest first.

        The first failure ends it: parts under way are finished, no further one is begun. A file
        whose source was replaced meanwhile fails with `SourceChangedError`; look at the source
        again and call again.

        Raises:
            DestinationError: There is too little space, or it cannot be written.
        """
        self.progress = TransferProgress()
        outcome = Outcome()
        outcome.delivered.extend(
            Delivered(delivery=d, size=d.source.size or 0, seconds=0.0)
            for d in deliveries
            if self._finish_earlier(d)
        )
        present = {item.delivery for item in outcome.delivered}
        missing = sorted(
            (d for d in deliveries if d not in present), key=lambda d: -(d.source.size or 0)
        )
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
        """Make `directory`, and remove what an earlier run left below it.

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
                    elif path.is_dir() and not any(path.iterdir()):  # the walk has emptied it
                        path.rmdir()

    def forget(self, delivery: Delivery) -> None:
        """Drop what has arrived of `delivery`: the next `fetch` begins it afresh."""
        self._journal.add("new", delivery.key)
        with writing(self._incoming):
            _partial(self._root, delivery).unlink(missing_ok=True)

    @property
    def is_fresh(self) -> bool:
        """Whether no earlier run has brought anything."""
        return not self._journal.parts

    def close(self) -> None:
        """Let another process write here."""
        self._journal.close()

    def _finish_earlier(self, delivery: Delivery) -> bool:
        """Finish what an earlier run brought, perhaps up to the rename; return whether one did."""
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
        """Fetch one part, or none when all are here, and finish the file behind the last one."""
        try:
            if part is not None:
                reached = self._fetch_part(delivery.source, file, *part)
                if reached is None:
                    return
                # before it counts: who finishes the last part relies on all others being told
                if self._observer:
                    self._observer.part(delivery, part[0])
                if not file.finish_part(part[0], reached):
                    return
            outcome.delivered.append(self._finish(delivery, file))
        except InferenceError as error:
            outcome.failures.append((delivery, error))

    def _fetch_part(
        self, source: StoredFile, file: PartialFile, start: int, end: int | None
    ) -> int | None:
        """Fetch one part, going on behind the last good byte when the connection is lost.

        Returns:
            Where it ended, or None when the work was stopped meanwhile.
        """
        position = start
        attempt = 0
        noted = start
        if start == 0 and source.head and end is not None:
            position = self._write(file, 0, source.head[:end])
        while position != end:
            begun = position
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
                attempt = 1 if position - begun >= PROGRESS_BYTES and source.ranges else attempt + 1
                if isinstance(error, SourceChangedError) or self._retry.gives_up(attempt, error):
                    raise
                failure = error
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
