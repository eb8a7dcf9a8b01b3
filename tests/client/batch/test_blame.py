"""Whose fault it is: the row's, the server's or a setting's, and what follows from that."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from client.batch.stub import Endpoint, Handler, Server, echo, text_of
from flytekitplugins.inference.client.batch import batch, chat
from flytekitplugins.inference.client.batch.breaker import FEWEST_ROWS, Breaker
from flytekitplugins.inference.client.batch.common_fault import (
    FEWEST_ALIKE,
    FEWEST_MISCONFIGURED,
    CommonFault,
)
from flytekitplugins.inference.client.batch.faults import Fault, fault_of_exception, fault_of_status
from flytekitplugins.inference.client.batch.journal import Journal
from flytekitplugins.inference.client.batch.limiter import Limiter
from flytekitplugins.inference.client.batch.rows import Row
from flytekitplugins.inference.errors import (
    BatchFailedError,
    DestinationError,
    ServerError,
    ServerNotReadyError,
)

MANY = [f"text {number}" for number in range(400)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come as they do, only sooner."""
    module = "flytekitplugins.inference.client.batch"
    monkeypatch.setattr(f"{module}.retry_policy.BACKOFF_BASE_SECONDS", 0.01)
    monkeypatch.setattr(f"{module}.retry_policy.BACKOFF_CAP_SECONDS", 0.05)


def run(server: Server, rows: Any = MANY, **options: Any) -> Any:
    return batch(server.endpoint, rows, **{"work": chat(), "progress": False, **options})


def status(code: int, text: str = "no", **headers: str) -> Handler:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        return web.Response(status=code, text=text, headers=headers)

    return handler


def for_rows(bad: Handler, *numbers: int) -> Handler:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        is_bad = int(text_of(body).split()[1]) in numbers
        return await (bad if is_bad else echo)(request, body)

    return handler


CONTEXT = [
    (400, "This model's maximum context length is 4096 tokens. However, you requested 5000"),
    (400, '{"error": {"code": 400, "type": "exceed_context_size_error"}}'),
    (400, "request (9412 tokens) exceeds the available context size (8192 tokens)"),
    (400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
    (400, "Input length 131393 exceeds the maximum allowed input length of 131040 tokens."),
    (400, "Requested token count exceeds the model's maximum context length of 4096 tokens."),
    (400, "the input length exceeds the context length"),
    (400, '{"error": {"code": "context_length_exceeded"}}'),
    (413, "`inputs` must have less than 512 tokens. Given: 600"),
    (413, "Payload Too Large"),
    (422, "`inputs` must have less than 512 tokens. Given: 600"),
    (500, "input is too large to process. increase the physical batch size"),
]


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        *((code, text, "too_long") for code, text in CONTEXT),
        (400, "temperature must be at most 2", "rejected"),
        (400, "max_tokens must be at least 1", "rejected"),
        (422, "Input should be a valid string", "rejected"),
        (415, "", "rejected"),
        *((code, "no", "misconfigured") for code in (301, 302, 307, 308, 401, 403, 404, 405, 407)),
        (408, "", "timeout"),
        (429, "", "overloaded"),
        (500, "boom", "server_error"),
        (501, "", "server_error"),
        (502, "<html>Bad Gateway</html>", "overloaded"),
        (503, "", "overloaded"),
        (504, "", "server_error"),
    ],
)
def test_a_status_says_whose_fault_it_is(code: int, text: str, kind: str) -> None:
    assert fault_of_status(code, text, {}).kind == kind


@pytest.mark.parametrize("code", [401, 403, 404, 405, 407])
def test_what_another_key_or_path_cures_is_asked_again(
    code: int, server: Server, tmp_path: Path
) -> None:
    server.handler = for_rows(status(code), 3)
    options: Any = {"output": tmp_path / "out.jsonl"}
    assert run(server, MANY[:10], **options).failed == 1
    server.handler, server.requests = echo, []
    result = run(server, MANY[:10], **options)
    assert (result.succeeded, result.resumed, server.texts) == (10, 9, ["text 3"])


def test_what_a_longer_context_cures_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.handler = for_rows(status(*CONTEXT[0]), 3)
    options: Any = {"output": tmp_path / "out.jsonl"}
    assert run(server, MANY[:10], **options).failures[0].error["kind"] == "too_long"
    server.handler = echo
    assert run(server, MANY[:10], **options).succeeded == 10


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (status(401, "bad key"), "status 401: bad key .*another key"),
        (status(404, "no model x"), "status 404: no model x .*the name of the model"),
        (
            status(307, Location="http://elsewhere.example/v1"),
            "redirects to http://elsewhere.example/v1",
        ),
    ],
    ids=["401", "404", "307"],
)
@pytest.mark.parametrize("answered", [0, 200])
def test_the_same_setting_for_every_row_ends_the_run_early(
    answered: int, bad: Handler, message: str, server: Server, tmp_path: Path
) -> None:
    server.handler = for_rows(bad, *range(answered, 4000))
    rows = [f"text {number}" for number in range(4000)]
    with pytest.raises(BatchFailedError, match=message) as caught:
        run(server, rows, output=tmp_path / "out.jsonl")
    assert str(caught.value).count("\n") == 0, "one sentence"
    assert len(server.requests) < 2000
    server.handler = echo
    result = run(server, rows, output=tmp_path / "out.jsonl")
    assert (result.succeeded, result.resumed >= answered) == (4000, True)


@pytest.mark.parametrize(
    ("rows", "work", "message"),
    [
        (
            ({"body": str(number)} for number in range(10**6)),
            chat(column="text"),
            "expected a mapping with the column 'text'",
        ),
        (iter(range(10**6)), chat(), "expected a text or a list of messages"),
    ],
    ids=["no such column", "no text"],
)
def test_first_rows_that_all_lack_something_end_the_run_early(
    rows: Iterator[Any], work: Any, message: str, server: Server
) -> None:
    with pytest.raises(BatchFailedError, match=message):
        run(server, rows, work=work)
    assert next(rows) not in (None, 10**6 - 1), "the rest is not read"


def test_a_run_in_which_every_row_fails_is_an_error(server: Server, tmp_path: Path) -> None:
    server.handler = status(400, "temperature is too high")
    path = tmp_path / "out.jsonl"
    with pytest.raises(BatchFailedError, match="All 3 rows failed") as caught:
        run(server, MANY[:3], output=path)
    assert "row 1: rejected: The server answered with status 400" in str(caught.value)
    assert len(path.read_text().splitlines()) == 3, "the reasons are in the output"
    assert run(server, MANY[:3], output=path, allow_all_failed=True).failed == 3
    assert run(server, [], output=tmp_path / "none.jsonl").rows == 0


def test_a_result_with_a_failed_row_raises_on_request(server: Server) -> None:
    server.handler = for_rows(status(400), 3)
    with pytest.raises(BatchFailedError, match="1 of 10 rows failed") as caught:
        run(server, MANY[:10]).raise_if_failed()
    assert "row 4: rejected" in str(caught.value)
    server.handler = echo
    result = run(server, MANY[:10])
    assert result.raise_if_failed() is result


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_server_that_fails_every_row_burns_none(
    code: int, server: Server, tmp_path: Path
) -> None:
    server.handler = status(code, "engine is dead")
    options: Any = {"output": tmp_path / "out.jsonl", "outage_seconds": 1}
    with pytest.raises(ServerNotReadyError, match=r"The last fault: .*engine is dead"):
        run(server, **options)
    assert len(server.requests) < 400, "fewer than one for each row"
    server.handler = echo
    result = run(server, **options)
    assert (result.succeeded, result.resumed) == (400, 0)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_rows_wait_while_the_server_fails_every_one(code: int, server: Server) -> None:
    began: list[float] = []

    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        began.append(now)
        return await (status(code) if now < began[0] + 1.5 else echo)(request, body)

    server.handler = handler
    # not 1: with pauses as short as here, a row may be asked again before the breaker opens
    result = run(server, max_retries=3)
    assert (result.succeeded, result.failed) == (400, 0)
    assert len(server.requests) < 800


@pytest.mark.parametrize("numbers", [range(380, 400), range(20), range(0, 400, 20)], ids=str)
def test_bad_rows_that_stand_side_by_side_are_the_rows_fault(
    numbers: range, server: Server
) -> None:
    server.handler = for_rows(status(500, "bad image"), *numbers)
    result = run(server, max_retries=2, outage_seconds=30)
    assert [record["index"] for record in result if record["error"]] == [*numbers]
    assert {record["attempts"] for record in result if record["error"]} == {3}


@pytest.mark.parametrize(
    ("history", "in_flight", "is_open"),
    [
        ([("server_error", 0)] * 7, 0, False),
        ([("server_error", 0)] * 8, 0, True),
        ([("timeout", 0)] * 8, 0, True),
        ([("disconnected", 0)] * 8, 0, True),
        ([("overloaded", 0)] * 8, 0, True),
        ([("unreachable", 0)] * 100, 0, False),
        ([("no_files", 0)] * 100, 0, False),
        ([("server_error", 1)] * 100, 0, False),
        ([("server_error", 0)] * 8, 9, False),
        ([("server_error", 0)] * 9, 9, True),
        ([("server_error", 0)] * 7 + ["answer"] + [("server_error", 0)] * 7, 0, False),
        ([("server_error", 0)] * 8 + ["answer"], 0, False),
    ],
)
def test_the_breaker_opens_when_rows_fail_and_none_is_answered(
    history: list[Any], in_flight: int, is_open: bool
) -> None:
    assert FEWEST_ROWS == 8
    breaker = Breaker()
    for number, event in enumerate(history):
        if event == "answer":
            breaker.answered(Row(number, "a"))
        else:
            kind, attempts = event
            row = Row(number, "a", attempts=attempts)
            breaker.failed(row, Fault(kind, kind), in_flight=in_flight)
    assert breaker.is_open is is_open


def test_one_row_that_fails_often_does_not_open_the_breaker() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.failed(Row(7, "a"), Fault("timeout", ""), in_flight=0)
    assert not breaker.is_open


@pytest.mark.parametrize(
    ("history", "is_everyones"),
    [
        (["misconfigured"] * (FEWEST_MISCONFIGURED - 1), False),
        (["misconfigured"] * FEWEST_MISCONFIGURED, True),
        (["", *["misconfigured"] * FEWEST_MISCONFIGURED], True),
        (["misconfigured", ""] * 100, False),
        (["invalid_row"] * (FEWEST_ALIKE - 1), False),
        (["invalid_row"] * FEWEST_ALIKE, True),
        (["rejected"] * FEWEST_ALIKE, True),
        (["", *["invalid_row"] * 10 * FEWEST_ALIKE], False),
        (["invalid_row", "rejected"] * FEWEST_ALIKE, False),
    ],
)
def test_a_fault_is_everyones_when_all_rows_have_it(history: list[Any], is_everyones: bool) -> None:
    common = CommonFault()
    for kind in history:
        if kind:
            common.failed(Fault(kind, kind))
        else:
            common.succeeded()
    assert common.is_everyones is is_everyones


class ConnectError(Exception):
    """As aiohttp's, which holds the operating system's error."""

    def __init__(self, os_error: Exception) -> None:
        super().__init__(str(os_error))
        self.os_error = os_error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "misconfigured", "name has no address"),
        (ssl.SSLCertVerificationError(1, "self-signed"), "misconfigured", "No TLS connection"),
        (OSError(errno.EMFILE, "Too many open files"), "no_files", "Too many open files"),
        (OSError(errno.ENFILE, "Too many open files"), "no_files", "Too many open files"),
    ],
)
@pytest.mark.parametrize("how", ["itself", "held", "cause"])
def test_a_failed_connection_says_what_it_is(
    how: str, error: Exception, kind: str, message: str
) -> None:
    outer: Exception = error
    if how == "held":
        outer = ConnectError(error)
    if how == "cause":
        outer = RuntimeError("connection error")
        outer.__cause__ = error
    fault = fault_of_exception(outer)
    assert fault.kind == kind
    assert message in fault.message


@pytest.mark.parametrize("model", ["", "tiny"])
def test_a_server_that_speaks_no_tls_is_told_at_once(model: str, server: Server) -> None:
    endpoint = Endpoint(server.url.replace("http:", "https:"), model=model)
    with pytest.raises((BatchFailedError, ServerError), match="No TLS connection"):
        batch(endpoint, MANY, work=chat(), progress=False)


@pytest.mark.parametrize("model", ["", "tiny"])
def test_an_unknown_host_is_told_at_once(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_name(self: Any, *args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", no_name)
    with pytest.raises((BatchFailedError, ServerError), match="name has no address"):
        batch(Endpoint("http://nowhere.invalid", model=model), MANY, work=chat(), progress=False)


def test_too_many_open_files_are_told_once_and_lower_the_limit(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = 0

    async def takes_a_file(client: Any, row: int) -> int:
        nonlocal busy
        if busy >= 5:
            raise OSError(errno.EMFILE, "Too many open files")
        busy += 1
        await asyncio.sleep(0.005)
        busy -= 1
        return row

    result = run(server, range(300), work=takes_a_file, progress=True)
    assert (result.succeeded, result.max_concurrency) == (300, 5)
    assert capsys.readouterr().err.count("too many open files") == 1


def test_a_lower_ceiling_holds() -> None:
    limiter = Limiter(512)
    tickets = [limiter.send(0.0) for _ in range(16)]
    limiter.lower_ceiling(tickets.pop(), 0.1)
    assert (limiter.ceiling, limiter.limit) == (15, 12)
    for ticket in tickets:
        limiter.answered(ticket, 0.2)
    for now in range(1, 3000):
        while limiter.has_room:
            tickets.append(limiter.send(float(now)))
        limiter.answered(tickets.pop(0), now + 0.5)
        assert limiter.in_flight < 15


def test_a_file_system_without_locks_is_not_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "a.journal", {})
    with pytest.raises(DestinationError, match="Another process is writing"):
        Journal(tmp_path / "a.journal", {})

    def no_locks(*args: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with pytest.raises(DestinationError, match="file system has no file locks"):
        Journal(tmp_path / "a.journal", {})
    journal.close()


def test_a_redirect_gets_no_rows(server: Server) -> None:
    target = f"{server.url}/v1/embeddings"
    server.handler = status(307, Location=target)
    with pytest.raises(BatchFailedError, match="redirects to"):
        run(server, ["a secret"])
    assert len(server.requests) == 1
