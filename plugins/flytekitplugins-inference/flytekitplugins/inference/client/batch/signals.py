"""SIGINT and SIGTERM stop a batch in order; then they have their usual effect.

The handlers here do not raise. An exception out of a handler may leave any lock of the interrupted
thread between two states; on Python 3.10 to 3.12, out of `Thread.join`, it marks the thread as
ended (`_wait_for_tstate_lock` in `threading.py`), so that a second `join` waits for nothing.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(slots=True)
class Interruption:
    """What came while the block ran."""

    number: int = 0
    """The first signal's; 0 for none."""
    at_once: bool = False
    """Ctrl-C came after it: whoever sits there does not want to wait."""


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[Interruption]:
    """Let SIGTERM and Ctrl-C call `stop` while the block runs.

    They have their usual effect after it. A further SIGTERM changes nothing, since what is stopped
    in order ends by itself. Ctrl-C after the first signal has its usual effect at once. A signal
    that is ignored stays so. Only the main thread may set handlers; in others nothing happens.
    flytekit sets one for SIGINT when it is imported, which ends the process
    (`FlyteContextManager.initialize`).

    Args:
        stop: Begins to stop what runs in the block; called within a signal handler.
    """
    interruption = Interruption()
    previous = _handlers()

    def handle(number: int, frame: FrameType | None) -> None:
        if not interruption.number:
            interruption.number = number
            stop()
        elif number == signal.SIGINT:
            interruption.at_once = True
            signal.signal(number, previous[number])
            signal.raise_signal(number)
            raise SystemExit(128 + number)  # its handler let the process live

    try:
        for number in previous:
            signal.signal(number, handle)
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if interruption.number and not interruption.at_once:
            signal.raise_signal(interruption.number)
            raise SystemExit(128 + interruption.number)  # its handler let the process live


def _handlers() -> dict[int, Any]:
    """Return the handlers that are to be replaced, by the number of their signal."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # None: set by a library in C, and could not be put back
    return {
        number: handler
        for number, handler in handlers.items()
        if handler not in (signal.SIG_IGN, None)
    }
