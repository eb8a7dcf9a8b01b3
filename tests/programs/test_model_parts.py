"""Parts of the model loader that a whole run reaches only by chance."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference.errors import DestinationError, SourceUnavailableError
from flytekitplugins.inference.programs.disk import writing
from flytekitplugins.inference.programs.kernel import boot_id
from flytekitplugins.inference.programs.model.digest import _RunningDigest
from flytekitplugins.inference.programs.model.lease import EXPIRY_SECONDS, Heartbeat, Lock
from flytekitplugins.inference.programs.model.publication import Publication
from flytekitplugins.inference.programs.retry import Retry
from flytekitplugins.inference.programs.stores.store import StoredFile
from flytekitplugins.inference.programs.stores.throttled_store import ThrottledStore
from flytekitplugins.inference.programs.transfer.partial_file import MIN_PART_BYTES
from flytekitplugins.inference.programs.transfer.transfers import Delivery, Transfer

DATA = random.Random(5).randbytes(1_000_000)


class Memory:
    """A store of one endless file; `failures` reads break first."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.reading, self.most = failures, 0, 0
        self.lock = threading.Lock()

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[bytes]:
        with self.lock:
            self.reading += 1
            self.most = max(self.most, self.reading)
            self.failures -= 1
            fails = self.failures >= 0
        try:
            time.sleep(0.02)
            if fails:
                raise SourceUnavailableError("broken")
            yield bytes((end or 0) - start)
        finally:
            with self.lock:
                self.reading -= 1


def test_a_digest_is_right_in_whatever_order_parts_arrive(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    for seed in range(50):
        starts = list(range(0, len(DATA), 50_000))
        growing = _RunningDigest(path, len(DATA), starts, "sha256")
        random.Random(seed).shuffle(starts)
        threads = [threading.Thread(target=growing.part, args=(start,)) for start in starts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert growing.digest().value == hashlib.sha256(DATA).hexdigest()


def test_a_file_is_complete_only_when_every_part_was_told(tmp_path: Path) -> None:
    told: set[int] = set()
    missing_at_the_end: list[set[int]] = []

    class Slow:
        expected: set[int]

        def begin(self, delivery: Delivery, path: Path, missing: Sequence[int]) -> None:
            self.expected = set(missing)

        def part(self, delivery: Delivery, start: int) -> None:
            time.sleep(0.2 if start == 0 else 0)  # the first part is told last
            told.add(start)

        def complete(self, delivery: Delivery) -> None:
            missing_at_the_end.append(self.expected - told)

    store: Any = Memory()
    transfer = Transfer(store, tmp_path, jobs=8, retry=Retry(), observer=Slow())
    transfer.fetch(
        [Delivery(source=StoredFile(uri="m://x", size=4 * MIN_PART_BYTES, version="1"), path="x")]
    )
    assert missing_at_the_end == [set()]


def test_connections_are_halved_when_they_break_and_grow_back() -> None:
    memory = Memory(failures=1)
    said: list[int] = []
    inner: Any = memory
    store = ThrottledStore(inner, 4, 5.0, said.append)
    source = StoredFile(uri="m://x", size=1, version="1")

    def read() -> None:
        for _ in range(12):
            try:
                list(store.read(source, 0, 1))
            except SourceUnavailableError:
                memory.most = 0

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [2]
    assert memory.most == 4


def test_a_lock_is_one_holders_at_a_time(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "x.lease", Heartbeat()), Lock(tmp_path / "x.lease", Heartbeat())
    with first.held() as is_first:
        with second.held() as is_second:
            assert (is_first, is_second) == (True, False)
        first.check()
    with second.held() as is_second:
        assert is_second


def _no_locks(file: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize(
    "flock", [_no_locks, lambda file, operation: None], ids=["none", "for everybody"]
)
def test_a_lease_of_this_machine_holds_where_file_locks_do_not(
    flock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file system here is without locks, so the call is replaced by what it answers there."""
    monkeypatch.setattr("fcntl.flock", flock)
    lease = tmp_path / "x.lease"
    first, second = Lock(lease, Heartbeat()), Lock(lease, Heartbeat())
    with first.held() as is_first:
        with second.held() as is_second:
            assert (is_first, is_second) == (True, False)
        os.utime(lease, (time.time() - EXPIRY_SECONDS - 5,) * 2)  # the first hangs
        with second.held() as is_second:
            assert is_second
            with pytest.raises(SourceUnavailableError, match="lost"):
                first.check()
            second.check()


@pytest.mark.parametrize(
    ("fields", "is_free"),
    [({}, True), ({"device": -1}, False), ({"boot": "another"}, False), ({"device": None}, False)],
)
def test_who_lost_the_lock_is_dead_only_if_it_could_have_had_it(
    fields: dict[str, Any], is_free: bool, tmp_path: Path
) -> None:
    """Locks of another machine, or of another mount of a FUSE file system, are not visible here."""
    lease = tmp_path / "x.lease"
    token = {"boot": boot_id(), "device": tmp_path.stat().st_dev, "holder": "x"}
    lease.write_text(json.dumps({**token, **fields}))
    with Lock(lease, Heartbeat()).held() as free:
        assert free is is_free


def test_an_owner_is_what_a_directory_lacks() -> None:
    with (
        pytest.raises(
            DestinationError, match=r"fsGroup.*hostPath volumes need their owner set to uid"
        ),
        writing(Path("x")),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_starts_are_counted_until_one_gets_somewhere(tmp_path: Path) -> None:
    publication, starts = Publication(tmp_path), tmp_path / ".starts"
    for number in (1, 2, 3):
        publication.begin()
        assert json.loads(starts.read_text()) == number
    publication.advance()
    publication.begin()
    assert json.loads(starts.read_text()) == 1
    publication.fail("{}")
    assert not starts.exists()
    publication.begin()
    publication.ready()
    assert not starts.exists()
