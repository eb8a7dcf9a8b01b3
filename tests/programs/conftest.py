"""A real S3 server, a web server that misbehaves on request, and programs run as processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from patience import patient
from termination import failure

_MOTO = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class S3:
    """A bucket, and the variables with which Flyte would configure its use."""

    endpoint: str
    bucket: str
    client: Any

    @property
    def environ(self) -> dict[str, str]:
        return {
            "FLYTE_AWS_ENDPOINT": self.endpoint,
            "FLYTE_AWS_ACCESS_KEY_ID": "key",
            "FLYTE_AWS_SECRET_ACCESS_KEY": "very-secret",
        }

    def put(self, key: str, data: bytes) -> str:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)
        return f"s3://{self.bucket}/{key}"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    import botocore.session

    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="very-secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="bucket")
        yield S3(endpoint=endpoint, bucket="bucket", client=client)
    finally:
        process.kill()
        process.wait()


@dataclass
class Web:
    """A web server; `faults` holds, for each path, the faults of its next answers, in order."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    """For a path, headers that replace the usual ones; an empty text removes one."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Path and range of each request."""
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """For a path, status and headers that it always answers with, and no body."""
    tokens: list[str] = field(default_factory=list)
    """The `Authorization` of each request."""
    sent: dict[str, int] = field(default_factory=dict)
    """For a path, how many bytes of it were sent in all."""
    ranges: bool = True
    port: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    """What answers with the fault `stall` or `hold` waits for."""
    bytes_per_second: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def put(self, path: str, data: bytes) -> str:
        self.files[path] = data
        return self.url(path)

    def count(self, path: str) -> int:
        return sum(requested == path for requested, _ in self.requests)


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:  # noqa: C901 (a class in a function)
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = urlsplit(self.path).path[1:]  # a proxy is asked for whole addresses
            asked = self.headers.get("Range", "")
            web.requests.append((path, asked))
            web.tokens.append(self.headers.get("Authorization", ""))
            fault = web.faults.get(path, [])
            fault = fault.pop(0) if fault else ""
            if fault.isdecimal():
                self._answer(
                    int(fault), b"", {"Location": self.path} if fault.startswith("3") else {}
                )
            elif path in web.answers:
                self._answer(web.answers[path][0], b"", web.answers[path][1])
            elif path not in web.files:
                self._answer(404, b"", {})
            else:
                self._send(path, asked, fault)

        def _send(self, path: str, asked: str, fault: str) -> None:
            data = web.files[path]
            headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
            status = 200
            if asked and web.ranges and fault not in ("chunked", "cut", "until close"):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last or len(data) - 1) + 1, len(data))
                if start >= len(data):
                    self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                    return
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
                data, status = data[start:end], 206
            if fault == "corrupt":
                data = bytes([data[0] ^ 1]) + data[1:]
            self._answer(status, data, {**headers, **web.headers.get(path, {})}, fault)

        def _answer(  # noqa: C901
            self, status: int, data: bytes, headers: Mapping[str, str], fault: str = ""
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            if fault in ("chunked", "cut"):
                self._chunked(data, is_cut=fault == "cut")
                return
            if fault == "until close":
                self.close_connection = True
                self.end_headers()
                self.wfile.write(data)
                return
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            half = len(data) // 2
            if fault in ("reset", "truncate", "stall"):
                self.wfile.write(data[:half])
                self.wfile.flush()
                if fault == "stall":
                    web.gate.wait(patient(30))
                if fault == "reset":
                    self.connection.setsockopt(
                        1, 13, b"\x01\0\0\0\0\0\0\0"
                    )  # SO_LINGER of 0: an RST, no FIN
                self.close_connection = True
                self.connection.close()
                return
            if fault == "hold":
                web.gate.wait(patient(30))
            if fault == "trickle":
                for byte in data:
                    if web.gate.wait(0.2):
                        return
                    self.wfile.write(bytes([byte]))
            step = int(web.bytes_per_second / 20) or len(data) or 1
            for start in range(0, len(data), step):
                self.wfile.write(data[start : start + step])
                path = urlsplit(self.path).path[1:]
                with web.lock:  # several connections send parts of one file
                    web.sent[path] = web.sent.get(path, 0) + len(data[start : start + step])
                if web.bytes_per_second:
                    time.sleep(0.05)

        def _chunked(self, data: bytes, *, is_cut: bool) -> None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(data), 1000):
                block = data[start : start + 1000]
                self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
            if is_cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, OSError, ValueError):
                self.close_connection = True

        def finish(self) -> None:
            try:
                super().finish()
            except (ConnectionError, OSError, ValueError):
                self.close_connection = True

    return Handler


@pytest.fixture
def web_handler() -> Callable[[Web], type[BaseHTTPRequestHandler]]:
    return _handler


@pytest.fixture
def web() -> Iterator[Web]:
    state = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    state.gate.set()
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Ended:
    """How a run of the downloader ended."""

    code: int
    stderr: str
    root: Path

    @property
    def inputs(self) -> Any:
        return json.loads(
            (self.root / "shared" / "inputs.json").read_text(encoding="utf-8"),
            parse_constant=_not_json,
        )

    @property
    def manifest(self) -> Any:
        return json.loads(
            (self.root / "shared" / "inputs.manifest.json").read_text(encoding="utf-8")
        )

    @property
    def message(self) -> dict[str, Any]:
        """The termination message, with which the log ends too."""
        return failure(self.root, self.stderr)

    @property
    def files(self) -> dict[str, bytes]:
        """Path below the directory of inputs to content, of all that is visible."""
        directory = self.root / "inputs"
        found = (
            path
            for path in directory.rglob("*")
            if path.is_file() and ".incoming" not in path.parts
        )
        return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def _not_json(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@dataclass
class Downloader:
    """Runs the input downloader in a clean environment; `root` holds everything that it writes."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    umask: int = 0o077
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, uri: str, *options: str, **environ: str) -> subprocess.Popen[str]:
        arguments = [
            "--output",
            str(self.root / "shared" / "inputs.json"),
            "--directory",
            str(self.root / "inputs"),
        ]
        (self.root / "termination-log").unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "flytekitplugins.inference.programs.download_inputs", uri),
                *(*arguments, "--backoff", "0.01", "--stall-timeout", str(patient(5)), *options),
            ],
            env={
                "PATH": os.environ["PATH"],
                "INFERENCE_TERMINATION_LOG": str(self.root / "termination-log"),
                **self.environ,
                **environ,
            },
            cwd=self.root,
            stderr=subprocess.PIPE,
            text=True,
            umask=self.umask,
        )
        self.processes.append(process)
        return process

    def wait(self, process: subprocess.Popen[str]) -> Ended:
        _, stderr = process.communicate(timeout=patient(50))
        return Ended(process.returncode, stderr, self.root)

    def __call__(self, uri: str, *options: str, **environ: str) -> Ended:
        return self.wait(self.start(uri, *options, **environ))


@pytest.fixture
def download(tmp_path: Path) -> Iterator[Downloader]:
    runner = Downloader(tmp_path)
    yield runner
    for process in runner.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def inputs_pb(tmp_path: Path) -> Callable[..., str]:
    """Write `inputs.pb` as flytekit does; take `name=(value, type)` or `name=<literal>`."""

    def write(**inputs: Any) -> str:
        from flyteidl.core.literals_pb2 import LiteralMap
        from flytekit.core.context_manager import FlyteContextManager
        from flytekit.core.type_engine import TypeEngine

        context = FlyteContextManager.current_context()
        message = LiteralMap()
        for name, given in inputs.items():
            literal = given
            if isinstance(given, tuple):
                value, kind = given
                literal = TypeEngine.to_literal(
                    context, value, kind, TypeEngine.to_literal_type(kind)
                ).to_flyte_idl()
            message.literals[name].CopyFrom(literal)
        path = tmp_path / "inputs.pb"
        path.write_bytes(message.SerializeToString(deterministic=True))
        return str(path)

    return write


@dataclass
class Hub:
    """A hub that speaks the protocol of Hugging Face's, on a `Web`."""

    web: Web
    repository: str = "owner/name"
    commits: int = 0
    xet: dict[bytes, str] = field(default_factory=dict)
    """Content that lies in a xet store, and its hash there."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.web.port}"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
        }

    def commit(self, files: Mapping[str, bytes], ref: str = "main", repository: str = "") -> str:
        """Make a commit and point `ref` to it; files with an extension of weights go to LFS."""
        repository = repository or self.repository
        self.commits += 1
        sha = hashlib.sha1(f"{repository} {self.commits}".encode()).hexdigest()
        tree: list[dict[str, Any]] = []
        for path, data in files.items():
            oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry = {"type": "file", "path": path, "size": len(data), "oid": oid}
            digest = hashlib.sha256(data).hexdigest()
            if path.endswith((".safetensors", ".bin", ".gguf")):
                entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
            if data in self.xet:
                entry["xetHash"] = self.xet[data]
            tree.append(entry)
            stored = f"cdn/{digest}"
            self.web.files[stored] = data
            self.web.answers[f"{repository}/resolve/{sha}/{path}"] = (
                302,
                {
                    "Location": self.web.url(stored),
                    "X-Repo-Commit": sha,
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(len(data)),
                },
            )
        info = {"id": repository, "sha": sha, "siblings": [{"rfilename": path} for path in files]}
        for name in (ref, sha):
            self.web.files[f"api/models/{repository}/revision/{name}"] = json.dumps(info).encode()
        self.web.files[f"api/models/{repository}/tree/{sha}"] = json.dumps(tree).encode()
        return sha

    def stored(self, data: bytes) -> str:
        """Return the path from which `data` is sent in the end."""
        return f"cdn/{hashlib.sha256(data).hexdigest()}"

    def refuse(self, path: str, status: int, code: str = "", message: str = "") -> None:
        """Answer for `path` as the hub does when it refuses."""
        self.web.answers[path] = (status, {"X-Error-Code": code, "X-Error-Message": message})


@pytest.fixture
def hub(web: Web) -> Hub:
    return Hub(web)


@dataclass(frozen=True)
class Loaded:
    """How a run of the model loader ended, and what it has published."""

    code: int
    stderr: str
    root: Path

    @property
    def metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.root / "models" / "metadata.json").read_text(encoding="utf-8")
        )
        return found

    @property
    def message(self) -> dict[str, Any]:
        return failure(self.root, self.stderr)

    @property
    def files(self) -> dict[str, bytes]:
        """What a server finds below `current`."""
        assert (self.root / "models" / ".ready").exists()
        current = (self.root / "models" / "current").resolve()
        return {
            str(path.relative_to(current)): path.read_bytes()
            for path in current.rglob("*")
            if path.is_file()
        }


@dataclass
class ModelLoader:
    """Runs the model loader in a clean environment; `root` holds everything that it writes."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    umask: int = 0o077
    publish: str = "models"
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self,
        *arguments: str,
        stderr: Any = subprocess.PIPE,
        before: Sequence[str] = (),
        **environ: str,
    ) -> subprocess.Popen[str]:
        """Start it; `before` is what its command line begins with, such as a sandbox."""
        (self.root / "termination-log").unlink(missing_ok=True)
        places = ["--publish", str(self.root / self.publish), "--cache", str(self.root / "cache")]
        process = subprocess.Popen(
            [
                *(*before, sys.executable, "-m", "flytekitplugins.inference.programs.load_model"),
                *(*places, "--backoff", "0.01", "--stall-timeout", str(patient(5)), *arguments),
            ],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.root),
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                "INFERENCE_TERMINATION_LOG": str(self.root / "termination-log"),
                **self.environ,
                **environ,
            },
            cwd=self.root,
            stderr=stderr,
            text=True,
            umask=self.umask,
        )
        self.processes.append(process)
        return process

    def wait(self, process: subprocess.Popen[str]) -> Loaded:
        _, stderr = process.communicate(timeout=patient(90))
        return Loaded(process.returncode, stderr or "", self.root)

    def __call__(self, *arguments: str, **environ: str) -> Loaded:
        """Run until everything is published, or it fails."""
        return self.wait(self.start("--once", *arguments, **environ))


@pytest.fixture
def load(tmp_path: Path) -> Iterator[ModelLoader]:
    runner = ModelLoader(tmp_path)
    yield runner
    for process in runner.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
