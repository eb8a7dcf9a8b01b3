"""Pods that are used again: one per key, shared by whoever leases it, stopped when idle for long.

For elements of a `map_task`, calls in a `dynamic` and consecutive tasks, which would otherwise load
the same model again and again. A pool belongs to one process: a forked one begins with an empty
pool and leaves its parent's pods alone. What is leased or idle when the process ends is stopped
like every pod, see `pod`.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InferenceError
from .launch import start
from .settings import LocalSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from .pod import LocalPod

IDLE_SECONDS = 60.0
"""How long a pod that nobody uses is kept: longer than a pause between tasks, shorter than one
between runs."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Entry:
    """One pod of the pool, from the moment somebody begins to start it."""

    started: threading.Event = field(default_factory=threading.Event)
    pod: LocalPod | None = None
    failure: BaseException | None = None
    users: int = 0
    is_stale: bool = False
    timer: threading.Timer | None = None


class Pool:
    """Pods by key, counted by their users."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def stop_idle(self) -> None:
        """Stop the pods that nobody uses now."""
        with self._lock:
            idle = {key: entry for key, entry in self._entries.items() if entry.users == 0}
            for key, entry in idle.items():
                self._forget(key, entry)
        pods = [entry.pod for entry in idle.values() if entry.pod is not None]
        for pod in pods:
            pod.request_stop()
        for pod in pods:
            pod.stop()

    def acquire(self, key: str, open_pod: Callable[[], LocalPod]) -> tuple[_Entry, LocalPod]:
        """Return a running pod and its entry, which `release` wants back.

        The pod is started if there is none.

        Args:
            key: What the pod is known by.
            open_pod: Starts it.
        """
        while True:
            entry, is_first = self._enter(key)
            try:
                pod = self._open(key, entry, open_pod) if is_first else self._join(key, entry)
            except BaseException:
                self.release(key, entry, idle_seconds=0)
                raise
            if pod is not None:
                return entry, pod
            self.release(key, entry, idle_seconds=0)

    def _enter(self, key: str) -> tuple[_Entry, bool]:
        """Count one more user of the key's entry.

        Returns:
            The entry, and whether this user is the first, who starts the pod.
        """
        with self._lock:
            entry = self._entries.get(key)
            is_first = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry()
            # before the pod has started, so that nobody stops it between its start and its use
            entry.users += 1
            if entry.timer is not None:
                entry.timer.cancel()
                entry.timer = None
            return entry, is_first

    def _open(self, key: str, entry: _Entry, open_pod: Callable[[], LocalPod]) -> LocalPod:
        try:
            entry.pod = open_pod()
        except BaseException as error:
            entry.failure = error
            # out of the pool at once, so that the next lease makes a new attempt
            with self._lock:
                self._forget(key, entry)
            raise
        finally:
            entry.started.set()
        return entry.pod

    def _join(self, key: str, entry: _Entry) -> LocalPod | None:
        """Wait for a pod that somebody else has started; return `None` if it is of no use."""
        entry.started.wait()
        if isinstance(entry.failure, InferenceError):
            raise entry.failure  # the same start would fail again
        if entry.pod is not None and entry.pod.wait_until_settled():
            entry.pod.begin_body()
            return entry.pod
        with self._lock:
            self._forget(key, entry)
        return None

    def _forget(self, key: str, entry: _Entry) -> None:
        """Take an entry out of the pool; its last user stops the pod. The lock is held."""
        entry.is_stale = True
        if self._entries.get(key) is entry:
            del self._entries[key]

    def release(self, key: str, entry: _Entry, idle_seconds: float) -> None:
        """Count one user less; the last one leaves the pod idle for a while, or stops it.

        Args:
            key: What the pod is known by.
            entry: Its entry.
            idle_seconds: Seconds that the pod may be idle.
        """
        if os.getpid() != self._owner:
            return  # a forked process leaves a block that its parent has entered
        with self._lock:
            entry.users -= 1
            if entry.users:
                return
            if entry.pod is None or entry.is_stale or idle_seconds <= 0:
                self._forget(key, entry)
            else:
                entry.timer = threading.Timer(idle_seconds, self._expire, (key, entry))
                entry.timer.daemon = True
                if _begin_timer(entry.timer):
                    return
                self._forget(key, entry)
        if entry.pod is not None:
            entry.pod.stop()

    def _expire(self, key: str, entry: _Entry) -> None:
        with self._lock:
            # `cancel` comes too late for a timer that already waits for the lock
            if entry.users or entry.timer is not threading.current_thread():
                return  # leased again meanwhile
            self._forget(key, entry)
        if entry.pod is not None:
            entry.pod.stop()


def _begin_timer(timer: threading.Timer) -> bool:
    try:
        timer.start()
    except RuntimeError:  # the interpreter ends and takes no new threads
        return False
    return True


class Lease:
    """A pod of the pool for as long as a `with` or `async with` block lasts. Used once.

    `async with` waits in a thread of its own that the interpreter does not wait for when it ends:
    Ctrl-C during a long start ends the start, which with `asyncio.to_thread` it would not.

    Args:
        pool: Where the pod is kept.
        key: What the pod is known by.
        open_pod: Starts it.
        idle_seconds: Seconds to keep it after the last user.
    """

    def __init__(
        self, pool: Pool, key: str, open_pod: Callable[[], LocalPod], *, idle_seconds: float
    ) -> None:
        self._pool = pool
        self._key = key
        self._open_pod = open_pod
        self._idle_seconds = idle_seconds
        self._held: tuple[_Entry, LocalPod] | None = None

    def __enter__(self) -> LocalPod:
        self._held = self._pool.acquire(self._key, self._open_pod)
        return self._held[1]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        held, self._held = self._held, None
        if held is not None:
            held[1].end_body(kind)
            self._pool.release(self._key, held[0], self._idle_seconds)

    async def __aenter__(self) -> LocalPod:
        import asyncio

        loop = asyncio.get_running_loop()
        entered: asyncio.Future[LocalPod] = loop.create_future()

        def deliver(pod: LocalPod | None, error: BaseException | None) -> None:
            # cancelled during the start; in a thread, because the pod's end would block the loop
            if entered.cancelled():
                threading.Thread(target=self.__exit__, args=(None, None, None), daemon=True).start()
            elif pod is not None:
                entered.set_result(pod)
            elif error is not None:
                entered.set_exception(error)

        def enter() -> None:
            pod, failure = None, None
            try:
                pod = self.__enter__()
            except BaseException as error:  # carried over to the waiting coroutine
                failure = error
            try:
                loop.call_soon_threadsafe(deliver, pod, failure)
            except RuntimeError:  # the loop was closed meanwhile
                self.__exit__(None, None, None)

        threading.Thread(target=enter, name=f"lease {self._key[:12]}", daemon=True).start()
        return await entered

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import asyncio

        # shielded: a cancellation during the stop must not leave the lease counted for ever
        await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, trace))


_pool = Pool()


def lease(
    manifest: Mapping[str, Any],
    settings: LocalSettings = LocalSettings(),  # noqa: B008 - frozen
    *,
    key: str = "",
    idle_seconds: float = IDLE_SECONDS,
) -> Lease:
    """Lend a pod of this process for as long as a `with` or `async with` block lasts.

    It is started if none has that key. Two threads that ask for one key at the same time get one
    pod, and both wait for it. A pod whose sidecar is being restarted is waited for; one that is
    beyond hope is replaced.

    Args:
        manifest: As for `start`; read only when the pod is started.
        settings: As for `start`.
        key: What the pod is known by. It must differ whenever something that the pod reads differs,
            its inputs too. Empty: a digest of the manifest and of the settings' variables, files
            and volumes.
        idle_seconds: Seconds to keep the pod after its last user; 0 stops it at once.

    Returns:
        A context manager that gives the running pod; entering it raises what `start` raises.
    """
    key = key or _digest(manifest, settings)
    return Lease(_pool, key, lambda: start(manifest, settings), idle_seconds=idle_seconds)


def stop_idle() -> None:
    """Stop the leased pods of this process that nobody uses now."""
    _pool.stop_idle()


def _digest(manifest: Mapping[str, Any], settings: LocalSettings) -> str:
    """Return what differs when something differs that the pod can read."""
    files = {name: hashlib.sha256(content).hexdigest() for name, content in settings.files.items()}
    parts = [manifest, settings.variables, files, settings.volumes]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _begin_anew() -> None:
    # a forked process must not share its parent's pods, nor a lock that its parent's threads hold
    global _pool  # noqa: PLW0603
    _pool = Pool()


os.register_at_fork(after_in_child=_begin_anew)
