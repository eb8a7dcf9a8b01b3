"""A store that uses fewer connections after a stall, and more again after successful reads."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from ...errors import SourceUnavailableError
from ...facts.address import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from .store import Block, Store, StoredFile

GROWTH_READS = 8
"""Number of complete reads that add one connection."""
SHRINK_SECONDS = 1.0
"""Failures within this time count as one: connections that break together are halved once."""


class ThrottledStore:
    """A `Store` whose reads share an adaptive number of connections.

    Additive increase, multiplicative decrease, as TCP does: on some paths many connections at once
    collapse to a trickle where a few hold (github.com/huggingface/huggingface_hub/issues/4893).

    Args:
        store: The underlying store.
        limit: Maximum number of connections.
        stall_seconds: How long one block may take, however slowly its bytes arrive. A store's own
            timeout applies to each byte.
        slow_down: Called with the new number of connections when it falls.
    """

    def __init__(
        self, store: Store, limit: int, stall_seconds: float, slow_down: Callable[[int], None]
    ) -> None:
        self._store = store
        self._most = limit
        self._stall_seconds = stall_seconds
        self._slow_down = slow_down
        self._limit = limit
        self._used = 0
        self._earned = 0
        self._shrunk = 0.0
        self._changed = threading.Condition()

    def stat(self, uri: str, head_bytes: int = 0) -> StoredFile:
        """See `Store.stat`."""
        return self._store.stat(uri, head_bytes)

    def find(self, uri: str) -> list[tuple[str, StoredFile]]:
        """See `Store.find`."""
        return self._store.find(uri)

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`. Waits while all connections are in use."""
        with self._changed:
            self._changed.wait_for(lambda: self._used < self._limit)
            self._used += 1
        try:
            yield from _watched(
                self._store.read(source, start, end), self._stall_seconds, mask(source.uri)
            )
            self._grow()
        except SourceUnavailableError:
            self._shrink()
            raise
        finally:
            with self._changed:
                self._used -= 1
                self._changed.notify_all()

    def _grow(self) -> None:
        with self._changed:
            self._earned += 1
            if self._earned >= GROWTH_READS and self._limit < self._most:
                self._limit, self._earned = self._limit + 1, 0

    def _shrink(self) -> None:
        with self._changed:
            moment = time.monotonic()
            if moment - self._shrunk < SHRINK_SECONDS or self._limit == 1:
                return
            self._limit = max(1, self._limit // 2)
            self._earned = 0
            self._shrunk = moment
            limit = self._limit
        # outside the lock, for which every reader waits
        self._slow_down(limit)


def _watched(
    blocks: Iterator[Block], stall_seconds: float, name: str
) -> Generator[Block, None, None]:
    """Yield `blocks`, and raise an error if one takes longer than `stall_seconds`.

    Another thread reads them, and never reads ahead: a block is valid only until the next read. A
    thread that hangs is abandoned with its connection.
    """
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    consumed = threading.Semaphore(0)
    over = threading.Event()

    def ask() -> None:
        try:
            for block in blocks:
                arrived.put(block)
                consumed.acquire()
                if over.is_set():
                    break
            arrived.put(None)
        except Exception as error:  # raised below, in the thread of the reader
            arrived.put(error)
        finally:
            if hasattr(blocks, "close"):
                blocks.close()

    threading.Thread(target=ask, daemon=True).start()
    try:
        while (block := arrived.get(timeout=stall_seconds)) is not None:
            if isinstance(block, Exception):
                raise block
            yield block
            consumed.release()
    except queue.Empty:
        raise SourceUnavailableError(
            f"{name} delivered too little for {stall_seconds:g} s."
        ) from None
    finally:
        # in this order: the thread checks `over` as soon as it has the semaphore
        over.set()
        consumed.release()
