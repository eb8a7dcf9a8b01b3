"""Manifests and what they mean on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference.errors import ConfigError, UnsupportedError
from flytekitplugins.inference.local.plan.local_plan import Role, declared_ports
from flytekitplugins.inference.local.plan.mounts import LocalMount
from flytekitplugins.inference.local.plan.probe_plan import Exec, HttpGet, ProbePlan, TcpSocket


def test_a_documented_pod(manifests: Any) -> None:
    mounts = [{"name": "shared", "mountPath": "/shared"}, {"name": "tmp", "mountPath": "/tmp"}]
    manifest = manifests.pod(
        {
            "name": "input-downloader",
            "image": "tools",
            "command": ["python", "-m", "programs.download_inputs"],
            "args": ["{{.input}}", "/shared/inputs.json"],
            "volumeMounts": mounts,
        },
        {
            "name": "model-server",
            "image": "server",
            "restartPolicy": "Always",
            "command": ["serve"],
            "args": ["--port", "$(INFERENCE_PORT)", "--model=/shared/m", "--max-model-len", "8000"],
            "env": [
                {"name": "INFERENCE_PORT", "value": "8000"},
                {"name": "INFERENCE_INPUTS", "value": "/shared/inputs.json"},
            ],
            "ports": [{"name": "http", "containerPort": 8000}],
            "startupProbe": {
                "httpGet": {"path": "/health", "port": "http"},
                "failureThreshold": 100,
            },
            "volumeMounts": mounts,
        },
        volumes=["shared", "tmp"],
    )
    plan = manifests.plan(manifest, variables={"input": "/tmp/inputs.pb"}, ports={8000: 45001})
    volumes = Path("/here/volumes")
    directories = (volumes / "shared", volumes / "tmp")
    own_mounts = tuple(LocalMount(path=f"/{path.name}", directory=path) for path in directories)
    downloader, server = plan.containers
    assert (downloader.role, server.role) == (Role.INIT, Role.SIDECAR)
    assert downloader.command == ("python", "-m", "programs.download_inputs")
    assert downloader.args == ("/tmp/inputs.pb", "/here/volumes/shared/inputs.json")
    assert server.command == ("serve",)
    assert server.args == (
        "--port",
        "45001",
        "--model=/here/volumes/shared/m",
        "--max-model-len",
        "8000",
    )
    assert server.env == {
        "INFERENCE_TERMINATION_LOG": "/here/termination/model-server",
        "TMPDIR": "/here/volumes/tmp",
        "INFERENCE_PORT": "45001",
        "INFERENCE_INPUTS": "/here/volumes/shared/inputs.json",
    }
    assert server.ports == (45001,)
    assert server.mounts == own_mounts == plan.primary_mounts
    assert server.startup == ProbePlan(
        action=HttpGet(url="http://127.0.0.1:45001/health"), failure_threshold=100
    )
    assert server.startup.budget == 1000
    assert plan.directories == directories
    assert plan.notes == (("model-server", "port 8000 is in use here, so it listens on 45001"),)
    assert declared_ports(manifest) == (8000,)


def test_all_problems_are_told_at_once(manifests: Any) -> None:
    server = manifests.sidecar(
        "server",
        "",
        "{{.input}}",
        env=[
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "group", "key": "token"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
        envFrom=[{"secretRef": {"name": "all"}}],
        startupProbe={"grpc": {"port": 8000}},
        volumeMounts=[
            {"name": "claim", "mountPath": "/claim"},
            {"name": "absent", "mountPath": "/absent"},
            {"name": "data", "mountPath": "/"},
        ],
    )
    volumes = [
        {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "data", "emptyDir": {}},
    ]
    manifest = manifests.pod(server)
    manifest["spec"]["volumes"] = volumes
    with pytest.raises(UnsupportedError) as caught:
        manifests.plan(manifest)
    assert len(caught.value.problems) == 8
    text = str(caught.value)
    for word in (
        "'claim'",
        "'absent'",
        "root",
        "TOKEN",
        "'group'",
        "CPU",
        "'all'",
        "grpc",
        "{{.input}}",
    ):
        assert word in text


def test_a_claim_may_be_a_directory_of_the_caller(manifests: Any, tmp_path: Path) -> None:
    mounts = [{"name": "claim", "mountPath": "/models", "subPath": "a/b"}]
    manifest = manifests.pod(manifests.init("x", "", "/models/m", volumeMounts=mounts))
    manifest["spec"]["volumes"] = [{"name": "claim", "persistentVolumeClaim": {"claimName": "c"}}]
    plan = manifests.plan(manifest, volumes={"claim": tmp_path})
    assert plan.containers[0].args == (f"{tmp_path}/a/b/m",)
    assert plan.directories == ()


def test_a_host_path_is_used_as_it_is(manifests: Any) -> None:
    mounts = [{"name": "host", "mountPath": "/models"}]
    manifest = manifests.pod(manifests.init("x", "", "/models/m", volumeMounts=mounts))
    manifest["spec"]["volumes"] = [{"name": "host", "hostPath": {"path": "/data/models"}}]
    assert manifests.plan(manifest).containers[0].args == ("/data/models/m",)


@pytest.mark.parametrize(
    ("platform", "expected"), [("linux", "/dev/shm/x"), ("darwin", "/here/volumes/shm/x")]
)
def test_shared_memory_stays_where_linux_has_it(
    manifests: Any, platform: str, expected: str
) -> None:
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
    manifest = manifests.pod(
        manifests.init("x", "", "/dev/shm/x", volumeMounts=mounts), volumes=["shm"]
    )
    assert manifests.plan(manifest, platform=platform).containers[0].args == (expected,)


def test_only_own_mounts_are_mapped(manifests: Any) -> None:
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    manifest = manifests.pod(
        manifests.init("with", "", "/shared/x /tmp/x", volumeMounts=mounts),
        manifests.init("without", "", "/shared/x"),
        volumes=["shared"],
    )
    arguments = [container.args for container in manifests.plan(manifest).containers]
    assert arguments == [("/here/volumes/shared/x /tmp/x",), ("/shared/x",)]


def test_text_of_this_machine_is_not_mapped(manifests: Any) -> None:
    container = manifests.init(
        "x",
        "",
        "{{.input}}",
        "$(TOKEN)",
        env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "g", "key": "k"}}}],
        volumeMounts=[{"name": "tmp", "mountPath": "/tmp"}],
    )
    manifest = manifests.pod(container, volumes=["tmp"])
    plan = manifests.plan(manifest, environ={"TOKEN": "/tmp/8000"}, variables={"input": "/tmp/in"})
    assert plan.containers[0].args == ("/tmp/in", "/tmp/8000")


def test_what_exists_here_is_not_in_the_pods_empty_directory(manifests: Any) -> None:
    mounts = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
    words = ["/tmp/checkout/server.py", "--config=/tmp/checkout/c.toml", "--out=/tmp/out"]
    manifest = manifests.pod(manifests.sidecar("server", "pass", *words, **mounts), volumes=["tmp"])
    plan = manifests.plan(manifest, is_here=lambda path: path.startswith("/tmp/checkout"))
    directory = plan.containers[0].mounts[0].directory
    assert list(plan.containers[0].args) == [*words[:2], f"--out={directory}/out"]


def test_a_backend_with_a_file_system_of_its_own_sees_the_mount_paths(manifests: Any) -> None:
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    env = [{"name": "A", "value": "/tmp/a"}]
    manifest = manifests.pod(
        manifests.init("x", "", "/tmp/x", env=env, volumeMounts=mounts), volumes=["tmp"]
    )
    container = manifests.plan(manifest, runs_image=lambda image: True).containers[0]
    assert (container.args, container.env) == (("/tmp/x",), {"A": "/tmp/a"})
    assert container.mounts == (LocalMount(path="/tmp", directory=Path("/here/volumes/tmp")),)


def _env(
    manifests: Any, *entries: dict[str, Any], environ: dict[str, str], args: tuple[str, ...] = ()
) -> Any:
    manifest = manifests.pod(manifests.init("x", "", *args, env=list(entries)))
    plan = manifests.plan(manifest, environ=environ)
    container = plan.containers[0]
    values = {
        name: value for name, value in container.env.items() if name != "INFERENCE_TERMINATION_LOG"
    }
    return values, container.args, [note for _, note in plan.notes]


def test_a_value_sees_what_was_defined_before_it(manifests: Any) -> None:
    entries = (
        {"name": "B", "value": "<$(A)>"},
        {"name": "A", "value": "1"},
        {"name": "C", "value": "<$(A)>"},
    )
    values, args, _ = _env(manifests, *entries, environ={}, args=("$(B) $(C) $(HOME)",))
    assert values == {"B": "<$(A)>", "A": "1", "C": "<1>"}
    assert args == ("<$(A)> <1> $(HOME)",)


def test_a_platform_secret_that_is_not_here_leaves_this_machines_own(manifests: Any) -> None:
    entry = {"name": "HF_TOKEN", "value": "$(_FSEC_HF)"}
    values, args, notes = _env(
        manifests, entry, environ={"HF_TOKEN": "secret"}, args=("$(HF_TOKEN)",)
    )
    assert values == {}
    assert args == ("secret",)
    assert notes == ["HF_TOKEN was left out: what it refers to does not exist here"]


def test_a_platform_secret_of_this_machine_is_used(manifests: Any) -> None:
    entry = {"name": "HF_TOKEN", "value": "$(_FSEC_HF)"}
    values, _, notes = _env(manifests, entry, environ={"_FSEC_HF": "secret"})
    assert (values, notes) == ({"HF_TOKEN": "secret"}, [])


def test_an_optional_secret_is_skipped_and_its_reference_with_it(manifests: Any) -> None:
    secret = {
        "name": "S",
        "valueFrom": {"secretKeyRef": {"name": "g", "key": "k", "optional": True}},
    }
    entries = (secret, {"name": "T", "value": "$(S)"})
    assert _env(manifests, *entries, environ={})[0] == {}
    assert _env(manifests, *entries, environ={"S": "x"})[0] == {"S": "x", "T": "x"}


def test_fields_of_the_pod(manifests: Any) -> None:
    entries = (
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "http://$(IP):1"},
    )
    assert _env(manifests, *entries, environ={})[0] == {
        "NAME": "test",
        "IP": "127.0.0.1",
        "URL": "http://127.0.0.1:1",
    }


def test_probes_follow_a_replaced_port(manifests: Any) -> None:
    server = manifests.sidecar(
        "server",
        ports=[{"containerPort": 8000}],
        startupProbe={"tcpSocket": {"port": 8000}, "periodSeconds": 2, "initialDelaySeconds": 5},
        livenessProbe={
            "exec": {"command": ["check", "--port", "8000"]},
            "terminationGracePeriodSeconds": 1,
        },
        readinessProbe={
            "httpGet": {
                "port": 8000,
                "scheme": "HTTPS",
                "httpHeaders": [{"name": "A", "value": "b"}],
            },
            "successThreshold": 2,
        },
    )
    other = manifests.sidecar(
        "other", livenessProbe={"httpGet": {"port": 8000, "host": "example.org", "path": "/"}}
    )
    server_plan, other_plan = manifests.plan(
        manifests.pod(server, other), ports={8000: 45001}
    ).containers
    assert server_plan.startup == ProbePlan(
        action=TcpSocket(host="127.0.0.1", port=45001), period=2, initial_delay=5
    )
    assert server_plan.startup.budget == 11
    command = ("check", "--port", "45001")
    assert server_plan.liveness == ProbePlan(
        action=Exec(command=command), termination_grace_period=1
    )
    action = HttpGet(url="https://127.0.0.1:45001/", headers=(("A", "b"),))
    assert server_plan.readiness == ProbePlan(action=action, success_threshold=2)
    assert other_plan.liveness == ProbePlan(action=HttpGet(url="http://example.org:8000/"))


def test_a_port_that_nothing_names_is_told(manifests: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server", ports=[{"containerPort": 8000}]))
    ((name, note),) = manifests.plan(manifest, ports={8000: 45001}).notes
    assert name == "server"
    assert "nothing in its command or env names 8000" in note


def test_the_primary_must_be_there(manifests: Any) -> None:
    with pytest.raises(ConfigError, match="no container 'main', only primary"):
        manifests.plan(manifests.pod(), primary="main")


def test_no_secret_is_in_a_repr(manifests: Any) -> None:
    env = [{"name": "TOKEN", "value": "hidden-value"}]
    plan = manifests.plan(manifests.pod(manifests.init("x", "", "--token=$(TOKEN)", env=env)))
    assert plan.containers[0].args == ("--token=hidden-value",)
    assert "hidden-value" not in repr(plan)


def test_a_manifest_is_not_changed(manifests: Any) -> None:
    import copy

    manifest = manifests.pod(manifests.server(8000), volumes=["shared"])
    before = copy.deepcopy(manifest)
    manifests.plan(manifest, ports={8000: 45001})
    assert manifest == before
