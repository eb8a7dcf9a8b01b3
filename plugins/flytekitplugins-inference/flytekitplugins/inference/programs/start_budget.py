"""What all containers before the task's own may take together: one clock for the whole start.

The first program of a start leaves the time at which it began in a file that all containers see.
The programs that come later count from there, so that images, inputs, models and the server share
one budget. The environment variable `INFERENCE_START` brings it; `--timeout` of a command line
shortens it. Both end up in one `StartBudget`, the only thing that a program asks for the time.
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
"""The alarm goes off again: an exception that is raised while Python runs a destructor is lost."""


class BudgetSpent(BaseException):
    """The whole start took too long; see `telling`.

    Not an `Exception`, so that no retry loop swallows it.
    """

    doing = ""
    """What was under way, in whole sentences."""
    hint = "Raise startup_timeout."


@dataclass(frozen=True, kw_only=True, slots=True)
class StartBudget:
    """The time of the whole start."""

    seconds: float
    """What it may take; infinite where nothing bounds it."""
    begun: float
    """By the clock that all containers of a node share (`CLOCK_MONOTONIC`)."""
    is_shared: bool
    """Whether the start began with another program, or may have, rather than with this one."""

    @property
    def spent(self) -> float:
        """Seconds since the start began."""
        return _now() - self.begun

    @property
    def left(self) -> float:
        """Seconds that are left; below 0 when it is over."""
        return self.seconds - self.spent


def start_budget(environ: Mapping[str, str], *, timeout_seconds: float = math.inf) -> StartBudget:
    """Return the budget of this program; the first program of a start sets the clock for all.

    Args:
        environ: The program's environment variables.
        timeout_seconds: What the command line says; the shorter of the two counts.

    Raises:
        UsageError: The variable does not hold what it should.
    """
    text = environ.get(START_VARIABLE)
    if text is None:
        return StartBudget(seconds=timeout_seconds, begun=_now(), is_shared=False)
    try:
        fields = json.loads(text)
        seconds, clock = fields["seconds"], fields["clock"]
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
    """Return when the start began: what `clock` says, or now, which `clock` says from now on.

    What another boot of the node has left, or a kill has cut short, tells nothing. Nor does a
    volume that cannot be written: then each program has the whole budget for itself.
    """
    moment = _now()
    fields = {"boot": boot_id(), "begun": moment}
    with contextlib.suppress(OSError):
        make_root(clock.parent)
        try:
            file = os.open(clock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            begun = _read(clock)
            if begun is not None and begun <= moment:
                return begun
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
    """End the block, which runs in the main thread, when the budget is over.

    It ends by `BudgetSpent`, which leaves this as an error that can be told.

    Args:
        program: The program's name.
        budget: Its budget.
        spare_seconds: For so much longer the block is let alone, because it asks the budget itself.

    Raises:
        ServerNotReadyError: The budget was over; says what the program was doing.
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
    # a timer of 0 would be none: what has no time left hears of it at once
    seconds = max(budget.left + spare_seconds, spare_seconds, 1e-6)
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)


def release() -> None:
    """Let this process run for as long as it will: the start is over for it."""
    signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def telling(doing: Callable[[], str], hint: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Have the end of the budget tell what the block was doing; of several, the innermost.

    Args:
        doing: Returns whole sentences.
        hint: Returns what to do about it, when it is more than to raise the budget.
    """
    try:
        yield
    except BudgetSpent as spent:
        if not spent.doing:
            spent.doing = doing()
            spent.hint = hint() or spent.hint
        raise


def _now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _raise_spent(signum: int, frame: FrameType | None) -> NoReturn:
    raise BudgetSpent
