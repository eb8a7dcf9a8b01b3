"""The result of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...dependencies import requires
from ...errors import BatchFailedError
from .output import read_output
from .records import Failure
from .series import Point


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """A finished batch. Iterates over the records in the order of the input.

    A record is a mapping with `index` (the row's number, from 0), `id`, `output` and `error` (one
    of them is None), `finish_reason`, `prompt_tokens`, `completion_tokens`, `attempts` and
    `seconds` (of the last request).
    """

    path: Path
    """The result file. Without `output=` it is a temporary one, which is deleted with this
    object."""
    rows: int
    succeeded: int
    failed: int
    resumed: int
    """Rows that an earlier run had finished; they are among the succeeded and failed."""
    answered: int
    """Rows that got an answer in this run."""
    retried: int
    """Requests that were retried."""
    duration: float
    """Seconds."""
    prompt_tokens: int
    """Tokens read by the model in this run, as counted by the server; 0 if it does not count."""
    completion_tokens: int
    """Tokens written by the model in this run."""
    most_in_flight: int
    """The most requests that were in flight at once."""
    max_concurrency: int
    """The upper bound for requests in flight."""
    concurrency: tuple[Point, ...]
    """The limit of requests in flight, their number and the rows per second over time; at most 240
    points."""
    failures: tuple[Failure, ...]
    """The first failed rows, at most twenty; the records contain all of them."""
    _directory: Any = field(default=None, repr=False)
    """Keeps a temporary directory alive."""

    @property
    def rows_per_second(self) -> float:
        """Rows that got an answer in this run, per second."""
        return self.answered / self.duration if self.duration > 0 else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens read and written in this run, per second."""
        return (
            (self.prompt_tokens + self.completion_tokens) / self.duration
            if self.duration > 0
            else 0.0
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # a generator, because it refers to this object and so keeps the temporary file alive
        yield from read_output(self.path)

    def __len__(self) -> int:
        return self.rows

    def raise_if_failed(self) -> BatchResult:
        """Return this result if every row has an answer.

        Raises:
            BatchFailedError: A row failed.
        """
        if not self.failed:
            return self
        raise BatchFailedError(
            f"{self.failed:,} of {self.rows:,} rows failed.",
            hint=f"{self.path} holds the reason of each.",
            failures=[str(failure) for failure in self.failures[:5]],
        )

    def to_pandas(self) -> Any:
        """Return the records as a pandas DataFrame, with `index` as its index.

        For results that fit into memory.
        """
        with requires("pandas", "to_pandas()", hint="pip install pandas, or iterate over it."):
            import pandas

        is_parquet = self.path.suffix == ".parquet"
        frame = pandas.read_parquet(self.path) if is_parquet else pandas.DataFrame(list(self))
        return frame.set_index("index") if len(frame.columns) else frame

    def summary(self) -> dict[str, Any]:
        """Return everything but the records as plain JSON."""
        return {
            "path": str(self.path),
            "rows": self.rows,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "resumed": self.resumed,
            "answered": self.answered,
            "retried": self.retried,
            "duration": round(self.duration, 3),
            "rows_per_second": round(self.rows_per_second, 3),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens_per_second": round(self.tokens_per_second, 3),
            "most_in_flight": self.most_in_flight,
            "max_concurrency": self.max_concurrency,
            "concurrency": [asdict(point) for point in self.concurrency],
            "failures": [
                {"index": failure.position, "id": failure.id, **failure.error}
                for failure in self.failures
            ],
        }
