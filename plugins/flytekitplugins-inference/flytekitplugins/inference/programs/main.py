"""How every program starts and ends: its process, SIGTERM, exit code and termination message."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ..errors import InferenceError, MissingDependencyError
from .protocol import ExitCode, exit_status, termination_message, write_termination_message
from .sigterm import end_at_once

Main = Callable[[Sequence[str], Mapping[str, str]], int]
"""A program: `(argv without the program's name, environment) -> exit code`; raises `InferenceError`
to fail."""


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`, so that no retry loop swallows it."""


def start(program: str, main: Main) -> NoReturn:
    """Be this process: run `main` on its arguments and environment, and end with the exit code.

    Args:
        program: The program's name, used in the termination message.
        main: The program.
    """
    code = run(program, main, sys.argv[1:], os.environ)
    sys.stderr.flush()
    # not `sys.exit`, which would wait for threads that still wait for an answer
    os._exit(code)


def run(program: str, main: Main, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run `main`, and return its exit code; a failure also writes its message to stderr.

    The first SIGTERM raises `Terminated` in `main`, which then cleans up. A second one, or one that
    arrives after `main` has ended, ends the process immediately.

    Args:
        program: The program's name, used in the termination message.
        main: The program.
        argv: Its arguments, without the program's name.
        environ: Its environment variables.
    """
    if sys.stderr is None:  # closed by the caller; print(file=None) would write to stdout
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    try:
        try:
            signal.signal(signal.SIGTERM, _raise_terminated)
            return _exit_code(program, main, argv, environ)
        finally:
            end_at_once()
    # in the outer `try`, because either may arrive while `_exit_code` reports a failure
    except Terminated:
        return ExitCode.TERMINATED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _exit_code(program: str, main: Main, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    try:
        return main(argv, environ)
    except InferenceError as error:
        return _fail(program, error, environ)
    except ModuleNotFoundError as error:
        absent = MissingDependencyError(f"{error}.", hint="Install it in this image.")
        return _fail(program, absent, environ)
    # broad, because a defect must leave a termination message too
    except Exception as error:
        traceback.print_exc()
        return _fail(program, error, environ)


def _fail(program: str, error: Exception, environ: Mapping[str, str]) -> int:
    message = termination_message(program, error)
    write_termination_message(message)
    print(message, file=sys.stderr, flush=True)
    return exit_status(error, environ)


def _raise_terminated(signum: int, frame: FrameType | None) -> NoReturn:
    end_at_once()
    raise Terminated
