"""The programs travel in a pod spec, and start from there without this package."""

from __future__ import annotations

import ast
import base64
import bz2
import contextlib
import importlib
import io
import json
import os
import pkgutil
import py_compile
import re
import subprocess
import sys
import sysconfig
import threading
import time
import venv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from flyteidl.core.literals_pb2 import Blob, BlobMetadata, Literal, LiteralMap, Scalar
from flyteidl.core.types_pb2 import BlobType

from flytekitplugins.inference import programs
from flytekitplugins.inference.pod.bundle import BOOTSTRAP, programs_bundle
from flytekitplugins.inference.programs.protocol import PROGRAMS_VARIABLE
from termination import failure
from users.ollama_stand_in import StandIn, handler

MAX_ARG_STRLEN = 128 * 1024
"""Linux's limit for one argument or variable (`execve(2)`)."""
SECONDS = 60.0
"""How long a test waits for what must come."""


def _is_program(name: str) -> bool:
    return getattr(importlib.import_module(f"{programs.__name__}.{name}"), "PROGRAM", None) == name


PROGRAMS = sorted(
    module.name for module in pkgutil.iter_modules(programs.__path__) if _is_program(module.name)
)
"""All that have a command line."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_fits_into_a_variable_and_survives_templating(program: str) -> None:
    assert len(programs_bundle(program)) < MAX_ARG_STRLEN * 0.6
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", programs_bundle(program))
    assert "{{" not in BOOTSTRAP
    assert "$(" not in BOOTSTRAP


def test_it_holds_the_errors_the_facts_and_the_programs_only() -> None:
    archive = zipfile.ZipFile(
        io.BytesIO(bz2.decompress(base64.b64decode(programs_bundle("download_inputs"))))
    )
    names = set(archive.namelist())
    assert not any("load_model" in name for name in names)
    assert {"flytekitplugins/inference/__init__.py", "flytekitplugins/inference/errors.py"} <= names
    assert archive.read("flytekitplugins/inference/__init__.py") == b""
    assert all(
        re.fullmatch(
            r"flytekitplugins/(inference/((__init__|dependencies|errors)\.py|(programs|facts)/(\w+/)?\w+\.py))?",
            name,
        )
        for name in names
    )


def test_it_holds_code_at_the_lines_of_the_source_and_no_docstrings() -> None:
    archive = zipfile.ZipFile(
        io.BytesIO(bz2.decompress(base64.b64decode(programs_bundle("load_model"))))
    )
    package = Path(programs.__path__[0]).parent
    for name in archive.namelist()[2:]:
        bundled = ast.parse(archive.read(name))
        source = ast.parse((package.parent.parent / name).read_bytes())
        assert ast.get_docstring(bundled) is None or len(bundled.body) == 1
        lines = {ast.unparse(node): node.lineno for node in source.body}
        for node in bundled.body:
            if isinstance(node, ast.Assign | ast.Import | ast.ImportFrom):
                assert lines[ast.unparse(node)] == node.lineno


def test_it_is_the_same_in_every_process() -> None:
    code = (
        "from flytekitplugins.inference.pod.bundle import programs_bundle; "
        "print(programs_bundle('download_inputs'))"
    )
    environ = {**os.environ, "PYTHONHASHSEED": "1"}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert other.stdout.strip() == programs_bundle("download_inputs")


# Each program does its whole work from it, where this package is not


@dataclass
class Pod:
    """Starts programs from bundles, or from an installed package; they write below `root`."""

    root: Path
    python: Path
    """An interpreter without any packages, as in an image without this one."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def start(self, program: str, *words: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a program as `pod.helpers` has a container do it where the package is bundled."""
        bundle = {PROGRAMS_VARIABLE: programs_bundle(program)}
        return self.run([str(self.python), "-c", BOOTSTRAP, program, *words], **bundle, **environ)

    def run(self, command: Sequence[str], **environ: str) -> subprocess.Popen[bytes]:
        with (self.root / "log").open("a") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.root,
                env={
                    "PATH": os.environ["PATH"],
                    "TMPDIR": str(self.root),
                    "INFERENCE_TERMINATION_LOG": str(self.root / "termination-log"),
                    **environ,
                },
            )
        self.processes.append(process)
        return process

    def until(self, condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
        """Wait for what a living process does."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert process.poll() is None, f"ended with {process.returncode}\n{self.log}"
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def has_ended(self, process: subprocess.Popen[bytes], code: int) -> None:
        assert process.wait(SECONDS) == code, self.log

    def file(self, name: str, content: bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    @property
    def model(self) -> list[str]:
        """The arguments that have a model loaded from `source/weights.bin`."""
        places = ["--publish", str(self.root / "models"), "--cache", str(self.root / "cache")]
        return [f"file://{self.root}/source", *places]


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bare")
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    alone = subprocess.run(
        [python, "-c", "import flytekitplugins.inference"], capture_output=True, check=False, env={}
    )
    assert b"ModuleNotFoundError" in alone.stderr
    return python


@pytest.fixture
def pod(bare_python: Path, tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(tmp_path, bare_python)
    yield pod
    for process in pod.processes:
        process.kill()
        process.wait()


@contextlib.contextmanager
def listening(server: ThreadingHTTPServer) -> Iterator[str]:
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def download_inputs(pod: Pod) -> None:
    """Of what an image has, it needs flytekit's libraries."""
    blob = Blob(
        metadata=BlobMetadata(type=BlobType(dimensionality=BlobType.SINGLE)),
        uri=str(pod.file("weights.bin", b"weights")),
    )
    literals = LiteralMap(literals={"model": Literal(scalar=Scalar(blob=blob))})
    inputs = pod.file("inputs.pb", literals.SerializeToString())
    output, files = pod.root / "shared" / "inputs.json", pod.root / "tmp" / "inputs"
    words = [str(inputs), "--output", str(output), "--directory", str(files)]
    pod.has_ended(pod.start("download_inputs", *words, PYTHONPATH=sysconfig.get_path("purelib")), 0)
    path = Path(json.loads(output.read_text())["model"])
    assert path.read_bytes() == b"weights"
    assert path.is_relative_to(files)


def load_model(pod: Pod) -> None:
    """Check, publish, wait; then look for updates, which starts Python anew, and end from there."""
    models = pod.root / "models"
    weights = pod.file("source/weights.bin", b"first")
    pod.has_ended(pod.start("load_model", *pod.model, "--check"), 0)
    assert not models.exists()

    process = pod.start("load_model", *pod.model)
    pod.until(lambda: (models / ".ready").exists() and is_waiting(process), process)
    process.terminate()
    pod.has_ended(process, 143)

    process = pod.start("load_model", *pod.model, "--update-interval", "0.2")
    pod.until(lambda: is_waiting(process), process)
    for content in (b"second one", b"and the third"):
        weights.write_bytes(content)
        pod.until(
            lambda content=content: (models / "current" / "weights.bin").read_bytes() == content,
            process,
        )
    pod.until(lambda: is_waiting(process), process)
    process.terminate()
    pod.has_ended(process, 143)


def is_waiting(process: subprocess.Popen[bytes]) -> bool:
    """Whether the loader has become the small process that waits."""
    return b"\0-I\0-S\0-c\0" in Path(f"/proc/{process.pid}/cmdline").read_bytes()


def wait_for_server(pod: Pod) -> None:
    statuses = [503, 200]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()

    report = pod.root / "report.json"
    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        words = [f"{url}/health", "--timeout", str(SECONDS), "--report", str(report)]
        pod.has_ended(pod.start("wait_for_server", *words), 0)
    assert json.loads(report.read_text())["phases"]
    pod.has_ended(pod.start("wait_for_server", "--preflight", "--require-env", "TOKEN"), 77)
    assert "TOKEN is not set" in pod.log


def create_model(pod: Pod) -> None:
    gguf = pod.file("m/model.gguf", b"GGUF" + bytes(range(200)))
    ollama = StandIn()
    with listening(ThreadingHTTPServer(("127.0.0.1", 0), handler(ollama))) as url:
        words = [url, "--name", "mine"]
        pod.has_ended(
            pod.start(
                "create_model", *words, INFERENCE_MODELFILE=f"FROM {gguf.parent}\nSYSTEM hello"
            ),
            0,
        )
        ollama.over.set()
    assert list(ollama.blobs.values()) == [gguf.read_bytes()]
    assert ollama.loaded == ["mine:latest"]


def export_metrics(pod: Pod) -> None:
    """Ask the server once, serve its page, and leave a summary."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"vllm:generation_tokens_total 12\n")

    summary = pod.root / "shared" / "summary.json"
    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        words = [f"{url}/metrics", "--health", f"{url}/health", "--summary", str(summary)]
        process = pod.start("export_metrics", *words, "--host", "127.0.0.1", "--port", "0")
        pod.until(lambda: "ready port=" in pod.log, process)
        page = f"http://127.0.0.1:{pod.log.rpartition('=')[2].strip()}/metrics"
        pod.until(lambda: "inference_generation_tokens_total 12" in read(page), process)
        process.terminate()
        pod.has_ended(process, 143)
    assert json.loads(summary.read_text())["totals"]["generation_tokens"] == 12


def read(url: str) -> str:
    with urlopen(url, timeout=SECONDS) as answer:
        text: str = answer.read().decode()
    return text


WORK = {
    work.__name__: work
    for work in (create_model, download_inputs, export_metrics, load_model, wait_for_server)
}


def test_the_whole_work_of_every_program_is_known_here() -> None:
    assert sorted(WORK) == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_does_its_whole_work_from_it(program: str, pod: Pod) -> None:
    WORK[program](pod)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_explains_itself_from_it(program: str, pod: Pod) -> None:
    pod.has_ended(pod.start(program, "--help"), 0)
    assert pod.log.startswith(f"usage: {program}")


def test_a_loader_that_could_not_wait_fails_before_it_downloads(pod: Pod) -> None:
    """Where only bytecode is, there is no text that the waiting process could be started with."""
    zipfile.ZipFile(
        io.BytesIO(bz2.decompress(base64.b64decode(programs_bundle("load_model"))))
    ).extractall(pod.root)
    source = pod.root / "flytekitplugins" / "inference" / "programs" / "model_wait.py"
    py_compile.compile(str(source), str(source.with_suffix(".pyc")), doraise=True)
    source.unlink()
    pod.file("source/weights.bin", b"weights")
    command = [str(pod.python), "-m", "flytekitplugins.inference.programs.load_model", *pod.model]
    pod.has_ended(pod.run(command, PYTHONPATH=str(pod.root)), 78)
    message = failure(pod.root)
    assert message["error"] == "MissingDependencyError"
    assert "programs.model_wait" in message["message"]
    assert not (pod.root / "models" / ".ready").exists()
    pod.has_ended(pod.run([*command, "--once"], PYTHONPATH=str(pod.root)), 0)


# SIGTERM while it is still being imported


def _imports_for_ever(pod: Pod, module: str) -> str:
    """Return a PYTHONPATH on which the import of a standard module tells so and does not end."""
    code = (
        f"import pathlib, signal\npathlib.Path({str(pod.root / 'imports')!r}).touch()\nwhile "
        "True: signal.pause()\n"
    )
    return str(pod.file(f"slow/{module}.py", code.encode()).parent)


def _has_heard_sigterm(pod: Pod, process: subprocess.Popen[bytes]) -> None:
    pod.until((pod.root / "imports").exists, process)
    process.terminate()
    pod.has_ended(process, 143)


@pytest.mark.parametrize("module", ["bz2", "argparse"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_bundled_program_hears_sigterm_from_the_beginning(
    program: str, module: str, pod: Pod
) -> None:
    _has_heard_sigterm(pod, pod.start(program, PYTHONPATH=_imports_for_ever(pod, module)))


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_installed_program_hears_sigterm_while_it_is_imported(program: str, pod: Pod) -> None:
    command = [sys.executable, "-m", f"flytekitplugins.inference.programs.{program}"]
    _has_heard_sigterm(pod, pod.run(command, PYTHONPATH=_imports_for_ever(pod, "argparse")))


# What it follows

ROOT = Path(programs.__file__).parent


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.rglob("*.py")),
    ids=lambda path: path.relative_to(ROOT).with_suffix("").as_posix(),
)
def test_a_module_reaches_others_of_ours_only_by_imports_that_the_bundle_follows(
    path: Path,
) -> None:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            assert not {
                name for name in names if re.match(r"flytekitplugins|importlib|pkgutil|runpy", name)
            }
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert not re.match(r"flytekitplugins|pkgutil|runpy", node.module or "")
            assert node.module != "importlib" or {alias.name for alias in node.names} == {
                "metadata"
            }
        elif isinstance(node, ast.ImportFrom) and node.level > len(path.relative_to(ROOT).parts):
            rooms = [node.module] if node.module else [alias.name for alias in node.names]
            assert {room.partition(".")[0] for room in rooms} <= {
                *("dependencies", "distribution", "errors", "facts")
            }
        else:
            assert not (isinstance(node, ast.Name) and node.id == "__import__")
