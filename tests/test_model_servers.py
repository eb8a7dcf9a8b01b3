"""Several servers in one pod: names, order, what they share, and what they may not."""

from __future__ import annotations

import json
import pickle
import urllib.request
from collections import OrderedDict
from datetime import timedelta
from typing import Any

import pytest
from flytekit import task
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.tools.translator import get_serializable

from flytekitplugins.inference import (
    NIM,
    VLLM,
    ConfigError,
    HFSecret,
    ModelInferenceTemplate,
    ModelServers,
    NIMSecrets,
    SpecConflictError,
    Volume,
)
from flytekitplugins.inference.pod.parts import Helper
from patience import patient
from users.minimal import ECHO, SERVER, ask

HELPER = Helper(image="helper:1", bundled=False)
SETTINGS = SerializationSettings(
    project="p",
    domain="d",
    version="v",
    image_config=ImageConfig(Image("default", "registry.example.com/task", "1")),
)
SHARED = {"shared-data", "tmp"}


def _echo(port: int, **options: Any) -> ModelInferenceTemplate:
    command = ["python", SERVER, "$(INFERENCE_PORT)", *options.pop("words", ())]
    return ModelInferenceTemplate(
        **{
            "image": "echo:1",
            "command": command,
            "health_endpoint": "/health",
            "port": port,
            "gpu": 0,
            **options,
        }
    )


def _names(servers: ModelServers) -> list[str]:
    return [container["name"] for container in servers.compile(HELPER)["spec"]["initContainers"]]


def _by_name(servers: ModelServers) -> dict[str, dict[str, Any]]:
    spec = servers.compile(HELPER)["spec"]
    return {
        container["name"]: container for container in (*spec["initContainers"], *spec["containers"])
    }


def test_in_probe_mode_each_server_stands_behind_what_it_needs() -> None:
    servers = ModelServers(
        {"a": VLLM(model="s3://m/a", download_inputs=True), "b": VLLM(model="s3://m/b", port=8001)}
    )
    assert _names(servers) == [
        *(
            "input-downloader",
            "model-loader-a",
            "model-server-a",
            "model-loader-b",
            "model-server-b",
        )
    ]


def test_in_gate_mode_everything_starts_at_once_and_the_gates_come_last() -> None:
    servers = ModelServers(
        {
            "a": VLLM(model="s3://m/a", download_inputs=True, startup_timeout=60),
            "b": VLLM(model="s3://m/b", port=8001, startup_timeout=90, lora_adapters={"x": "o/n"}),
        }
    )
    assert _names(servers) == [
        *(
            "preflight-a",
            "model-loader-a",
            "preflight-b",
            "model-loader-b",
            "model-server-a",
            "download-loras-b",
            "model-server-b",
        ),
        *("input-downloader", "server-gate-a", "server-gate-b"),
    ]
    gates = [_by_name(servers)[f"server-gate-{name}"]["args"] for name in "ab"]
    assert [args[args.index("--timeout") + 1] for args in gates] == ["60", "90"]
    assert [args[args.index("--report") + 1] for args in gates] == [
        f"/shared/cold-start-{name}.json" for name in "ab"
    ]


def test_a_server_that_cannot_wait_stands_behind_those_that_can() -> None:
    nim = NIM(
        secrets=NIMSecrets(ngc_secret_group="ngc", ngc_secret_key="k"),
        startup_timeout=60,
        model="s3://m/n",
    )
    servers = ModelServers(
        {
            "nim": nim,
            "b": VLLM(model="s3://m/b", port=8001, startup_timeout=90, download_inputs=True),
        }
    )
    names = _names(servers)
    assert names == [
        *("preflight-nim", "model-loader-nim", "preflight-b", "model-loader-b", "model-server-b"),
        *("input-downloader", "model-gate-nim", "model-server-nim"),
        *("server-gate-nim", "server-gate-b"),
    ]
    # it waits by itself for what comes after it
    command = _by_name(servers)["model-server-b"]["command"]
    assert command[-5:-2] == ["/models/.ready", "/shared/inputs.json", "--"]
    assert not any("startupProbe" in container for container in _by_name(servers).values())


def test_volumes_of_ours_are_private_to_a_server_and_the_users_are_shared() -> None:
    models = Volume(
        name="models",
        source={"persistentVolumeClaim": {"claimName": "models"}},
        mount_path="/data",
        containers=("model-server", "primary"),
    )
    servers = ModelServers(
        {"a": VLLM(volumes=[models], download_inputs=True), "b": VLLM(port=8001, volumes=[models])}
    )
    mounted = {
        name: {mount["name"] for mount in container["volumeMounts"]}
        for name, container in _by_name(servers).items()
    }
    assert mounted["model-server-a"] == {"inference-cache-a", "inference-shm-a", "models", *SHARED}
    assert mounted["model-server-b"] == {"inference-cache-b", "inference-shm-b", "models", *SHARED}
    assert mounted["primary"] == {"models", *SHARED}
    assert mounted["input-downloader"] == SHARED
    volumes = servers.compile(HELPER)["spec"]["volumes"]
    assert sorted(volume["name"] for volume in volumes) == sorted(set().union(*mounted.values()))


def test_inputs_are_downloaded_once_with_the_largest_resources() -> None:
    servers = ModelServers(
        {
            "a": _echo(
                8000, download_inputs=True, download_inputs_mem="900Mi", download_inputs_cpu="500m"
            ),
            "b": _echo(
                8001, download_inputs=True, download_inputs_mem="1Gi", download_inputs_cpu="250m"
            ),
            "c": _echo(8002, download_inputs_mem="9Gi"),
        }
    )
    assert _by_name(servers)["input-downloader"]["resources"]["limits"] == {
        "cpu": "500m",
        "memory": "1Gi",
    }
    assert _names(servers).count("input-downloader") == 1


def test_only_the_servers_own_adapters_hold_it_back() -> None:
    adapters = {"sql": "s3://m/sql"}
    servers = ModelServers(
        {
            "a": VLLM(model="s3://m/a", lora_adapters=adapters, startup_timeout=60),
            "b": VLLM(model="s3://m/b", port=8001, startup_timeout=60),
        }
    )
    assert _names(servers) == [
        *("preflight-a", "model-loader-a", "preflight-b", "model-loader-b", "model-server-b"),
        *("download-loras-a", "model-server-a", "server-gate-a", "server-gate-b"),
    ]


@pytest.mark.parametrize(
    ("periods", "expected"),
    [
        ([None], None),
        ([60], 60),
        ([60, 90], 150),
        ([60, timedelta(minutes=2), None], 210),
        ([None, None], 60),
        ([0, None], 30),
    ],
)
def test_servers_that_stop_one_after_the_other_have_their_periods_together(
    periods: list[int | timedelta | None], expected: int | None
) -> None:
    servers = ModelServers(
        {
            f"s{index}": _echo(8000 + index, termination_grace_period=period)
            for index, period in enumerate(periods)
        }
    )
    assert servers.compile(HELPER)["spec"].get("terminationGracePeriodSeconds") == expected


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, "a dict of names and templates, not {}"),
        ([_echo(8000)], "a dict of names and templates"),
        ({"Upper": _echo(8000)}, "server 'Upper'"),
        ({"under_score": _echo(8000)}, "server 'under_score'"),
        ({"a" * 21: _echo(8000)}, "at most 20 characters"),
        ({"a": "vllm"}, "server 'a' must be a template such as VLLM(…), not a str"),
        (
            {"a": _echo(8000, base={"spec": {}})},
            "server 'a' has base=; a pod has only one, give it to ModelServers",
        ),
        ({"a": _echo(8000), "b": _echo(8000)}, "a and b listen on port 8000"),
        (
            {"a": _echo(8000, startup_timeout=9), "b": _echo(8001)},
            "a has startup_timeout= but b has not",
        ),
    ],
)
def test_what_is_refused(members: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelServers(members)
    assert problem in str(caught.value)


def test_two_sources_of_one_volume_are_a_conflict() -> None:
    def volume(claim: str) -> Volume:
        return Volume(
            name="models",
            source={"persistentVolumeClaim": {"claimName": claim}},
            mount_path="/data",
        )

    with pytest.raises(SpecConflictError, match=r"'models' has two sources: .*'x'.*'y'"):
        ModelServers(
            {"a": _echo(8000, volumes=[volume("x")]), "b": _echo(8001, volumes=[volume("y")])}
        )


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    servers = ModelServers({"a": _echo(8000), "b": _echo(8001)})
    assert servers["b"].port == 8001
    with pytest.raises(KeyError, match="no server 'c'; expected one of a, b"):
        servers["c"]


def test_it_is_frozen_and_shares_nothing() -> None:
    members = {"a": _echo(8000)}
    servers = ModelServers(members)
    members["b"] = _echo(8001)
    assert list(servers.servers) == ["a"]
    assert (servers["a"].name, members["a"].name) == ("a", "")
    assert pickle.loads(pickle.dumps(servers)).compile(HELPER) == servers.compile(HELPER)


def test_a_task_gets_the_secrets_and_the_gpu_key_of_all_servers() -> None:
    servers = ModelServers(
        {
            "a": VLLM(hf_secret=HFSecret(hf_token_group="hf", hf_token_key="token"), gpu=0),
            "b": NIM(secrets=NIMSecrets(ngc_secret_group="ngc", ngc_secret_key="key"), port=8001),
        }
    )

    @task(task_config=servers)
    def infer() -> str:
        return ""

    template = get_serializable(OrderedDict(), SETTINGS, infer).template
    assert {(secret.group, secret.key) for secret in template.security_context.secrets} == {
        ("hf", "token"),
        ("ngc", "key"),
    }
    primary = template.k8s_pod.pod_spec["containers"][0]
    assert primary["resources"]["limits"] == {"gpu": "0"}


BOTH = ModelServers(
    {
        "one": _echo(28131, words=["first"], download_inputs=True),
        "two": _echo(28132, words=["second"]),
    },
)


@task(task_config=BOTH)
def words(number: int) -> str:
    return json.dumps([ask(BOTH["one"]), ask(BOTH["two"])])


def test_on_one_machine_the_task_reaches_each_by_name() -> None:
    one, two = json.loads(words(number=7))
    assert (one["arguments"], two["arguments"]) == (["first"], ["second"])
    assert one["pid"] != two["pid"]
    assert one["inputs"]["number"] == two["inputs"]["number"] == 7


def test_run_locally_yields_the_servers_by_name() -> None:
    servers = ModelServers(
        {"one": _echo(28133, words=["first"]), "two": _echo(28134, words=["second"])}
    )
    with servers.run_locally() as running:
        assert list(running) == ["one", "two"]
        with urllib.request.urlopen(
            f"{running['two'].base_url}/ask", timeout=patient(10)
        ) as response:
            assert json.load(response)["arguments"] == ["second"]
        assert any("echo server" in line for line in running["one"].log_tail())
        assert servers["one"].base_url == running["one"].base_url


def test_what_a_local_run_would_ignore_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="volumes= names typo, and the pod has only shared-data, tmp"
    ):
        ECHO.run_locally(volumes={"typo": "/x"}).__enter__()
    with pytest.raises(ConfigError, match="no server has download_inputs=True"):
        ECHO.run_locally({"model": "weights.bin"}).__enter__()


def test_a_single_server_is_not_a_dict() -> None:
    with ECHO.run_locally() as server:
        assert server.base_url == ECHO.base_url
