"""`SGLang`: its arguments, images and errors, against recorded answers of its parser."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference import (
    ConfigError,
    HFSecret,
    HuggingFaceModel,
    InferenceWarning,
    SGLang,
    VolumeModel,
)
from flytekitplugins.inference.pod.flags import option_problems, render_options
from flytekitplugins.inference.pod.parts import Helper
from flytekitplugins.inference.sglang.serve import OPTIONS
from flytekitplugins.inference.testing import unanswered

HELPER = Helper(image="helper:1", bundled=False)
CASES = json.loads((Path(__file__).parent / "data" / "sglang.json").read_text())["cases"]
IMAGE = "lmsysorg/sglang:v0.5.23"


def describe(**fields: Any) -> SGLang:
    """Return a description; what it warns of is tested on its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)
        return SGLang(**{"model": "s3://models/qwen", **fields})


def containers(template: SGLang) -> dict[str, dict[str, Any]]:
    return {
        container["name"]: container
        for container in template.compile(HELPER)["spec"]["initContainers"]
    }


def args_of(template: SGLang) -> list[str]:
    args: list[str] = containers(template)["model-server"]["args"]
    return args


def value_of(name: str, args: list[str]) -> str:
    return args[args.index(name) + 1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["about"])
def test_sglang_parses_what_is_rendered(case: dict[str, Any]) -> None:
    assert option_problems(case["arg_dict"], OPTIONS) == []
    assert list(render_options(case["arg_dict"], OPTIONS)) == case["argv"]


@pytest.mark.parametrize(
    "options", [{"model": "s3://models/x"}, {"arg_dict": {"model": "a/b"}, "model": None}]
)
def test_it_answers_every_question(options: dict[str, Any]) -> None:
    assert unanswered(describe, **options) == []


@pytest.mark.parametrize(
    ("model", "path", "name"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct@main", "/models/current", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("s3://models/qwen/7b/", "/models/current", "7b"),
        ("models:/qwen@production", "/models/current", "qwen"),
        (
            VolumeModel(volume={"hostPath": {"path": "/data"}}, path="qwen/7b"),
            "/models/qwen/7b",
            "7b",
        ),
    ],
)
def test_the_model_is_passed_with_the_name_that_the_gate_waits_for(
    model: Any, path: str, name: str
) -> None:
    template = describe(model=model, startup_timeout=600)
    args = args_of(template)
    assert (value_of("--model-path", args), value_of("--served-model-name", args)) == (path, name)
    assert value_of("--model", containers(template)["server-gate"]["args"]) == name


def test_a_model_that_the_server_fetches_keeps_its_path_as_name() -> None:
    template = describe(model=None, arg_dict={"model": "a/b"}, startup_timeout=600)
    assert args_of(template)[:2] == ["--model-path", "a/b"]
    assert value_of("--model", containers(template)["server-gate"]["args"]) == "a/b"


def test_the_users_name_and_address_are_said_once() -> None:
    args = args_of(
        describe(arg_dict={"served_model_name": "q", "host": "::", "port": 30000, "device": "cuda"})
    )
    for name, value in (
        ("--served-model-name", "q"),
        ("--host", "::"),
        ("--port", "30000"),
        ("--device", "cuda"),
    ):
        assert (args.count(name), value_of(name, args)) == (1, value)


@pytest.mark.parametrize(
    ("options", "image", "shm"),
    [
        ({}, IMAGE, "2Gi"),
        ({"gpu": 4, "mem": "64Gi"}, IMAGE, "8Gi"),
        ({"gpu_resource": "gpu"}, IMAGE, "2Gi"),
        ({"gpu_resource": "nvidia.com/mig-3g.40gb"}, IMAGE, "2Gi"),
        ({"gpu_resource": "gpu.intel.com/xe"}, f"{IMAGE}-xpu", "2Gi"),
        ({"gpu_resource": "amd.com/gpu", "image": "acme/sglang:1"}, "acme/sglang:1", "2Gi"),
        ({"gpu": 0}, f"{IMAGE}-xeon", "4Gi"),
    ],
)
def test_it_follows_the_hardware(options: dict[str, Any], image: str, shm: str) -> None:
    template = describe(**options)
    assert containers(template)["model-server"]["image"] == image
    (volume,) = (
        v for v in template.compile(HELPER)["spec"]["volumes"] if v["name"] == "inference-shm"
    )
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": shm}
    assert ("--device" in args_of(template)) == (options.get("gpu") == 0)


def test_the_startup_probe_leaves_a_generation_its_time() -> None:
    probe = containers(describe())["model-server"]["startupProbe"]
    assert probe["httpGet"] == {"path": "/health", "port": 30000}
    assert probe["timeoutSeconds"] > 20
    assert "startupProbe" not in containers(describe(health_endpoint=None))["model-server"]


def test_metrics_are_on_unless_the_user_wants_none() -> None:
    assert args_of(describe()).count("--enable-metrics") == 1
    assert args_of(describe(arg_dict={"enable_metrics": True})).count("--enable-metrics") == 1
    without = describe(arg_dict={"enable_metrics": False})
    assert "--enable-metrics" not in args_of(without)
    assert (without.server().metrics_path, dict(without.server().metric_names)) == ("", {})


def test_adapters_are_brought_and_named() -> None:
    template = describe(
        lora_adapters={"sql": "acme/sql", "chat": "s3://a/chat"}, arg_dict={"max_lora_rank": 64}
    )
    assert args_of(template)[-4:] == [
        "--enable-lora",
        "--lora-paths",
        "sql=/adapters/sql",
        "chat=/adapters/chat",
    ]
    assert "sql=acme/sql" in containers(template)["download-loras"]["args"]
    own = describe(lora_adapters={"sql": "acme/sql"}, arg_dict={"enable_lora": True})
    assert args_of(own).count("--enable-lora") == 1


def test_a_newer_version_is_loaded_while_it_runs() -> None:
    loader = containers(describe(port=9000, update_interval=60))["model-loader"]["args"]
    assert loader[-2:] == ["--notify", "sglang=http://localhost:9000"]


def test_the_token_comes_from_a_secret_and_never_as_an_argument() -> None:
    model = HuggingFaceModel(repo="acme/gated")
    secret = HFSecret(hf_token_group="hf", hf_token_key="token")
    template = describe(model=model, hf_secret=secret)
    by_name = {
        variable["name"]: variable for variable in containers(template)["model-server"]["env"]
    }
    assert by_name["_FSEC_HF_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "hf"
    assert by_name["HF_TOKEN"] == {"name": "HF_TOKEN", "value": "$(_FSEC_HF_TOKEN)"}
    assert not any("TOKEN" in word for word in args_of(template))
    assert {variable["name"] for variable in containers(template)["model-loader"]["env"]} >= {
        "HF_TOKEN"
    }


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "the model is missing: give model=, or arg_dict={'model_path': …}"),
    (
        {"arg_dict": {"model": "a/b"}},
        "arg_dict has model_path 'a/b' and the template has model= as well",
    ),
    ({"arg_dict": ["x"]}, "arg_dict must be a dict of SGLang's options, not a list"),
    (
        {"arg_dict": {"context_len": 1}},
        "SGLang 0.5.23 has no option 'context_len' (did you mean 'context_length'?)",
    ),
    (
        {"arg_dict": {"nsa_decode_backend": "fa3"}},
        "is gone since 0.5.23; use 'dsa_decode_backend' instead",
    ),
    ({"arg_dict": {"enable_double_sparsity": True}}, "is gone since 0.5.12"),
    ({"arg_dict": {"json_model_override_args.a": 1}}, "give 'json_model_override_args' as a whole"),
    (
        {"arg_dict": {"trust_remote_code": "yes"}},
        "is switched on and off; give True or False, not 'yes'",
    ),
    (
        {"arg_dict": {"api_key": "k"}},
        "would put a secret into the pod's specification; give args=['--api-key', '$(NAME)']",
    ),
    (
        {"arg_dict": {"watermark_config": {"key": "k"}}},
        "would put the secret 'key' into the pod's specification",
    ),
    (
        {"arg_dict": {"served_model_name": "a:b"}},
        "SGLang reads the text after a colon as the name of an adapter",
    ),
    (
        {"arg_dict": {"port": 1}},
        "arg_dict has port 1, the template has port=30000; give port= only",
    ),
    ({"arg_dict": {"host": "127.0.0.1"}}, "where the kubelet's probes cannot reach the server"),
    ({"args": ["--port=1"]}, "args: '--port=1' is the template's; give port= instead"),
    (
        {"arg_dict": {"ssl-certfile": "/c"}},
        "with 'ssl_certfile' the server does not answer plain HTTP",
    ),
    (
        {"arg_dict": {"smg_grpc_mode": True}},
        "with 'smg_grpc_mode' the server does not answer plain HTTP",
    ),
    (
        {"arg_dict": {"tp": 4}, "gpu": 2},
        "tp_size, pp_size, dp_size need 4 GPUs, the template has gpu=2",
    ),
    ({"arg_dict": {"tp_size": 2, "dp_size": 2}, "gpu": 2}, "need 4 GPUs"),
    ({"arg_dict": {"nnodes": 2}}, "a server beside a task runs on one node"),
    (
        {"gpu_resource": "amd.com/gpu"},
        "'lmsysorg/sglang:v0.5.23-rocm10-mi30x' (MI300X and MI325X) or",
    ),
    ({"lora_adapters": {"a b": "x/y"}}, "lora_adapters: 'a b' is not a name"),
    (
        {"lora_adapters": {"a": "x/y"}, "arg_dict": {"lora_paths": ["/x"]}},
        "the template has lora_adapters= as well",
    ),
    (
        {"lora_adapters": {"a": "x/y"}, "arg_dict": {"enable_lora": False}},
        "arg_dict has enable_lora=False",
    ),
    ({"hf_secret": "hf_abc"}, "hf_secret must be an HFSecret(hf_token_key=…), not a str"),
]


@pytest.mark.parametrize(("fields", "words"), BAD, ids=[words for _, words in BAD])
def test_a_wrong_description_is_refused_in_words_that_help(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        describe(**fields)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {
            "arg_dict": {"tp_size": 2, "dp_size": 2, "enable_dp_attention": True},
            "gpu": 2,
            "mem": "32Gi",
        },
        {"arg_dict": {"tp_size": 2, "pp_size": 2}, "gpu": 4, "mem": "64Gi"},
        {"arg_dict": {"tp_size": 2}, "gpu": 0},
    ],
)
def test_what_fits_is_accepted(fields: dict[str, Any]) -> None:
    describe(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gpu": 0}, "x86-64 with AMX"),
        ({"update_interval": 60}, "calls the model by the path of the new version"),
        (
            {"arg_dict": {"max_lora_rank": 64}},
            "max_lora_rank, which SGLang ignores without enable_lora=True",
        ),
    ],
)
def test_what_works_only_somewhere_is_warned_about(fields: dict[str, Any], words: str) -> None:
    with pytest.warns(InferenceWarning, match=words):
        SGLang(**{"model": "s3://models/qwen", **fields})
