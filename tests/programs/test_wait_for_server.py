"""The server gate as a process: servers that are ready, late, wrong, slow, broken or gone."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference.programs.kernel import boot_id
from patience import patient
from termination import failure

MODELS = {"object": "list", "data": [{"id": "org/model"}, {"id": "adapter"}]}
HUGE = str(10**18)


# A server whose answers a test gives


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Sent instead of an HTTP answer."""
    drip: bool = False
    """Send the answer one byte at a time, without end."""
    wait: bool = False
    """Do not answer until the test is over."""


@dataclass
class Server:
    origin: str = ""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    """By path; the last one stays."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and authorization."""
    asked: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def reply(self, method: str, path: str, authorization: str) -> Reply:
        self.requests.append((method, path, authorization))
        replies = self.replies.get(path.partition("?")[0], [Reply(404, b"no such path")])
        return replies.pop(0) if len(replies) > 1 else replies[0]


def _serve(server: Server, port: int = 0) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = server.reply(self.command, self.path, self.headers.get("Authorization", ""))
            server.asked.set()
            if reply.wait:
                server.over.wait()
            while reply.drip and not server.over.wait(0.05):
                self.wfile.write(b"X")
            if reply.raw is not None:
                self.wfile.write(reply.raw)
                self.close_connection = True
            elif not reply.wait and not reply.drip:
                self.send_response(reply.status)
                for name, value in {
                    "Content-Length": str(len(reply.body)),
                    **reply.headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body if self.command == "GET" else b"")

        do_HEAD = do_GET  # noqa: N815 (http.server calls it so)

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the gate hung up
                super().handle()

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.origin = f"http://127.0.0.1:{http.server_address[1]}"
    return http


@pytest.fixture
def servers() -> Iterator[Callable[..., Server]]:
    started: list[tuple[Server, ThreadingHTTPServer]] = []

    def make(port: int = 0, **replies: Reply | list[Reply] | dict[str, Any]) -> Server:
        paths = {"health": "/health", "models": "/v1/models", "v2": "/v2/models/org%2Fmodel/ready"}
        server = Server()
        for name, given in replies.items():
            reply = Reply(body=json.dumps(given).encode()) if isinstance(given, dict) else given
            server.replies[paths.get(name, f"/{name}")] = (
                reply if isinstance(reply, list) else [reply]
            )
        started.append((server, _serve(server, port)))
        return server

    yield make
    for server, http in started:
        server.over.set()
        http.shutdown()
        http.server_close()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens, kept from others: sockets bound to it say SO_REUSEADDR."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        yield reservation.getsockname()[1]


@dataclass(frozen=True)
class Ended:
    code: int
    stderr: str
    seconds: float
    root: Path

    @property
    def message(self) -> dict[str, Any]:
        return failure(self.root, self.stderr)

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.root / "shared" / "report.json").read_text())

    def failed(self, code: int, error: str, *texts: str) -> None:
        assert (self.code, self.message["error"]) == (code, error), self.stderr
        for text in texts:
            assert text in f"{self.message['message']} {self.message['hint']}"
        assert self.message["program"] == "wait_for_server"
        assert self.message["exit_code"] == code
        assert "Traceback" not in self.stderr


@dataclass
class Gate:
    root: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "flytekitplugins.inference.programs.wait_for_server", *words],
            env={
                "PATH": os.environ["PATH"],
                **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
                "INFERENCE_TERMINATION_LOG": str(self.root / "termination-log"),
                **environ,
            },
            cwd=self.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def wait(self, process: subprocess.Popen[str]) -> Ended:
        started = time.monotonic()
        _, stderr = process.communicate(timeout=patient(30))
        return Ended(process.returncode, stderr, time.monotonic() - started, self.root)

    def __call__(
        self, url: str, *words: str, timeout: float | None = None, **environ: str
    ) -> Ended:
        report = str(self.root / "shared" / "report.json")
        budget = patient(20) if timeout is None else timeout
        options = ("--timeout", str(budget), "--interval", "0.02", "--report", report, *words)
        return self.wait(self.start(url, *options, **environ))

    def preflight(self, *words: str, **environ: str) -> Ended:
        return self.wait(self.start("--preflight", *words, **environ))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    runner = Gate(tmp_path)
    yield runner
    for process in runner.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


Servers = Callable[..., Server]


# Ready


@pytest.mark.parametrize("status", [200, 204, 302, 307])
def test_a_server_that_is_ready_is_asked_once(status: int, servers: Servers, gate: Gate) -> None:
    server = servers(
        health=Reply(status, headers={"Location": "/health"})
    )  # a redirect to itself is an answer
    ended = gate(f"{server.origin}/health")
    assert ended.code == 0, ended.stderr
    assert server.requests == [("GET", "/health", "")]
    assert not (gate.root / "termination-log").exists()


def test_a_redirect_to_another_host_is_not_followed(servers: Servers, gate: Gate) -> None:
    other = servers(models=MODELS)
    server = servers(
        health=Reply(), models=Reply(302, headers={"Location": f"{other.origin}/v1/models"})
    )
    ended = gate(f"{server.origin}/health", "--model", "org/model", timeout=0.15)
    ended.failed(69, "ServerNotReadyError", "/v1/models answered 302: nothing.")
    assert other.requests == []


def test_a_server_that_is_ready_late_is_waited_for(servers: Servers, gate: Gate) -> None:
    server = servers(health=[*[Reply(503, b"loading")] * 4, Reply(raw=b""), Reply()])
    ended = gate(f"{server.origin}/health")
    assert ended.code == 0, ended.stderr
    assert len(server.requests) == 6


def test_a_port_that_opens_late_is_waited_for(
    closed_port: int, servers: Servers, gate: Gate
) -> None:
    process = gate.start(
        f"http://127.0.0.1:{closed_port}/health",
        "--timeout",
        str(patient(20)),
        "--interval",
        "0.02",
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    servers(closed_port, health=Reply())
    assert gate.wait(process).code == 0


def test_without_a_path_an_open_port_is_enough(
    closed_port: int, servers: Servers, gate: Gate
) -> None:
    server = servers()
    assert gate(server.origin).code == 0
    assert server.requests == []
    ended = gate(f"http://127.0.0.1:{closed_port}", timeout=0.2)
    ended.failed(
        69,
        "ServerNotReadyError",
        f"TCP 127.0.0.1:{closed_port} was refused",
        "Its port never opened.",
    )


def test_the_model_has_to_be_listed(servers: Servers, gate: Gate) -> None:
    server = servers(
        health=Reply(),
        models=[Reply(503), Reply(body=b'{"data": []}'), Reply(body=json.dumps(MODELS).encode())],
    )
    ended = gate(
        f"{server.origin}/health?deep=1", "--model", "adapter", "--token-env", "KEY", KEY="s3cret\n"
    )
    assert ended.code == 0, ended.stderr
    assert [request for request in server.requests if request[1] == "/v1/models"] == [
        ("GET", "/v1/models", "Bearer s3cret")
    ] * 3
    assert ("GET", "/health", "Bearer s3cret") not in server.requests


def test_a_model_of_the_inference_protocol_has_to_be_ready(servers: Servers, gate: Gate) -> None:
    server = servers(health=Reply(), v2=[Reply(400, b"not ready"), Reply(404), Reply()])
    ended = gate(f"{server.origin}/health", "--model", "org/model", "--api", "v2")
    assert ended.code == 0, ended.stderr
    assert [path for _, path, _ in server.requests].count("/v2/models/org%2Fmodel/ready") == 3


def test_every_model_has_to_be_ready(servers: Servers, gate: Gate) -> None:
    names = ("org/model", "other")
    server = servers(health=Reply(), v2=Reply(), **{"v2/models/other/ready": [Reply(400), Reply()]})
    wanted = [word for name in names for word in ("--model", name)]
    assert gate(f"{server.origin}/health", *wanted, "--api", "v2").code == 0
    asked = [path for _, path, _ in server.requests if path.startswith("/v2")]
    assert asked == ["/v2/models/org%2Fmodel/ready", "/v2/models/other/ready"] * 2


def test_api_none_asks_for_no_model(servers: Servers, gate: Gate) -> None:
    server = servers(health=Reply())
    assert gate(f"{server.origin}/health", "--model", "org/model", "--api", "none").code == 0


# Not ready


@pytest.mark.parametrize(
    ("health", "texts"),
    [
        pytest.param(
            Reply(503, b"loading\n the  model"), ["answered 503: 'loading the model'."], id="busy"
        ),
        pytest.param(Reply(500, b"x" * 5000), [f"answered 500: '{'x' * 200}…'."], id="long"),
        pytest.param(
            Reply(404, b"<html><body>404</body></html>"),
            ["answered 404: '<html><body>404</body>"],
            id="html",
        ),
        pytest.param(
            Reply(500, b"\xff\x00\x1b[31m"), [r"answered 500: '�\x00\x1b[31m'"], id="binary"
        ),
        pytest.param(
            Reply(raw=b"220 ready\r\n"),
            ["something that is not HTTP: BadStatusLine '220 ready'"],
            id="not-http",
        ),
        pytest.param(Reply(raw=b"\x15\x03\x01" * 9), ["something that is not HTTP"], id="tls"),
        pytest.param(
            Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 999),
            ["something that is not HTTP"],
            id="headers",
        ),
        pytest.param(Reply(raw=b""), ["broke off"], id="closes"),
        pytest.param(
            Reply(500, b"ab", {"Content-Length": "nine"}), ["answered 500: 'ab'"], id="length"
        ),
    ],
)
def test_the_last_answer_is_told(
    health: Reply, texts: list[str], servers: Servers, gate: Gate
) -> None:
    server = servers(health=health)
    ended = gate(f"{server.origin}/health?key=hidden", timeout=0.15)
    ended.failed(
        69,
        "ServerNotReadyError",
        f"GET {server.origin}/health ",
        "not ready after ",
        "startup_timeout",
        *texts,
    )
    assert "hidden" not in ended.stderr
    assert "never opened" not in ended.stderr


@pytest.mark.parametrize(
    ("models", "texts"),
    [
        pytest.param(
            MODELS,
            ["lists 'org/model', 'adapter' instead of 'mine'", "served model name"],
            id="other",
        ),
        pytest.param({"data": []}, ["lists no model instead of 'mine'"], id="none"),
        pytest.param(
            {"data": [{"id": f"m{n}"} for n in range(20)]}, ["'m7', 12 more instead of"], id="many"
        ),
        pytest.param(Reply(body=b"<html>"), ["not with a list of models: '<html>'"], id="html"),
        pytest.param({"data": [{"name": "mine"}]}, ["not with a list of models"], id="other-json"),
        pytest.param(Reply(body=b"[" * 100_000), ["not with a list of models"], id="deep"),
        pytest.param(
            Reply(401, b"no key"),
            ["answered 401: the server wants a key", "no key", "--token-env"],
            id="401",
        ),
        pytest.param(Reply(403), ["answered 403: the server wants a key"], id="403"),
        pytest.param(Reply(404, b"?"), ["answered 404: '?'"], id="404"),
        pytest.param(
            Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
            ["broke off: connection closed within the answer"],
            id="cut",
        ),
        pytest.param(
            Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx"),
            ["broke off: connection closed within the answer"],
            id="chunk",
        ),
    ],
)
def test_a_model_that_is_not_listed(
    models: Any, texts: list[str], servers: Servers, gate: Gate
) -> None:
    server = servers(health=Reply(), models=models)
    ended = gate(f"{server.origin}/health", "--model", "mine", timeout=0.15)
    ended.failed(69, "ServerNotReadyError", f"GET {server.origin}/v1/models ", *texts)


def test_slow_answers_do_not_outlast_the_budget_and_progress_is_told(
    servers: Servers, gate: Gate
) -> None:
    silent, dripping = (
        servers(health=Reply(wait=True)),
        servers(health=Reply(), models=Reply(drip=True)),
    )
    processes = [
        gate.start(f"{silent.origin}/health", "--timeout", "4.6"),
        gate.start(f"{dripping.origin}/health", "--timeout", "4.6", "--model", "mine"),
    ]
    endings = []
    for process in processes:
        endings.append(gate.wait(process))
        assert endings[-1].code == 69
        assert endings[-1].seconds < patient(8)
        progress = [line for line in endings[-1].stderr.splitlines() if " waiting " in line]
        assert len(progress) == 1
        assert re.match(r"wait_for_server waiting seconds=[34] budget=4\.6 last: ", progress[0])
    assert f"GET {silent.origin}/health did not answer within 4.6 s." in endings[0].stderr
    assert "last: no answer yet" in endings[0].stderr
    assert f"GET {dripping.origin}/v1/models did not answer within" in endings[1].stderr
    assert f"last: GET {dripping.origin}/health answered 200" in endings[1].stderr
    assert "never opened" not in endings[0].stderr


# Sure before the budget is over


def test_a_server_that_starts_and_ends_again(closed_port: int, gate: Gate) -> None:
    process = gate.start(
        f"http://127.0.0.1:{closed_port}/health",
        "--timeout",
        str(patient(25)),
        "--interval",
        "0.02",
    )
    while process.poll() is None:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", closed_port))
            listening.listen()
            listening.settimeout(0.5)
            try:
                listening.accept()[0].close()
            except TimeoutError:
                continue
        time.sleep(0.2)
    ended = gate.wait(process)
    ended.failed(
        69,
        "ServerExitedError",
        "the server's port opened and closed 3 times",
        "model-server",
        "137",
    )


def _loader_error(
    models: Path, error: str, message: str = "what happened", hint: str = "do this"
) -> None:
    fields = {
        "version": 1,
        "program": "load_model",
        "error": error,
        "message": message,
        "hint": hint,
    }
    temporary = models / ".error.json.partial"
    temporary.write_text(json.dumps(fields))
    temporary.replace(models / "error.json")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("SourceNotFoundError", 66),
        ("SourceForbiddenError", 77),
        ("DestinationError", 74),
        ("UnsupportedError", 78),
    ],
)
def test_the_loaders_error_is_ours(error: str, code: int, closed_port: int, gate: Gate) -> None:
    _loader_error(gate.root, error)
    ended = gate(f"http://127.0.0.1:{closed_port}/", "--models", str(gate.root))
    ended.failed(code, error, "The model loader failed: what happened", "do this")
    assert ended.seconds < patient(5)
    assert ended.report["outcome"] == error


@pytest.mark.parametrize(
    ("error", "ours", "code"),
    [
        ("SourceUnavailableError", "SourceUnavailableError", 69),
        ("KeyError", "ServerExitedError", 69),
    ],
)
def test_a_loader_that_fails_three_times(
    error: str, ours: str, code: int, servers: Servers, gate: Gate
) -> None:
    server = servers(health=Reply(503))
    process = gate.start(
        f"{server.origin}/health",
        "--models",
        str(gate.root),
        "--timeout",
        str(patient(25)),
        "--interval",
        "0.02",
    )
    for number in range(3):
        assert process.poll() is None
        _loader_error(gate.root, error, f"failure {number}")
        seen = len(server.requests)
        while (
            process.poll() is None and len(server.requests) < seen + 3
        ):  # it looks before each question
            time.sleep(0.01)
    gate.wait(process).failed(code, ours, "The model loader failed 3 times: ", "failure 2")


def test_a_loader_that_may_succeed_yet_is_told_when_the_budget_is_over(
    closed_port: int, gate: Gate
) -> None:
    _loader_error(gate.root, "SourceUnavailableError", "no route")
    ended = gate(f"http://127.0.0.1:{closed_port}/", "--models", str(gate.root), timeout=0.15)
    ended.failed(69, "ServerNotReadyError", "The model loader failed last with: no route")
    (gate.root / "error.json").write_text('{"half": ')
    ended = gate(f"http://127.0.0.1:{closed_port}/", "--models", str(gate.root), timeout=0.15)
    ended.failed(69, "ServerNotReadyError", "The model loader had not finished.")


def test_a_failed_update_does_not_end_a_start(servers: Servers, gate: Gate) -> None:
    _loader_error(gate.root, "SourceNotFoundError")
    (gate.root / ".ready").touch()
    server = servers(health=[Reply(503), Reply()])
    assert gate(f"{server.origin}/health", "--models", str(gate.root)).code == 0


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (None, "is not set"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("$(_FSEC_HF_TOKEN)", "still is a reference"),
    ],
)
def test_a_variable_that_did_not_arrive(
    value: str | None, state: str, closed_port: int, gate: Gate
) -> None:
    environ = {} if value is None else {"HF_TOKEN": value}
    ended = gate(
        f"http://127.0.0.1:{closed_port}/",
        "--require-env",
        "HF_TOKEN",
        "--require-env",
        "HOME_",
        HOME_="x",
        **environ,
    )
    ended.failed(77, "SourceForbiddenError", f"The environment variable HF_TOKEN {state}")
    assert "_FSEC" not in ended.stderr
    assert ended.seconds < patient(5)


def test_a_token_that_cannot_be_sent_is_never_shown(closed_port: int, gate: Gate) -> None:
    ended = gate(
        f"http://127.0.0.1:{closed_port}/", "--model", "m", "--token-env", "KEY", KEY="gehe\nim"
    )
    ended.failed(77, "SourceForbiddenError", "KEY holds spaces or characters")
    assert "gehe" not in ended.stderr


def test_a_loader_that_is_killed_without_a_word(closed_port: int, gate: Gate) -> None:
    (gate.root / ".starts").write_text("3\n")  # two were killed, the third is under way
    ended = gate(f"http://127.0.0.1:{closed_port}/", "--models", str(gate.root), timeout=0.15)
    ended.failed(
        69,
        "ServerNotReadyError",
        "The model loader had not finished.",
        "exit code 137",
        "model_loader_mem",
    )
    (gate.root / ".starts").write_text("4\n")
    ended = gate(f"http://127.0.0.1:{closed_port}/", "--models", str(gate.root))
    ended.failed(
        69, "ServerExitedError", "The model loader was killed 3 times and made no progress.", "137"
    )
    assert ended.seconds < patient(5)


@pytest.mark.parametrize("text", ["", "many", "[4]"])
def test_a_count_that_cannot_be_read_is_none(text: str, servers: Servers, gate: Gate) -> None:
    (gate.root / ".starts").write_text(text)
    assert gate(f"{servers(health=Reply()).origin}/health", "--models", str(gate.root)).code == 0


# The model alone


def _model_gate(
    gate: Gate, *words: str, timeout: float | None = None, **environ: str
) -> subprocess.Popen[str]:
    return gate.start(
        "--models",
        str(gate.root),
        "--timeout",
        str(patient(20) if timeout is None else timeout),
        "--interval",
        "0.02",
        *words,
        **environ,
    )


def test_the_model_alone_is_waited_for(gate: Gate) -> None:
    process = _model_gate(gate, "--require-env", "HF_TOKEN", HF_TOKEN="x")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    (gate.root / ".ready").touch()
    ended = gate.wait(process)
    assert ended.code == 0
    assert ended.stderr.startswith("wait_for_server ready seconds=")


def test_a_model_that_does_not_come(gate: Gate) -> None:
    ended = gate.wait(_model_gate(gate, timeout=4.2))
    ended.failed(
        69,
        "ServerNotReadyError",
        "The model was not there after 4 s. The model loader had",
        "model-loader",
    )
    told = r"wait_for_server waiting seconds=[34] budget=4\.2 last: the model is not there yet"
    assert re.search(told, ended.stderr)
    _loader_error(gate.root, "SourceUnavailableError", "no route", "mend it")
    ended = gate.wait(_model_gate(gate, timeout=0.1))
    ended.failed(
        69, "ServerNotReadyError", "The model loader failed last with: no route", "mend it"
    )
    _loader_error(gate.root, "GatedModelError", "gated")
    gate.wait(_model_gate(gate)).failed(
        77, "GatedModelError", "The model loader failed: gated", "do this"
    )


# The budget of the whole start


def _start(gate: Gate, seconds: float, ago: float) -> dict[str, str]:
    clock = gate.root / "start-clock"
    clock.write_text(
        json.dumps({"boot": boot_id(), "begun": time.clock_gettime(time.CLOCK_MONOTONIC) - ago})
    )
    return {"INFERENCE_START": json.dumps({"seconds": seconds, "clock": str(clock)})}


WERE_OVER = r"\b1\d\d s of which were over when the gate began"
"""Of 100 s and what the program needs until it begins."""


def test_the_budget_counts_from_the_beginning_of_the_start(servers: Servers, gate: Gate) -> None:
    server = servers(health=Reply(503, b"loading"))
    budget = 100 + patient(0.5)  # a busy machine needs some of it for the imports
    ended = gate(f"{server.origin}/health", timeout=budget, **_start(gate, budget, 100))
    ended.failed(69, "ServerNotReadyError", "answered 503: 'loading'")
    assert re.search(WERE_OVER, ended.message["message"])
    assert ended.seconds < patient(5)
    assert (ended.report["outcome"], ended.report["total_seconds"] >= budget) == (
        "ServerNotReadyError",
        True,
    )
    (phase,) = ended.report["phases"]
    assert (phase["name"], phase["seconds"] < patient(5)) == ("server_load", True)
    ended = gate.wait(
        _model_gate(gate, timeout=500.0, **_start(gate, budget, 100))
    )  # the smaller one holds
    ended.failed(69, "ServerNotReadyError")
    assert re.search(WERE_OVER, ended.message["message"])


def test_a_server_that_is_ready_is_ready_although_the_budget_is_over(
    servers: Servers, gate: Gate
) -> None:
    server = servers(health=Reply(), models=MODELS)
    ended = gate(
        f"{server.origin}/health", "--model", "org/model", timeout=100, **_start(gate, 100, 101)
    )
    assert ended.code == 0, ended.stderr


def test_a_question_does_not_outlast_the_budget_of_the_start(servers: Servers, gate: Gate) -> None:
    server = servers(health=Reply(wait=True))
    ended = gate(f"{server.origin}/health", timeout=100, **_start(gate, 100, 101))
    ended.failed(69, "ServerNotReadyError", "did not answer within 1 s")
    assert re.search(WERE_OVER, ended.message["message"])


# The report


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()


def test_the_report_adds_up(servers: Servers, gate: Gate) -> None:
    now = time.time()
    seconds = {"resolve": 0.5, "download": 5.0, "verify": 0.25, "publish": 0.25, "total": 6.0}
    (gate.root / "metadata.json").write_text(
        json.dumps({"loaded_at": _iso(int(now)), "seconds": seconds})
    )
    os.utime(gate.root / "metadata.json", (now, now))  # exact, as loaded_at is not
    (gate.root / "inputs.manifest.json").write_text(json.dumps({"version": 1, "seconds": 4.0}))
    os.utime(gate.root / "inputs.manifest.json", (now - 1, now - 1))
    server = servers(health=[*[Reply(503)] * 9, Reply()], models=MODELS)
    options = (
        "--models",
        str(gate.root),
        "--inputs",
        str(gate.root / "inputs.json"),
        "--model",
        "org/model",
    )
    ended = gate(f"{server.origin}/health", *options)
    assert ended.code == 0, ended.stderr
    report = ended.report
    assert list(report) == ["version", "phases", "total_seconds", "outcome"]
    assert (report["version"], report["outcome"]) == (1, "ready")
    names = [phase["name"] for phase in report["phases"]]
    loader = ["loader.resolve", "loader.download", "loader.verify", "loader.publish"]
    assert names == [*loader, "input_download", "server_load", "first_answer"]
    phases = {phase["name"]: phase for phase in report["phases"]}
    assert [phases[name]["seconds"] for name in [*loader, "input_download"]] == [
        0.5,
        5.0,
        0.25,
        0.25,
        4.0,
    ]
    for phase in report["phases"]:
        began, end = (datetime.fromisoformat(phase[key]) for key in ("started", "ended"))
        assert (end - began).total_seconds() == pytest.approx(phase["seconds"], abs=0.002)
    order = [phases[name] for name in [*loader, "server_load", "first_answer"]]
    gaps = [
        datetime.fromisoformat(b["started"]) - datetime.fromisoformat(a["ended"])
        for a, b in itertools.pairwise(order)
    ]
    assert [round(gap.total_seconds(), 2) for gap in gaps[:3] + gaps[4:]] == [0, 0, 0, 0]
    waited = gaps[3].total_seconds()  # between the loader's end, here made up, and the gate's start
    assert sum(phase["seconds"] for phase in order) + waited == pytest.approx(
        report["total_seconds"], abs=0.01
    )
    table = ended.stderr.splitlines()[-len(names) - 2 :]
    assert [line.split()[0] for line in table] == ["phase", *names, "total"]
    assert table[-1].split()[1:] == [f"{report['total_seconds']:.3f}", "ready"]


def test_adapters_have_phases_of_their_own(servers: Servers, gate: Gate) -> None:
    adapter = {"loaded_at": _iso(time.time()), "seconds": {"resolve": 0.5, "download": 1.5}}
    (gate.root / "metadata.json").write_text(
        json.dumps({"adapters": {"org--lora": adapter, "broken": None}})
    )
    ended = gate(f"{servers(health=Reply()).origin}/health", "--models", str(gate.root))
    phases = [(phase["name"], phase["seconds"]) for phase in ended.report["phases"][:-1]]
    assert phases == [("loader.adapter.org--lora", 2.0)]


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "[]",
        "{}",
        '{"loaded_at": "soon", "seconds": {"download": 1}}',
        '{"loaded_at": 5, "seconds": {"download": 1}}',
        '{"loaded_at": NaN, "seconds": 3}',
        '{"loaded_at": 1e300, "seconds": {"download": -1}}',
    ],
)
def test_what_is_no_phase_of_this_start_is_left_out(
    metadata: str, servers: Servers, gate: Gate
) -> None:
    (gate.root / "metadata.json").write_text(metadata)
    (gate.root / "inputs.manifest.json").write_text('{"seconds": "four"}')
    server = servers(health=Reply())
    ended = gate(
        f"{server.origin}/health",
        "--models",
        str(gate.root),
        "--inputs",
        str(gate.root / "inputs.json"),
    )
    assert ended.code == 0, ended.stderr
    assert [phase["name"] for phase in ended.report["phases"]] == ["server_load"]


def test_a_report_is_written_also_when_it_failed(closed_port: int, gate: Gate) -> None:
    ended = gate(f"http://127.0.0.1:{closed_port}/", timeout=0.15)
    assert (ended.code, ended.report["outcome"]) == (69, "ServerNotReadyError")
    assert ended.report["total_seconds"] >= 0.15
    assert "total" in ended.stderr.splitlines()[-3]
    assert sorted(path.name for path in (gate.root / "shared").iterdir()) == ["report.json"]


def test_a_report_that_cannot_be_written_does_not_end_a_start(servers: Servers, gate: Gate) -> None:
    server = servers(health=Reply())
    (gate.root / "shared").touch()
    ended = gate(f"{server.origin}/health")
    assert ended.code == 0
    assert "no report: " in ended.stderr


# The preflight


def test_a_preflight_that_finds_nothing(gate: Gate) -> None:
    ended = gate.preflight("--require-env", "TOKEN", TOKEN="geheim")
    assert (ended.code, ended.stderr) == (0, "")


def test_a_preflight_names_all_problems_at_once(gate: Gate) -> None:
    ended = gate.preflight("--require-env", "A", "--require-env", "B", A="$(B)", TOKEN="geheim")
    texts = [
        "2 problems. (1) The environment variable A still is a reference",
        "(2) The environment variable B is not set.",
    ]
    ended.failed(77, "SourceForbiddenError", *texts, "A secret did not arrive")
    assert "geheim" not in ended.stderr


# The program


def test_sigterm_ends_it_within_a_second(closed_port: int, servers: Servers, gate: Gate) -> None:
    server = servers(health=Reply(wait=True))
    other = servers(health=Reply(503))
    report = ("--report", str(gate.root / "report.json"))
    started = [
        (
            server.asked,
            gate.start(f"{server.origin}/health", "--timeout", str(patient(25)), *report),
        ),
        (
            other.asked,
            gate.start(f"{other.origin}/health", "--timeout", str(patient(25)), "--interval", "20"),
        ),
    ]
    for asked, process in started:
        assert asked.wait(10)
        process.send_signal(signal.SIGTERM)
        ended = gate.wait(process)
        assert ended.code == 143
        assert ended.seconds < patient(1)
    assert json.loads((gate.root / "report.json").read_text())["outcome"] == "Terminated"
    assert not (gate.root / "termination-log").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["http://localhost"], "URL and --timeout are needed"),
        (["--timeout", "5"], "URL and --timeout are needed"),
        (["--models", "."], "URL and --timeout are needed"),
        (["--models", ".", "--timeout", "5", "--report", "r"], "--report needs a URL"),
        (["--models", ".", "--timeout", "5", "--model", "m"], "--model needs a URL"),
        (["localhost:80", "--timeout", "5"], "not a plain http or https URL"),
        (["ftp://localhost/", "--timeout", "5"], "not a plain http or https URL"),
        (["http://me:geheim@localhost/", "--timeout", "5"], "not a plain http or https URL"),
        (["http://localhost:99999/", "--timeout", "5"], "not a plain http or https URL"),
        (["http://localhost/\nx", "--timeout", "5"], "not a plain http or https URL"),
        (["http://localhost/", "--timeout", "0"], "'0' is not a number of seconds above 0"),
        (["http://localhost/", "--timeout", "nan"], "'nan' is not a number of seconds above 0"),
        (["http://localhost/", "--preflight"], "URL does not go with --preflight"),
        (["--preflight", "--token-env", "X"], "--token-env does not go with --preflight"),
    ],
)
def test_wrong_arguments(words: list[str], text: str, gate: Gate) -> None:
    ended = gate.wait(gate.start(*words))
    ended.failed(64, "UsageError", text)
    assert "geheim" not in ended.stderr


def test_help() -> None:
    command = [sys.executable, "-m", "flytekitplugins.inference.programs.wait_for_server", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "readiness address" in done.stdout
