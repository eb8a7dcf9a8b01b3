"""`batch` and `abatch`: the public functions with their arguments."""

from __future__ import annotations

import os
from typing import Any

from .arguments import BatchArguments
from .async_batch import AsyncBatch
from .blocking import run_in_thread
from .caller import BatchEndpoint
from .result import BatchResult
from .rows import IdSource
from .work import HttpWork, RowFunction


def batch(
    endpoint: BatchEndpoint,
    rows: Any,
    *,
    work: HttpWork | RowFunction,
    output: str | os.PathLike[str] | None = None,
    id: IdSource | None = None,
    max_concurrency: int = 512,
    deadline: float = 60.0,
    max_retries: int = 5,
    max_failures: int | None = None,
    outage_seconds: float = 300.0,
    resume: bool = True,
    progress: bool = True,
) -> BatchResult:
    """Ask the model server about every row, and return when all are finished.

    It asks about as many rows at once as serves the server best. Works in any thread, also inside a
    running event loop, which it blocks; `abatch` does not.

    SIGTERM and Ctrl-C stop a batch of the main thread: nothing more is sent, requests in flight
    have `runner.STOP_SECONDS` to be answered, all that is finished is kept, and then the signal has
    its usual effect. A second Ctrl-C has it at once.

    Args:
        endpoint: The server.
        rows: Any iterable, also an asynchronous one; a table or column of pandas, pyarrow or
            polars; the path of a `.jsonl`, `.ndjson` or `.parquet` file. It is read as it is needed
            and may be larger than memory.
        work: `chat(…)`, `completion(…)`, `embeddings(…)`, `structured(…)`, or an `async def
            f(client, row)` that returns the row's output.
        output: Where the result goes, `.jsonl` or `.parquet`; None for a temporary file. Beside it
            stands `<output>.journal`, from which a rerun continues; it may be deleted.
        id: The column with each row's id, or a function that returns it. Without, rows are known by
            their content.
        max_concurrency: The most requests at once; how many there are is found by measuring.
        deadline: Seconds that one request may take.
        max_retries: Times that a row is asked again after an error that may pass: 5xx, a broken
            answer or connection, no answer in time. A busy (429, 503) or absent server does not
            count.
        max_failures: More failed rows than this end the run; None for any number.
        outage_seconds: How long a server that is gone, or answers nothing, is waited for.
        resume: Whether to take over what an earlier run with the same parameters finished, also
            through Flyte's checkpoint. False starts anew and writes no checkpoint.
        progress: Whether to show progress on standard error.

    Returns:
        The counts, the speed, and the records in order.

    Raises:
        ConfigError: An argument is wrong.
        SourceNotFoundError: `rows` is the path of a file that does not exist.
        DestinationError: The output cannot be written, exists and is not a batch's, or is in use.
        BatchFailedError: More rows failed than `max_failures`.
        ServerNotReadyError: The server was gone for longer than `outage_seconds`; what is finished
            is kept.
    """
    return run_in_thread(
        AsyncBatch(BatchArguments(**_without_endpoint(locals()), endpoint=endpoint))
    )


def abatch(
    endpoint: BatchEndpoint,
    rows: Any,
    *,
    work: HttpWork | RowFunction,
    output: str | os.PathLike[str] | None = None,
    id: IdSource | None = None,
    max_concurrency: int = 512,
    deadline: float = 60.0,
    max_retries: int = 5,
    max_failures: int | None = None,
    outage_seconds: float = 300.0,
    resume: bool = True,
    progress: bool = True,
) -> AsyncBatch:
    """Do what `batch` does, on the running event loop.

    `await abatch(…)` returns the result; `async for record in abatch(…)` yields the records in
    order as they come. Arguments and errors are those of `batch`.
    """
    return AsyncBatch(BatchArguments(**_without_endpoint(locals()), endpoint=endpoint))


def _without_endpoint(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name != "endpoint"}
