"""Transfers without a program: hostile keys, odd local sources, and memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flytekitplugins.inference.errors import (
    DestinationError,
    FetchError,
    InvalidSourceError,
    SourceForbiddenError,
    SourceUnavailableError,
)
from flytekitplugins.inference.programs.local_names import relative_paths
from flytekitplugins.inference.programs.retry import Crew, Retry
from flytekitplugins.inference.programs.stores.local_store import LocalStore
from flytekitplugins.inference.programs.stores.store import (
    StoredFile,
    error_for_status,
    first_bytes,
)
from flytekitplugins.inference.programs.transfer.partial_file import PartialFile
from flytekitplugins.inference.programs.transfer.transfer_journal import TransferJournal
from flytekitplugins.inference.programs.transfer.transfers import Delivery, Transfer

RETRY = Retry(attempts=3, backoff_seconds=0.001)


class Memory:
    """A store of one content; `reads` counts."""

    def __init__(self, data: bytes) -> None:
        self.data, self.reads = data, 0

    def stat(self, uri: str) -> StoredFile:
        return StoredFile(uri=uri, size=len(self.data), version="1")

    def find(self, uri: str) -> list[tuple[str, StoredFile]]:
        return []

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[bytes]:
        self.reads += 1
        yield self.data[start:end]


def test_hostile_keys_stay_below_the_root(tmp_path: Path) -> None:
    keys = [
        "../../up",
        "/abs",
        "a/../../../b",
        "nul\0",
        "x" * 400,
        "a",
        "a/b",
        "\udcff\udcfe",
        "~",
        "//",
        "..",
        ".incoming",
    ]
    root = tmp_path / "a" / "b" / "root"
    store = Memory(b"data")
    transfer = Transfer(store, root, jobs=4, retry=RETRY)
    names = relative_paths(keys)
    outcome = transfer.fetch(
        [Delivery(source=store.stat(key), path=f"d/{names[key]}") for key in keys]
    )
    assert outcome.failures == []
    everything = {path for path in tmp_path.rglob("*") if path.is_file()} - {
        root / ".incoming" / "journal"
    }
    assert len(everything) == len(keys)
    assert all(path.is_relative_to(root / "d") for path in everything)


def test_a_store_that_sends_too_much_is_no_store(tmp_path: Path) -> None:
    class Lying(Memory):
        def stat(self, uri: str) -> StoredFile:
            return StoredFile(uri=uri, size=2, version="1")

        def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[bytes]:
            yield self.data

    store = Lying(b"data")
    outcome = Transfer(store, tmp_path, jobs=1, retry=RETRY).fetch(
        [Delivery(source=store.stat("x"), path="x")]
    )
    assert [str(error) for _, error in outcome.failures] == ["x is longer than the store said."]
    assert not (tmp_path / "x").exists()


def test_a_store_is_left_alone_for_as_long_as_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(Memory):
        def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[bytes]:
            self.reads += 1
            if self.reads == 1:
                raise error_for_status(503, "http://h/x", "Busy", retry_after="40")
            yield self.data[start:end]

    wishes: list[float] = []
    monkeypatch.setattr(
        Retry, "wait", lambda self, attempt, stop, error: wishes.append(error.retry_after_seconds)
    )
    store = Busy(b"data")
    delivery = Delivery(source=store.stat("x"), path="x")
    assert Transfer(store, tmp_path, jobs=1, retry=RETRY).fetch([delivery]).failures == []
    assert wishes == [40.0]


def test_a_store_that_asks_for_too_long_fails_its_file_at_once(tmp_path: Path) -> None:
    class Closed(Memory):
        def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[bytes]:
            self.reads += 1
            raise error_for_status(503, "http://h/x", "Busy", retry_after="86400")
            yield b""

    store = Closed(b"data")
    delivery = Delivery(source=store.stat("x"), path="x")
    outcome = Transfer(store, tmp_path, jobs=1, retry=RETRY).fetch([delivery])
    assert "left alone for 24 h" in str(outcome.failures[0][1])
    assert store.reads == 1


def test_the_end_of_a_lost_stream_does_not_stay(tmp_path: Path) -> None:
    """Its size is unknown, and the second attempt brings fewer bytes than the first."""

    class Stream(Memory):
        def stat(self, uri: str) -> StoredFile:
            return StoredFile(uri=uri, size=None, version="", ranges=False)

        def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[bytes]:
            self.reads += 1
            yield b"lost" * 1000 if self.reads == 1 else self.data
            if self.reads == 1:
                raise SourceUnavailableError("lost")

    store = Stream(b"data")
    outcome = Transfer(store, tmp_path, jobs=1, retry=RETRY).fetch(
        [Delivery(source=store.stat("x"), path="x")]
    )
    assert [item.size for item in outcome.delivered] == [4]
    assert (tmp_path / "x").read_bytes() == b"data"


def test_of_more_than_was_asked_for_only_the_beginning_is_kept() -> None:
    taken = []
    blocks = (taken.append(i) or bytes(10) for i in range(1000))  # type: ignore[func-returns-value]
    assert first_bytes(blocks, 25) == bytes(25)
    assert len(taken) == 3


def test_a_journal_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = TransferJournal(tmp_path)

    def full(file: int, data: bytes) -> int:
        if len(data) > 3:
            return os.pwrite(file, data[:3], 0)  # a disk that is almost full takes a part
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(
        "flytekitplugins.inference.programs.transfer.transfer_journal.os.write", full
    )
    with pytest.raises(DestinationError, match=r"journal cannot be written: No space left"):
        journal.add("new", "k")


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    store = Memory(b"x")
    with pytest.raises(
        DestinationError, match=r"\d+ bytes are needed in .*, but \d+ bytes are free"
    ):
        Transfer(store, tmp_path, jobs=1, retry=RETRY).fetch(
            [Delivery(source=StoredFile(uri="x", size=2**60, version="1"), path="x")]
        )


def test_a_journal_line_that_was_cut_short_is_ignored(tmp_path: Path) -> None:
    store = Memory(b"x" * 10)
    delivery = Delivery(source=store.stat("x"), path="x")
    transfer = Transfer(store, tmp_path, jobs=1, retry=RETRY)
    transfer.fetch([delivery])
    transfer.close()
    journal = tmp_path / ".incoming" / "journal"
    journal.write_bytes(journal.read_bytes()[:-5])
    transfer = Transfer(store, tmp_path, jobs=1, retry=RETRY)
    assert len(transfer.fetch([delivery]).delivered) == 1
    transfer.close()
    transfer = Transfer(store, tmp_path, jobs=1, retry=RETRY)
    store.reads = 0
    assert len(transfer.fetch([delivery]).delivered) == 1
    assert store.reads == 0


def test_parts_of_a_file_that_is_gone_do_not_count(tmp_path: Path) -> None:
    """The journal lists a complete file, which was deleted; its new download was killed midway."""
    store = Memory(bytes(range(256)) * 2**17)
    delivery = Delivery(source=store.stat("x"), path="x")
    transfer = Transfer(store, tmp_path, jobs=2, retry=RETRY)
    assert len(transfer.fetch([delivery]).delivered) == 1
    (tmp_path / "x").unlink()
    key = delivery.key
    transfer.close()
    journal = TransferJournal(tmp_path / ".incoming")
    partial = tmp_path / ".incoming" / f"{key}.partial"
    file = PartialFile(partial, key=key, size=len(store.data), ranges=True, journal=journal)
    assert len(file.missing) == 2
    journal.close()
    assert partial.stat().st_size == len(store.data)
    transfer = Transfer(store, tmp_path, jobs=2, retry=RETRY)
    assert len(transfer.fetch([delivery]).delivered) == 1
    assert (tmp_path / "x").read_bytes() == store.data


def test_another_boot_begins_afresh(tmp_path: Path) -> None:
    store = Memory(b"x" * 10)
    delivery = Delivery(source=store.stat("x"), path="x")
    transfer = Transfer(store, tmp_path, jobs=1, retry=RETRY)
    transfer.fetch([delivery])
    transfer.close()
    journal = tmp_path / ".incoming" / "journal"
    journal.write_text(journal.read_text().replace("boot ", "boot other", 1))
    Transfer(store, tmp_path, jobs=1, retry=RETRY).fetch([delivery])
    assert store.reads == 2


def test_a_local_directory_with_links(tmp_path: Path) -> None:
    """Links are followed, what arrives is no link; a link to what contains it is an error."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "blob").write_text("blob")
    (tree / "link").symlink_to(tmp_path / "blob")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff")).write_text("odd")
    store, root = LocalStore(), tmp_path / "root"
    sources = dict(store.find(f"file://{tree}"))
    names = relative_paths(sources)
    deliveries = [Delivery(source=source, path=names[key]) for key, source in sources.items()]
    assert Transfer(store, root, jobs=2, retry=RETRY).fetch(deliveries).failures == []
    assert (root / "link").read_text() == "blob"
    assert not (root / "link").is_symlink()
    assert (root / "%FF").read_text() == "odd"
    (tree / "loop").symlink_to(tree)
    with pytest.raises(InvalidSourceError, match="a link to a directory that contains it"):
        store.find(str(tree))


@pytest.mark.parametrize(
    "uri", ["/dev/zero", "file:///dev/null", "fifo", "/", "x\0y", "x" * 5000, ""]
)
def test_local_things_that_are_no_files(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FetchError):
        LocalStore().stat(uri)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_local_files_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "x").touch(mode=0)
    with pytest.raises(SourceForbiddenError):
        LocalStore().stat(str(tmp_path / "x"))


def test_a_crew_passes_on_defects_and_ends() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    crew = Crew(2)
    with pytest.raises(ZeroDivisionError):
        crew.run([broken, lambda: None])
    assert crew.stop.is_set()
