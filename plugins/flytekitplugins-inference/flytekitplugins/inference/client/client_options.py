"""The options of `client()` and `async_client()`: names, types, meaning and defaults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypedDict

from ..errors import ConfigError
from ..keywords import refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .attempts import Limits

__all__ = ["OUTAGE_SECONDS", "TIMEOUT_SECONDS", "ClientOptions", "limits_of"]

TIMEOUT_SECONDS = 120.0
"""Longer than a slow generation, yet short enough that a server that hangs is noticed."""
OUTAGE_SECONDS = 300.0
"""The kubelet waits 10 s before it restarts a container, then 20, 40, 80 and 160 (its back-off),
and the server then loads its model again."""


class ClientOptions(TypedDict, total=False):
    """For how long a client tries a request."""

    timeout: float
    """Seconds from sending a request to the first byte of its answer, and between two parts of it.
    A request that takes longer is not retried. Default: 120."""
    outage_seconds: float
    """Seconds that a request waits for a server that went away or is busy. Default: 300."""
    retry_busy: bool
    """Whether a request is retried after a 429, 502 or 503 of a server that is ready; `False` hands
    that answer to the caller, who can send less. Default: `True`."""


def limits_of(options: Mapping[str, Any]) -> Limits:
    """Return for how long a client tries a request.

    Raises:
        ArgumentError: If an option does not exist.
        ConfigError: If a value is wrong.
    """
    refuse_unknown("client(…)", options, ClientOptions.__annotations__)
    return _limits(**options)


def _limits(
    timeout: float = TIMEOUT_SECONDS,
    outage_seconds: float = OUTAGE_SECONDS,
    retry_busy: bool = True,
) -> Limits:
    from .attempts import Limits

    # without these checks the HTTP library would fail at the first request, far from the mistake
    problems = []
    if not _is_number(timeout) or timeout <= 0:
        problems.append(f"timeout={timeout!r} is not a number of seconds above 0")
    if not _is_number(outage_seconds) or outage_seconds < 0:
        problems.append(
            f"outage_seconds={outage_seconds!r} is not a number of seconds of 0 or more"
        )
    if problems:
        raise ConfigError("client(…) cannot be made:", problems=problems)
    return Limits(timeout_seconds=timeout, outage_seconds=outage_seconds, retry_busy=retry_busy)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
