"""Batch inference: puts every row of a data set through a model server.

    result = batch(
        endpoint,
        rows,
        work=chat(system="…", max_tokens=64, column="text"),
        output="answers.jsonl",
        id="id",
    )

It keeps as many requests in flight as the server can handle, and survives faults and restarts.

| module | what it does |
|---|---|
| `run`, `batch_options` | the public functions; their arguments, checked |
| `blocking`, `signals`, `async_batch` | how a caller waits for a batch or stops it |
| `opening`, `runner` | open what a run needs; put its parts together |
| `rows`, `tables`, `feed`, `intake` | read the input, only as far as it is needed |
| `row_queue`, `dispatcher`, `row_attempts` | the next row; requests in flight; one request |
| `caller`, `work`, `faults` | send a request; its content; what can go wrong |
| `limiter`, `in_flight`, `recent_requests` | how many requests at once |
| `availability`, `breaker`, `recovery` | whether the server works; wait until it does |
| `retry_policy`, `common_fault` | whether a row is retried; whether all rows fail alike |
| `json_form` | values that JSON lacks |
| `recorder`, `records`, `journal`, `output`, `checkpoint` | keep finished rows |
| `monitor`, `progress`, `series`, `result` | show the progress and the result |

`availability`, `breaker`, `common_fault`, `limiter`, `retry_policy`, `row_queue` and `series` use
neither network nor clock.
"""

from .async_batch import AsyncBatch
from .records import Failure
from .result import BatchResult
from .run import abatch, batch
from .series import Point
from .work import HttpWork, chat, completion, embeddings, structured

__all__ = [
    "AsyncBatch",
    "BatchResult",
    "Failure",
    "HttpWork",
    "Point",
    "abatch",
    "batch",
    "chat",
    "completion",
    "embeddings",
    "structured",
]
