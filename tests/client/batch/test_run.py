"""`batch` and `abatch` from input to result, against a server over HTTP."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest
from aiohttp import web
from pyarrow import dataset, parquet
from pydantic import BaseModel

from client.batch.stub import Endpoint, Server, answered, text_of
from flytekitplugins.inference.client.batch import (
    abatch,
    batch,
    chat,
    completion,
    embeddings,
    structured,
)
from flytekitplugins.inference.client.batch.progress import Counts, Progress, Rates, render
from flytekitplugins.inference.errors import (
    ConfigError,
    MissingDependencyError,
    SourceNotFoundError,
    UnsupportedError,
)

polars = pytest.importorskip("polars", reason="one of the kinds of table")
TEXTS = [f"text {number}" for number in range(50)]
ROWS = [{"id": f"r{number}", "text": text} for number, text in enumerate(TEXTS)]


def outputs(result: Any) -> list[Any]:
    return [record["output"] for record in result]


def numbered() -> Iterator[dict[str, str]]:
    yield from ROWS


async def numbered_async() -> AsyncIterator[dict[str, str]]:
    for row in ROWS:
        await asyncio.sleep(0)
        yield row


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: ROWS,
        lambda folder: numbered(),
        lambda folder: numbered_async(),
        lambda folder: pandas.DataFrame(ROWS),
        lambda folder: polars.DataFrame(ROWS),
        lambda folder: pyarrow.Table.from_pylist(ROWS),
        lambda folder: pyarrow.RecordBatch.from_pylist(ROWS),
        lambda folder: pyarrow.Table.from_pylist(ROWS).to_reader(7),
        lambda folder: dataset.dataset(pyarrow.Table.from_pylist(ROWS)),
        lambda folder: written(folder / "rows.jsonl"),
        lambda folder: str(written(folder / "rows.parquet")),
    ],
    ids=[
        "list",
        "generator",
        "async generator",
        "pandas",
        "polars",
        "table",
        "record batch",
        "reader",
        "dataset",
        "jsonl",
        "parquet",
    ],
)
def test_every_kind_of_input_is_answered_in_order(
    make: Any, server: Server, tmp_path: Path
) -> None:
    result = batch(
        server.endpoint, make(tmp_path), work=chat(column="text"), id="id", progress=False
    )
    assert outputs(result) == [f"answer to {text}" for text in TEXTS]
    assert [(record["index"], record["id"]) for record in result] == [
        (n, f"r{n}") for n in range(50)
    ]
    assert (result.rows, result.succeeded, result.failed, result.resumed) == (50, 50, 0, 0)


def written(path: Path) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n")
    return path


@pytest.mark.parametrize(
    "column",
    [
        pandas.Series(TEXTS),
        polars.Series(TEXTS),
        pyarrow.array(TEXTS),
        pyarrow.chunked_array([TEXTS[:20], TEXTS[20:]]),
    ],
    ids=lambda column: type(column).__module__.partition(".")[0],
)
def test_a_column_of_a_table_is_an_input(column: Any, server: Server) -> None:
    assert outputs(batch(server.endpoint, column, work=chat(), progress=False)) == [
        f"answer to {t}" for t in TEXTS
    ]


def test_the_order_is_the_inputs_whatever_order_the_answers_have(server: Server) -> None:
    async def slow_first(request: web.Request, body: Any) -> web.StreamResponse:
        number = int(text_of(body).split()[1])
        await asyncio.sleep(0.5 if number == 0 else 0.02 * (number % 3))
        return answered(text_of(body))

    server.handler = slow_first
    assert outputs(batch(server.endpoint, TEXTS, work=chat(), progress=False)) == TEXTS


def test_records_are_written_before_all_rows_are_read(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    seen: list[int] = []

    def rows() -> Iterator[str]:
        yield from TEXTS[:10]
        for _ in range(500):
            if partial(path):
                break
            threading.Event().wait(0.01)
        seen.append(partial(path))
        yield "the last"

    batch(server.endpoint, rows(), work=chat(), output=path, progress=False)
    assert 1 <= seen[0] <= 10
    assert len(path.read_text().splitlines()) == 11
    assert not Path(f"{path}.partial").exists()


def partial(path: Path) -> int:
    file = Path(f"{path}.partial")
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_an_input_is_not_read_far_ahead_of_the_server(server: Server) -> None:
    ahead: list[int] = []

    def rows() -> Iterator[str]:
        for number in range(20_000):
            ahead.append(number - len(server.requests))
            yield f"{number}"

    batch(server.endpoint, rows(), work=chat(), max_concurrency=8, progress=False)
    assert max(ahead) < 2000


def test_chat_sends_system_messages_and_parameters(server: Server) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    work = chat(system="Be brief.", max_tokens=7, temperature=0.5)
    batch(server.endpoint, [{"messages": messages}], work=work, progress=False)
    assert server.requests == [
        {
            "model": "tiny",
            "max_tokens": 7,
            "temperature": 0.5,
            "messages": [{"role": "system", "content": "Be brief."}, *messages],
        }
    ]


def test_completion_sends_a_prompt(server: Server) -> None:
    result = batch(server.endpoint, ["a"], work=completion(max_tokens=1), progress=False)
    assert server.requests == [{"model": "tiny", "max_tokens": 1, "prompt": "a"}]
    assert outputs(result) == ["answer to a"]


def test_embeddings_are_lists_of_numbers_and_a_column_of_lists_in_parquet(
    server: Server, tmp_path: Path
) -> None:
    async def embed(request: web.Request, body: Any) -> web.StreamResponse:
        vector = [float(len(body["input"])), 0.5]
        return web.json_response(
            {"data": [{"embedding": vector, "index": 0}], "usage": {"prompt_tokens": 4}}
        )

    server.handler = embed
    path = tmp_path / "out.parquet"
    result = batch(server.endpoint, ["a", "bb"], work=embeddings(), output=path, progress=False)
    assert outputs(result) == [[1.0, 0.5], [2.0, 0.5]]
    assert pyarrow.types.is_list(parquet.read_schema(path).field("output").type)
    assert result.prompt_tokens == 8


class City(BaseModel):
    name: str
    people: int


async def a_city(request: web.Request, body: Any) -> web.StreamResponse:
    schema = body["response_format"]["json_schema"]["schema"]
    assert set(schema["properties"]) == {"name", "people"}
    people = "many" if text_of(body) == "wrong" else 7
    return answered(
        "no JSON"
        if text_of(body) == "broken"
        else json.dumps({"name": text_of(body), "people": people})
    )


@pytest.mark.parametrize(
    "schema", [City, City.model_json_schema()], ids=["pydantic", "JSON schema"]
)
def test_structured_outputs_are_validated_and_invalid_ones_reported(
    schema: Any, server: Server
) -> None:
    server.handler = a_city
    result = batch(
        server.endpoint, ["Bern", "wrong", "broken"], work=structured(schema), progress=False
    )
    good, wrong, broken = result
    assert good["output"] == {"name": "Bern", "people": 7}
    assert wrong["output"] is None
    assert wrong["error"]["kind"] == "invalid_output"
    assert "people" in wrong["error"]["message"]
    assert '"many"' in wrong["error"]["message"]
    assert "no JSON" in broken["error"]["message"]
    assert len(server.requests) == 3, "the same request would get the same output"


def test_a_structured_output_that_was_cut_off_says_so(server: Server) -> None:
    async def cut(request: web.Request, body: Any) -> web.StreamResponse:
        choice = {"message": {"content": '{"name": "Be'}, "finish_reason": "length"}
        return web.json_response({"choices": [choice]})

    server.handler = cut
    (record,) = batch(
        server.endpoint, ["Bern"], work=structured(City), progress=False, allow_all_failed=True
    )
    assert "raise max_tokens" in record["error"]["message"]


def test_a_function_of_the_users_own_gets_the_client_and_the_row(server: Server) -> None:
    async def length(client: Any, row: dict[str, str]) -> dict[str, Any]:
        return {"client": client, "length": len(row["text"])}

    endpoint = Endpoint(server.url, protocol="v2", client="the client")
    result = batch(endpoint, ROWS[:2], work=length, progress=False)
    assert outputs(result) == [{"client": "the client", "length": 6}] * 2


def test_a_function_that_raises_fails_its_row_alone(server: Server) -> None:
    async def picky(client: Any, row: str) -> Any:
        if row == "text 3":
            raise KeyError("three")
        if row == "text 4":
            return {1, 2}
        return row

    result = batch(server.endpoint, TEXTS[:6], work=picky, progress=False)
    assert [record["error"] and record["error"]["kind"] for record in result] == [None] * 3 + [
        "function"
    ] * 2 + [None]
    assert "KeyError: 'three'" in str(result.failures[0])
    assert "no form as JSON" in str(result.failures[1])


def test_the_model_is_the_first_that_the_server_lists_when_the_endpoint_names_none(
    server: Server,
) -> None:
    batch(Endpoint(server.url, model=""), ["a"], work=chat(), progress=False)
    assert server.requests[0]["model"] == "listed"


def test_several_models_are_not_guessed_among(server: Server) -> None:
    server.models = ("base", "adapter")
    with pytest.raises(
        ConfigError, match="lists 'base', 'adapter': which one to ask for is not clear"
    ):
        batch(Endpoint(server.url, model=""), ["a"], work=chat(), progress=False)
    batch(Endpoint(server.url, model=""), ["a"], work=chat(model="adapter"), progress=False)
    assert server.requests[0]["model"] == "adapter"


def test_a_servers_key_goes_with_each_request(server: Server) -> None:
    keys: list[str | None] = []

    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        keys.append(request.headers.get("Authorization"))
        return answered("a")

    server.handler = handler
    batch(Endpoint(server.url, api_key="secret"), ["a"], work=chat(), progress=False)
    assert keys == ["Bearer secret"]


@pytest.mark.parametrize("asked", ["rows", "output"])
def test_without_pyarrow_a_parquet_file_says_what_to_install(
    asked: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "rows.parquet").touch()
    rows = tmp_path / "rows.parquet" if asked == "rows" else ["a"]
    output = tmp_path / ("out.parquet" if asked == "output" else "out.jsonl")
    with pytest.raises(MissingDependencyError, match=r"pyarrow.*pip install .*\[batch\]>=2"):
        batch(server.endpoint, rows, work=chat(), output=output, progress=False)
    assert server.requests == []


def test_parquet_and_pandas_have_the_records_columns(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.parquet"
    rows: list[Any] = [*ROWS[:2], 5]
    result = batch(
        server.endpoint, rows, work=chat(column="text"), id="id", output=path, progress=False
    )
    frame = result.to_pandas()
    assert list(frame.index) == [0, 1, 2]
    assert list(frame["output"][:2]) == ["answer to text 0", "answer to text 1"]
    assert pandas.isna(frame["output"][2])
    assert frame["error"][2]["kind"] == "invalid_row"
    assert list(frame["completion_tokens"]) == [3, 3, 0]
    jsonl = batch(
        server.endpoint, rows, work=chat(column="text"), id="id", progress=False
    ).to_pandas()
    assert set(jsonl.columns) == set(frame.columns)
    assert list(jsonl["prompt_tokens"]) == list(frame["prompt_tokens"])


def test_the_summary_is_json_and_counts_add_up(server: Server) -> None:
    result = batch(server.endpoint, [*TEXTS, 1, None], work=chat(), progress=False)
    summary = json.loads(json.dumps(result.summary()))
    assert (summary["rows"], summary["succeeded"], summary["failed"]) == (52, 50, 2)
    assert (summary["prompt_tokens"], summary["completion_tokens"]) == (100, 150)
    assert [failure["index"] for failure in summary["failures"]] == [50, 51]
    assert len(result) == 52


def test_it_works_inside_a_running_event_loop(server: Server) -> None:
    async def main() -> list[Any]:
        return outputs(batch(server.endpoint, TEXTS, work=chat(), progress=False))

    assert asyncio.run(main()) == [f"answer to {text}" for text in TEXTS]


def test_the_async_twin_returns_the_result_and_yields_records_in_order(server: Server) -> None:
    async def main() -> None:
        result = await abatch(server.endpoint, TEXTS, work=chat(), progress=False)
        assert outputs(result) == [f"answer to {text}" for text in TEXTS]
        run = abatch(server.endpoint, numbered_async(), work=chat(column="text"), progress=False)
        records = [record async for record in run]
        assert [record["index"] for record in records] == list(range(50))
        assert run.result is not None
        assert run.result.succeeded == 50
        with pytest.raises(ConfigError, match="started before"):
            await run

    asyncio.run(main())


def test_leaving_an_async_iteration_stops_the_work(server: Server) -> None:
    async def main() -> None:
        rows = (f"text {number}" for number in range(100_000))
        run = abatch(server.endpoint, rows, work=chat(), max_concurrency=4, progress=False)
        records = aiter(run)
        await anext(records)
        await records.aclose()  # type: ignore[attr-defined]
        sent = len(server.requests)
        await asyncio.sleep(0.1)
        assert len(server.requests) <= sent + 4
        assert sent < 10_000

    asyncio.run(main())


def test_an_empty_input_has_an_empty_result(server: Server, tmp_path: Path) -> None:
    result = batch(server.endpoint, [], work=chat(), output=tmp_path / "out.jsonl", progress=False)
    assert (result.rows, list(result)) == (0, [])
    assert (tmp_path / "out.jsonl").read_text() == ""
    assert len(result.to_pandas()) == 0
    parquet_result = batch(
        server.endpoint, iter(()), work=chat(), output=tmp_path / "out.parquet", progress=False
    )
    assert list(parquet_result) == []


def test_an_input_that_raises_ends_the_run_and_keeps_what_is_finished(
    server: Server, tmp_path: Path
) -> None:
    def rows() -> Iterator[str]:
        yield from TEXTS[:20]
        while len(server.requests) < 20:
            threading.Event().wait(0.01)
        threading.Event().wait(0.2)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        batch(server.endpoint, rows(), work=chat(), output=tmp_path / "out.jsonl", progress=False)
    result = batch(
        server.endpoint, TEXTS[:20], work=chat(), output=tmp_path / "out.jsonl", progress=False
    )
    assert result.resumed == 20


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ({"text": "a"}, ConfigError, "a dict with 'text'"),
        (7, ConfigError, "of type int: 7; expected an iterable"),
        (None, ConfigError, "rows is None"),
        (b"abc", ConfigError, "bytes"),
        ("absent.jsonl", SourceNotFoundError, "no such file"),
        ("what is this", SourceNotFoundError, r"\[text\]"),
        (Path(__file__), UnsupportedError, "'.py'; expected .jsonl"),
        (polars.DataFrame(ROWS).lazy(), UnsupportedError, "collect"),
    ],
    ids=[
        "mapping",
        "number",
        "None",
        "bytes",
        "absent file",
        "a text",
        "another format",
        "lazy frame",
    ],
)
def test_what_is_no_input_is_refused(
    rows: Any, error: type[Exception], message: str, server: Server
) -> None:
    with pytest.raises(error, match=message):
        batch(server.endpoint, rows, work=chat(), progress=False)
    assert server.requests == []


def test_all_wrong_arguments_are_told_at_once(server: Server) -> None:
    with pytest.raises(ConfigError) as caught:
        batch(
            server.endpoint,
            [],
            work=chat(),
            max_concurrency=0,
            deadline=float("nan"),
            max_failures=-1,
            id=3,
        )  # type: ignore[arg-type]
    assert len(caught.value.problems) == 4
    for name in ("max_concurrency=0", "deadline=nan", "max_failures=-1", "id=3"):
        assert name in str(caught.value)


async def three(client: Any, row: Any, more: Any) -> None: ...


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (len, "expected chat"),
        ("chat", "expected chat"),
        (three, "cannot be called with"),
        (lambda client, row: row, "async def"),
    ],
    ids=["a function", "a text", "three arguments", "not async"],
)
def test_what_is_no_work_is_refused(work: Any, message: str, server: Server) -> None:
    with pytest.raises(ConfigError, match=message):
        batch(server.endpoint, TEXTS, work=work, progress=False)


@pytest.mark.parametrize(
    "parameters", [{"stream": True}, {"n": 2}, {"messages": []}, {"stop": {1, 2}}], ids=str
)
def test_parameters_that_do_not_go_with_a_batch_are_refused(parameters: Any) -> None:
    with pytest.raises(ConfigError, match="parameter"):
        chat(**parameters)


@pytest.mark.parametrize("schema", [7, {"type": "no such type"}], ids=str)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigError, match="schema"):
        structured(schema)


def test_a_server_of_another_protocol_needs_a_function(server: Server) -> None:
    with pytest.raises(UnsupportedError, match="'v2'"):
        batch(Endpoint(server.url, protocol="v2"), TEXTS, work=chat(), progress=False)


def test_an_output_of_another_kind_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"out\.csv.*expected a name that ends with"):
        batch(server.endpoint, TEXTS, work=chat(), output=tmp_path / "out.csv", progress=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_in_a_terminal_and_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    counts = Counts(total=200, succeeded=98, failed=2, completion_tokens=500, in_flight=16)
    terminal, plain = Terminal(), io.StringIO()
    for stream in (terminal, plain):
        progress = Progress(stream=stream)
        progress.update(Counts(), now=0.0)
        progress.update(counts, now=10.0, last=True)
    expected = "100 of 200 rows (50%), 10.0 rows/s, 50 tokens/s, 16 in flight, 2 failed, ETA 10 s"
    assert plain.getvalue() == f"batch: {expected}\n"
    assert terminal.getvalue().endswith(f"\r\x1b[2K[{'█' * 10}{'·' * 10}] {expected}\n")


def test_progress_without_a_known_total_has_no_share_and_no_eta() -> None:
    assert (
        render(Counts(succeeded=1), Rates(), bar=True)
        == "1 rows, 0.0 rows/s, 0 in flight, 0 failed"
    )


def test_progress_goes_to_standard_error_unless_it_is_off(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    batch(server.endpoint, TEXTS, work=chat())
    assert "50 of 50 rows (100%)" in capsys.readouterr().err
    batch(server.endpoint, TEXTS, work=chat(), progress=False)
    assert capsys.readouterr() == ("", "")


def test_importing_it_imports_nothing_but_the_standard_library() -> None:
    heavy = "{'aiohttp', 'pyarrow', 'flytekit', 'pydantic'}"
    code = (
        f"import sys, flytekitplugins.inference.client.batch; print(sys.modules.keys() & {heavy})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_async_input_that_raises_ends_the_run_after_what_came_before(
    server: Server, tmp_path: Path
) -> None:
    async def rows() -> AsyncIterator[str]:
        for text in TEXTS[:10]:
            yield text
        while len(server.requests) < 10:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        raise OSError("the queue is gone")

    with pytest.raises(OSError, match="the queue is gone"):
        batch(server.endpoint, rows(), work=chat(), output=tmp_path / "out.jsonl", progress=False)
    assert (
        batch(
            server.endpoint, TEXTS, work=chat(), output=tmp_path / "out.jsonl", progress=False
        ).resumed
        == 10
    )


def test_a_slow_input_does_not_hold_back_the_rows_that_came(server: Server) -> None:
    """Each row waits for the answer to the one before."""

    def rows() -> Iterator[str]:
        for number, text in enumerate(TEXTS):
            while len(server.requests) < number:
                threading.Event().wait(0.001)
            yield text

    assert batch(server.endpoint, rows(), work=chat(), progress=False).succeeded == 50
