"""A call that may hang, in a thread that nobody has to wait for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BackgroundCall"]

_T = TypeVar("_T")


class BackgroundCall(Generic[_T]):
    """One call, which `start` begins in its own thread.

    Use it for calls without a timeout: the lookup of a host's name, some client libraries, a write
    to a disk that hangs. The thread is a daemon, so it does not keep the process alive.

    Args:
        action: The call.
        name: The thread's name, for debuggers.
    """

    def __init__(self, action: Callable[[], _T], *, name: str | None = None) -> None:
        self._ended = threading.Event()
        self._results: list[_T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(action,), name=name, daemon=True)

    def start(self) -> BackgroundCall[_T]:
        """Begin, and return this call.

        Not part of making it: a signal handler may raise while a thread begins, and who must know
        of a call that runs has it by then.
        """
        self._thread.start()
        return self

    @property
    def is_over(self) -> bool:
        """Whether the action has returned or raised."""
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for at most `seconds`, or without a limit, and return whether the action is over."""
        return self._ended.wait(None if seconds is None else max(seconds, 0))

    def result(self) -> _T:
        """Return what the action returned, or raise what it raised; only once it is over."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self, action: Callable[[], _T]) -> None:
        try:
            self._results.append(action())
        except BaseException as error:  # belongs to the thread that asks for the result
            self._error = error
        finally:
            self._ended.set()
