"""Manifests, a pod of fakes whose time is ours, and small servers."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from flytekitplugins.inference.local.backoff import Backoff
from flytekitplugins.inference.local.choice import BACKEND_VARIABLE
from flytekitplugins.inference.local.container import PodContext
from flytekitplugins.inference.local.container_output import PodOutput
from flytekitplugins.inference.local.containers.docker_api import connect
from flytekitplugins.inference.local.events import History
from flytekitplugins.inference.local.plan.local_plan import (
    ContainerPlan,
    LocalPodPlan,
    compile_plan,
    declared_ports,
)
from flytekitplugins.inference.local.plan.probe_plan import ProbePlan
from flytekitplugins.inference.local.prober import ProbeResult
from flytekitplugins.inference.local.processes.process_backend import marked_processes
from flytekitplugins.inference.local.supervisor import PodPhase, Supervisor
from local import podman
from patience import patient, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flytekitplugins.inference.local.backend import EventSink, LineSink
    from flytekitplugins.inference.local.containers.docker_api import ContainerRuntime

Manifest = dict[str, Any]

SERVER = textwrap.dedent(
    """
    import http.server, os, pathlib, signal, sys, time

    # the first process of a container ignores signals that it has no handler for
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/exit":
                os._exit(7)
            if self.path == "/env":
                names = os.environ["SHOWN"].split()
                body = repr({name: os.environ.get(name) for name in names}).encode()
            else:
                body = repr(sys.argv[1:]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    if "--stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--workers" in sys.argv:
        for _ in range(2):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    time.sleep(600)
                os._exit(0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    print("listening on", sys.argv[2], flush=True)
    server.serve_forever()
    """
)
"""`python -c SERVER --port N [--stubborn] [--workers]`: answers with its arguments."""


@dataclass(frozen=True)
class Manifests:
    """Builds manifests.

    Args:
        image: The containers' image, which gets this machine's programs mounted; empty for
            processes.
    """

    image: str = ""

    sleep: ClassVar[str] = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
        "time.sleep(600)"
    )
    """The source of a program that waits for its end."""

    def pod(
        self, *init: Mapping[str, Any], volumes: Sequence[str] = (), grace: float = 0, **spec: Any
    ) -> Manifest:
        # as containers, programs that are ended before they handle SIGTERM use all of it
        grace = grace or (2 if self.image else 5)
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "test"},
            "spec": {
                "initContainers": [dict(entry) for entry in init],
                "containers": [
                    {
                        "name": "primary",
                        "volumeMounts": [
                            {"name": name, "mountPath": f"/{name}"} for name in volumes
                        ],
                    }
                ],
                "volumes": [
                    *({"name": name, "emptyDir": {}} for name in volumes),
                    *self._machine(),
                ],
                "terminationGracePeriodSeconds": grace,
                **spec,
            },
        }

    def init(self, name: str, source: str = "", *args: str, **fields: Any) -> Manifest:
        return self.container(
            name=name, command=["python", "-c", source], args=list(args), **fields
        )

    def container(self, **fields: Any) -> Manifest:
        """An init container that runs in the image, if there is one, on this machine's programs."""
        if not self.image:
            return fields
        places = podman.host_volumes().items()
        mounts = [{"name": name, "mountPath": path, "readOnly": True} for name, path in places]
        mounts += fields.get("volumeMounts", ())
        return {"image": self.image, "imagePullPolicy": "Never", **fields, "volumeMounts": mounts}

    def _machine(self) -> list[Manifest]:
        places = podman.host_volumes().items() if self.image else ()
        return [{"name": name, "hostPath": {"path": path}} for name, path in places]

    def sidecar(self, name: str, source: str = "", *args: str, **fields: Any) -> Manifest:
        return self.init(name, source, *args, restartPolicy="Always", **fields)

    def probe(self, port: int = 8000, **fields: Any) -> Manifest:
        return {"httpGet": {"path": "/health", "port": port}, **fields}

    def server(self, port: int, *args: str, name: str = "model-server", **fields: Any) -> Manifest:
        probe = self.probe(port, failureThreshold=100)
        given = {"ports": [{"containerPort": port}], "startupProbe": probe, **fields}
        return self.sidecar(name, SERVER, "--port", str(port), *args, **given)

    def plan(self, manifest: Mapping[str, Any], **fields: Any) -> LocalPodPlan:
        given: dict[str, Any] = {
            "root": Path("/here"),
            "environ": {},
            "variables": {},
            "primary": "primary",
            "volumes": {},
            "ports": {port: port for port in declared_ports(manifest)},
            "platform": "linux",
        }
        return compile_plan(manifest, **{**given, **fields})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker has the container engine: a second would make its images again."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        backend = parameters.params.get("backend") if parameters else None
        if backend == "containers" or "engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("container engine"))


@pytest.fixture
def manifests(request: pytest.FixtureRequest) -> Manifests:
    """Of processes, or of what the fixture `backend` says."""
    is_runtime = (
        "backend" in request.fixturenames and request.getfixturevalue("backend") == "containers"
    )
    return Manifests(podman.IMAGE if is_runtime else "")


@dataclass(frozen=True)
class ServedRegistry:
    """A registry that the runtime of the tests can reach."""

    registry: podman.Registry
    address: str


@pytest.fixture(scope="session")
def registry() -> Iterator[ServedRegistry]:
    served = podman.Registry()
    with podman.serve(served) as address:
        yield ServedRegistry(served, address)


@pytest.fixture(scope="session")
def _service(tmp_path_factory: pytest.TempPathFactory, registry: ServedRegistry) -> Iterator[str]:
    """The address of a runtime, or `no runtime: …`."""
    try:
        with podman.podman_service(tmp_path_factory.mktemp("podman"), registry.address) as address:
            yield address
    except podman.NoRuntimeError as error:
        yield f"no runtime: {error}"


@pytest.fixture
def runtime(_service: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ContainerRuntime]:
    """A container runtime, found by what is tested; nothing may be left in it."""
    if _service.startswith("no runtime"):
        pytest.skip(_service)
    monkeypatch.setenv("DOCKER_HOST", _service)
    connected = connect(_service)
    yield connected
    wait_for(lambda: connected.find() == [])


@pytest.fixture(params=["processes", "containers"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What runs pods: a test that uses it runs once for each."""
    monkeypatch.setenv(BACKEND_VARIABLE, request.param)
    if request.param == "containers":
        request.getfixturevalue("runtime")
    return str(request.param)


@dataclass(frozen=True, kw_only=True)
class Run:
    """How one run of a container goes. Times are in seconds after its start."""

    exits_after: float | None = None
    code: int = 0
    ready_after: float = 0.0
    unhealthy_after: float = 1e9
    term_takes: float | None = 0.0  # None: SIGTERM is ignored
    lines: tuple[str, ...] = ()
    message: str = ""
    reason: str = ""


@dataclass
class FakeProcess:
    run: Run
    clock: Callable[[], float]
    began: float = 0.0
    reason: str = ""
    terminated: float | None = None
    killed: bool = False

    def poll(self) -> int | None:
        age = self.clock() - self.began
        if self.killed:
            return 137
        if self.run.exits_after is not None and age >= self.run.exits_after:
            return self.run.code
        ends = self.terminated is not None and self.run.term_takes is not None
        if ends and self.clock() >= self.terminated + self.run.term_takes:
            return 143
        return None

    def terminate(self) -> None:
        assert self.terminated is None, "SIGTERM twice"
        self.terminated = self.clock()

    def kill(self) -> None:
        assert not self.killed, "SIGKILL twice"
        self.killed = True

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, str]:
        raise AssertionError("no exec probe is expected")


@dataclass
class Scenario:
    """A pod of fakes.

    A container without a script runs for ever; one with a script repeats its last run.
    """

    manifest: Mapping[str, Any]
    runs: Mapping[str, Sequence[Run]]
    options: Mapping[str, Any] = field(default_factory=dict)
    now: float = 100.0

    def __post_init__(self) -> None:
        self.history = History(self.clock)
        self.stream = io.StringIO()
        self._counts: dict[str, int] = {}
        self._messages: dict[str, str] = {}
        shared = PodContext(
            plan=Manifests().plan(self.manifest),
            backend=self,
            history=self.history,
            output=PodOutput(self.stream),
            clock=self.clock,
            prober=self.ask_probe,
            backoff=Backoff(),
        )
        self.supervisor = Supervisor(shared, **self.options)

    def clock(self) -> float:
        return self.now

    def runs_image(self, image: str) -> bool:
        return False

    def clean_up(self, plan: LocalPodPlan) -> None:
        raise AssertionError("not a task of the supervisor")

    def prepare(self, plan: LocalPodPlan, report: EventSink) -> None:
        raise AssertionError("not a task of the supervisor")

    def start(
        self, plan: LocalPodPlan, container: ContainerPlan, write_line: LineSink
    ) -> FakeProcess:
        runs = self.runs.get(container.name, (Run(),))
        count = self._counts.get(container.name, 0)
        self._counts[container.name] = count + 1
        run = runs[min(count, len(runs) - 1)]
        for line in run.lines:
            write_line(line)
        self._messages[container.name] = run.message
        return FakeProcess(run, self.clock, self.now, run.reason)

    def termination_message(self, container: ContainerPlan) -> str:
        return self._messages.get(container.name, "")

    def ask_probe(self, probe: ProbePlan, process: FakeProcess) -> ProbeResult:
        age = self.now - process.began
        ok = process.run.ready_after <= age < process.run.unhealthy_after
        return ProbeResult(
            ok=ok, text=f"{probe.action}: {'HTTP 200' if ok else 'connection refused'}"
        )

    def step_until(self, phase: PodPhase, limit: float = 2000) -> Scenario:
        give_up = self.now + limit
        while self.supervisor.phase is not phase:
            assert self.now < give_up, self.told
            self.now = round(self.now + self.supervisor.step(), 3)
        return self

    def step_for(self, seconds: float) -> Scenario:
        end = self.now + seconds
        while self.now < end:
            self.now = round(self.now + self.supervisor.step(), 3)
        return self

    def stop(self, grace: float | None = None) -> Scenario:
        self.supervisor.request_stop(grace)
        return self.step_until(PodPhase.STOPPED)

    @property
    def told(self) -> list[str]:
        """The history as `name kind`, exits with their code."""
        return [
            f"{event.container} {event.kind}"
            + (f" {event.detail.split()[2]}" if event.kind == "exited" else "")
            for event in self.history.events
        ]

    def seconds(self, container: str, kind: str) -> list[float]:
        """When something happened."""
        found = [
            event
            for event in self.history.events
            if (event.container, event.kind) == (container, kind)
        ]
        return [round(event.seconds, 1) for event in found]


@pytest.fixture
def scenario() -> type[Scenario]:
    return Scenario


@pytest.fixture
def run() -> type[Run]:
    return Run


def living(identity: str) -> list[int]:
    """Return the processes of a pod that are still there; zombies, without environment, are not."""
    return sorted(marked_processes(identity + "/"))


@pytest.fixture
def alive() -> Callable[[str], list[int]]:
    return living


@pytest.fixture
def eventually() -> Callable[..., Any]:
    return wait_for


@dataclass
class Script:
    """A program that uses the room, in a process of its own."""

    process: subprocess.Popen[str]

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, number: int, timeout: float = 15) -> int:
        self.process.send_signal(number)
        return self.process.wait(patient(timeout))


@pytest.fixture
def run_script(tmp_path: Path) -> Iterator[Callable[..., Script]]:
    """Run a script, whose first line is for the test and whose errors go to `tmp_path/errors`."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *args: str) -> Script:
        path = tmp_path / f"script{len(started)}.py"
        path.write_text(textwrap.dedent(source))
        with (tmp_path / "errors").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, str(path), *args],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env={**os.environ, "INFERENCE_LOCAL_DIRECTORY": str(tmp_path)},
            )
        started.append(process)
        return Script(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
