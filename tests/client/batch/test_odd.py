"""Odd answers, odd rows and odd tables: each fails its row at worst, or works."""

from __future__ import annotations

import datetime
import json
import sqlite3
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy
import pandas
import pyarrow
import pydantic
import pytest
from aiohttp import web

from client.batch.stub import Server, echo, text_of
from flytekitplugins.inference.client.batch import batch, chat, embeddings, structured
from flytekitplugins.inference.client.batch.json_form import as_json
from flytekitplugins.inference.client.batch.rows import open_rows
from flytekitplugins.inference.client.endpoint import Endpoint as RealEndpoint
from flytekitplugins.inference.client.server_address import ServerDetails
from flytekitplugins.inference.errors import UnsupportedError

TEXTS = [f"text {number}" for number in range(5)]


def run(server: Server, rows: Any = TEXTS, **options: Any) -> Any:
    return batch(server.endpoint, rows, **{"work": chat(), "progress": False, **options})


def errors(result: Any) -> list[Any]:
    return [record["error"] and record["error"]["kind"] for record in result]


@pytest.mark.parametrize(
    ("reason", "kind", "requests"),
    [
        ("abort", "invalid_answer", 2),
        ("error", "invalid_answer", 2),
        ("content_filter", "invalid_output", 1),
        ("stop", None, 1),
        ("length", None, 1),
        (None, None, 1),
    ],
)
def test_half_a_text_is_a_failure(
    reason: str | None, kind: str | None, requests: int, server: Server
) -> None:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        if text_of(body) != "text 3":
            return await echo(request, body)
        choice = {"message": {"content": "half a"}, "finish_reason": reason}
        return web.json_response({"choices": [choice]})

    server.handler = handler
    result = run(server, max_retries=1)
    assert errors(result) == [None, None, None, kind, None]
    assert server.texts.count("text 3") == requests


@pytest.mark.parametrize(
    ("vector", "kind"),
    [([1.0, 2.0], None), ([1.0], "invalid_answer"), ([1.0, float("nan")], "invalid_answer")],
    ids=str,
)
def test_a_vector_has_the_length_of_the_others(
    vector: Any, kind: str | None, server: Server
) -> None:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        value = vector if text_of(body) == "text 3" else [0.5, 0.5]
        return web.json_response({"data": [{"embedding": value}]})

    server.handler = handler
    result = run(server, work=embeddings(), max_retries=0, max_concurrency=1)
    assert errors(result) == [None, None, None, kind, None]


def test_null_is_no_output(server: Server) -> None:
    async def nothing(client: Any, row: str) -> Any:
        return None if row == "text 3" else row

    result = run(server, work=nothing)
    assert errors(result) == [None, None, None, "function", None]

    async def null(request: web.Request, body: Any) -> web.StreamResponse:
        text = "null" if text_of(body) == "text 3" else "1"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})

    server.handler = null
    result = run(server, work=structured({"type": ["null", "integer"]}))
    assert errors(result) == [None, None, None, "invalid_output", None]


def test_an_endless_answer_is_not_read_to_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "flytekitplugins.inference.client.batch.caller"
    monkeypatch.setattr(f"{module}.MAX_ANSWER_BYTES", 1 << 20)
    sent = 0

    async def endless(request: web.Request, body: Any) -> web.StreamResponse:
        nonlocal sent
        if text_of(body) != "text 3":
            return await echo(request, body)
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    server.handler = endless
    result = run(server)
    assert errors(result) == [None, None, None, "invalid_output", None]
    assert "longer than 1 MiB" in result.failures[0].error["message"]
    assert sent < 64 << 20


class Frame(pandas.DataFrame):
    """A subclass, which has another name."""


ROWS = [{"text": "a", "label": 1}, {"text": "b", "label": 2}]


def cursor(rows: list[dict[str, Any]]) -> sqlite3.Cursor:
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("CREATE TABLE reviews (text TEXT, label INTEGER)")
    database.executemany("INSERT INTO reviews VALUES (:text, :label)", rows)
    return database.execute("SELECT text, label FROM reviews")


def row_cursor(rows: list[dict[str, Any]]) -> sqlite3.Cursor:
    one = cursor(rows)
    one.row_factory = sqlite3.Row
    return one


class ArrowStream:
    """Speaks Arrow's protocol, and is nothing else."""

    def __init__(self, rows: Any) -> None:
        self._table = pyarrow.Table.from_pylist(rows)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "make",
    [
        pandas.DataFrame,
        Frame,
        pyarrow.Table.from_pylist,
        pyarrow.RecordBatch.from_pylist,
        lambda rows: pyarrow.Table.from_pylist(rows).to_reader(),
        lambda rows: pyarrow.dataset.dataset(pyarrow.Table.from_pylist(rows)),
        ArrowStream,
        cursor,
        row_cursor,
        iter,
    ],
)
def test_a_table_is_known_by_what_it_can_do(make: Any) -> None:
    import pyarrow.dataset  # noqa: F401, makes `pyarrow.dataset` usable above

    assert list(open_rows(make(ROWS)).values) == ROWS  # type: ignore[arg-type]


def test_a_cursor_of_another_thread_says_what_to_do(server: Server) -> None:
    database = sqlite3.connect(":memory:")
    with pytest.raises(UnsupportedError, match="check_same_thread=False"):
        run(server, database.execute("SELECT 'a' AS text"), work=chat(column="text"))


def test_messages_of_a_table_are_arrays(server: Server) -> None:
    messages = numpy.array([{"role": "user", "content": "a"}], dtype=object)
    frame = pandas.DataFrame({"messages": [messages]})
    for rows, work in ((frame, chat()), (frame, chat(column="messages"))):
        assert [record["output"] for record in run(server, rows, work=work)] == ["answer to a"]


@pytest.mark.parametrize(
    ("row_id", "shown"),
    [
        (1.0, 1),
        (numpy.int64(7), 7),
        (uuid.UUID(int=5), str(uuid.UUID(int=5))),
        (numpy.float64(3), 3),
    ],
    ids=repr,
)
def test_an_id_may_be_of_a_tables_types(row_id: Any, shown: Any, server: Server) -> None:
    (record,) = run(server, [{"id": row_id, "text": "a"}], work=chat(column="text"), id="id")
    assert record["id"] == shown


class Label(pydantic.BaseModel):
    name: str
    when: datetime.date


@dataclass
class Score:
    value: float


@pytest.mark.parametrize(
    ("value", "output"),
    [
        (numpy.arange(3), [0, 1, 2]),
        (numpy.float32(0.5), 0.5),
        (pandas.Series([1, 2]), [1, 2]),
        (Label(name="a", when=datetime.date(2026, 1, 2)), {"name": "a", "when": "2026-01-02"}),
        ({"inner": Score(1.5)}, {"inner": {"value": 1.5}}),
        (Path("a/b"), "a/b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_function_may_return_arrays_and_models(value: Any, output: Any, server: Server) -> None:
    async def function(client: Any, row: str) -> Any:
        return value

    (record,) = run(server, ["a"], work=function)
    assert record["output"] == output
    with pytest.raises(TypeError, match="of type object"):
        as_json(object())


def test_a_function_may_change_the_row_it_gets(server: Server) -> None:
    seen: list[Any] = []

    async def function(client: Any, row: dict[str, Any]) -> int:
        seen.append(json.dumps(row))
        row["text"] += "!"
        row["tags"].append("seen")
        if len(seen) == 1:
            raise ConnectionResetError("once")
        return 1

    rows = [{"text": "a", "tags": ["x"]}]
    assert run(server, rows, work=function).succeeded == 1
    assert rows == [{"text": "a", "tags": ["x"]}]
    assert len(set(seen)) == 1


def test_a_row_with_an_incomparable_value_is_asked_again_when_its_text_changes(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def read(client: Any, row: dict[str, Any]) -> str:
        return str(row["text"])

    def once(text: str) -> Any:
        rows = [{"id": 1, "text": text, "image": object()}]
        return run(server, rows, work=read, id="id", output=tmp_path / "out.jsonl", progress=True)

    assert once("a").resumed == 0
    assert "row 1 holds a value of type object, which cannot be compared" in capsys.readouterr().err
    assert once("a").resumed == 1
    result = once("b")
    assert [(record["output"], result.resumed) for record in result] == [("b", 0)]


def test_another_model_of_the_same_name_starts_anew(server: Server, tmp_path: Path) -> None:
    endpoint = RealEndpoint(url=server.url, protocol="openai", model="fraud")

    def resumed(source: str) -> int:
        about = ServerDetails(model=source)
        at = replace(endpoint, about=about)
        options: Any = {"output": tmp_path / "out.jsonl", "progress": False}
        return batch(at, TEXTS, work=chat(), **options).resumed

    assert [resumed("models:/fraud/3"), resumed("models:/fraud/3")] == [0, 5]
    assert [resumed("models:/fraud/4"), resumed("models:/fraud/4")] == [0, 5]


def test_a_process_without_standard_error_runs_a_batch(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoTerminal:
        def write(self, text: str) -> None: ...

        def flush(self) -> None: ...

    for stream in (None, NoTerminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        assert run(server, progress=True).succeeded == 5


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_client_follows_redirects_on_its_host_only(name: str, server: Server) -> None:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        if "again" in request.query:
            return await echo(request, body)
        target = server.url.replace("127.0.0.1", name) + "/v1/chat/completions?again=1"
        return web.Response(status=307, headers={"Location": target})

    server.handler = handler
    client = RealEndpoint(url=server.url, protocol="openai", model="tiny").client()
    ask = client.chat.completions.create
    messages: Any = [{"role": "user", "content": "secret"}]
    if name == "127.0.0.1":
        answer = ask(model="tiny", messages=messages).choices[0].message.content
        assert answer == "answer to secret"
    else:
        with pytest.raises(Exception, match="another host must not get its content"):
            ask(model="tiny", messages=messages)
        assert len(server.requests) == 1


def test_rows_that_were_never_sent_have_no_speed(server: Server) -> None:
    result = run(server, range(50), allow_all_failed=True)
    assert (result.failed, result.answered, result.rows_per_second) == (50, 0, 0)
    result = run(server, [*TEXTS, 7])
    assert (result.answered, result.failed) == (5, 1)
    assert 1 <= result.most_in_flight <= 6, "also in a run that is over in a moment"
    assert result.summary()["most_in_flight"] == result.most_in_flight


def test_the_validator_of_a_schema_is_made_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    validator_for = jsonschema.validators.validator_for

    def counted(schema: Any, *args: Any, **options: Any) -> Any:
        made.append(schema)
        return validator_for(schema, *args, **options)

    async def number(request: web.Request, body: Any) -> web.StreamResponse:
        text = "1.5" if text_of(body) == "text 3" else "1"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})

    server.handler = number
    work = structured({"type": "integer", "title": "made once"})
    monkeypatch.setattr(jsonschema.validators, "validator_for", counted)
    result = run(server, work=work)
    assert errors(result) == [None, None, None, "invalid_output", None]
    assert "1.5 is not of type 'integer'" in result.failures[0].error["message"]
    assert len(made) <= 1
