"""One time budget for all containers that run before the task's own.

The first program of a start writes the time at which it began to a file that all containers share.
Later programs count from there, so images, inputs, models and the server share one budget. The
environment variable `INFERENCE_START` sets it; the option `--timeout` shortens it. A program reads
both only through its `StartBudget`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import ServerNotReadyError, UsageError
from .disk import make_root, write_json
from .kernel import boot_id
from .protocol import START_CLOCK_FILE, START_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

REPEAT_SECONDS = 5.0
"""Interval of the alarm, which repeats: Python drops an exception raised inside a destructor."""


class BudgetSpent(BaseException):
    """The whole start took too long; see `telling`.

    Not an `Exception`, so that no retry loop swallows it.
    """

    doing = ""
    """What the program was doing, in complete sentences."""
    hint = "Raise startup_timeout."


@dataclass(frozen=True, kw_only=True, slots=True)
class StartBudget:
    """The time of the whole start."""

    seconds: float
    """The length of the budget; infinite without one."""
    begun: float
    """When the start began, on the clock of the node's containers (`CLOCK_MONOTONIC`)."""
    is_shared: bool
    """Whether other programs use the same budget, so the start may have begun before this one."""

    @property
    def spent(self) -> float:
        """Seconds since the start began."""
        return _now() - self.begun

    @property
    def left(self) -> float:
        """Remaining seconds; below 0 when the budget is spent."""
        return self.seconds - self.spent


def start_budget(environ: Mapping[str, str], *, timeout_seconds: float = math.inf) -> StartBudget:
    """Return the budget of this program; the first program of a start sets the clock for all.

    Args:
        environ: The program's environment variables.
        timeout_seconds: The command line's timeout; the shorter of the two applies.

    Raises:
        UsageError: The variable has an invalid value.
    """
    text = environ.get(START_VARIABLE)
    if text is None:
        return StartBudget(seconds=timeout_seconds, begun=_now(), is_shared=False)
    try:
        fields = json.loads(text)
        seconds, clock = fields["seconds"], fields["clock"]
        # `type`, because a bool is an int: `{"seconds": true}` is a mistake
        is_right = (
            type(seconds) in (int, float) and 0 < seconds < math.inf and Path(clock).is_absolute()
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        is_right = False
    if not is_right:
        example = json.dumps({"seconds": 900, "clock": START_CLOCK_FILE})
        raise UsageError(f"{START_VARIABLE} holds {text[:200]!r}.", hint=f"Write it as {example}.")
    return StartBudget(
        seconds=min(seconds, timeout_seconds), begun=_begun(Path(clock)), is_shared=True
    )


def _begun(clock: Path) -> float:
    """Return when the start began: the time in `clock`, or now, which is then written there.

    A file from another boot of the node, or one that a kill cut short, is replaced. If the volume
    cannot be written, each program has the whole budget for itself.
    """
    moment = _now()
    fields = {"boot": boot_id(), "begun": moment}
    with contextlib.suppress(OSError):
        make_root(clock.parent)
        try:
            # O_EXCL: of two containers that start together, only one sets the clock
            file = os.open(clock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            begun = _read(clock)
            if begun is not None and begun <= moment:
                return begun
            # not of this start: the node was restarted, or the write was cut short
            write_json(clock, fields)
        else:
            with os.fdopen(file, "w", encoding="utf-8") as opened:
                os.fchmod(file, 0o644)  # whatever the umask
                json.dump(fields, opened)
    return moment


def _read(clock: Path) -> float | None:
    try:
        fields = json.loads(clock.read_bytes())
        return float(fields["begun"]) if fields["boot"] == boot_id() else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@contextlib.contextmanager
def enforced(program: str, budget: StartBudget, *, spare_seconds: float = 0.0) -> Iterator[None]:
    """End the block, which runs in the main thread, when the budget is spent.

    The block ends by `BudgetSpent`, which becomes a `ServerNotReadyError` outside.

    Args:
        program: The program's name.
        budget: Its budget.
        spare_seconds: Extra time for a block that checks the budget by itself.

    Raises:
        ServerNotReadyError: The budget is spent; the message contains what the program was doing.
    """
    try:
        try:
            _arm(budget, spare_seconds)
            yield
        finally:
            release()
    except BudgetSpent as spent:
        message = (
            f"The start has {budget.seconds:g} s and began {budget.spent:.0f} s ago; "
            f"{program} had not finished."
        )
        raise ServerNotReadyError(f"{message} {spent.doing}".strip(), hint=spent.hint) from None


def _arm(budget: StartBudget, spare_seconds: float) -> None:
    if math.isinf(budget.seconds):
        return
    signal.signal(signal.SIGALRM, _raise_spent)
    # above 0, which would disarm the timer: a spent budget must ring immediately
    seconds = max(budget.left + spare_seconds, spare_seconds, 1e-6)
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)


def release() -> None:
    """Stop enforcing the budget, because the start is over for this process."""
    signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def telling(doing: Callable[[], str], hint: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Add what the block was doing to `BudgetSpent`; the innermost of nested blocks applies.

    Args:
        doing: Returns complete sentences.
        hint: Returns a better hint than to raise the budget, or an empty text.
    """
    try:
        yield
    except BudgetSpent as spent:
        # the innermost block is the first to see it, and knows most
        if not spent.doing:
            spent.doing = doing()
            spent.hint = hint() or spent.hint
        raise


def _now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _raise_spent(signum: int, frame: FrameType | None) -> NoReturn:
    raise BudgetSpent
