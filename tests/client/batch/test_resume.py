"""What a rerun takes over: after an end in order, Ctrl-C, SIGTERM and SIGKILL."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from client.batch.stub import Endpoint, Server, echo, text_of
from flytekitplugins.inference.client.batch import abatch, batch, chat
from flytekitplugins.inference.errors import DestinationError
from patience import patient, wait_for

TEXTS = [f"text {number}" for number in range(30)]
TESTS = Path(__file__).parent.parent.parent

PROGRAM = """
    import sys
    from pathlib import Path
    from client.batch.stub import Endpoint
    from flytekitplugins.inference.client.batch import batch, chat

    url, output, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
    batch(Endpoint(url), (f"text {n}" for n in range(rows)), work=chat(), output=output)
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def run(server: Server, rows: Any = TEXTS, **options: Any) -> Any:
    usual = {"work": chat(), "progress": False, "allow_all_failed": True}
    return batch(server.endpoint, rows, **{**usual, **options})


def texts_of(result: Any) -> list[Any]:
    return [record["output"] for record in result]


async def slowly(request: web.Request, body: Any) -> web.StreamResponse:
    await asyncio.sleep(0.05)
    return await echo(request, body)


def start(server: Server, output: Path, rows: int) -> subprocess.Popen[str]:
    """Start a batch as a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), server.url, str(output), str(rows)]
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)


def wait_for_requests(server: Server, number: int) -> None:
    wait_for(lambda: len(server.requests) >= number)


def test_a_rerun_of_a_complete_run_asks_nothing(
    server: Server, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(server, output=output)
    content = output.read_bytes()
    server.requests.clear()
    again = run(server, output=output, progress=True)
    assert server.requests == []
    assert output.read_bytes() == content
    assert (first.resumed, again.resumed, again.succeeded) == (0, 30, 30)
    assert (
        f"continues: 30 results of an earlier run are in {output}.journal"
        in capsys.readouterr().err
    )


def test_rows_are_known_by_their_content_wherever_they_stand(server: Server, output: Path) -> None:
    run(server, output=output)
    server.requests.clear()
    rows = ["new", *reversed(TEXTS), "text 3"]
    result = run(server, rows, output=output)
    assert sorted(server.texts) == ["new", "text 3"], (
        "the second row of that content is another row"
    )
    assert texts_of(result) == [f"answer to {text}" for text in rows]


def test_rows_of_equal_content_are_all_answered_and_all_resumed(
    server: Server, output: Path
) -> None:
    rows = ["a"] * 700 + ["b"] + ["a"] * 700
    assert run(server, rows, output=output).succeeded == 1401
    assert Counter(server.texts) == {"a": 1400, "b": 1}
    assert run(server, rows, output=output).resumed == 1401


def test_rows_with_an_id_are_asked_again_only_when_their_content_changed(
    server: Server, output: Path
) -> None:
    rows = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    run(server, rows, work=chat(column="text"), id="id", output=output)
    server.requests.clear()
    rows[4]["text"] = "changed"
    result = run(server, rows[::-1], work=chat(column="text"), id="id", output=output)
    assert server.texts == ["changed"]
    assert [record["id"] for record in result] == list(range(29, -1, -1))
    assert result.resumed == 29


def test_changed_parameters_start_anew_and_say_what_changed(
    server: Server, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(server, output=output, work=chat(max_tokens=5))
    server.requests.clear()
    result = run(server, output=output, work=chat(max_tokens=6), progress=True)
    assert (result.resumed, len(server.requests)) == (0, 30)
    said = capsys.readouterr().err
    assert (
        f"starts anew, because this is not what {output}.journal is about (max_tokens: 5 → 6)"
        in said
    )
    assert Path(f"{output}.journal.previous").exists()


async def loud(client: Any, row: str) -> str:
    return row.upper()


async def quiet(client: Any, row: str) -> str:
    return row.lower()


def test_a_changed_function_starts_anew_and_the_same_one_continues(
    server: Server, output: Path
) -> None:
    assert run(server, work=loud, output=output).resumed == 0
    assert run(server, work=loud, output=output).resumed == 30
    result = run(server, work=quiet, output=output)
    assert result.resumed == 0
    assert texts_of(result) == TEXTS


@pytest.mark.parametrize(
    "options", [{"deadline": 5.0}, {"max_concurrency": 2}, {"max_retries": 0}, {"max_failures": 9}]
)
def test_what_changes_no_answer_does_not_start_anew(
    options: Any, server: Server, output: Path
) -> None:
    run(server, output=output)
    assert run(server, output=output, **options).resumed == 30


def test_another_server_of_the_same_model_continues(server: Server, output: Path) -> None:
    run(server, output=output)
    port = int(server.url.rpartition(":")[2])
    result = batch(
        Endpoint(f"http://localhost:{port}"), TEXTS, work=chat(), output=output, progress=False
    )
    assert result.resumed == 30


def test_resume_false_starts_anew(server: Server, output: Path) -> None:
    run(server, output=output)
    assert run(server, output=output, resume=False).resumed == 0
    assert len(server.requests) == 60


def test_failures_that_may_pass_are_asked_again_and_others_kept(
    server: Server, output: Path
) -> None:
    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        code = {"text 1": 400, "text 2": 500}.get(text_of(body), 0)
        return web.Response(status=code) if code else await echo(request, body)

    server.handler = handler
    assert run(server, output=output, max_retries=0).failed == 2
    server.handler = echo
    server.requests.clear()
    result = run(server, output=output)
    assert server.texts == ["text 2"]
    assert (result.failed, result.resumed) == (1, 29)
    assert [record["index"] for record in result if record["error"]] == [1]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_result_that_is_not_ours_is_not_overwritten(
    suffix: str, server: Server, tmp_path: Path
) -> None:
    foreign = tmp_path / f"out{suffix}"
    foreign.write_text("precious")
    with pytest.raises(DestinationError, match=r"exists without out.*\.journal beside it"):
        run(server, output=foreign)
    assert foreign.read_text() == "precious"
    assert server.requests == []


def test_a_journal_that_is_none_is_not_overwritten(server: Server, output: Path) -> None:
    journal = Path(f"{output}.journal")
    journal.write_text("something else entirely, and longer than the head of a database " * 20)
    with pytest.raises(DestinationError, match="is not the journal of a batch"):
        run(server, output=output)
    assert journal.read_text().startswith("something else")


def test_a_database_of_another_program_is_not_touched(server: Server, output: Path) -> None:
    with sqlite3.connect(f"{output}.journal") as database:
        database.execute("CREATE TABLE parameters (other INTEGER)")
    with pytest.raises(DestinationError, match="is not the journal of a batch"):
        run(server, output=output)


def test_two_runs_do_not_write_one_output(server: Server, output: Path) -> None:
    server.handler = slowly
    process = start(server, output, 2000)
    wait_for_requests(server, 20)
    with pytest.raises(DestinationError, match="Another process is writing"):
        run(server, output=output)
    process.kill()
    process.communicate()


def test_a_directory_that_cannot_be_written_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DestinationError, match="cannot be written"):
        run(server, output=tmp_path / "file" / "out.jsonl")


def test_killed_again_and_again_every_row_is_there_once_in_order(
    server: Server, output: Path
) -> None:
    server.handler = slowly
    chance, rows = random.Random(5), 1500
    for kill in range(4):
        process = start(server, output, rows)
        wait_for_requests(
            server, min(len(server.requests) + chance.randint(30, 300), rows - 100 + 20 * kill)
        )
        process.kill()
        process.communicate()
    assert not output.exists(), "what stands there is never a part of a result"
    process = start(server, output, rows)
    said = process.communicate()[1]
    assert process.returncode == 0, said
    assert "continues: " in said
    records = [json.loads(line) for line in output.open()]
    assert [record["index"] for record in records] == list(range(rows))
    assert [record["output"] for record in records] == [
        f"answer to text {number}" for number in range(rows)
    ]
    # in flight at a kill, at most; the bench measures what was answered twice
    twice = len(server.requests) - rows
    assert twice <= 4 * server.most


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, None), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_signal_stops_the_work_keeps_what_is_finished_and_has_its_effect(
    number: int, code: int | None, server: Server, output: Path
) -> None:
    server.handler = slowly
    process = start(server, output, 3000)
    wait_for_requests(server, 200)
    process.send_signal(number)
    said = process.communicate(timeout=patient(30))[1]
    assert "batch: stopped; what is finished is kept, the same call continues" in said
    if code is None:
        assert "KeyboardInterrupt" in said
        assert process.returncode != 0
    else:
        assert process.returncode == code
    before = len(server.requests)
    process = start(server, output, 3000)
    process.communicate(timeout=patient(60))
    assert process.returncode == 0
    assert len(server.requests) == 3000, "no row is asked for twice"
    assert before < 3000
    assert len(output.read_text().splitlines()) == 3000


def test_a_cancelled_task_keeps_what_is_finished(server: Server, output: Path) -> None:
    rows = [f"text {number}" for number in range(300)]

    async def first_200(request: web.Request, body: Any) -> web.StreamResponse:
        while int(text_of(body).split()[1]) >= 200:
            await asyncio.sleep(0.01)
        return await echo(request, body)

    server.handler = first_200
    partial = output.with_name(output.name + ".partial")

    async def main() -> None:
        async def all_rows() -> None:
            await abatch(server.endpoint, rows, work=chat(), output=output, progress=False)

        task = asyncio.create_task(all_rows())
        while not partial.exists() or partial.read_bytes().count(b"\n") < 200:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    server.handler = echo
    assert run(server, rows, output=output).resumed == 200


def test_an_async_iteration_continues_too(server: Server, output: Path) -> None:
    run(server, TEXTS[:20], output=output)

    async def main() -> list[str]:
        run = abatch(server.endpoint, iter(TEXTS), work=chat(), output=output, progress=False)
        return [record["output"] async for record in run]

    assert asyncio.run(main()) == [f"answer to {text}" for text in TEXTS]
    assert len(server.requests) == 30


def test_the_journal_may_be_deleted_and_then_the_result_is_protected(
    server: Server, output: Path
) -> None:
    run(server, output=output)
    for file in output.parent.glob("*.journal*"):
        file.unlink()
    with pytest.raises(DestinationError, match="Move it away"):
        run(server, output=output)


def test_a_temporary_result_goes_with_its_object(server: Server) -> None:
    result = run(server)
    path = result.path
    assert path.exists()
    del result
    assert not path.exists()
