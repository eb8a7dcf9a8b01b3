"""Flyte's own task checkpoint: flytekit's real classes and entry point, on a disk and on S3."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flytekit import FlyteContextManager
from flytekit.configuration import DataConfig, S3Config
from flytekit.core.checkpointer import SyncCheckpoint
from flytekit.core.context_manager import ExecutionParameters
from flytekit.core.data_persistence import FileAccessProvider
from moto.server import ThreadedMotoServer

from client.batch.stub import Server, echo
from flytekitplugins.inference.client.batch import batch, chat, checkpoint
from flytekitplugins.inference.client.batch.checkpoint import (
    CheckpointedJournal,
    current_checkpoint,
)
from flytekitplugins.inference.client.batch.journal import Finished, Journal
from patience import patient, wait_for

TEXTS = [f"text {number}" for number in range(40)]
TESTS = Path(__file__).parent.parent.parent


class PreemptedError(Exception):
    """Ends an attempt."""


class Attempts:
    """The attempts of one task, each with a place for its checkpoint and that of the one before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.number = 0

    def begin(self) -> SyncCheckpoint:
        self.number += 1
        before = str(self.root / str(self.number - 1)) if self.number > 1 else None
        return SyncCheckpoint(
            checkpoint_dest=str(self.root / str(self.number)), checkpoint_src=before
        )

    def run(self, server: Server, rows: Any = TEXTS, **options: Any) -> Any:
        """Run a batch as the next attempt."""
        return run_in(self.begin(), server, rows, **options)


def run_in(flyte: SyncCheckpoint | None, server: Server, rows: Any, **options: Any) -> Any:
    """Run a batch as the function of a task runs that has this checkpoint."""
    context = FlyteContextManager.current_context()
    parameters = ExecutionParameters.new_builder(context.user_space_params)
    parameters.checkpoint = flyte
    state = context.new_execution_state().with_params(user_space_params=parameters.build())
    with FlyteContextManager.with_context(context.with_execution_state(state)):
        return batch(server.endpoint, rows, **{"work": chat(), "progress": False, **options})


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(tmp_path / "checkpoints")


def stopping_after(server: Server, texts: list[str], finished: int) -> Iterator[str]:
    """Yield texts, and end the attempt when some of them are answered."""
    yield from texts[:finished]
    wait_for(lambda: len(server.requests) >= finished)
    time.sleep(0.1)
    raise PreemptedError


def test_outside_of_a_task_there_is_no_checkpoint() -> None:
    assert current_checkpoint() is None
    code = (
        "import sys; from flytekitplugins.inference.client.batch.checkpoint import "
        "current_checkpoint as c;"
    )
    code += "assert c() is None; assert 'flytekit' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_next_attempt_continues_and_so_does_the_one_after_it(
    server: Server, attempts: Attempts
) -> None:
    for finished in (10, 25):
        with pytest.raises(PreemptedError):
            attempts.run(server, stopping_after(server, TEXTS, finished))
    result = attempts.run(server)
    assert [record["output"] for record in result] == [f"answer to {text}" for text in TEXTS]
    assert result.resumed == 25, "the second attempt's checkpoint holds what the first did too"
    assert len(server.requests) == 40


def test_an_attempt_that_ended_before_its_first_upload_leaves_nothing_to_continue(
    server: Server, attempts: Attempts
) -> None:
    attempts.begin()
    assert attempts.run(server).resumed == 0


def test_batches_of_one_task_do_not_mix_their_checkpoints(
    server: Server, attempts: Attempts, tmp_path: Path
) -> None:
    flyte = attempts.begin()
    run_in(flyte, server, TEXTS[:10], output=tmp_path / "1" / "a.jsonl")
    run_in(flyte, server, TEXTS[:20], output=tmp_path / "1" / "b.jsonl")
    run_in(flyte, server, TEXTS[:5], work=chat(max_tokens=1), output=tmp_path / "1" / "a2.jsonl")
    server.requests.clear()
    flyte = attempts.begin()
    results = [
        run_in(flyte, server, TEXTS[:10], output=tmp_path / "2" / "a.jsonl"),
        run_in(flyte, server, TEXTS[:20], output=tmp_path / "2" / "b.jsonl"),
        run_in(
            flyte, server, TEXTS[:5], work=chat(max_tokens=1), output=tmp_path / "2" / "a2.jsonl"
        ),
    ]
    assert [result.resumed for result in results] == [10, 20, 5]
    assert server.requests == []


def test_changed_parameters_do_not_take_the_old_checkpoint(
    server: Server, attempts: Attempts
) -> None:
    attempts.run(server)
    assert attempts.run(server, work=chat(max_tokens=1)).resumed == 0


def test_resume_false_neither_reads_nor_writes_a_checkpoint(
    server: Server, attempts: Attempts
) -> None:
    attempts.run(server)
    assert attempts.run(server, resume=False).resumed == 0
    assert not (attempts.root / "2").exists()


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_work(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    flyte = SyncCheckpoint(checkpoint_dest=str(tmp_path / "file" / "place"))
    assert run_in(flyte, server, TEXTS, progress=True).succeeded == 40
    assert "the checkpoint could not be written" in capsys.readouterr().err


class Unreadable(SyncCheckpoint):
    """A store that is there but does not answer: nothing that runs here fails in that way."""

    def restore(self, path: Any = None) -> Any:
        raise ConnectionError("the store is away")


def test_a_checkpoint_that_cannot_be_read_ends_the_attempt(server: Server, tmp_path: Path) -> None:
    """Going on would compute everything again; Flyte's next attempt may read it."""
    with pytest.raises(ConnectionError, match="the store is away"):
        run_in(Unreadable(str(tmp_path / "b"), str(tmp_path / "a")), server, TEXTS)
    assert server.requests == []


def result(number: int, size: int = 10) -> Finished:
    return Finished(b"%016d" % number, b"content", True, False, '{"output": "%s"}' % ("x" * size))


class Uploads(SyncCheckpoint):
    """Counts what is uploaded."""

    def __init__(self, place: Path) -> None:
        super().__init__(str(place), str(place))
        self.bytes = 0

    def save(self, cp: Any) -> None:
        self.bytes += Path(cp).stat().st_size
        super().save(cp)


def test_uploads_are_segments_and_not_quadratic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SEGMENT_BYTES", 10_000)
    journal = Journal(tmp_path / "journal", {})
    uploads = Uploads(tmp_path / "place")
    copy = CheckpointedJournal(uploads, journal, "name")
    for first in range(0, 2000, 20):
        journal.add(result(number, 100) for number in range(first, first + 20))
        while copy.collect():
            pass
        assert copy.upload(pytest.fail)
    segments = list((tmp_path / "place").iterdir())
    size = sum(segment.stat().st_size for segment in segments)
    assert all(segment.stat().st_size < 11_000 for segment in segments)
    assert len(segments) == pytest.approx(size / 10_000, abs=3)
    assert uploads.bytes < 4 * size, "a whole journal each time would be fifty times its size"
    other = Journal(tmp_path / "other", {})
    assert CheckpointedJournal(uploads, other, "name").restore() == 2000
    assert (
        CheckpointedJournal(uploads, Journal(tmp_path / "third", {}), "another name").restore() == 0
    )


def test_a_segment_whose_last_line_was_cut_short_is_taken_up_to_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", {})
    journal.add(result(number) for number in range(5))
    copy = CheckpointedJournal(SyncCheckpoint(str(tmp_path / "place")), journal, "name")
    copy.collect()
    assert copy.upload(pytest.fail)
    (segment,) = (tmp_path / "place").iterdir()
    os.truncate(segment, segment.stat().st_size - 7)
    flyte = SyncCheckpoint(str(tmp_path / "next"), str(tmp_path / "place"))
    assert CheckpointedJournal(flyte, Journal(tmp_path / "other", {}), "name").restore() == 4


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    """An S3 server with a bucket, as flytekit's store."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    s3 = S3Config(endpoint=f"http://{host}:{port}", access_key_id="key", secret_access_key="secret")
    access = FileAccessProvider(
        str(tmp_path / "sandbox"), "s3://bucket/raw", data_config=DataConfig(s3=s3)
    )
    access.get_filesystem("s3").mkdir("bucket")
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.with_file_access(access)):
        yield "s3://bucket/checkpoints"
    moto.stop()


def test_a_checkpoint_in_s3_is_continued_and_an_empty_place_is_none(
    bucket: str, server: Server
) -> None:
    nothing = SyncCheckpoint(f"{bucket}/1", f"{bucket}/0")
    with pytest.raises(PreemptedError):
        run_in(nothing, server, stopping_after(server, TEXTS, 15))
    assert run_in(SyncCheckpoint(f"{bucket}/2", f"{bucket}/1"), server, TEXTS).resumed == 15
    assert run_in(SyncCheckpoint(f"{bucket}/3", f"{bucket}/2"), server, TEXTS).resumed == 40


WORKFLOW = """
import os
from pathlib import Path
from client.batch.stub import Endpoint
from flytekit import current_context, task
from flytekitplugins.inference.client.batch import batch, chat

@task
def ask() -> int:
    endpoint = Endpoint(os.environ["BATCH_URL"])
    output = Path(current_context().working_directory, "out.jsonl")
    result = batch(endpoint, (f"text {n}" for n in range(2500)), work=chat(), output=output)
    assert [record["output"] for record in result] == [f"answer to text {n}" for n in range(2500)]
    print("resumed", result.resumed)
    return result.rows
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_flytes_entry_point_continues_after_preemption(
    number: int, server: Server, tmp_path: Path
) -> None:
    """Two attempts of `pyflyte-execute`, as Flyte starts them in pods; the first is preempted."""
    from flyteidl.core import literals_pb2

    (tmp_path / "flow.py").write_text(WORKFLOW)
    (tmp_path / "inputs.pb").write_bytes(literals_pb2.LiteralMap().SerializeToString())

    async def handler(request: Any, body: Any) -> Any:
        while len(server.requests) > 1500 and not preempted.is_set():
            await asyncio.sleep(0.01)
        return await echo(request, body)

    preempted = threading.Event()

    server.handler = handler

    def attempt(count: int) -> subprocess.Popen[str]:
        place = tmp_path / f"attempt-{count}"
        place.mkdir()
        before = str(tmp_path / f"attempt-{count - 1}" / "checkpoint") if count else '""'
        words = ["--inputs", str(tmp_path / "inputs.pb"), "--output-prefix", str(place)]
        words += [
            "--raw-output-data-prefix",
            str(place),
            "--checkpoint-path",
            str(place / "checkpoint"),
        ]
        words += ["--prev-checkpoint", before]
        words += ["--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--"]
        words += ["task-module", "flow", "task-name", "ask"]
        program = str(Path(sys.executable).with_name("pyflyte-execute"))
        environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{TESTS}", "BATCH_URL": server.url}
        return subprocess.Popen(
            [program, *words],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    first = attempt(0)
    # some answers are saved, and the server holds the next ones back
    saved = lambda: list((tmp_path / "attempt-0").rglob("*000001.jsonl"))  # noqa: E731
    wait_for(lambda: (len(server.requests) > 1500 and saved()) or first.poll() is not None, 60)
    assert first.poll() is None, first.communicate()[0]
    first.send_signal(number)
    assert first.stdout is not None
    if number == signal.SIGTERM:
        assert any("stopping; waiting" in line for line in first.stdout)
        preempted.set()
    first.communicate(timeout=patient(60))
    preempted.set()
    sent = len(server.requests)
    assert sent < 2500
    second = attempt(1)
    said = second.communicate(timeout=patient(120))[0]
    assert second.returncode == 0, said
    assert "results of an earlier attempt are in Flyte's checkpoint" in said
    resumed = int(said.partition("resumed ")[2].split()[0])
    assert resumed > 0
    if number == signal.SIGTERM:
        assert resumed == sent, "all that was answered is uploaded before the process ends"
