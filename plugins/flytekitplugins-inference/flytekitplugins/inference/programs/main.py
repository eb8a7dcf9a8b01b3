"""How every program starts and ends: SIGTERM, the budget of the start, exit code and termination message."""

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
from .protocol import ExitCode, termination_message, write_termination_message
from .start_budget import enforced

Main = Callable[[Sequence[str], Mapping[str, str]], int]
"""A program: `(argv without the program's name, environment) -> exit code`; raises `InferenceError`
to fail."""


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`, so that no retry loop swallows it."""


def run(
    program: str,
    main: Main,
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    spare_seconds: float = 0.0,
) -> int:
    """Run `main` and turn however it ends into an exit code and one line of JSON on stderr.

    Args:
        program: The program's name, used in the termination message.
        main: The program.
        argv: Its arguments, without the program's name.
        environ: Its environment variables.
        spare_seconds: How long after the start's budget it may still run, because it keeps that
            itself.
    """
    if sys.stderr is None:  # closed by the caller; print(file=None) would write to stdout
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    try:
        signal.signal(signal.SIGTERM, _raise_terminated)
        with enforced(program, environ, spare_seconds):
            return main(argv, environ)
    except Terminated:
        return ExitCode.TERMINATED
    except KeyboardInterrupt:
        return 130
    except InferenceError as error:
        return _fail(program, error, error.exit_code)
    except ModuleNotFoundError as error:
        return _fail(
            program,
            MissingDependencyError(f"{error}.", hint="Install it in this image."),
            ExitCode.CONFIG,
        )
    except Exception as error:  # the one broad except: a defect must end with a message too
        traceback.print_exc()
        return _fail(program, error, ExitCode.SOFTWARE)


def _fail(program: str, error: Exception, exit_code: int) -> int:
    line = termination_message(program, error)
    write_termination_message(line)
    print(line, file=sys.stderr, flush=True)
    return exit_code


def _raise_terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
