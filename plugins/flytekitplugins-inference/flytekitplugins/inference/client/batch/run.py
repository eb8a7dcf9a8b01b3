"""`batch` and `abatch`: the public functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .async_batch import AsyncBatch
from .batch_options import BatchOptions, arguments_of
from .blocking import run_in_thread
from .caller import BatchEndpoint
from .result import BatchResult

if TYPE_CHECKING:
    from typing_extensions import Unpack


def batch(
    endpoint: BatchEndpoint,
    rows: Any,
    **options: Unpack[BatchOptions],
) -> BatchResult:
    """Send a request for every row to the model server; return when all are finished.

    It keeps as many requests in flight as give the best throughput. It works in any thread. Inside
    a running event loop it blocks the loop; `abatch` does not.

    SIGTERM and Ctrl-C stop a batch of the main thread: it sends nothing more, waits up to
    `runner.STOP_SECONDS` for the requests in flight and keeps all finished rows; then the signal
    takes its usual effect. A second Ctrl-C takes effect at once.

    Args:
        endpoint: The server.
        rows: Any iterable, also an asynchronous one; a table or column of pandas, pyarrow or
            polars; the path of a `.jsonl`, `.ndjson` or `.parquet` file. It is read as needed and
            may be larger than memory.
        **options: `work=`, which is required, `output=`, `id=`, `max_concurrency=` and so on;
            `BatchOptions` has them all.

    Returns:
        The counts, the speed, and the records in order.

    Raises:
        ConfigError: An argument is wrong, or does not exist (`ArgumentError`).
        SourceNotFoundError: `rows` is the path of a file that does not exist.
        DestinationError: The output cannot be written, exists and is not a batch's, or is in use.
        BatchFailedError: More rows failed than `max_failures`, or all of them.
        ServerNotReadyError: The server was gone for longer than `outage_seconds`; finished rows
            are kept.
    """
    return run_in_thread(AsyncBatch(arguments_of(endpoint, rows, options)))


def abatch(
    endpoint: BatchEndpoint,
    rows: Any,
    **options: Unpack[BatchOptions],
) -> AsyncBatch:
    """Do what `batch` does, on the running event loop.

    `await abatch(…)` returns the result; `async for record in abatch(…)` yields the records in
    order as they arrive. Arguments and errors are those of `batch`.
    """
    return AsyncBatch(arguments_of(endpoint, rows, options))
