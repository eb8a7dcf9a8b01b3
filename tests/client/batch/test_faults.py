"""What servers and rows do wrong: each kind with its message, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from client.batch.stub import Endpoint, Handler, Server, answered, echo, text_of
from flytekitplugins.inference.client.batch import batch, chat, completion, embeddings
from flytekitplugins.inference.client.batch.faults import (
    FINAL,
    KINDS,
    RETRYABLE,
    UNAVAILABLE,
)
from flytekitplugins.inference.client.batch.output import (
    RECORD_FIELDS,
    open_output,
    read_output,
)
from flytekitplugins.inference.client.endpoint import Endpoint as RealEndpoint
from flytekitplugins.inference.client.report.collect import collect
from flytekitplugins.inference.errors import BatchFailedError, ServerNotReadyError

TEXTS = [f"text {number}" for number in range(20)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come as they do, only sooner."""
    monkeypatch.setattr(
        "flytekitplugins.inference.client.batch.retry_policy.BACKOFF_BASE_SECONDS", 0.01
    )
    monkeypatch.setattr(
        "flytekitplugins.inference.client.batch.retry_policy.BACKOFF_CAP_SECONDS", 0.05
    )


def run(server: Server, rows: Any = TEXTS, **options: Any) -> Any:
    """Run a batch which may consist of nothing but bad rows."""
    usual = {"work": chat(), "progress": False, "allow_all_failed": True}
    return batch(server.endpoint, rows, **{**usual, **options})


def at_first(times: int, bad: Handler) -> Handler:
    """Return a handler that answers each text badly for some times, then well."""
    seen: Counter[str] = Counter()

    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        seen[text_of(body)] += 1
        return await (bad if seen[text_of(body)] <= times else echo)(request, body)

    return handler


def status(code: int, text: str = "no", **headers: str) -> Handler:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        return web.Response(status=code, text=text, headers=headers)

    return handler


async def half(request: web.Request, body: Any) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Length": "1000", "Content-Type": "application/json"}
    )
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def hangs(request: web.Request, body: Any) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def html(request: web.Request, body: Any) -> web.StreamResponse:
    page = "<html><head><title>Sign in</title></head><body>Welcome</body></html>"
    return web.Response(text=page, content_type="text/html")


async def broken_json(request: web.Request, body: Any) -> web.StreamResponse:
    return web.Response(text='{"choices": [{"mess', content_type="application/json")


async def other_json(request: web.Request, body: Any) -> web.StreamResponse:
    return web.json_response({"outputs": []})


async def no_text(request: web.Request, body: Any) -> web.StreamResponse:
    return web.json_response(
        {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    )


@pytest.mark.parametrize(
    ("bad", "options"),
    [
        (status(500), {}),
        (status(502, "<html>Bad Gateway</html>"), {}),
        (status(429), {}),
        (status(503), {}),
        (status(408), {}),
        (half, {}),
        (broken_json, {}),
        (other_json, {}),
        (hangs, {"deadline": 0.3}),
    ],
    ids=["500", "502", "429", "503", "408", "half an answer", "broken JSON", "other JSON", "hangs"],
)
def test_what_may_pass_is_tried_again(bad: Handler, options: Any, server: Server) -> None:
    server.handler = at_first(2, bad)
    result = run(server, **options)
    assert [record["output"] for record in result] == [f"answer to {text}" for text in TEXTS]
    requests = Counter(server.texts).values()
    assert min(requests) == 3
    assert sum(requests) < 4 * len(TEXTS), "further ones are probes that were answered"


@pytest.mark.parametrize(
    ("bad", "options", "kind", "message", "requests"),
    [
        (
            status(400, "max_tokens is too large"),
            {},
            "rejected",
            "status 400: max_tokens is too large",
            1,
        ),
        (status(401, ""), {}, "misconfigured", "status 401: nothing more .*another key", 1),
        (status(404, "no such model"), {}, "misconfigured", "status 404: no such model", 1),
        (
            html,
            {},
            "not_json",
            "text/html, not JSON; does another program answer at this address.*Sign in",
            1,
        ),
        (no_text, {}, "invalid_output", "no text; its finish_reason is 'length'", 1),
        (status(500, "out of memory"), {}, "server_error", "status 500: out of memory", 3),
        (broken_json, {}, "invalid_answer", r'broken JSON.*\{"choices": \[\{"mess', 3),
        (
            other_json,
            {},
            "invalid_answer",
            r'not that of /v1/chat/completions: \{"outputs": \[\]\}',
            3,
        ),
        (half, {}, "disconnected", "broke before the whole answer arrived", 3),
        (hangs, {"deadline": 0.2}, "timeout", "within the deadline of 0.2 s.*raise deadline=", 3),
    ],
    ids=[
        "400",
        "401",
        "404",
        "HTML",
        "no text",
        "500",
        "broken JSON",
        "other JSON",
        "half an answer",
        "hangs",
    ],
)
def test_what_stays_fails_the_row_and_no_other(
    bad: Handler, options: Any, kind: str, message: str, requests: int, server: Server
) -> None:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        return await (bad if text_of(body) == "text 3" else echo)(request, body)

    server.handler = handler
    result = run(server, max_retries=2, **options)
    records = list(result)
    assert [record["index"] for record in records if record["error"]] == [3]
    assert records[3]["output"] is None
    assert records[3]["error"]["kind"] == kind
    assert records[3]["attempts"] == requests == server.texts.count("text 3")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(records[3]["error"]["message"])
    assert (result.succeeded, result.failed) == (19, 1)


@pytest.mark.parametrize(
    ("work", "row", "message"),
    [
        (chat(), 7, "Row 1 is of type int: 7; expected a text or a list of messages."),
        (chat(), None, "Row 1 is None; expected a text or a list of messages."),
        (
            chat(),
            {"text": "a"},
            "Row 1 is a dict with 'text'; expected a text. If it is one, say which column",
        ),
        (
            chat(column="text"),
            {"body": "a"},
            "Row 1 is a dict with 'body'; expected a mapping with the column 'text'.",
        ),
        (
            chat(column="text"),
            "a",
            "Row 1 is of type str: 'a'; expected a mapping with the column 'text'.",
        ),
        (
            chat(column="text"),
            {"text": 3},
            "in the column 'text'; expected a text or a list of messages.",
        ),
        (chat(), ["a"], "Row 1 has the message 'a'; expected a mapping with 'role' and 'content'."),
        (completion(), ["a"], "expected a text."),
        (embeddings(), [{"role": "user"}], "expected a text."),
        (chat(), {"messages": [{"content": "a"}]}, "expected a mapping with 'role' and 'content'"),
    ],
    ids=str,
)
def test_a_row_of_the_wrong_type_is_named(
    work: Any, row: Any, message: str, server: Server
) -> None:
    (record,) = run(server, [row], work=work)
    assert record["error"]["kind"] == "invalid_row"
    assert message in record["error"]["message"]
    assert record["attempts"] == 0
    assert server.requests == []


def test_lines_that_are_not_json_are_named_by_their_number(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('"a"\n\n{"b": \n"c"\n')
    records = list(run(server, path))
    assert [record["output"] for record in records] == ["answer to a", None, "answer to c"]
    assert "Line 3 of rows.jsonl is not JSON" in records[1]["error"]["message"]


def test_a_second_row_with_an_id_fails_and_names_the_first(server: Server) -> None:
    rows = [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}, {"id": 1, "text": "c"}]
    records = list(run(server, rows, work=chat(column="text"), id="id"))
    assert [record["output"] for record in records] == ["answer to a", "answer to b", None]
    assert records[2]["error"]["message"] == "Row 3 has the id 1, which row 1 has too."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, "expected a mapping with the column 'id'"),
        ({"id": None}, "has the id None; expected a text or a whole number"),
        ({"id": 1.5}, "has the id 1.5"),
        ({"id": True}, "has the id True"),
        ("a", "expected a mapping with the column 'id'"),
    ],
    ids=str,
)
def test_a_row_without_a_proper_id_fails(row: Any, message: str, server: Server) -> None:
    (record,) = run(server, [row], work=chat(column="text"), id="id")
    assert message in record["error"]["message"]


def test_an_id_may_be_the_result_of_a_function(server: Server) -> None:
    records = list(run(server, ["a", "b", ""], id=lambda row: row[0]))
    assert [record["id"] for record in records] == ["a", "b", None]
    assert "IndexError" in records[2]["error"]["message"]


def test_rows_that_have_no_form_as_json_need_an_id(server: Server) -> None:
    async def name(client: Any, row: Any) -> str:
        return type(row["value"]).__name__

    rows = [{"id": 1, "value": object()}]
    assert [record["output"] for record in run(server, rows, work=name, id="id")] == ["object"]
    (record,) = run(server, rows, work=name)
    assert (
        "no form as JSON to know it by (it contains a value of type object"
        in record["error"]["message"]
    )
    assert "pass id=" in record["error"]["message"]


def test_more_failures_than_allowed_end_the_run_and_keep_what_is_finished(
    server: Server, tmp_path: Path
) -> None:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        number = int(text_of(body).split()[1])
        return await (status(400, "no") if number in (50, 60, 70) else echo)(request, body)

    server.handler = handler
    rows = [f"text {number}" for number in range(5000)]
    with pytest.raises(BatchFailedError, match="max_failures=2 allows no more") as caught:
        run(server, rows, max_failures=2, output=tmp_path / "out.jsonl", max_concurrency=8)
    assert "row 51: rejected" in str(caught.value)
    assert len(server.requests) < 5000
    server.handler = echo
    result = run(server, rows[:51], output=tmp_path / "out.jsonl")
    assert result.resumed == 51
    assert result.failed == 1, "the same request would be rejected again"


def test_a_report_shows_a_batch_that_runs_and_one_that_failed(server: Server) -> None:
    endpoint = RealEndpoint(url=server.url, protocol="openai", model="tiny")
    seen: list[Any] = []

    async def others_are_done() -> Any:
        while True:
            snapshot = collect(endpoint)
            if [one.succeeded + one.failed for one in snapshot.batches] == [201]:
                return snapshot
            await asyncio.sleep(0.05)

    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        number = int(text_of(body).split()[1])
        if number == 200:
            seen.append(await others_are_done())
        return await (status(400) if number >= 200 else echo)(request, body)

    server.handler = handler
    rows = [f"text {number}" for number in range(202)]
    with pytest.raises(BatchFailedError):
        batch(endpoint, rows, work=chat(), max_failures=1, progress=False)
    (running,) = seen[0].batches
    assert (running.rows, running.succeeded, running.failed) == (201, 200, 1)
    assert (
        seen[0].clients.requests,
        seen[0].clients.answered,
        seen[0].clients.in_flight,
    ) == (202, 200, 1)
    after = collect(endpoint)
    (failed,) = after.batches
    assert (failed.rows, failed.failed, len(failed.failures)) == (202, 2, 2)
    assert after.clients.errors == {"status 400": 2}
    assert after.clients.statuses == {"200": 200, "400": 2}
    assert after.clients.latency_seconds.count == 200


def test_a_report_shows_what_broke(server: Server) -> None:
    endpoint = RealEndpoint(url=server.url, protocol="openai", model="tiny")
    server.handler = hangs
    with pytest.raises(BatchFailedError):
        batch(endpoint, ["a"], work=chat(), deadline=0.2, max_retries=0, progress=False)
    clients = collect(endpoint).clients
    assert (clients.failed, clients.in_flight, clients.errors) == (
        1,
        0,
        {"TimeoutError": 1},
    )


def test_the_server_is_asked_less_when_it_sheds_load(server: Server) -> None:
    slots = 6

    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        if server._busy > slots:
            return web.Response(status=429)
        await asyncio.sleep(0.01)
        return await echo(request, body)

    server.handler = handler
    result = run(server, [f"text {number}" for number in range(1500)])
    assert result.failed == 0
    shed = len(server.requests) - 1500
    assert shed < 300
    assert result.retried == 0, "a busy server is not held against a row"


@pytest.mark.parametrize("bad", [status(503, "no"), status(429, "no")], ids=["503", "429"])
@pytest.mark.parametrize("every", [1000, 100], ids=["one row", "one in a hundred"])
def test_rows_that_are_always_refused_fail_alone(every: int, bad: Handler, server: Server) -> None:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        is_refused = int(text_of(body).split()[1]) % every == 50
        return await (bad if is_refused else echo)(request, body)

    server.handler = handler
    rows = [f"text {number}" for number in range(1000)]
    failed = [record for record in run(server, rows, outage_seconds=30) if record["error"]]
    assert [record["index"] for record in failed] == [*range(50, 1000, every)]
    assert {record["error"]["kind"] for record in failed} == {"overloaded"}
    assert {record["attempts"] for record in failed} == {6}


def test_a_function_whose_other_service_refuses_one_row_fails_it_alone(server: Server) -> None:
    async def elsewhere(client: Any, row: int) -> int:
        if row == 30:
            raise StatusError(429)
        return row

    records = list(run(server, range(200), work=elsewhere, outage_seconds=30))
    assert [record["index"] for record in records if record["error"]] == [30]


def test_retry_after_is_honoured(server: Server) -> None:
    times: list[float] = []

    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        times.append(time.monotonic())
        return await (status(429, "later", **{"Retry-After": "1"}) if len(times) == 1 else echo)(
            request, body
        )

    server.handler = handler
    result = run(server, ["a"])
    assert result.succeeded == 1
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize("code", [500, 503])
def test_a_retry_after_without_measure_is_bounded_and_no_outage(code: int, server: Server) -> None:
    server.handler = at_first(1, status(code, "later", **{"Retry-After": "86400"}))
    assert run(server, ["a"], outage_seconds=1).succeeded == 1


def test_a_server_that_always_says_later_ends_the_run(server: Server) -> None:
    server.handler = status(503, "later", **{"Retry-After": "1"})
    with pytest.raises(ServerNotReadyError):
        run(server, ["a"], outage_seconds=1)


def test_an_output_that_is_nested_too_deeply_fails_its_row_alone(server: Server) -> None:
    async def nests(client: Any, row: int) -> Any:
        value: list[Any] = []
        for _ in range(row):
            value = [value]
        return value

    records = list(run(server, [1, 100_000, 2], work=nests))
    assert [record["output"] for record in records] == [[[]], None, [[[]]]]
    assert records[1]["error"]["kind"] == "function"


DEEP = "[" * 100_000 + "]" * 100_000
USAGE = '"usage": {"prompt_tokens": 2, "completion_tokens": 3}'


def chat_answer(content: str = '"fine"', reason: str = '"stop"', usage: str = USAGE) -> str:
    choice = f'{{"message": {{"content": {content}}}, "finish_reason": {reason}}}'
    return f'{{"choices": [{choice}], {usage}}}'


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (chat_answer(usage='"usage": "many"'), None),
        (chat_answer(usage='"usage": {"prompt_tokens": "2", "completion_tokens": [3]}'), None),
        (
            chat_answer(usage=f'"usage": {{"prompt_tokens": -1, "completion_tokens": {10**30}}}'),
            None,
        ),
        (chat_answer(usage='"usage": {"prompt_tokens": NaN, "completion_tokens": true}'), None),
        (
            chat_answer(usage=f'"usage": {{"prompt_tokens": 2, "other": {"[" * 500 + "]" * 500}}}'),
            None,
        ),
        (chat_answer(reason='{"type": "stop"}'), "invalid_answer"),
        (chat_answer(reason="7"), "invalid_answer"),
        (chat_answer(content="{}"), "invalid_answer"),
        (chat_answer(content="[1, 2]"), "invalid_answer"),
        (chat_answer(content=DEEP), "invalid_answer"),
        (DEEP, "invalid_answer"),
        ("[" * 900 + "]" * 900, "invalid_answer"),
        ("null", "invalid_answer"),
        ('"text"', "invalid_answer"),
        ('{"choices": {"0": {}}}', "invalid_answer"),
        ('{"choices": [null]}', "invalid_answer"),
        ('{"choices": [{"message": "text"}]}', "invalid_answer"),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_whatever_an_answer_holds_fails_its_row_at_worst(
    name: str, answer: str, kind: str | None, server: Server, tmp_path: Path
) -> None:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        if text_of(body) != "text 3":
            return await echo(request, body)
        return web.Response(text=answer, content_type="application/json")

    server.handler = handler
    records = list(run(server, output=tmp_path / name, max_retries=0))
    assert [record["index"] for record in records] == list(range(20))
    kinds = [record["error"] and record["error"]["kind"] for record in records]
    assert kinds == [None] * 3 + [kind] + [None] * 16
    if kind is None:
        assert records[3]["output"] == "fine"
        assert records[3]["prompt_tokens"] in (0, 2)
        assert records[3]["completion_tokens"] == 0


@pytest.mark.parametrize(
    ("embedding", "output"),
    [
        ([0.5, -2], [0.5, -2.0]),
        (base64.b64encode(struct.pack("<2f", 0.5, -2)).decode(), [0.5, -2.0]),
        ("no base64!", None),
        (base64.b64encode(b"12345").decode(), None),
        ("", None),
        ([], None),
        (None, None),
        ([None], None),
        (["0.5"], None),
        ([True], None),
        ([[0.5, 1], [2, 3]], None),
        ({"0": 1}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_an_embedding_is_a_vector_or_fails_its_row(
    name: str, embedding: Any, output: Any, server: Server, tmp_path: Path
) -> None:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        value = embedding if text_of(body) == "text 3" else [1.0, 1.0]
        return web.json_response({"data": [{"embedding": value}]})

    server.handler = handler
    records = list(run(server, work=embeddings(), output=tmp_path / name, max_retries=0))
    assert [record["output"] for record in records] == [[1.0, 1.0]] * 3 + [output] + [
        [1.0, 1.0]
    ] * 16
    assert [record["error"] is not None for record in records] == [
        number == 3 and output is None for number in range(20)
    ]


class Raises:
    """A row whose methods all raise."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def tolist(self) -> Any:
        raise RuntimeError("no list")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "row",
    [
        {"id": 3, "text": nested(100_000)},
        {"id": nested(100_000), "text": "a"},
        {"id": 3, "text": Raises()},
        {"id": Raises(), "text": "a"},
        {"id": 10**5000, "text": "a"},
        nested(100_000),
        Raises(),
    ],
    ids=["deep text", "deep id", "text raises", "id raises", "vast id", "deep", "raises"],
)
@pytest.mark.parametrize("id_source", ["id", None])
def test_whatever_a_row_holds_fails_it_at_worst(
    row: Any, id_source: str | None, server: Server, tmp_path: Path
) -> None:
    rows = [{"id": number, "text": f"text {number}"} for number in range(2)]
    work = chat(column="text")
    is_harmless = id_source is None and isinstance(row, dict) and row["id"] == 10**5000
    records = list(run(server, [rows[0], row, rows[1]], work=work, id=id_source))
    kinds = [record["error"] and record["error"]["kind"] for record in records]
    assert kinds[::2] == [None, None]
    assert kinds[1] in (None, "invalid_row") if is_harmless else kinds[1] == "invalid_row"


def test_a_line_that_is_nested_too_deeply_fails_alone(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "a"}}\n{{"text": "b", "x": {DEEP}}}\n{{"text": "c"}}\n')
    records = list(run(server, path, work=chat(column="text")))
    assert [record["output"] for record in records] == ["answer to a", None, "answer to c"]
    assert "Line 2 of rows.jsonl" in records[1]["error"]["message"]


@pytest.mark.parametrize("value", ["+Inf", "NaN", "-Inf", "1e999", "e+"])
def test_a_gauge_that_is_no_number_does_not_end_the_run(value: str, server: Server) -> None:
    server.metrics = f"vllm:num_requests_waiting {value}\n"
    assert run(server).succeeded == len(TEXTS)


def test_an_answer_of_an_earlier_version_that_fits_no_column_is_told(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out.parquet", vectors=True)
    for number, vector in enumerate([[1.0], [[1.0]], "AAAA", [2.0]]):
        fields = dict.fromkeys(RECORD_FIELDS) | {"index": number, "output": vector}
        output.write(json.dumps(fields))
    output.finish()
    records = list(read_output(tmp_path / "out.parquet"))
    assert [record["output"] for record in records] == [[1.0], None, None, [2.0]]
    errors = [record["error"] and record["error"]["kind"] for record in records]
    assert errors == [None, "invalid_output", "invalid_output", None]


def test_rows_wait_for_a_server_that_dies_and_comes_back(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    restarted: list[threading.Thread] = []

    def restart() -> None:
        server.stop()
        time.sleep(0.7)
        server.start()

    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        if len(server.requests) >= 100 and not restarted:
            restarted.append(threading.Thread(target=restart))
            restarted[0].start()
        await asyncio.sleep(0.02)
        return await echo(request, body)

    server.handler = handler
    result = run(server, [f"text {number}" for number in range(300)], progress=True)
    restarted[0].join()
    assert [record["output"] for record in result] == [
        f"answer to text {number}" for number in range(300)
    ]
    said = capsys.readouterr().err
    assert f"{server.url} does not answer; waiting up to 5 min for it" in said
    assert f"{server.url} is back" in said


def test_a_server_that_stays_away_ends_the_run_which_can_be_continued(
    server: Server, tmp_path: Path
) -> None:
    stopping = threading.Thread(target=server.stop)

    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        if len(server.requests) == 300:
            stopping.start()
        return await echo(request, body)

    server.handler = handler
    rows = [f"text {number}" for number in range(2000)]
    with pytest.raises(
        ServerNotReadyError, match=r"has not answered for 1 s.*(Nothing listens|broke)"
    ) as caught:
        run(server, rows, output=tmp_path / "out.jsonl", outage_seconds=1)
    stopping.join()
    assert "the same call continues after them" in caught.value.hint
    server.start()
    result = run(server, rows, output=tmp_path / "out.jsonl")
    assert result.succeeded == 2000
    assert result.resumed >= 100


@pytest.mark.parametrize(
    "bad", [status(503, "loading"), hangs], ids=["503 for ever", "hangs for ever"]
)
def test_a_server_that_only_refuses_or_hangs_ends_the_run(bad: Handler, server: Server) -> None:
    server.handler = bad
    with pytest.raises(ServerNotReadyError, match="has not answered for 1 s"):
        run(server, outage_seconds=1, deadline=0.4)


def test_a_server_that_is_not_there_ends_the_run() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for model in ("", "tiny"):
            with pytest.raises(ServerNotReadyError, match=f"{url} .*Nothing listens"):
                batch(
                    Endpoint(url, model=model),
                    TEXTS,
                    work=chat(),
                    outage_seconds=0.5,
                    progress=False,
                )


def test_a_function_that_cannot_reach_something_else_does_not_wait_for_the_server(
    server: Server,
) -> None:
    async def elsewhere(client: Any, row: str) -> Any:
        raise ConnectionRefusedError("another service")

    result = run(server, TEXTS[:3], work=elsewhere, max_retries=2)
    assert [record["error"]["kind"] for record in result] == ["disconnected"] * 3
    assert [record["attempts"] for record in result] == [3] * 3


async def cancels_itself() -> None:
    raise asyncio.CancelledError


async def awaits_a_task_that_was_cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def cancels_a_group() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await asyncio.gather(future)


@pytest.mark.parametrize(
    "ending", [cancels_itself, awaits_a_task_that_was_cancelled, cancels_a_group]
)
def test_a_function_that_ends_cancelled_fails_its_row_alone(ending: Any, server: Server) -> None:
    async def function(client: Any, row: int) -> int:
        if row == 3:
            await ending()
        return row

    result = run(server, range(20), work=function)
    assert [record["index"] for record in result if record["error"]] == [3]
    assert result.failures[0].error["kind"] == "function"
    assert "CancelledError" in result.failures[0].error["message"]


def test_a_function_that_hangs_meets_the_deadline(server: Server) -> None:
    async def hang(client: Any, row: str) -> Any:
        await asyncio.sleep(60)

    (record,) = run(server, ["a"], work=hang, deadline=0.1, max_retries=1)
    assert record["error"]["kind"] == "timeout"
    assert record["attempts"] == 2


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (status(400), "rejected"),
        (status(500), "server_error"),
        (half, "disconnected"),
        (hangs, "timeout"),
    ],
    ids=["400", "500", "half an answer", "hangs"],
)
def test_errors_of_the_official_client_are_told_apart(
    bad: Handler, kind: str, server: Server
) -> None:
    """The client that functions get from a real endpoint, whose own patience is taken from it."""

    async def ask(client: Any, row: str) -> Any:
        answer = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": row}]
        )
        return answer.choices[0].message.content

    endpoint = RealEndpoint(
        url=server.url, protocol="openai", model="tiny", health_url=f"{server.url}/health"
    )
    options: Any = {
        "work": ask,
        "max_retries": 1,
        "progress": False,
        "allow_all_failed": True,
    }
    assert [record["output"] for record in batch(endpoint, TEXTS, **options)] == [
        f"answer to {t}" for t in TEXTS
    ]
    server.handler = bad
    (record,) = batch(endpoint, ["a"], **options, deadline=0.5 if bad is hangs else 60)
    assert record["error"]["kind"] == kind
    server.handler = at_first(1, status(429))
    assert batch(endpoint, TEXTS, **{**options, "max_retries": 0}).failed == 0


class StatusError(Exception):
    """As the official client's: https://github.com/openai/openai-python, `_exceptions.py`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Error code: {code}")
        self.status_code = code


@pytest.mark.parametrize(
    ("code", "kind", "attempts"), [(400, "rejected", 1), (500, "server_error", 3)]
)
def test_errors_of_a_functions_client_are_told_apart_by_their_status(
    code: int, kind: str, attempts: int, server: Server
) -> None:
    async def fails(client: Any, row: str) -> Any:
        raise StatusError(code)

    (record,) = run(server, ["a"], work=fails, max_retries=2)
    assert (record["error"]["kind"], record["error"]["status"], record["attempts"]) == (
        kind,
        code,
        attempts,
    )


@pytest.mark.parametrize(("name", "kept"), [("out.jsonl", "\ud83d"), ("out.parquet", "\\ud83d")])
def test_text_that_no_file_can_hold_is_kept_escaped(
    name: str, kept: str, server: Server, tmp_path: Path
) -> None:
    async def half_a_pair(request: web.Request, body: Any) -> web.StreamResponse:
        raw = json.dumps(
            {"choices": [{"message": {"content": "\ud83d"}, "finish_reason": "length"}]}
        )
        return web.Response(text=raw, content_type="application/json")

    server.handler = half_a_pair
    (record,) = run(server, ["a"], output=tmp_path / name)
    assert record["output"] == kept
    (record,) = run(
        server,
        [{"id": "\ude00", "text": 3}],
        work=chat(column="text"),
        id="id",
        output=tmp_path / name,
    )
    assert record["id"] == kept.replace("d83d", "de00").replace("\ud83d", "\ude00")
    assert record["error"]["kind"] == "invalid_row"


def test_a_long_queue_inside_the_server_is_seen_in_its_metrics(server: Server) -> None:
    async def slowly(request: web.Request, body: Any) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return await echo(request, body)

    server.handler = slowly
    server.metrics = 'vllm:num_requests_waiting{model_name="m"} 90.0\n'
    run(server, [f"text {number}" for number in range(600)])
    assert server.most <= 16
    server.most, server.metrics = 0, ""
    run(server, [f"text {number}" for number in range(600)])
    assert server.most > 16


def test_every_kind_of_fault_is_either_final_or_not_and_described() -> None:
    from flytekitplugins.inference.client.batch import faults

    assert not FINAL & RETRYABLE
    assert UNAVAILABLE <= RETRYABLE
    assert all(f"| `{kind}` |" in (faults.__doc__ or "") for kind in KINDS)


def test_answered_says_what_it_should() -> None:
    assert json.loads(answered("a").text or "")["choices"][0]["message"]["content"] == "a"
