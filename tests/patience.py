"""How long tests wait for what has to happen: as long as this machine needs when it is busy.

A wait that ends with its event costs nothing by being allowed to last; a bound only tells a hang
from slowness. So bounds are written as what a quiet machine needs, and multiplied with how much
slower this one is: measured once, when the tests start, and never below `LEAST`, because the load
may come later. What has to *expire* in a test (a deadline, a stall) is not multiplied.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")

VARIABLE = "INFERENCE_TEST_PATIENCE"
"""Overrides the factor; also how the workers learn what the first process has measured."""
LEAST, MOST = 4.0, 20.0
_STANDARD = "import asyncio, email.message, http.client, json, ssl, fsspec, openai"
_STANDARD_SECONDS = 1.2
"""What an interpreter needs to import these on two quiet cores."""


@functools.cache
def factor() -> float:
    """Return how many times longer than on a quiet machine tests wait."""
    given = os.environ.get(VARIABLE)
    if given is None:
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", _STANDARD], check=True)
        slowness = (time.monotonic() - began) / _STANDARD_SECONDS
        # twice: what is measured is one process beside the load, and a test has several
        given = str(min(max(2 * slowness, LEAST), MOST))
        os.environ[VARIABLE] = given
    return float(given)


def patient(seconds: float) -> float:
    """Return the bound, in seconds, of what takes at most `seconds` on a quiet machine."""
    return seconds * factor()


def wait_for(
    condition: Callable[[], Value],
    seconds: float = 30.0,
    *,
    otherwise: Callable[[], object] = lambda: "waited in vain",
) -> Value:
    """Return the first true value of `condition`.

    Args:
        seconds: What a quiet machine needs at most.
        otherwise: Says what was seen instead, in the error.
    """
    end = time.monotonic() + patient(seconds)
    while not (value := condition()):
        assert time.monotonic() < end, otherwise()
        time.sleep(0.01)
    return value
