"""Batch inference: every row of a data set through a model server, as fast as the server goes, surviving what happens.

    result = batch(endpoint, rows, work=chat(system="…", max_tokens=64, column="text"),
    output="answers.jsonl", id="id")

`rows` reads the input, `work` makes requests and reads answers, `limiter` finds how many at once,
`engine` drives it all, `journal` keeps what is finished, `checkpoint` copies that to Flyte,
`output` writes the result in order, `run` has the public functions.
"""

from .engine import Failure, Point
from .result import BatchResult
from .run import AsyncBatch, abatch, batch
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
