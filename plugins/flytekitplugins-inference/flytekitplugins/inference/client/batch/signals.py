"""Makes SIGINT and SIGTERM stop a batch in order before they take their usual effect.

The handlers here do not raise. An exception from a handler may leave a lock of the interrupted
thread in an undefined state. On Python 3.10 to 3.12, one that interrupts `Thread.join` marks the
thread as ended (`_wait_for_tstate_lock` in `threading.py`), so that a second `join` does not wait.
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
    """The signals that arrived while the block ran."""

    number: int = 0
    """The number of the first signal; 0 for none."""
    at_once: bool = False
    """Ctrl-C followed the first signal: the user does not want to wait."""


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[Interruption]:
    """Let SIGTERM and Ctrl-C call `stop` while the block runs.

    They take their usual effect after the block. A further SIGTERM changes nothing, because the
    block is already stopping. Ctrl-C after the first signal takes its usual effect at once. Ignored
    signals remain ignored. Only the main thread may set handlers; in other threads nothing happens.
    flytekit sets a handler for SIGINT when it is imported, which ends the process
    (`FlyteContextManager.initialize`).

    Args:
        stop: Starts to stop the block; called in a signal handler.
    """
    interruption = Interruption()
    previous = _handlers()

    def handle(number: int, frame: FrameType | None) -> None:
        if not interruption.number:
            interruption.number = number
            stop()
        elif number == signal.SIGINT:
            interruption.at_once = True
            # the caller's own handler gets the signal, as if there were no batch
            signal.signal(number, previous[number])
            signal.raise_signal(number)
            raise SystemExit(128 + number)  # reached if the handler returned

    try:
        for number in previous:
            signal.signal(number, handle)
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if interruption.number and not interruption.at_once:
            signal.raise_signal(interruption.number)
            raise SystemExit(128 + interruption.number)  # reached if the handler returned


def _handlers() -> dict[int, Any]:
    """Return the handlers to replace, by the number of their signal."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # None: a C library set the handler, and Python could not restore it
    return {
        number: handler
        for number, handler in handlers.items()
        if handler not in (signal.SIG_IGN, None)
    }
