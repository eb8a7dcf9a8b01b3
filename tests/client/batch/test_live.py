"""`batch` against llama.cpp's real server, which `dev/servers llamacpp` installs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from client.test_live import kill, llama, started
from flytekitplugins.inference.client.batch import batch, chat, completion, structured
from flytekitplugins.inference.client.endpoint import Endpoint
from ports import reserve_port

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]
COUNTED = "one two three four five six seven eight"
ROWS = [
    {"id": number, "text": f"{'please ' * (number % 7)}count, {number}"} for number in range(200)
]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


@contextmanager
def endpoint(port: int) -> Iterator[Endpoint]:
    origin = f"http://127.0.0.1:{port}"
    with started("llamacpp", *llama(port), "--parallel", "4", "--ctx-size", "2048", "--metrics"):
        yield Endpoint(
            url=origin,
            protocol="openai",
            health_url=f"{origin}/health",
            metrics_url=f"{origin}/metrics",
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    with endpoint(reserve_port()) as running:
        yield running


def test_chats_are_answered_in_order_and_tokens_counted(server: Endpoint) -> None:
    result = batch(server, ROWS, work=chat(column="text", max_tokens=20), id="id", progress=False)
    assert [record["output"].strip() for record in result] == [COUNTED] * 200
    assert [record["id"] for record in result] == list(range(200))
    assert {record["finish_reason"] for record in result} == {"stop"}
    assert result.completion_tokens >= 8 * 200
    assert result.prompt_tokens > result.completion_tokens


def test_completions_go_on(server: Endpoint) -> None:
    rows = ["one two", "five", "seven"]
    result = batch(server, rows, work=completion(max_tokens=20), progress=False)
    assert [record["output"].split()[0] for record in result] == ["three", "six", "eight"]


def test_a_request_that_the_server_refuses_fails_its_row_alone(server: Endpoint) -> None:
    rows = ["count", "count " * 5000, "count"]
    result = batch(server, rows, work=chat(max_tokens=20), progress=False)
    assert [record["error"] and record["error"]["kind"] for record in result] == [
        None,
        "too_long",
        None,
    ]
    assert result.failures[0].error["status"] == 400


def test_a_schema_is_kept_to_by_the_server_and_checked_here(server: Endpoint) -> None:
    result = batch(server, ["a number"] * 3, work=structured(SCHEMA, max_tokens=60), progress=False)
    kinds = {
        record["error"]["kind"] if record["error"] else type(record["output"]["n"]).__name__
        for record in result
    }
    assert kinds <= {"int", "invalid_output"}, (
        "an untrained model may count digits until it is cut off"
    )


def test_the_official_client_serves_a_function(server: Endpoint) -> None:
    async def words(client: Any, row: dict[str, Any]) -> int:
        messages = [{"role": "user", "content": row["text"]}]
        answer = await client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=20
        )
        return len(answer.choices[0].message.content.split())

    assert [
        record["output"] for record in batch(server, ROWS[:40], work=words, progress=False)
    ] == [8] * 40


def test_a_killed_server_is_waited_for() -> None:
    port, second = reserve_port(), threading.Event()
    stopped: list[float] = []

    with started("llamacpp", *llama(port)) as first:

        def rows() -> Iterator[str]:
            for number in range(3000):
                if number == 1500:
                    kill(first)
                    stopped.append(time.monotonic())
                    second.set()
                yield f"count {number}"

        def restart() -> None:
            assert second.wait(60)
            time.sleep(0.5)
            with started("llamacpp", *llama(port)):
                over.wait(120)

        over = threading.Event()
        thread = threading.Thread(target=restart)
        thread.start()
        origin = f"http://127.0.0.1:{port}"
        endpoint = Endpoint(
            url=origin, protocol="openai", model="tiny", health_url=f"{origin}/health"
        )
        try:
            result = batch(endpoint, rows(), work=chat(max_tokens=20), progress=False)
        finally:
            second.set()
            over.set()
            thread.join()
    assert (result.rows, result.failed) == (3000, 0)
    assert stopped
