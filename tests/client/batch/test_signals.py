"""SIGTERM and Ctrl-C at awkward moments of a batch: a process, a real server and a checkpoint."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from client.batch.stub import Server, echo, text_of
from flytekitplugins.inference.client.batch.signals import stopped_by_signals
from patience import patient

TESTS = Path(__file__).parent.parent.parent
ANSWERED = 40
"""Rows that the server answers at once; it holds back the others."""
FOREVER = 3600.0

PROGRAM = """
    import shutil
    import signal
    import sys
    from client.batch.stub import Endpoint
    from flytekitplugins.inference.client.batch import batch, chat, opening, runner

    url, directory, seconds, *words = sys.argv[1:]
    runner.STOP_SECONDS = float(seconds)


    class Checkpoint:
        def prev_exists(self):
            return False

        def save(self, path):
            if "slow-save" in words:
                print("saving", flush=True)
                sys.stdin.readline()  # until the test closes it
            shutil.copy(path, directory)


    class OfTheCaller(Exception):
        pass


    def raises(number, frame):
        raise OfTheCaller


    def rows():
        for number in range(10_000):
            if "slow-input" in words and number == 40:
                sys.stdin.readline()
            yield f"text {number}"


    opening.current_checkpoint = Checkpoint
    signal.signal(signal.SIGUSR1, raises)
    model = "" if "no-model" in words else "tiny"
    output = f"{directory}/out.jsonl"
    batch(Endpoint(url, model), rows(), work=chat(), output=output, progress=False)
"""


class Run:
    """A batch whose first rows are answered and whose others wait for `release`."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.answered: list[str] = []
        self.said = ""
        self._released = threading.Event()
        server.handler = self._answer

    def start(self, *words: str, stop_seconds: float = FOREVER) -> None:
        program = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
        self.process = subprocess.Popen(
            [*program, self.server.url, str(self.directory), str(stop_seconds), *words],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait_for_answers(self) -> None:
        """Wait until all that the server does not hold back is in the output."""
        output = self.directory / "out.jsonl.partial"
        self.wait_until(lambda: output.exists() and output.read_bytes().count(b"\n") == ANSWERED)

    def wait_for_requests(self) -> None:
        """Wait until the server also holds some back."""
        self.wait_for_answers()
        self.wait_until(lambda: len(self.server.requests) > ANSWERED)

    def wait_until_it_says(self, words: str) -> None:
        assert self.process.stderr is not None
        until = time.monotonic() + patient(60)
        while words not in self.said:
            assert time.monotonic() < until, self.said
            if select.select([self.process.stderr], [], [], 1.0)[0]:
                got = os.read(self.process.stderr.fileno(), 1 << 16).decode()
                assert got, f"it ended: {self.said}"
                self.said += got

    def wait_until(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + patient(60)
        while not condition():
            assert time.monotonic() < until
            assert self.process.poll() is None
            time.sleep(0.005)

    def release(self) -> None:
        self._released.set()

    def end(self) -> int:
        """Wait for the process; return its exit code."""
        self.said += self.process.communicate(timeout=patient(60))[1].decode()
        return self.process.returncode

    def saved(self) -> list[str]:
        """Return the outputs in the checkpoint, sorted."""
        lines = [
            line
            for file in self.directory.glob("batch-*.jsonl")
            for line in file.read_text().splitlines()
        ]
        records = [json.loads(json.loads(line)[4]) for line in lines]
        assert all(record["error"] is None for record in records)
        return sorted(record["output"] for record in records)

    async def _answer(self, request: web.Request, body: Any) -> web.StreamResponse:
        while int(text_of(body).split()[1]) >= ANSWERED and not self._released.is_set():
            await asyncio.sleep(0.01)
        self.answered.append(f"answer to {text_of(body)}")
        return await echo(request, body)


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Iterator[Run]:
    run = Run(server, tmp_path)
    yield run
    run.release()
    run.process.kill()
    run.process.communicate()


def assert_had_its_effect(number: int, run: Run) -> None:
    code = run.end()
    assert "batch: stopped; what is finished is kept, the same call continues" in run.said
    if number == signal.SIGINT:
        assert code != 0
        assert run.said.rstrip().endswith("KeyboardInterrupt")
    else:
        assert code == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("moment", "further"),
    [
        pytest.param("", [], id="requests in flight"),
        pytest.param("slow-save", [], id="an upload under way"),
        pytest.param("", [signal.SIGTERM, signal.SIGTERM], id="and SIGTERM again and again"),
    ],
)
def test_all_that_the_server_answers_is_in_the_checkpoint(
    moment: str, further: list[int], number: int, run: Run
) -> None:
    run.start(moment)
    run.wait_for_requests()
    if moment == "slow-save":
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == b"saving\n"
    run.process.send_signal(number)
    run.wait_until_it_says("Ctrl-C ends at once")
    in_flight = int(run.said.partition("waiting up to 1 h for the answers to ")[2].split()[0])
    sent = ANSWERED + in_flight
    run.wait_until(lambda: len(run.server.requests) == sent)
    for again in further:
        run.process.send_signal(again)
    run.release()
    assert_had_its_effect(number, run)
    assert len(run.server.requests) == sent, "nothing is sent once it is to stop"
    assert len(run.answered) == sent
    assert run.saved() == sorted(run.answered)


def test_what_is_not_answered_in_time_is_given_up(run: Run) -> None:
    run.start(stop_seconds=0.2)
    run.wait_for_requests()
    run.process.send_signal(signal.SIGTERM)
    assert_had_its_effect(signal.SIGTERM, run)
    assert run.saved() == sorted(run.answered)
    assert len(run.answered) == ANSWERED


def test_what_is_finished_is_saved_before_the_rest_is_waited_for(run: Run) -> None:
    """The kill may come before the requests in flight are answered."""
    run.start()
    run.wait_for_requests()
    run.process.send_signal(signal.SIGTERM)
    run.wait_until_it_says("Ctrl-C ends at once")
    run.wait_until(lambda: len(run.saved()) == ANSWERED)


def test_a_server_that_goes_meanwhile_fails_no_row(run: Run) -> None:
    run.start()
    run.wait_for_requests()
    run.process.send_signal(signal.SIGTERM)
    run.wait_until_it_says("Ctrl-C ends at once")
    run.server.stop()
    assert_had_its_effect(signal.SIGTERM, run)
    assert run.saved() == sorted(run.answered)
    run.server.start()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_it_ends_at_once(first: int, run: Run) -> None:
    run.start()
    run.wait_for_requests()
    run.process.send_signal(first)
    run.wait_until_it_says("Ctrl-C ends at once")
    run.process.send_signal(signal.SIGINT)
    assert_had_its_effect(signal.SIGINT, run)
    assert len(run.answered) == ANSWERED, "the requests in flight were not waited for"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_nothing_in_flight_nothing_is_waited_for(number: int, run: Run) -> None:
    run.start("slow-input")
    run.wait_for_answers()
    run.process.send_signal(number)
    run.wait_until_it_says("batch: stopped")  # its input is open until then: no row comes after 40
    assert_had_its_effect(number, run)
    assert "waiting" not in run.said
    assert len(run.saved()) == ANSWERED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_waits_for_its_server_is_stopped(number: int, run: Run) -> None:
    asked = threading.Event()

    async def models(request: web.Request) -> web.Response:
        asked.set()
        return web.Response(status=503)

    run.server.stop()
    run.server._models = models  # type: ignore[method-assign]
    run.server.start()
    run.start("no-model")
    run.wait_until(asked.is_set)
    run.process.send_signal(number)
    assert_had_its_effect(number, run)


def test_an_exception_of_a_handler_of_the_callers_comes_after_all_is_kept(run: Run) -> None:
    """On Python 3.10 to 3.12 this marks a thread as ended that is waited for with `Thread.join`."""
    run.start()
    run.wait_for_requests()
    run.process.send_signal(signal.SIGUSR1)
    run.wait_until_it_says("Ctrl-C ends at once")
    run.release()
    assert run.end() == 1
    assert run.said.rstrip().endswith("OfTheCaller")
    assert len(run.answered) == len(run.server.requests) > ANSWERED
    assert run.saved() == sorted(run.answered)


@pytest.mark.parametrize(
    ("number", "handler"),
    [
        pytest.param(signal.SIGTERM, signal.SIG_IGN, id="SIGTERM ignored"),
        pytest.param(signal.SIGINT, signal.SIG_IGN, id="SIGINT ignored"),
    ],
)
def test_what_the_caller_has_set_stays(number: int, handler: Any) -> None:
    before = signal.signal(number, handler)
    try:
        with stopped_by_signals(lambda: pytest.fail("stopped")) as interruption:
            signal.raise_signal(number)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert interruption.number == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_handlers_are_as_before_and_the_signal_has_its_effect_after_the_block(
    number: int,
) -> None:
    happened: list[str] = []

    def interrupted() -> None:
        with stopped_by_signals(lambda: happened.append("stopped")):
            signal.raise_signal(number)
            happened.append("went on")

    def mine(number: int, frame: Any) -> None:
        happened.append("handled")

    before = signal.signal(number, mine)
    try:
        with pytest.raises(SystemExit) as raised:
            interrupted()
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)
    assert happened == ["stopped", "went on", "handled"]
    assert raised.value.args == (128 + number,)


def test_outside_of_the_main_thread_no_handler_is_set() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    def enter() -> None:
        with stopped_by_signals(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
