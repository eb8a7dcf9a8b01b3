"""The options of `batch` and `abatch`: names, types, meaning, defaults and checks."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from ...errors import ArgumentError, ConfigError
from ...keywords import refuse_unknown
from ..client_options import OUTAGE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .caller import BatchEndpoint
    from .rows import IdSource
    from .work import HttpWork, RowFunction

__all__ = ["BatchArguments", "BatchOptions", "arguments_of", "check_names"]


class _RequiredOptions(TypedDict):
    work: HttpWork | RowFunction
    """`chat(…)`, `completion(…)`, `embeddings(…)`, `structured(…)`, or an
    `async def f(client, row)` that returns the row's output. Required."""


class BatchOptions(_RequiredOptions, total=False):
    """The options of `batch`. `BatchArguments` has the defaults."""

    output: str | os.PathLike[str] | None
    """The result file, `.jsonl` or `.parquet`; `None` for a temporary file. Beside it lies
    `<output>.journal`, from which a rerun continues; it may be deleted. Default: `None`."""
    id: IdSource | None
    """The column with each row's id, or a function that returns it. Without ids, rows are
    identified by their content. Default: `None`."""
    max_concurrency: int
    """The most requests in flight; the actual number follows from measurement. Default: 512."""
    deadline: float
    """Seconds that one request may take. Default: 60."""
    max_retries: int
    """Times that a row is asked again after an error that may pass: 5xx, a broken answer or
    connection, no answer in time. A busy (429, 502, 503) or absent server does not count.
    Default: 5."""
    max_failures: int | None
    """More failed rows than this end the run; `None` for any number. Default: `None`."""
    allow_all_failed: bool
    """Whether a run in which every row fails returns its result; `False` raises
    `BatchFailedError`, early when the first rows all fail in the same way. Default: `False`."""
    outage_seconds: float
    """How many seconds to wait for a server that is gone or does not answer. Default: 300."""
    resume: bool
    """Whether to reuse the results of an earlier run with the same parameters, also from Flyte's
    checkpoint. `False` starts anew and writes no checkpoint.
    Default: `True`."""
    progress: bool
    """Whether to show progress on standard error. Default: `True`."""


@dataclass(frozen=True, kw_only=True)
class BatchArguments:
    """The checked arguments of a batch.

    Raises:
        ConfigError: Lists every value that is wrong.
    """

    endpoint: BatchEndpoint
    rows: Any
    work: HttpWork | RowFunction
    output: str | os.PathLike[str] | None = None
    id: IdSource | None = None
    max_concurrency: int = 512
    deadline: float = 60.0
    max_retries: int = 5
    max_failures: int | None = None
    allow_all_failed: bool = False
    outage_seconds: float = OUTAGE_SECONDS
    resume: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        checks = {
            "max_concurrency": (_is_whole(self.max_concurrency, 1), "a whole number of 1 or more"),
            "deadline": (_is_seconds(self.deadline), "seconds, more than 0"),
            "max_retries": (_is_whole(self.max_retries, 0), "a whole number of 0 or more"),
            "max_failures": (
                self.max_failures is None or _is_whole(self.max_failures, 0),
                "None or a whole number of 0 or more",
            ),
            "outage_seconds": (_is_seconds(self.outage_seconds), "seconds, more than 0"),
            "id": (
                self.id is None or isinstance(self.id, str) or callable(self.id),
                "a column or a function",
            ),
        }
        problems = [
            f"{name}={getattr(self, name)!r}; expected {expected}."
            for name, (is_right, expected) in checks.items()
            if not is_right
        ]
        if problems:
            raise ConfigError("The arguments of batch are wrong.", problems=problems)


def arguments_of(endpoint: BatchEndpoint, rows: Any, options: Mapping[str, Any]) -> BatchArguments:
    """Return the arguments of a batch.

    Raises:
        ArgumentError: If an option does not exist, or `work` is missing.
        ConfigError: If a value is wrong.
    """
    check_names(options)
    return BatchArguments(endpoint=endpoint, rows=rows, **options)


def check_names(options: Mapping[str, Any]) -> None:
    """Check the names of a batch's options; before the server is asked for, too.

    Raises:
        ArgumentError: If an option does not exist, or `work` is missing.
    """
    refuse_unknown("batch(…)", options, BatchOptions.__annotations__)
    if "work" not in options:
        raise ArgumentError(
            "batch(…) needs work=, which defines the request for each row.",
            hint="Give work=chat(), or an async def f(client, row).",
        )


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_seconds(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0
