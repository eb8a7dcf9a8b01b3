"""Batch inference: puts every row of a data set through a model server.

    result = batch(
        endpoint,
        rows,
        work=chat(system="…", max_tokens=64, column="text"),
        output="answers.jsonl",
        id="id",
    )

It sends as many requests at once as the server is good for, and survives what happens meanwhile.

| module | what it does |
|---|---|
| `run`, `arguments` | the public functions; their arguments, checked |
| `blocking`, `signals`, `async_batch` | how a caller waits for a batch or stops it |
| `opening`, `runner` | open what a run needs; put its parts together |
| `rows`, `feed`, `intake` | read the input, only as far as it is needed |
| `row_queue`, `dispatcher`, `attempts` | who is next; what is in flight; one request |
| `caller`, `work`, `faults` | send a request; what is asked; what can go wrong |
| `limiter`, `in_flight`, `recent_requests` | how many requests at once |
| `availability`, `recovery` | whether the server is there; wait until it is |
| `retry_policy` | whose fault it is, and when the row is asked again |
| `recorder`, `records`, `journal`, `output`, `checkpoint` | keep what is finished |
| `monitor`, `progress`, `series`, `result` | show how far the run is, and what came of it |

`availability`, `limiter`, `retry_policy`, `row_queue` and `series` know neither network nor clock.
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
