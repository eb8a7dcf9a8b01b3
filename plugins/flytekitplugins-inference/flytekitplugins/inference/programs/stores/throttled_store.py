"""A store whose silence is noticed, and that is read with fewer connections then, and with more again later."""

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
"""So many complete reads earn one more connection."""
SHRINK_SECONDS = 1.0
"""Failures within this time are one: connections that break together are halved once."""


class ThrottledStore:
    """A `Store` whose reads share a number of connections that adapts.

    Additive increase, multiplicative decrease, as TCP does: on some paths many connections at once
    collapse to a trickle where a few hold (github.com/huggingface/huggingface_hub/issues/4893).

    Args:
        store: The store itself.
        limit: Connections at most.
        stall_seconds: How long one block may take, however its bytes trickle. A store's own
            time-out is for each byte.
        slow_down: Called with the number of connections when it falls.
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
        self._slow_down(limit)


def _watched(
    blocks: Iterator[Block], stall_seconds: float, name: str
) -> Generator[Block, None, None]:
    """Yield `blocks`, each of which may take `stall_seconds`.

    Another thread asks for them, never ahead: a block is valid only until the next one is asked
    for. When it hangs, it is left alone with its connection.
    """
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    wanted, over = threading.Semaphore(0), threading.Event()

    def ask() -> None:
        try:
            for block in blocks:
                arrived.put(block)
                wanted.acquire()
                if over.is_set():
                    break
            arrived.put(None)
        except Exception as error:  # whatever it is, it is raised below
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
            wanted.release()
    except queue.Empty:
        raise SourceUnavailableError(
            f"{name} brought too little for {stall_seconds:g} s."
        ) from None
    finally:
        over.set()
        wanted.release()
