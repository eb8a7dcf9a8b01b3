"""The common parts of the programs' command lines: parser, argument types, log lines.

A wrong argument is a `UsageError`, so it ends a program like any other error: with its exit code
and one line of JSON.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, NoReturn

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRESS_SECONDS = 5.0
"""How often a program logs its progress."""


class CommandLine(argparse.ArgumentParser):
    """A parser that raises instead of ending the process.

    `parse_args` raises `UsageError`, which names the program's `--help`.
    """

    def error(self, message: str) -> NoReturn:  # noqa: D102 - argparse's own
        raise UsageError(message, hint=self.hint)

    @property
    def hint(self) -> str:
        """What to do about a wrong argument."""
        return f"See {self.prog} --help."

    def add_retries(self) -> None:
        """Add how often, and after which waits, a failed part of a download is tried again."""
        self.add_argument(
            "--attempts",
            type=count(),
            default=8,
            metavar="N",
            help="attempts for each part (%(default)s)",
        )
        self.add_argument(
            "--backoff",
            type=seconds(),
            default=0.5,
            metavar="SECONDS",
            help="maximum of the first wait (%(default)s)",
        )


def say(program: str, text: str) -> None:
    """Log one line that begins with the program's name: containers of a pod share a log."""
    print(f"{program} {text}", file=sys.stderr, flush=True)


def positive_seconds(text: str) -> float:
    """Parse a duration above 0."""
    value = _number(text)
    if value is None or value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def seconds(least: float = 0.0) -> Callable[[str], float]:
    """Return a parser for a duration of at least `least` seconds."""

    def parse(text: str) -> float:
        value = _number(text)
        if value is None or value < least:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number of seconds of at least {least:g}"
            )
        return value

    return parse


def count(most: int | None = None) -> Callable[[str], int]:
    """Return a parser for a whole number from 1 to `most`."""

    def parse(text: str) -> int:
        # `int` alone would also accept "1_000", " 7" and other scripts' digits
        is_whole = text.isascii() and text.isdecimal()
        value = int(text) if is_whole else 0
        if value < 1 or (most is not None and value > most):
            bounds = "above 0" if most is None else f"from 1 to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return value

    return parse


def _number(text: str) -> float | None:
    """Return a finite number, or None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
