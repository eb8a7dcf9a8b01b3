"""What only containers have: images, users, limits, a runtime that says no, processes beside."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference import ModelInferenceTemplate, local
from flytekitplugins.inference.errors import (
    ConfigError,
    MissingDependencyError,
    ServerExitedError,
    UnsupportedError,
)
from flytekitplugins.inference.local.containers.container_backend import (
    ContainerBackend,
    ContainerRun,
)
from flytekitplugins.inference.local.containers.docker_api import (
    ContainerRuntime,
    _Progress,
    _split,
    connect,
    find_runtime,
)
from flytekitplugins.inference.sidecar_template import Volume
from local import podman
from patience import patient

FAST = local.Backoff(base_seconds=0.05, cap_seconds=0.1)


@pytest.fixture(autouse=True)
def _private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_LOCAL_DIRECTORY", str(tmp_path))
    for name in ("DOCKER_HOST", "CONTAINER_HOST", "INFERENCE_LOCAL_BACKEND"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def backend(_private_tmp: None, monkeypatch: pytest.MonkeyPatch, runtime: ContainerRuntime) -> str:
    monkeypatch.setenv("INFERENCE_LOCAL_BACKEND", "containers")
    return "containers"


needs_backend = pytest.mark.usefixtures("backend")


def notes(pod: local.LocalPod) -> list[str]:
    return [f"{event.container}: {event.detail}" for event in pod.events if event.kind == "noted"]


# What a container is


@needs_backend
def test_the_images_entry_point_runs_unless_there_is_a_command(
    manifests: Any, runtime: ContainerRuntime
) -> None:
    image = "localhost/inference-test:entry-point"
    podman.import_image(
        runtime.address, image, 'ENTRYPOINT ["/usr/bin/env", "echo"]', 'CMD ["the", "image"]'
    )
    given: list[dict[str, Any]] = [
        {},
        {"args": ["mine"]},
        {"command": ["/usr/bin/env", "echo", "all", "mine"]},
    ]
    entries = [
        manifests.container(name=f"c{number}", **fields) | {"image": image}
        for number, fields in enumerate(given)
    ]
    with local.start(manifests.pod(*entries)) as pod:
        said = [pod.log_tail(f"c{number}") for number in range(3)]
    assert said == [("the image",), ("mine",), ("all mine",)]


@needs_backend
def test_user_rights_and_shared_memory(manifests: Any) -> None:
    source = """
import json, os, pathlib
lines = open("/proc/self/status").read().splitlines()
status = dict(line.split(":\\t") for line in lines if ":\\t" in line)
def writable(path):
    try:
        pathlib.Path(path, "x").write_text("x")
    except OSError as error:
        return type(error).__name__
    return "yes"
shm = os.statvfs("/dev/shm")
pathlib.Path("/dev/termination-log").write_text("the end")
print(json.dumps({
    "ids": [os.getuid(), os.getgid(), 3000 in os.getgroups()],
    "rights": [int(status["CapBnd"], 16), int(status["NoNewPrivs"])],
    "shm": shm.f_frsize * shm.f_blocks,
    "writable": {path: writable(path) for path in ("/shared", "/given", "/var")},
    "place": os.getcwd(),
}))
"""
    security = {
        "runAsUser": 1000,
        "runAsGroup": 2000,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    mounts = [
        {"name": "shared", "mountPath": "/shared"},
        {"name": "shared", "mountPath": "/given", "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    entry = manifests.init(
        "c", source, volumeMounts=mounts, securityContext=security, workingDir="/shared"
    )
    manifest = manifests.pod(entry, volumes=["shared"], securityContext={"fsGroup": 3000})
    manifest["spec"]["volumes"].append(
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}}
    )
    with local.start(manifest) as pod:
        found = json.loads(pod.log_tail("c")[-1])
        assert (pod.path("/shared") / "x").read_text() == "x"
    assert found == {
        "ids": [1000, 2000, True],
        "rights": [0, 1],
        "shm": 32 * 2**20,
        "writable": {"/shared": "yes", "/given": "OSError", "/var": "OSError"},
        "place": "/shared",
    }


@needs_backend
def test_a_container_without_enough_memory(manifests: Any) -> None:
    entry = manifests.init(
        "greedy", "x = bytearray(500 * 2**20)", resources={"limits": {"memory": "64Mi"}}
    )
    with pytest.raises(
        ServerExitedError, match=r"greedy ended with exit code 137 \(SIGKILL"
    ) as caught:
        local.start(manifests.pod(entry))
    assert "memory" in caught.value.hint


@needs_backend
def test_limits_that_the_runtime_refuses_are_left_out_and_noted(manifests: Any) -> None:
    entry = manifests.init("first", "print('it runs')", resources={"limits": {"memory": "1Ki"}})
    with local.start(manifests.pod(entry)) as pod:
        assert pod.log_tail("first") == ("it runs",)
    assert [note.partition("limits: ")[0] for note in notes(pod)] == ["first: it runs without its "]


@needs_backend
def test_a_program_that_the_image_does_not_have(manifests: Any, tmp_path: Path) -> None:
    with pytest.raises(ServerExitedError, match="exit code 126") as caught:
        local.start(manifests.pod(manifests.container(name="first", command=["/no/such"])))
    assert "/no/such" in caught.value.log_tail[-1]
    assert list(tmp_path.glob("inference-pod-*")) == []


@needs_backend
def test_a_command_in_a_container(manifests: Any) -> None:
    with local.start(manifests.pod(manifests.sidecar("server", manifests.sleep))) as pod:
        process = pod._supervisor.containers[0]._process
        assert process is not None
        told = ["sh", "-c", "echo one; echo; echo $INFERENCE_LOCAL_CONTAINER >&2; exit 4"]
        assert process.execute(told, 10) == (4, f"{pod._plan.root.name}/server")
        code, line = process.execute(["/no/such"], 10)
        assert code in (126, 127)
        assert "/no/such" in line or line
        assert process.execute(["sleep", "2"], 0.1) == (None, "")
        assert process.execute(["true"], 10) == (None, "the last one still runs")


@needs_backend
def test_a_silent_container_is_not_lost(
    manifests: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than one request may take, as servers are for hours."""
    limit = patient(0.5)
    monkeypatch.setattr(
        "flytekitplugins.inference.local.containers.docker_api._ANSWER_SECONDS", limit
    )
    silence = f"time.sleep({1.2 * limit})"
    server = manifests.sidecar(
        "server", f"import time; {silence}; print('late', flush=True); {silence}"
    )
    with local.start(manifests.pod(server), local.LocalSettings(backoff=FAST)) as pod:
        eventually(lambda: pod.log_tail("server") == ("late",))
        eventually(lambda: pod.restarts("server") == 1)
        assert next(event.detail for event in pod.events if event.kind == "exited") == "exit code 0"
        pod.stop(grace_seconds=0.1)


# Processes beside containers


@needs_backend
def test_a_process_and_a_container_share_volumes_and_localhost(
    manifests: Any, free_port: int
) -> None:
    """The container finds the paths that the process writes: volumes are there under both names."""
    mounts = {
        "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in ("shared", "tmp")]
    }
    fetch = (
        "import os, sys; open(sys.argv[1], 'w').write('data'); open(sys.argv[2], "
        "'w').write(sys.argv[1])"
    )
    helper = {
        "name": "downloader",
        "image": local.THIS_MACHINE,
        "command": ["python", "-c", fetch],
        "args": ["/tmp/file", "/shared/list"],
        **mounts,
    }
    look = "name = open('/shared/list').read(); open('/shared/seen', 'w').write(open(name).read())"
    gate = (
        "import urllib.request; "
        f"print(urllib.request.urlopen('http://localhost:{free_port}/').status)"
    )
    manifest = manifests.pod(
        helper,
        manifests.init("look", look, **mounts),
        manifests.server(free_port),
        {"name": "gate", "image": local.THIS_MACHINE, "command": ["python", "-c", gate]},
        volumes=["shared", "tmp"],
    )
    with local.start(manifest) as pod:
        assert pod.path("/shared/seen").read_text() == "data"
        assert Path(pod.path("/shared/list").read_text()) == pod.path("/tmp/file")
        assert pod.log_tail("gate") == ("200",)


SERVE_INPUTS = """
import http.server, json, os, pathlib, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        inputs = json.loads(pathlib.Path(os.environ["INFERENCE_INPUTS"]).read_text())
        in_image = not os.path.exists("/home")
        body = json.dumps([inputs["number"], pathlib.Path(inputs["text"]).read_text(), in_image])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *words): pass
port = int(os.environ["INFERENCE_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def _template(port: int, **fields: Any) -> ModelInferenceTemplate:
    places = podman.host_volumes().items()
    volumes = [
        Volume(name=name, source={"hostPath": {"path": path}}, mount_path=path, read_only=True)
        for name, path in places
    ]
    return ModelInferenceTemplate(
        image=podman.IMAGE,
        health_endpoint="/",
        port=port,
        gpu=0,
        command=["python", "-c", SERVE_INPUTS],
        volumes=volumes,
        download_inputs=True,
        termination_grace_period=5,
        **fields,
    )


@needs_backend
@pytest.mark.parametrize("timeout", [None, 60])
def test_a_template_runs_in_its_image_with_our_programs_beside_it(
    free_port: int, tmp_path: Path, timeout: int | None
) -> None:
    import flytekit

    text = tmp_path / "text"
    text.write_text("hello")
    template = _template(free_port, startup_timeout=timeout)
    inputs = {"number": 7, "text": flytekit.types.file.FlyteFile(str(text))}
    with (
        template.run_locally(inputs=inputs) as server,
        urllib.request.urlopen(server.base_url, timeout=patient(10)) as answer,
    ):
        assert json.load(answer) == [7, "hello", True]


@needs_backend
def test_a_task_has_its_server_in_a_container(free_port: int) -> None:
    import flytekit

    template = replace(
        _template(free_port), command=["python", "-m", "http.server", "$(INFERENCE_PORT)"]
    )

    @flytekit.task(task_config=template)
    def ask(number: int) -> int:
        with urllib.request.urlopen(template.base_url, timeout=patient(10)) as answer:
            return number + int(answer.status)

    try:
        assert ask(number=1) == 201
    finally:
        local.stop_idle()


# What the runtime lacks


@needs_backend
def test_an_image_is_pulled_when_it_is_not_here(manifests: Any, registry: Any) -> None:
    image = f"{registry.address}/tools/echo:1"
    usr = {"volumeMounts": [{"name": "machine-0", "mountPath": "/usr"}]}

    def run(policy: str | None) -> tuple[list[str], tuple[str, ...]]:
        entry = {
            "name": "first",
            "image": image,
            **usr,
            **({"imagePullPolicy": policy} if policy else {}),
        }
        with local.start(manifests.pod(entry)) as pod:
            return [event.kind for event in pod.events][:2], pod.log_tail("first")

    with pytest.raises(UnsupportedError, match="by its policy, never pulled"):
        run("Never")
    assert registry.registry.pulls == 0
    assert run(None) == (["pulling", "pulled"], ("from the registry",))
    pulls = registry.registry.pulls
    assert pulls > 0
    assert run("IfNotPresent")[0] == run("Never")[0] == ["started", "exited"]
    assert registry.registry.pulls == pulls
    assert run("Always")[0] == ["pulling", "pulled"]
    assert registry.registry.pulls > pulls


@needs_backend
def test_every_image_that_cannot_be_had_is_named_and_nothing_starts(
    manifests: Any, registry: Any, tmp_path: Path
) -> None:
    """The registry does not have it; without a network the runtime's retries are only slower."""
    absent = {"name": "server", "image": f"{registry.address}/tools/absent:2"}
    never = {"name": "other", "image": "registry.invalid/other:1", "imagePullPolicy": "Never"}
    with pytest.raises(UnsupportedError) as caught:
        local.start(manifests.pod(manifests.init("first"), absent, never))
    first, second = caught.value.problems
    assert first.startswith(
        f"server needs the image '{registry.address}/tools/absent:2', which cannot be pulled: "
    )
    assert second.startswith("other needs the image 'registry.invalid/other:1', which is not here")
    assert list(tmp_path.glob("inference-pod-*")) == []


@needs_backend
def test_a_container_that_must_not_be_root(manifests: Any, runtime: ContainerRuntime) -> None:
    strict = {"securityContext": {"runAsNonRoot": True}}
    with pytest.raises(UnsupportedError, match="must not run as root"):
        local.start(manifests.pod(manifests.init("first", **strict)))
    image = "localhost/inference-test:user"
    podman.import_image(runtime.address, image, "USER 1000")
    entry = manifests.init("first", "import os; print(os.getuid())", **strict) | {"image": image}
    with local.start(manifests.pod(entry)) as pod:
        assert pod.log_tail("first") == ("1000",)


@needs_backend
def test_directories_that_do_not_exist(manifests: Any, tmp_path: Path) -> None:
    mounts = [{"name": "claim", "mountPath": "/claim"}, {"name": "node", "mountPath": "/node"}]
    manifest = manifests.pod(manifests.init("first", "open('/claim/x', 'w')", volumeMounts=mounts))
    claim, node = (
        {"persistentVolumeClaim": {"claimName": "c"}},
        {"hostPath": {"path": str(tmp_path / "node")}},
    )
    manifest["spec"]["volumes"] += [{"name": "claim", **claim}, {"name": "node", **node}]
    with pytest.raises(
        UnsupportedError, match=f"mounts {tmp_path}/node at /node, which this machine does not have"
    ):
        local.start(manifest, local.LocalSettings(volumes={"claim": tmp_path / "claim"}))
    (tmp_path / "node").mkdir()
    (tmp_path / "claim").rmdir()
    with local.start(manifest, local.LocalSettings(volumes={"claim": tmp_path / "claim"})) as pod:
        assert notes(pod) == [f"first: {tmp_path}/claim did not exist and was made"]
    assert (tmp_path / "claim" / "x").exists()


def test_what_a_runtime_cannot_do_is_noted(manifests: Any, runtime: ContainerRuntime) -> None:
    runtime.facts = replace(
        runtime.facts, name="podman 4.3.1", may_hide_network=True, ignores_gpu_requests=True
    )
    manifest = manifests.pod({"name": "server", "image": podman.IMAGE, "command": ["x"]})
    manifest["spec"]["initContainers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    told: list[tuple[str, ...]] = []
    ContainerBackend(runtime).prepare(
        manifests.plan(manifest, runs_image=bool),
        lambda container, kind, detail: told.append((container, kind, detail)),
    )
    network, gpu = told
    assert network[:2] == ("pod", "noted")
    assert "Enable host networking" in network[2]
    assert gpu[:2] == ("server", "noted")
    assert "podman 4.3.1 gives containers no GPU" in gpu[2]


# What is left


def _wardens(parent: int) -> list[int]:
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                words = (directory / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if (
                b"flytekitplugins.inference.local.containers.warden" in words
                and str(parent).encode() in words
            ):
                found.append(int(directory.name))
    return found


HOLD = """
    import json, sys, time
    from flytekitplugins.inference import local

    with local.start(json.loads(sys.argv[1])):
        print("started", flush=True)
        time.sleep(600)
"""


@needs_backend
def test_what_a_dead_owner_and_its_warden_left_is_removed_by_the_next_start(
    manifests: Any, runtime: ContainerRuntime, run_script: Any, eventually: Any, tmp_path: Path
) -> None:
    manifest = manifests.pod(manifests.sidecar("server", manifests.sleep))
    dead, living = (run_script(HOLD, json.dumps(manifest)) for _ in range(2))
    assert dead.read_line() == living.read_line() == "started"
    (warden,) = _wardens(dead.process.pid)
    os.kill(warden, signal.SIGKILL)
    dead.end(signal.SIGKILL)
    time.sleep(1)
    assert len(runtime.find()) == len(list(tmp_path.glob("inference-pod-*"))) == 2
    with local.start(manifests.pod()):
        assert len(runtime.find()) == 1
        assert len(list(tmp_path.glob("inference-pod-*"))) == 2  # the living one's and this one's
    living.end(signal.SIGINT)
    assert list(tmp_path.glob("inference-pod-*")) == []


@needs_backend
def test_no_warden_outlives_its_pod(manifests: Any) -> None:
    with local.start(manifests.pod(manifests.sidecar("server", manifests.sleep))):
        assert len(_wardens(os.getpid())) == 1
    assert _wardens(os.getpid()) == []


def test_files_of_other_users_are_removed_by_a_container(
    runtime: ContainerRuntime, tmp_path: Path
) -> None:
    """As root this test's own removal would succeed, so the runtime's part is called alone."""
    image = "localhost/inference-test:rm"
    podman.import_image(runtime.address, image, programs=["/usr/bin/rm"])
    place = tmp_path / "pod"
    (place / "volumes" / "shared").mkdir(parents=True)
    (place / "volumes" / "shared" / "file").touch()
    runtime._remove_as_root(place, image)
    assert list(place.iterdir()) == []
    runtime.remove_directory(place, [image])
    assert not place.exists()


class LostRuntime:
    """A runtime that goes away. A real one cannot be ended here without what it runs."""

    def wait(self, container: str) -> None:
        raise OSError("connection refused")

    def remove(self, container: str) -> None:
        raise OSError("connection refused")


def test_a_container_that_the_runtime_lost(eventually: Any) -> None:
    lines: list[str] = []
    runtime: Any = LostRuntime()
    run = ContainerRun(
        runtime,
        "id",
        iter([(b"one\ntw", b"err"), (b"o\n", None)]),
        stop_signal="SIGTERM",
        write_line=lines.append,
    )
    assert eventually(run.poll) == 137
    assert run.reason == "lost"
    assert lines == ["one", "two", "err", "the runtime lost it: connection refused"]


class WaitingEndedError(Exception):
    """Raised by a signal's handler."""


class SlowRuntime(LostRuntime):
    """A runtime whose command does not end, and which sends a signal meanwhile."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def execute(self, container: str, command: Any) -> tuple[int, bytes]:
        os.kill(os.getpid(), signal.SIGUSR1)
        self.ended.wait(60)
        return 0, b"done"


def test_a_command_goes_on_when_a_signal_ends_the_waiting_for_it() -> None:
    """It runs until it ends: a second one beside it would be two probes at once."""

    def handler(number: int, frame: Any) -> None:
        raise WaitingEndedError

    runtime: Any = SlowRuntime()
    run = ContainerRun(runtime, "id", iter([]), stop_signal="SIGTERM", write_line=lambda line: None)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(WaitingEndedError):
            run.execute(["probe"], 60)
        assert run.execute(["probe"], 60) == (None, "the last one still runs")
    finally:
        signal.signal(signal.SIGUSR1, before)
        runtime.ended.set()


# Which backend


def unknown(manifests: Any, **fields: Any) -> dict[str, Any]:
    return manifests.pod(
        {"name": "server", "image": podman.IMAGE, "command": ["no-such-server"], **fields}
    )


def test_containers_are_taken_when_a_program_is_not_here(
    manifests: Any, runtime: ContainerRuntime
) -> None:
    manifests = type(manifests)(podman.IMAGE)
    source = (
        "import os; open('/shared/only', 'w').write('#!/bin/sh\\necho found'); "
        "os.chmod('/shared/only', 0o755)"
    )
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    entry = manifests.container(
        name="second",
        command=["only"],
        env=[{"name": "PATH", "value": "/shared:/usr/bin"}],
        **mounts,
    )
    with local.start(
        manifests.pod(manifests.init("first", source, **mounts), entry, volumes=["shared"])
    ) as pod:
        assert pod.log_tail("second") == ("found",)
    assert notes(pod) == [
        f"pod: runs as containers of {runtime.facts.name}: this machine lacks a program of it"
    ]


def test_processes_are_taken_when_every_program_is_here(
    manifests: Any, runtime: ContainerRuntime
) -> None:
    with local.start(
        manifests.pod({"name": "first", "image": podman.IMAGE, "command": ["python", "-c", ""]})
    ) as pod:
        assert notes(pod) == []
        assert runtime.find() == []


def test_without_a_runtime_both_ways_are_told(
    manifests: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(UnsupportedError, match="cannot run as processes") as caught:
        local.start(unknown(manifests))
    missing, tried = caught.value.problems
    assert "'no-such-server'" in missing
    assert tried.startswith("Nor as containers: No container runtime answers on this machine.")
    assert f"{tmp_path}/none.sock: no such file or directory" in tried
    monkeypatch.setenv("INFERENCE_LOCAL_BACKEND", "processes")
    with pytest.raises(UnsupportedError) as caught:
        local.start(unknown(manifests))
    assert caught.value.problems == (missing,)
    monkeypatch.setenv("INFERENCE_LOCAL_BACKEND", "containers")
    with pytest.raises(UnsupportedError, match="No container runtime answers"):
        local.start(unknown(manifests))


def test_a_pod_without_images_needs_no_runtime(manifests: Any) -> None:
    with pytest.raises(UnsupportedError) as caught:
        local.start(manifests.pod({"name": "server", "command": ["no-such-server"]}))
    assert len(caught.value.problems) == 1


def test_a_backend_that_does_not_exist(manifests: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_LOCAL_BACKEND", "docker")
    with pytest.raises(
        ConfigError, match="INFERENCE_LOCAL_BACKEND='docker' must be 'processes' or 'containers'"
    ):
        local.start(manifests.pod())


def test_without_the_sdk_it_is_said_what_to_install(
    manifests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    monkeypatch.setenv("INFERENCE_LOCAL_BACKEND", "containers")
    with pytest.raises(MissingDependencyError, match=r"flytekitplugins-inference\[containers\]"):
        local.start(manifests.pod())
    monkeypatch.delenv("INFERENCE_LOCAL_BACKEND")
    with pytest.raises(UnsupportedError, match=r"Nor as containers: .*\[containers\]"):
        local.start(unknown(manifests))


def test_the_runtime_is_where_the_environment_says(
    runtime: ContainerRuntime, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=r"ssh://user@host: it is another machine's"):
        find_runtime({"DOCKER_HOST": "ssh://user@host"})
    with pytest.raises(UnsupportedError, match="another machine's"):
        find_runtime({"CONTAINER_HOST": "tcp://10.0.0.1:2375"})
    assert find_runtime({"CONTAINER_HOST": runtime.address}).address == runtime.address
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman" / "podman.sock").symlink_to(runtime.address.removeprefix("unix://"))
    assert connect(f"unix://{tmp_path}/podman/podman.sock").facts == runtime.facts


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("vllm/vllm-openai:v0.33.0", ("vllm/vllm-openai", "v0.33.0")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "latest")),
        ("localhost:5000/a:1", ("localhost:5000/a", "1")),
        ("a@sha256:0f", ("a", "sha256:0f")),
        ("a", ("a", "latest")),
    ],
)
def test_names_of_images(image: str, expected: tuple[str, str]) -> None:
    assert _split(image) == expected


def test_a_long_pull_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = _Progress(told.append)
    messages = [("a", 1e9, 4e9), ("b", 5e8, 2e9), ("a", 4e9, 4e9)]
    for layer, current, total in messages:
        now[0] += 6
        progress.add(
            {
                "status": "Downloading",
                "id": layer,
                "progressDetail": {"current": current, "total": total},
            }
        )
    now[0] += 10
    progress.add({"status": "Extracting", "id": "a"})
    assert told == ["1.5 of 6.0 GB", "4.5 of 6.0 GB"]
