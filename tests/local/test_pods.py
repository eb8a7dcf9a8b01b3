"""Pods of real processes, and the same as containers where a container runtime can be had."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from flytekitplugins.inference import local
from flytekitplugins.inference.errors import (
    ConfigError,
    ServerExitedError,
    ServerNotReadyError,
    UnsupportedError,
)
from patience import patient

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("backend")
only_processes = pytest.mark.parametrize("backend", ["processes"], indirect=True)
FAST = local.Backoff(base_seconds=0.05, cap_seconds=0.1)


@pytest.fixture(autouse=True)
def _private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_LOCAL_DIRECTORY", str(tmp_path))


def get(port: int, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=patient(5)) as answer:
        return answer.read().decode()


def kinds(pod: local.LocalPod) -> list[str]:
    return [f"{event.container} {event.kind}" for event in pod.events]


def identity(pod: local.LocalPod) -> str:
    return pod._plan.root.name


def test_a_pod_from_start_to_end(
    backend: str, manifests: Any, alive: Any, free_port: int, tmp_path: Path
) -> None:
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    write = (
        "import pathlib, sys; "
        "pathlib.Path(sys.argv[2]).write_text(pathlib.Path(sys.argv[1]).read_text())"
    )
    manifest = manifests.pod(
        manifests.init("downloader", write, "{{.input}}", "/shared/inputs.json", **mounts),
        manifests.server(free_port, "/shared/inputs.json", **mounts),
        volumes=["shared"],
    )
    output = io.StringIO()
    with local.start(
        manifest, local.LocalSettings(files={"input": b"hello"}, output=output)
    ) as pod:
        inputs = pod.path("/shared/inputs.json")
        assert inputs.read_text() == "hello"
        assert inputs.parent.parent.parent.stat().st_mode & 0o777 == 0o700
        assert pod.port(free_port) == free_port
        seen = inputs if backend == "processes" else "/shared/inputs.json"
        assert get(free_port) == repr(["--port", str(free_port), str(seen)])
        assert alive(identity(pod))
        assert pod.log_tail("model-server") == (f"listening on {free_port}",)
        pod.check()
    assert kinds(pod) == [
        "downloader started",
        "downloader exited",
        "model-server started",
        "model-server passed",
        "primary started",
        "primary ended",
        "model-server stopping",
        "model-server exited",
        "pod stopped",
    ]
    assert output.getvalue().startswith(
        f"[model-server] listening on {free_port}\n[pod] ready after "
    )
    assert alive(identity(pod)) == []
    assert not inputs.parent.exists()
    assert list(tmp_path.glob("inference-pod-*")) == []
    with pytest.raises(ServerExitedError, match="not running any more"):
        pod.check()


def test_the_pod_is_stopped_when_the_block_raises(
    manifests: Any, alive: Any, free_port: int
) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        local.start(manifests.pod(manifests.server(free_port))) as pod,
    ):
        _ = 1 / 0
    assert alive(identity(pod)) == []
    assert [event.detail for event in pod.events if event.kind == "ended"] == [
        "raised ZeroDivisionError"
    ]


def test_a_busy_port_is_replaced_wherever_it_is_named(manifests: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        env = [
            {"name": "HTTP_PORT", "value": str(port)},
            {"name": "URL", "value": f"http://localhost:{port}/v1"},
        ]
        shown = {"name": "SHOWN", "value": "HTTP_PORT URL"}
        manifest = manifests.pod(
            manifests.server(port, "--max-len", str(port), env=[*env, shown]),
            manifests.init(
                "gate",
                f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/x')",
            ),
        )
        with local.start(manifest) as pod:
            here = pod.port(port)
            assert here != port
            assert get(here) == repr(["--port", str(here), "--max-len", str(port)])
            assert get(here, "/env") == repr(
                {"HTTP_PORT": str(here), "URL": f"http://localhost:{here}/v1"}
            )
    notes = [event.detail for event in pod.events if event.kind == "noted"]
    assert notes == [f"port {port} is in use here, so it listens on {here}"]


def test_pods_of_one_process_do_not_choose_the_same_port(manifests: Any, free_port: int) -> None:
    manifest = manifests.pod(manifests.sidecar("idle", manifests.sleep, "--port", str(free_port)))
    manifest["spec"]["initContainers"][0]["ports"] = [{"containerPort": free_port}]
    with local.start(manifest) as one, local.start(manifest) as other:
        assert one.port(free_port) == free_port != other.port(free_port)
    with local.start(manifest) as again:
        assert again.port(free_port) == free_port


def test_an_init_container_that_fails_says_why(manifests: Any, alive: Any, tmp_path: Path) -> None:
    source = (
        "import json, os, sys; open(os.environ.get('INFERENCE_TERMINATION_LOG', "
        "'/dev/termination-log'), 'w')"
        ".write(json.dumps({'message': 'No such thing.', 'hint': 'Look again.'})); print('x'); "
        "sys.exit(66)"
    )
    sleeper = manifests.sidecar("sleeper", manifests.sleep)
    with pytest.raises(ServerExitedError) as caught:
        local.start(manifests.pod(sleeper, manifests.init("downloader", source)))
    assert str(caught.value) == (
        "downloader ended with exit code 66 and the pod cannot start without it: No such thing. "
        "Hint: Look again.\n"
        "Its last lines:\n  | x"
    )
    assert list(tmp_path.glob("inference-pod-*")) == []


@only_processes
def test_a_program_of_this_package_as_init_container(manifests: Any, tmp_path: Path) -> None:
    module = "flytekitplugins.inference.local.prober"
    entry = {
        "name": "program",
        "command": ["python", "-m", module],
        "args": ["/shared/x"],
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }
    with local.start(manifests.pod(entry, volumes=["shared"])) as pod:
        assert kinds(pod)[:2] == ["program started", "program exited"]


def test_a_crash_looping_server_is_given_up(manifests: Any) -> None:
    server = manifests.sidecar(
        "server", "print('no model'); raise SystemExit(3)", startupProbe=manifests.probe(1)
    )
    with pytest.raises(ServerExitedError, match="exit code 3 after 3 restarts") as caught:
        local.start(manifests.pod(server), local.LocalSettings(backoff=FAST))
    assert caught.value.log_tail == ("no model",) * 4


def test_a_server_that_never_gets_ready(manifests: Any, free_port: int) -> None:
    source = f"print('loading', flush=True); {manifests.sleep}"
    probe = manifests.probe(free_port, failureThreshold=1, periodSeconds=1)
    server = manifests.sidecar("server", source, startupProbe=probe)
    with pytest.raises(ServerNotReadyError, match="connection refused") as caught:
        local.start(manifests.pod(server))
    assert caught.value.log_tail == ("loading",)


def test_a_server_that_ends_is_restarted_under_the_primary(
    manifests: Any, eventually: Any, free_port: int
) -> None:
    with local.start(
        manifests.pod(manifests.server(free_port)), local.LocalSettings(backoff=FAST)
    ) as pod:
        with pytest.raises(OSError, match=r".*"):
            get(free_port, "/exit")
        eventually(lambda: pod.restarts("model-server") == 1 and pod.is_settled)
        assert get(free_port)
    assert next(event.detail for event in pod.events if event.kind == "exited") == "exit code 7"


def test_a_server_that_ignores_sigterm_is_killed(
    manifests: Any, alive: Any, free_port: int
) -> None:
    manifest = manifests.pod(manifests.server(free_port, "--stubborn"), grace=0.5)
    with local.start(manifest) as pod:
        assert alive(identity(pod))
    assert "model-server killed" in kinds(pod)
    assert [event.detail for event in pod.events if event.kind == "exited"] == [
        "exit code 137 (SIGKILL)"
    ]
    assert alive(identity(pod)) == []


def test_workers_with_sessions_of_their_own_end_too(
    manifests: Any, alive: Any, free_port: int
) -> None:
    with local.start(manifests.pod(manifests.server(free_port, "--workers"))) as pod:
        assert len(alive(identity(pod))) >= 3  # server, two workers
    assert alive(identity(pod)) == []
    assert "model-server killed" not in kinds(pod)


def test_workers_end_before_a_restart(
    manifests: Any, alive: Any, eventually: Any, free_port: int
) -> None:
    with local.start(
        manifests.pod(manifests.server(free_port, "--workers")), local.LocalSettings(backoff=FAST)
    ) as pod:
        before = set(alive(identity(pod)))
        with pytest.raises(OSError, match=r".*"):
            get(free_port, "/exit")
        eventually(lambda: pod.restarts("model-server") == 1 and pod.is_settled)
        assert not before & set(alive(identity(pod)))


@only_processes
def test_a_shim_that_is_killed_leaves_nothing(
    manifests: Any, alive: Any, eventually: Any, free_port: int
) -> None:
    with local.start(
        manifests.pod(manifests.server(free_port, "--workers")), local.LocalSettings(backoff=FAST)
    ) as pod:
        before = set(alive(identity(pod)))
        os.kill(pod._supervisor.containers[0]._process.pid, 9)
        eventually(lambda: pod.restarts("model-server") == 1 and pod.is_settled)
        assert not before & set(alive(identity(pod)))


def test_a_command_may_be_a_probe(manifests: Any, eventually: Any) -> None:
    source = (
        "import pathlib, sys, time; time.sleep(0.3); pathlib.Path(sys.argv[1]).touch(); "
        f"{manifests.sleep}"
    )
    probe = {
        "exec": {
            "command": [
                "python",
                "-c",
                "import os, sys; sys.exit(not os.path.exists('/shared/ready'))",
            ]
        }
    }
    server = manifests.sidecar(
        "loader",
        source,
        "/shared/ready",
        startupProbe={**probe, "timeoutSeconds": 5},
        volumeMounts=[{"name": "shared", "mountPath": "/shared"}],
    )
    with local.start(manifests.pod(server, volumes=["shared"])) as pod:
        assert pod.path("/shared/ready").exists()


@only_processes
def test_the_environment_is_this_machines_and_the_containers(
    manifests: Any, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "from here")
    monkeypatch.setenv("BOTH", "from here")
    env = [
        {"name": "HF_TOKEN", "value": "$(_FSEC_NOT_HERE)"},
        {"name": "BOTH", "value": "from the container"},
        {"name": "SHOWN", "value": "HF_TOKEN BOTH TMPDIR"},
    ]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    manifest = manifests.pod(
        manifests.server(free_port, env=env, volumeMounts=mounts), volumes=["tmp"]
    )
    output = io.StringIO()
    with local.start(manifest, local.LocalSettings(output=output)) as pod:
        shown = {
            "HF_TOKEN": "from here",
            "BOTH": "from the container",
            "TMPDIR": str(pod.path("/tmp")),
        }
        assert get(free_port, "/env") == repr(shown)
    assert "from" not in output.getvalue() + repr(pod.events) + repr(pod)


@only_processes
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"name": "a", "image": "nim:1"},
            ["a has no command", "'nim:1'", "INFERENCE_LOCAL_BACKEND"],
        ),
        ({"name": "a", "image": "nim:1", "args": ["--x"]}, ["a has no command"]),
        (
            {"name": "a", "image": "vllm:1", "command": ["vllm", "serve"]},
            ["'vllm'", "pip install vllm"],
        ),
        ({"name": "a", "image": "i", "command": ["/opt/no/such"]}, ["'/opt/no/such'", "command="]),
        ({"name": "a", "command": ["python"], "workingDir": "/no/such"}, ["/no/such"]),
    ],
)
def test_what_this_machine_does_not_have_is_told_before_anything_starts(
    manifests: Any,
    tmp_path: Path,
    entry: dict[str, Any],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr("sys.executable", "/nowhere/bin/python")
    touch = manifests.init("first", f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UnsupportedError) as caught:
        local.start(manifests.pod(touch, entry))
    for word in words:
        assert word in str(caught.value)
    assert list(tmp_path.glob("inference-pod-*")) == []


@only_processes
def test_sigterm_is_not_lost_however_early_it_comes(manifests: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server", "import time; time.sleep(600)"), grace=60)
    for milliseconds in range(0, 60, 4):
        with local.start(manifest) as pod:
            time.sleep(milliseconds / 1000)
        assert "server killed" not in kinds(pod)


def test_binary_junk_does_no_harm(manifests: Any) -> None:
    source = "import os; os.write(1, bytes(range(256)) * 50 + b'\\nend\\n')"
    with local.start(manifests.pod(manifests.init("junk", source))) as pod:
        assert pod.log_tail("junk")[-1] == "end"


@only_processes
def test_questions_about_what_is_not_there(manifests: Any) -> None:
    with local.start(manifests.pod(volumes=["shared"])) as pod:
        for question in (lambda: pod.port(1), lambda: pod.path("/x"), lambda: pod.log_tail("x")):
            with pytest.raises(ConfigError):
                question()


def test_stopping_twice_and_from_another_thread(manifests: Any, free_port: int) -> None:
    pod = local.start(manifests.pod(manifests.server(free_port)))
    threads = [threading.Thread(target=pod.stop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pod.stop()
    assert kinds(pod).count("pod stopped") == 1


def test_a_thread_may_end_and_its_pod_goes_on(manifests: Any, free_port: int) -> None:
    pods: list[local.LocalPod] = []
    starter = threading.Thread(
        target=lambda: pods.append(local.start(manifests.pod(manifests.server(free_port))))
    )
    starter.start()
    starter.join()
    time.sleep(0.5)
    with pods[0] as pod:
        assert get(free_port)
        pod.check()


def test_a_forked_process_leaves_the_pod_alone(manifests: Any, alive: Any, free_port: int) -> None:
    with local.start(manifests.pod(manifests.server(free_port))) as pod:
        child = os.fork()
        if child == 0:
            pod.stop()
            local.stop_all()
            os._exit(0)
        os.waitpid(child, 0)
        assert pod._plan.root.exists()
        pod.check()
        assert get(free_port)


@only_processes
@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_a_shell_command_finds_this_interpreter(manifests: Any) -> None:
    entry = {"name": "shell", "command": ["sh", "-c", "python -c 'import sys; print(sys.prefix)'"]}
    with local.start(manifests.pod(entry)) as pod:
        import sys

        assert pod.log_tail("shell") == (sys.prefix,)


def test_a_program_may_come_from_an_earlier_container(manifests: Any) -> None:
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    source = (
        "import os, sys; open(sys.argv[1], 'w').write('#!/bin/sh\\necho it runs\\n'); "
        "os.chmod(sys.argv[1], 0o700)"
    )
    maker = manifests.init("maker", source, "/shared/tool", **mounts)
    with local.start(
        manifests.pod(
            maker, {"name": "tool", "command": ["/shared/tool"], **mounts}, volumes=["shared"]
        )
    ) as pod:
        assert pod.log_tail("tool") == ("it runs",)
    with pytest.raises(ServerExitedError, match="exit code 126"):
        local.start(
            manifests.pod(
                {"name": "tool", "command": ["/shared/tool"], **mounts}, volumes=["shared"]
            )
        )


@only_processes
def test_a_missing_python_package_is_told_before_anything_starts(
    manifests: Any, tmp_path: Path
) -> None:
    entry = {"name": "server", "command": ["python3", "-m", "no_such_package.serve"]}
    with pytest.raises(UnsupportedError, match="package 'no_such_package'"):
        local.start(manifests.pod(entry))
    env = [{"name": "PYTHONPATH", "value": str(tmp_path)}]
    (tmp_path / "no_such_package").mkdir()
    (tmp_path / "no_such_package" / "serve.py").write_text("print('found')")
    with local.start(manifests.pod({**entry, "env": env})) as pod:
        assert pod.log_tail("server") == ("found",)


@only_processes
def test_the_room_imports_neither_flytekit_nor_a_kubernetes_client() -> None:
    import subprocess
    import sys

    source = (
        "import sys, flytekitplugins.inference.local\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - "
        "set(sys.stdlib_module_names)))"
    )
    command = [sys.executable, "-c", source]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not {"flytekit", "kubernetes", "yaml", "fsspec", "asyncio"} & set(
        found.strip("[]\n").replace("'", "").split(", ")
    )


@only_processes
def test_a_pods_directory_leaves_room_for_the_path_of_a_socket(
    manifests: Any, free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFERENCE_LOCAL_DIRECTORY")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 20)))
    (tmp_path / ("long" * 20)).mkdir()
    mounts = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
    code = (
        "import os, socket; "
        "socket.socket(socket.AF_UNIX).bind(os.path.join(os.environ['TMPDIR'], 'n' * 30))"
    )
    with local.start(manifests.pod(manifests.init("x", code, **mounts), volumes=["tmp"])) as pod:
        assert len(str(pod.path("/tmp"))) < 68


def test_the_start_is_summed_up(manifests: Any, free_port: int) -> None:
    output = io.StringIO()
    with local.start(
        manifests.pod(manifests.init("first", "pass"), manifests.server(free_port)),
        local.LocalSettings(output=output),
    ):
        pass
    (line,) = [line for line in output.getvalue().splitlines() if "ready after" in line]
    assert re.fullmatch(
        r"\[pod\] ready after [\d.]+ s: first [\d.]+ s, model-server [\d.]+ s", line
    ), line
