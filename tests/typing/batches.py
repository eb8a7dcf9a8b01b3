"""What `batch` and `abatch` take, for type checkers. Checked and never run; see clients.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import assert_type

from flytekitplugins.inference import VLLM
from flytekitplugins.inference.client.batch import (
    AsyncBatch,
    BatchResult,
    abatch,
    batch,
    chat,
)

llm = VLLM(model="owner/name")
rows = ["a", "b"]
work = chat(max_tokens=8)


async def length(client: Any, row: str) -> int:
    """Return what no server is needed for."""
    return len(row)


assert_type(llm.batch(rows, work=work), BatchResult)
assert_type(llm.abatch(rows, work=length, output=Path("out.jsonl"), id="id"), AsyncBatch)
assert_type(llm.endpoint.batch(rows, work=work, max_failures=None), BatchResult)
assert_type(batch(llm.endpoint, rows, work=work, deadline=5), BatchResult)
assert_type(abatch(llm.at("https://host"), rows, work=work, resume=False), AsyncBatch)

llm.batch(rows, wrok=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
llm.batch(rows)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
llm.batch(rows, work=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
llm.batch(rows, work=work, max_concurency=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
llm.batch(rows, work=work, max_concurrency="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
llm.abatch(rows, work=work, id=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
batch(llm.endpoint, rows, work=work, ouptut="o")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
abatch(llm.endpoint, rows, work=work, progress=0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
