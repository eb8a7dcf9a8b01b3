"""Saves finished rows in Flyte's task checkpoint, so that the next attempt of a task continues.

Flyte gives each attempt its own location to write to, and that of the previous attempt to read from
(`flytekit/core/checkpointer.py`, flytekit 1.16). We upload segments of the journal: uploading the
whole journal every few seconds would be quadratic. A segment is uploaded again while it grows; at
four megabytes it is full and never changes again. The first upload of a new attempt includes the
restored rows, because the attempt after it only sees this attempt's location.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from .journal import Finished, Journal
from .threads import Worker

SEGMENT_BYTES = 4 << 20
_ROWS_AT_ONCE = 1000
_LEAST_SECONDS = 1.0
_MOST_SECONDS = 5.0
"""Between two uploads."""


def current_checkpoint() -> Any:
    """Return the checkpoint of the Flyte task that is running, None when there is none."""
    # A running task has imported flytekit. It is never imported here: clients also work without
    # any platform.
    flytekit = sys.modules.get("flytekit")
    if flytekit is None:
        return None
    try:
        return flytekit.current_context().checkpoint
    except NotImplementedError:  # not in a task, or a platform without checkpoints
        return None


class CheckpointedJournal:
    """A journal's copy in a Flyte checkpoint.

    Not safe for threads; `restore` and `collect` also use the journal, so they belong to its
    thread.

    Args:
        checkpoint: flytekit's `Checkpoint`.
        journal: What is copied.
        name: Distinguishes the batches of one task: the output's name and the parameters.
    """

    def __init__(self, checkpoint: Any, journal: Journal, name: str) -> None:
        self._checkpoint = checkpoint
        self._journal = journal
        self._prefix = f"batch-{hashlib.sha256(name.encode()).hexdigest()[:16]}-"
        self._directory = tempfile.TemporaryDirectory(prefix="inference-batch-")
        self._copied = 0
        """The number of the last result that is in a segment."""
        self._segment = 1
        self._changed: set[Path] = set()
        """Segments that changed since their last upload."""

    def restore(self) -> int:
        """Restore the results of earlier attempts; return how many there are.

        Raises:
            Exception: Whatever flytekit raises if the checkpoint exists but cannot be read.
                Continuing would compute everything again; another attempt may succeed.
        """
        if not self._checkpoint.prev_exists():
            return 0
        try:
            # flytekit downloads it once per attempt, even if several batches restore it
            place = self._checkpoint.restore()
        except sys.modules["flytekit.exceptions.user"].FlyteDataNotFoundException:
            return 0  # the previous attempt ended before its first upload
        before = self._journal.count()
        # in the order of their numbers: a row's later result replaces its earlier one
        for segment in sorted(Path(place).rglob(f"{self._prefix}*.jsonl")) if place else []:
            results = _read_segment(segment)
            while batch := list(islice(results, _ROWS_AT_ONCE)):
                self._journal.add(batch)
        return self._journal.count() - before

    def collect(self) -> bool:
        """Append new results to the segment on this disk.

        Returns:
            Whether the segment is full, so that there may be more results for the next one.
        """
        results = self._journal.since(self._copied)
        path = self._segment_path()
        size = path.stat().st_size if path.exists() else 0
        segment = self._segment
        with path.open("a", encoding="utf-8") as file:
            for number, item in results:
                line = (
                    json.dumps(
                        [item.key.hex(), item.content.hex(), item.keep, item.failed, item.record]
                    )
                    + "\n"
                )
                file.write(line)
                self._copied = number
                self._changed.add(path)
                size += len(line)
                if size >= SEGMENT_BYTES:
                    self._segment += 1
                    break
        # a full segment leaves the query unfinished, and with it a read of the journal open
        results.close()
        return self._segment != segment

    def upload(self, warn: Callable[[str], None]) -> bool:
        """Upload what changed.

        A failure does not stop the work: it is passed to `warn`, and the next upload tries again.

        Returns:
            Whether everything is uploaded now.
        """
        for segment in sorted(self._changed):
            try:
                # Before the upload: when a run stops, a last `collect` may append to this segment
                # while a cancelled save still uploads it, and then it must be uploaded again.
                self._changed.discard(segment)
                self._checkpoint.save(segment)
            except Exception as error:  # any store's library may raise anything
                self._changed.add(segment)
                warn(
                    f"the checkpoint could not be written ({type(error).__name__}: {error}); "
                    "trying again"
                )
                return False
        return True

    def close(self) -> None:
        """Remove the segments from this disk."""
        self._directory.cleanup()

    def _segment_path(self) -> Path:
        return Path(self._directory.name, f"{self._prefix}{self._segment:06d}.jsonl")


class CheckpointSaver:
    """Saves a run's checkpoint now and then, while the run goes on.

    Args:
        checkpoint: The checkpoint; None if the run has none, and then nothing happens.
        disk: The journal's thread.
        uploader: The thread that uploads.
        say: Writes a line for the user.
    """

    def __init__(
        self,
        checkpoint: CheckpointedJournal | None,
        *,
        disk: Worker,
        uploader: Worker,
        say: Callable[[str], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._disk = disk
        self._uploader = uploader
        self._say = say
        self._began = time.monotonic()

    async def run(self) -> None:
        """Save every one to five seconds."""
        while self._checkpoint is not None:
            # Half a percent of the elapsed time: together with the upload's own duration, a kill
            # loses at most one percent of the work.
            elapsed = time.monotonic() - self._began
            await asyncio.sleep(min(_MOST_SECONDS, max(_LEAST_SECONDS, 0.005 * elapsed)))
            await self.save()

    async def save(self) -> None:
        """Save all results that are in the journal."""
        if self._checkpoint is None:
            return
        more = True
        while more:
            more = await self._disk.call(self._checkpoint.collect)
            if not await self._uploader.call(self._checkpoint.upload, self._say):
                return


def _read_segment(path: Path) -> Iterator[Finished]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                key, content, keep, failed, record = json.loads(line)
            except ValueError:  # cut short by the end of the attempt that wrote it
                return
            yield Finished(bytes.fromhex(key), bytes.fromhex(content), keep, failed, record)
