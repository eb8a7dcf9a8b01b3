"""The arguments of `batch` and `abatch`, checked before anything is opened or sent."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError
from .caller import BatchEndpoint
from .rows import IdSource


@dataclass(frozen=True, kw_only=True)
class BatchArguments:
    """What the documentation of `batch` says.

    Raises:
        ConfigError: A value is not what its argument takes; all such arguments are named.
    """

    endpoint: BatchEndpoint
    rows: Any
    work: Any
    output: str | os.PathLike[str] | None
    id: IdSource | None
    max_concurrency: int
    deadline: float
    max_retries: int
    max_failures: int | None
    outage_seconds: float
    resume: bool
    progress: bool

    def __post_init__(self) -> None:
        expectations = {
            "max_concurrency": (
                "a whole number of 1 or more",
                _is_whole(self.max_concurrency, 1),
            ),
            "deadline": ("seconds, more than 0", _is_seconds(self.deadline)),
            "max_retries": ("a whole number of 0 or more", _is_whole(self.max_retries, 0)),
            "max_failures": (
                "None or a whole number of 0 or more",
                self.max_failures is None or _is_whole(self.max_failures, 0),
            ),
            "outage_seconds": ("seconds, more than 0", _is_seconds(self.outage_seconds)),
            "id": (
                "a column or a function",
                self.id is None or isinstance(self.id, str) or callable(self.id),
            ),
        }
        problems = [
            f"{name}={getattr(self, name)!r}; expected {expected}."
            for name, (expected, is_right) in expectations.items()
            if not is_right
        ]
        if problems:
            raise ConfigError("The arguments of batch are wrong.", problems=problems)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_seconds(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )
