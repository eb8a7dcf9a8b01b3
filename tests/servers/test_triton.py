"""What becomes of a `Triton(…)`. Facts about the server: triton-inference-server/server v2.71.0."""

from __future__ import annotations

import re
import warnings
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from flytekitplugins.inference import (
    ConfigError,
    HFSecret,
    HuggingFaceModel,
    InferenceWarning,
    ModelServers,
    RegisteredModel,
    TaskInputModel,
    Triton,
    VolumeModel,
)
from flytekitplugins.inference.pod.compile import Manifest
from flytekitplugins.inference.pod.flags import option_problems, render_options
from flytekitplugins.inference.pod.parts import Helper
from flytekitplugins.inference.triton import options
from flytekitplugins.inference.triton.option_rules import OPTIONS

HELPER = Helper(image="helper:1", bundled=False)
REPOSITORY = "s3://models/repository"


def containers(template: Triton) -> dict[str, Manifest]:
    return {
        container["name"]: container
        for container in template.compile(HELPER)["spec"]["initContainers"]
    }


def arguments(template: Triton) -> list[str]:
    return list(containers(template)["model-server"]["args"])


def following(words: list[str], flag: str) -> list[str]:
    return [word for before, word in pairwise(words) if before == flag]


def problems(**fields: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Triton(**{"model": REPOSITORY, **fields})
    return str(caught.value)


def cautions(**fields: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InferenceWarning)
        Triton(**{"model": REPOSITORY, **fields})
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (REPOSITORY, "/models/current"),
        (HuggingFaceModel(repo="acme/repository"), "/models/current"),
        (RegisteredModel(name="repository", alias="live"), "/models/current"),
        (
            VolumeModel(volume={"persistentVolumeClaim": {"claimName": "x"}}, path="a/b"),
            "/models/a/b",
        ),
        (TaskInputModel(input="repository"), "/models/current"),
    ],
)
def test_every_source_of_models_is_a_repository(model: Any, path: str) -> None:
    template = Triton(model=model, model_names=["ranker"], download_inputs=True)
    assert following(arguments(template), "--model-repository") == [path]


def test_own_repositories_come_behind_the_one_that_is_brought() -> None:
    words = arguments(Triton(model=REPOSITORY, model_repository="gs://shared/models"))
    assert following(words, "--model-repository") == ["/models/current", "gs://shared/models"]
    alone = Triton(model_repository=["s3://https://minio:9000/models", "/opt/models"])
    assert following(arguments(alone), "--model-repository") == [
        "s3://https://minio:9000/models",
        "/opt/models",
    ]
    assert "model-loader" not in containers(alone)


def test_named_models_are_loaded_asked_for_and_loaded_again() -> None:
    template = Triton(
        model=REPOSITORY, model_names=["ranker", "rater"], startup_timeout=60, update_interval=30
    )
    words = arguments(template)
    assert following(words, "--model-control-mode") == ["explicit"]
    assert following(words, "--load-model") == ["ranker", "rater"]
    gate = containers(template)["server-gate"]["args"]
    assert (following(gate, "--api"), following(gate, "--model")) == (["v2"], ["ranker", "rater"])
    loader = containers(template)["model-loader"]["args"]
    assert following(loader, "--notify") == ["triton=http://localhost:8000"]
    assert following(loader, "--model-name") == ["ranker", "rater"]


@pytest.mark.parametrize(
    ("fields", "mode", "loaded", "asked"),
    [
        ({}, "none", [], []),
        ({"model_names": ["a"], "model_control_mode": "none"}, "none", [], ["a"]),
        ({"model_names": ["*"]}, "explicit", ["*"], []),
        ({"model_control_mode": "explicit"}, "explicit", [], []),
        (
            {"model_names": ["a"], "model_control_mode": "poll", "update_interval": 5},
            "poll",
            [],
            ["a"],
        ),
    ],
)
def test_each_control_mode(fields: Any, mode: str, loaded: list[str], asked: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)
        template = Triton(model=REPOSITORY, startup_timeout=60, **fields)
    words = arguments(template)
    assert (following(words, "--model-control-mode"), following(words, "--load-model")) == (
        [mode],
        loaded,
    )
    assert following(containers(template)["server-gate"]["args"], "--model") == asked
    assert "--notify" not in containers(template)["model-loader"]["args"]


def test_ports_are_passed_declared_and_distinct() -> None:
    template = Triton(model=REPOSITORY, port=9000, grpc_port=9001, metrics_port=9002)
    words = arguments(template)
    passed = [following(words, f"--{name}-port") for name in ("http", "grpc", "metrics")]
    assert passed == [["9000"], ["9001"], ["9002"]]
    declared = containers(template)["model-server"]["ports"]
    assert [port["containerPort"] for port in declared] == [9000, 9001, 9002]
    assert template.endpoint.metrics_url == "http://localhost:9002/metrics"
    assert "port and grpc_port are both 8001" in problems(port=8001)
    assert "grpc_port and metrics_port are both 8002" in problems(grpc_port=8002)
    assert "metrics_port: 0 is not a port" in problems(metrics_port=0)
    with pytest.raises(ConfigError, match="8001"):
        ModelServers(
            {
                "a": Triton(model=REPOSITORY),
                "b": Triton(model=REPOSITORY, port=9000, metrics_port=9002),
            }
        )


def test_what_is_not_allowed_has_no_port() -> None:
    template = Triton(model=REPOSITORY, arg_dict={"allow-grpc": False, "allow_metrics": False})
    words = arguments(template)
    assert (following(words, "--allow-grpc"), following(words, "--allow-metrics")) == (
        ["false"],
        ["false"],
    )
    assert not {"--grpc-port", "--metrics-port"} & set(words)
    assert [port["containerPort"] for port in containers(template)["model-server"]["ports"]] == [
        8000
    ]
    assert template.endpoint.metrics_url is None


@pytest.mark.parametrize(
    ("gpu", "shm", "limits"),
    [(0, "1Gi", {}), (1, "1Gi", {"nvidia.com/gpu": "1"}), (4, "4Gi", {"nvidia.com/gpu": "4"})],
)
def test_the_hardware_decides(gpu: int, shm: str, limits: dict[str, str]) -> None:
    template = Triton(model=REPOSITORY, gpu=gpu)
    pod = template.compile(HELPER)["spec"]
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "inference-shm")
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": shm}
    given = containers(template)["model-server"]["resources"]["limits"]
    assert {name: value for name, value in given.items() if "gpu" in name} == limits


def test_other_hardware() -> None:
    mig = Triton(model=REPOSITORY, gpu_resource="nvidia.com/mig-1g.10gb")
    assert containers(mig)["model-server"]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"
    assert "Triton has no image of its own for it; give image=" in problems(
        gpu_resource="amd.com/gpu"
    )
    assert Triton(model=REPOSITORY, gpu_resource="amd.com/gpu", image="acme/triton-rocm:7").gpu == 1


def test_it_runs_as_the_images_unprivileged_user_with_a_home_to_write_to() -> None:
    template = Triton(model=REPOSITORY)
    server, spec = containers(template)["model-server"], template.compile(HELPER)["spec"]
    context = server["securityContext"]
    assert (context["runAsUser"], context["runAsNonRoot"], spec["securityContext"]["fsGroup"]) == (
        1000,
        True,
        1000,
    )
    home = {variable["name"]: variable.get("value") for variable in server["env"]}["HOME"]
    assert home in [mount["mountPath"] for mount in server["volumeMounts"]]


def test_the_token_is_a_variable_of_server_and_loader_and_nowhere_else() -> None:
    secret = HFSecret(hf_token_group="huggingface", hf_token_key="token")
    found = containers(Triton(model="acme/repository", model_names=["a"], hf_secret=secret))
    for name in ("model-server", "model-loader"):
        variables = {variable["name"]: variable for variable in found[name]["env"]}
        assert variables["HF_TOKEN"]["value"] == "$(_FSEC_HUGGINGFACE_TOKEN)"
        assert not any("TOKEN" in word for word in found[name]["args"])
    assert "hf_secret must be an HFSecret(hf_token_key=…), not a str" in problems(
        hf_secret="hf_" + "x" * 34
    )


@pytest.mark.parametrize(
    ("arg_dict", "argv"),
    [
        (
            {"strict-readiness": True, "log_info": False},
            ["--strict-readiness", "true", "--log-info", "false"],
        ),
        ({"disable_auto_complete_config": True}, ["--disable-auto-complete-config"]),
        ({"log_verbose": 1, "log_file": None}, ["--log-verbose", "1"]),
        (
            {"backend_config": ["python,a=1", "b=2"], "host_policy": "gpu_0,numa-node=0"},
            [
                "--backend-config",
                "python,a=1",
                "--backend-config",
                "b=2",
                "--host-policy",
                "gpu_0,numa-node=0",
            ],
        ),
        (
            {"--min-supported-compute-capability": 7.5},
            ["--min-supported-compute-capability", "7.5"],
        ),
    ],
)
def test_options_are_written_as_the_parser_reads_them(arg_dict: Any, argv: list[str]) -> None:
    """`Option::ArgBool` wants a value, `Option::ArgNone` none; `push_back` reads repeated ones."""
    assert option_problems(arg_dict, OPTIONS) == []
    assert list(render_options(arg_dict, OPTIONS)) == argv
    assert arguments(Triton(model=REPOSITORY, arg_dict=arg_dict))[-len(argv) :] == argv


def test_the_options_are_those_of_the_parser() -> None:
    """91 flags of 2.71.0, `--help` and `--model-store`, which is another name, aside."""
    assert len(OPTIONS.names) == 89
    assert len(OPTIONS.names) == sum(
        map(len, (options.SWITCHES, options.BOOLEANS, options.APPENDED, options.VALUES))
    )
    assert {"allow_client_shm", "strict_readiness"} <= options.BOOLEANS
    assert {
        "load_model",
        "backend_config",
        "cache_config",
        "http_restricted_api",
    } <= options.APPENDED
    assert {"exit_timeout_secs", "http_port", "grpc_infer_thread_count"} <= options.VALUES
    assert options.REMOVED.keys().isdisjoint(OPTIONS.names)
    assert options.DEPRECATED.keys() <= OPTIONS.names


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": None}, "the model repository is missing: give model="),
        (
            {"model_repository": "models"},
            "'models' must be an absolute directory or begin with s3://, gs://, as://",
        ),
        ({"model_repository": ["/"]}, "'/' must be an absolute directory"),
        ({"model_repository": 3}, "model_repository must be a text or a list of texts, not a int"),
        (
            {"model_names": "ranker"},
            "model_names must be a list of names, not the text 'ranker'; write ['ranker']",
        ),
        ({"model_names": ["a", "a"]}, "model_names: 'a' is listed twice"),
        (
            {"model_names": ["a/b"]},
            "'a/b' is not the name of a model; it must be one part of a path",
        ),
        ({"model_names": [".."]}, "'..' is not the name of a model"),
        ({"model_names": [3]}, "3 is not the name of a model"),
        ({"model_names": ["*", "a"]}, "'*' means every model; give it alone"),
        (
            {"model_control_mode": "manual"},
            "model_control_mode='manual' must be one of none, explicit, poll",
        ),
        ({"update_interval": 60}, "update_interval needs model_names="),
        ({"update_interval": 60, "model_names": ["*"]}, "update_interval needs model_names="),
        ({"arg_dict": ["--x"]}, "arg_dict must be a dict of Triton's options, not a list"),
        ({"arg_dict": {"model_controll_mode": "none"}}, "did you mean 'model_control_mode'?"),
        ({"arg_dict": {"http-port": 8000}}, "'http-port' is the template's; give port= instead"),
        (
            {"arg_dict": {"http_address": "127.0.0.1"}},
            "'http_address' is the template's; leave it out",
        ),
        (
            {"arg_dict": {"model_store": "/m"}},
            "'model_store' is the template's; give model= or model_repository=",
        ),
        (
            {"arg_dict": {"load_model": ["a"]}},
            "'load_model' is the template's; give model_names= instead",
        ),
        ({"arg_dict": {"allow_http": False}}, "without HTTP (allow_http) the probes cannot reach"),
        ({"arg_dict": {"strict_readiness": "yes"}}, "give True or False, not 'yes'"),
        ({"arg_dict": {"log_verbose": True}}, "takes a value, not True"),
        (
            {"arg_dict": {"backend_config": {"python": 1}}},
            "takes one value, not the dict {'python': 1}",
        ),
        (
            {"arg_dict": {"tf_gpu_memory_fraction": 0.5}},
            "is gone since 2.2.0; use 'backend_config' instead",
        ),
        (
            {"arg_dict": {"http_restricted_api": "model-repository:key=x"}},
            "would put a secret into the pod's",
        ),
        (
            {"arg_dict": {"cache_config": ["redis,password=x"]}},
            "cache_config would put a password into",
        ),
        (
            {"args": ["--grpc-port=1"]},
            "args: '--grpc-port=1' is the template's; give grpc_port= instead",
        ),
        ({"args": ["--model-repository", "/x"]}, "args: '--model-repository' is the template's"),
        ({"arg_dict": {"exit_timeout_secs": 120}}, "may wait 120 s for requests in flight"),
        ({"termination_grace_period": 30}, "and is killed after 30 s; give more than 30"),
        ({"termination_grace_period": None}, "and is killed after 30 s"),
        ({"termination_grace_period": timedelta(seconds=10)}, "and is killed after 10 s"),
    ],
)
def test_what_is_wrong_is_told(fields: Any, words: str) -> None:
    assert words in problems(**fields)


def test_all_problems_are_told_at_once() -> None:
    text = problems(
        model_names="a", grpc_port=8000, arg_dict={"http_port": 1}, model_control_mode="x"
    )
    for words in (
        "model_names must be",
        "port and grpc_port",
        "'http_port' is the template's",
        "must be one of none",
    ):
        assert words in text


def test_a_longer_wait_and_a_longer_grace_go_together() -> None:
    template = Triton(
        model=REPOSITORY, arg_dict={"exit_timeout_secs": 120}, termination_grace_period=150
    )
    assert template.compile(HELPER)["spec"]["terminationGracePeriodSeconds"] == 150
    Triton(model=REPOSITORY, arg_dict={"exit_timeout_secs": 10}, termination_grace_period=None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "Qwen/Qwen2.5-0.5B-Instruct"}, "most models of the hub are not one"),
        ({"model_control_mode": "poll"}, "Triton advises against it"),
        (
            {"arg_dict": {"trace_rate": 1}},
            "'trace_rate' is deprecated in Triton 2.71.0; use 'trace_config=rate=…'",
        ),
        ({"arg_dict": {"repository_poll_secs": 5}}, "does nothing with model control mode 'none'"),
        ({"arg_dict": {"strict_readiness": False}}, "ready even if models are missing"),
    ],
)
def test_what_may_not_be_meant_is_told(fields: Any, words: str) -> None:
    (text,) = cautions(**fields)
    assert words in text


def test_nothing_is_told_of_what_is_meant() -> None:
    assert (
        cautions(model="acme/repository", model_names=["ranker"], arg_dict={"log_verbose": 1}) == []
    )
    assert not re.search(r"\b(hf|nvapi)[-_]\w{20}", str(Triton(model=REPOSITORY).manifest))
