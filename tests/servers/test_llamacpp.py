"""`LlamaCpp`: its arguments, files, images and errors; `tests/live` asks the real parser."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from flytekitplugins.inference import (
    ConfigError,
    HFSecret,
    HuggingFaceModel,
    InferenceWarning,
    LlamaCpp,
    ObjectStoreModel,
    RegisteredModel,
    TaskInputModel,
    VolumeModel,
)
from flytekitplugins.inference.pod.parts import Helper
from flytekitplugins.inference.testing import unanswered

HELPER = Helper(image="helper:1", bundled=False)
IMAGE = "ghcr.io/ggml-org/llama.cpp:server"
SPLIT = "m-00001-of-00002.gguf"
CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}


def describe(**fields: Any) -> LlamaCpp:
    """Return a description; what it warns of is tested on its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)
        return LlamaCpp(**{"model": "s3://models/qwen-q4_k_m.gguf", **fields})


def hub(*include: str, **fields: Any) -> HuggingFaceModel:
    return HuggingFaceModel(repo="acme/GGUF", include=include, **fields)


def containers(template: LlamaCpp) -> dict[str, dict[str, Any]]:
    return {
        container["name"]: container
        for container in template.compile(HELPER)["spec"]["initContainers"]
    }


def args_of(template: LlamaCpp) -> list[str]:
    args: list[str] = containers(template)["model-server"]["args"]
    return args


def value_of(name: str, args: list[str]) -> str:
    return args[args.index(name) + 1]


@pytest.mark.parametrize(
    ("fields", "file", "name"),
    [
        (
            {"model": "s3://models/qwen-q4_k_m.gguf"},
            "/models/current/qwen-q4_k_m.gguf",
            "qwen-q4_k_m",
        ),
        (
            {"model": "https://h/a/qwen%20q4.gguf?sig=geheim"},
            "/models/current/qwen q4.gguf",
            "qwen q4",
        ),
        ({"model": "/data/q4.gguf"}, "/models/current/q4.gguf", "q4"),
        ({"model": "s3://m/q4.gguf?versionId=3"}, "/models/current/q4.gguf", "q4"),
        ({"model": hub("q4.gguf", "README.md")}, "/models/current/q4.gguf", "acme/GGUF"),
        ({"model": hub("q4/m.gguf")}, "/models/current/q4/m.gguf", "acme/GGUF"),
        ({"model": hub(SPLIT, "m-00002-of-00002.gguf")}, f"/models/current/{SPLIT}", "acme/GGUF"),
        ({"model": hub("*.gguf"), "model_file": "q8.gguf"}, "/models/current/q8.gguf", "acme/GGUF"),
        ({"model": hub("m-*"), "model_file": SPLIT}, f"/models/current/{SPLIT}", "acme/GGUF"),
        ({"model": "acme/GGUF", "model_file": "q8.gguf"}, "/models/current/q8.gguf", "acme/GGUF"),
        (
            {"model": "models:/fraud/3", "model_file": "model.gguf"},
            "/models/current/model.gguf",
            "fraud",
        ),
        ({"model": VolumeModel(volume=CLAIM, path="qwen/q8.gguf")}, "/models/qwen/q8.gguf", "q8"),
        (
            {"model": VolumeModel(volume=CLAIM, path="qwen"), "model_file": "q8.gguf"},
            "/models/qwen/q8.gguf",
            "qwen",
        ),
        ({"model": VolumeModel(volume=CLAIM), "model_file": "q8.gguf"}, "/models/q8.gguf", "model"),
        (
            {
                "model": TaskInputModel(input="weights"),
                "model_file": "q8.gguf",
                "download_inputs": True,
            },
            "/models/current/q8.gguf",
            "weights",
        ),
    ],
)
def test_the_file_is_passed_with_the_name_that_the_gate_waits_for(
    fields: dict[str, Any], file: str, name: str
) -> None:
    template = describe(**fields, startup_timeout=600)
    args = args_of(template)
    assert (value_of("--model", args), value_of("--alias", args)) == (file, name)
    assert value_of("--model", containers(template)["server-gate"]["args"]) == name


@pytest.mark.parametrize(
    ("options"),
    [{"model": "s3://models/x.gguf"}, {"model": None, "arg_dict": {"hf": "a/b:Q4_K_M"}}],
)
def test_it_answers_every_question(options: dict[str, Any]) -> None:
    assert unanswered(describe, **options) == []


@pytest.mark.parametrize(
    ("options", "image", "layers"),
    [
        ({"gpu": 0}, f"{IMAGE}-b11382", None),
        ({}, f"{IMAGE}-cuda-b11382", "all"),
        ({"gpu": 4}, f"{IMAGE}-cuda-b11382", "all"),
        ({"gpu_resource": "gpu"}, f"{IMAGE}-cuda-b11382", "all"),
        ({"gpu_resource": "nvidia.com/mig-1g.10gb"}, f"{IMAGE}-cuda-b11382", "all"),
        ({"gpu_resource": "amd.com/gpu"}, f"{IMAGE}-rocm-b11382", "all"),
        ({"gpu_resource": "gpu.intel.com/xe"}, f"{IMAGE}-vulkan-b11382", "all"),
        ({"arg_dict": {"ngl": 20}}, f"{IMAGE}-cuda-b11382", "20"),
    ],
)
def test_it_follows_the_hardware(options: dict[str, Any], image: str, layers: str | None) -> None:
    server = containers(describe(**options))["model-server"]
    assert server["image"] == image
    assert (value_of("--n-gpu-layers", server["args"]) if layers else None) == layers
    assert server["args"].count("--n-gpu-layers") == (layers is not None)


@pytest.mark.parametrize(
    ("options", "threads", "cache"),
    [
        ({"cpu": 8, "mem": "64Gi"}, "8", "8192"),
        ({"cpu": "2500m", "mem": "4Gi"}, "2", "1024"),
        ({"cpu": 0.5, "mem": "512Mi"}, "1", "128"),
        ({"arg_dict": {"t": 3, "cram": 0}}, "3", "0"),
    ],
)
def test_the_node_is_not_taken_for_the_container(
    options: dict[str, Any], threads: str, cache: str
) -> None:
    args = args_of(describe(**options))
    assert (value_of("--threads", args), value_of("--cache-ram", args)) == (threads, cache)
    assert (args.count("--threads"), args.count("--cache-ram")) == (1, 1)


def test_a_variable_of_the_user_is_not_overruled_by_a_default_of_ours() -> None:
    template = describe(
        env={"LLAMA_ARG_THREADS": "2", "LLAMA_ARG_ALIAS": "qwen", "LLAMA_ARG_CTX_SIZE": "4096"}
    )
    assert not {"--threads", "--alias", "--ctx-size"} & set(args_of(template))
    assert template.server().served_model_name == "qwen"


def test_options_are_said_once_and_in_the_servers_words() -> None:
    arg_dict = {
        "alias": ["q", "qwen"],
        "metrics": True,
        "no-warmup": True,
        "fa": "on",
        "tags": ["a", "b"],
        "temp": -1,
    }
    args = args_of(describe(arg_dict=arg_dict))
    words = [
        "--alias",
        "q,qwen",
        "--no-warmup",
        "--flash-attn",
        "on",
        "--tags",
        "a,b",
        "--temperature=-1",
    ]
    assert args[-len(words) :] == words
    assert args.count("--metrics") == 1
    assert describe(arg_dict=arg_dict).server().served_model_name == "q"


def test_adapters_are_loaded_with_scale_zero() -> None:
    template = describe(lora_files=["loras/sql.gguf", "/adapters/chat.gguf"])
    assert args_of(template)[-2:] == [
        "--lora-scaled",
        "/models/current/loras/sql.gguf:0,/adapters/chat.gguf:0",
    ]


def test_a_model_that_the_server_fetches_lies_on_a_volume_and_gets_its_token() -> None:
    secret = HFSecret(hf_token_group="hf", hf_token_key="token")
    template = describe(
        model=None, arg_dict={"hf_repo": "acme/private-GGUF:Q8_0"}, hf_secret=secret
    )
    server = containers(template)["model-server"]
    env = {variable["name"]: variable.get("value") for variable in server["env"]}
    assert (env["HF_TOKEN"], env["LLAMA_CACHE"]) == (
        "$(_FSEC_HF_TOKEN)",
        "/var/cache/inference/llama.cpp",
    )
    assert [mount["mountPath"] for mount in server["volumeMounts"]] == ["/var/cache/inference"]
    assert value_of("--alias", server["args"]) == "acme/private-GGUF:Q8_0"
    assert "--model" not in server["args"]


def test_metrics_are_on_unless_the_user_wants_none() -> None:
    for template in (
        describe(arg_dict={"metrics": False}),
        describe(env={"LLAMA_ARG_ENDPOINT_METRICS": "0"}),
        describe(
            model=None, arg_dict={"models_dir": "/models"}, volumes=[]
        ),  # asks for ?model= there
    ):
        assert "--metrics" not in args_of(template)
        assert (template.server().metrics_path, dict(template.server().metric_names)) == ("", {})


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"model": None},
        "the model is missing: give model=, or arg_dict={'hf_repo': 'owner/name:Q4_K_M'}",
    ),
    (
        {"model": None, "model_file": "x.gguf"},
        "model_file='x.gguf' is relative to model=, and there is no model",
    ),
    ({"model": "acme/GGUF"}, "which GGUF file of 'acme/GGUF' to load is ambiguous"),
    ({"model": hub("*Q4_K_M.gguf")}, "model_file is missing"),
    ({"model": hub("a.gguf", "b.gguf")}, "model_file is missing"),
    ({"model": "s3://models/qwen"}, "model_file is missing"),
    ({"model": RegisteredModel(name="m", version=1)}, "which GGUF file of 'm'"),
    (
        {"model": "acme/GGUF", "model_file": "x.safetensors"},
        "model_file='x.safetensors' is not a GGUF file relative to",
    ),
    (
        {"model": "acme/GGUF", "model_file": "../x.gguf"},
        "model_file='../x.gguf' is not a GGUF file relative to",
    ),
    (
        {"model": "acme/GGUF", "model_file": "m-00002-of-00002.gguf"},
        f"later part of a split model; give the first, '{SPLIT}'",
    ),
    (
        {"model": hub(SPLIT)},
        "needs 'm-00002-of-00002.gguf', which include= and exclude= of the model leave out",
    ),
    (
        {"model": f"https://h/{SPLIT}"},
        f"needs 'm-00002-of-00002.gguf', which '{SPLIT}', one file, does not bring",
    ),
    (
        {"model": hub("q4*"), "model_file": "q8.gguf"},
        "needs 'q8.gguf', which include= and exclude=",
    ),
    (
        {"model": ObjectStoreModel(uri="s3://m/q", exclude=("q8*",)), "model_file": "q8.gguf"},
        "needs 'q8.gguf', which include= and exclude=",
    ),
    (
        {"arg_dict": {"m": "/x.gguf"}},
        "model and model= both name the model; give one of them",
    ),
    (
        {"env": {"LLAMA_ARG_HF_REPO": "a/b"}},
        "hf_repo and model= both name the model",
    ),
    ({"arg_dict": {"gpt_oss_20b_default": True}}, "gpt_oss_20b_default and model= both name"),
    ({"arg_dict": {"ctx": 1}}, "llama.cpp b11549 has no option 'ctx'"),
    ({"arg_dict": {"mlock": True}}, "is gone since b11549 or earlier; use 'load_mode' instead"),
    ({"arg_dict": {"draft_max": 4}}, "use 'spec_draft_n_max' instead"),
    ({"arg_dict": {"flash_attn": True}}, "option 'flash_attn' takes a value, not True"),
    ({"arg_dict": {"c": 1, "ctx_size": 2}}, "options 'c' and 'ctx_size' are the same option"),
    ({"arg_dict": {"api_key": "k"}}, "give api_key_secret="),
    ({"arg_dict": {"hft": "k"}}, "give hf_secret="),
    (
        {"env": {"LLAMA_API_KEY": "k"}},
        "env['LLAMA_API_KEY'] would put a secret into the pod's specification",
    ),
    (
        {"env": {"LLAMA_ARG_PORT": "1"}},
        "env['LLAMA_ARG_PORT'] is overruled by the template's --port; give port= instead",
    ),
    (
        {"env": {"LLAMA_ARG_CTX_SIZE": "1"}, "arg_dict": {"c": 2}},
        "is overruled by ctx_size in arg_dict; give one of them",
    ),
    (
        {"arg_dict": {"tools": ["all"]}},
        "tools: anyone who can reach the server's port could read files and run commands",
    ),
    ({"arg_dict": {"ag": True}}, "agent: anyone who can reach"),
    ({"env": {"LLAMA_ARG_TOOLS": "all"}}, "tools: anyone who can reach"),
    ({"arg_dict": {"mcp_servers_json": {"a": {}}}}, "mcp_servers_json: anyone who can reach"),
    (
        {"arg_dict": {"webui_mcp_proxy": True}},
        "ui_mcp_proxy: anyone who can reach the server's port could make requests",
    ),
    ({"arg_dict": {"ssl_key_file": "/k"}}, "ssl_key_file: the server would not answer plain HTTP"),
    ({"arg_dict": {"api_prefix": "/x"}}, "api_prefix: the server would not answer"),
    ({"arg_dict": {"host": "127.0.0.1"}}, "where the kubelet's probes cannot reach the server"),
    ({"gpu": 0, "arg_dict": {"ngl": 99}}, "n_gpu_layers is 99, but the template has gpu=0"),
    ({"gpu": 2, "arg_dict": {"ts": [1, 1, 2]}}, "tensor_split has 3 parts, the template has gpu=2"),
    (
        {"mem": "4Gi", "arg_dict": {"cram": 8192}},
        "cache_ram is 8192 MiB, which does not fit into mem='4Gi'",
    ),
    ({"lora_files": "a.gguf"}, "lora_files must be a list of GGUF files, not 'a.gguf'"),
    ({"lora_files": ["a:b.gguf"]}, "lora_files: 'a:b.gguf' is not a GGUF file without ',' and ':'"),
    ({"lora_files": ["../a.gguf"]}, "lora_files: "),
    (
        {"model": None, "arg_dict": {"hf": "a/b:Q8_0"}, "lora_files": ["a.gguf"]},
        "'a.gguf' is relative to model=",
    ),
    (
        {"lora_files": ["a.gguf"], "arg_dict": {"lora": "/x.gguf"}},
        "arg_dict has lora '/x.gguf' and the template has lora_files= as well",
    ),
    ({"hf_secret": "hf_abc"}, "hf_secret must be an HFSecret(hf_token_key=…), not a str"),
]


@pytest.mark.parametrize(
    ("fields", "words"), BAD, ids=[f"{n}-{words}" for n, (_, words) in enumerate(BAD)]
)
def test_a_wrong_description_is_refused_in_words_that_help(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        describe(**fields)
    assert words in str(caught.value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        describe(
            model="x",
            env=3,
            mem="lots",
            gpu=-1,
            gpu_resource=4,
            arg_dict={"t": 1.5, 3: 4},
            lora_files=[1],
        )
    assert len(str(caught.value).splitlines()) > 6


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": None, "arg_dict": {"hf_repo": "acme/GGUF"}}, "names no quantisation"),
        (
            {"arg_dict": {"cache_ram": -1}},
            "lets the prompt cache grow until the container exceeds",
        ),
        ({"update_interval": 60}, "cannot load another version while it runs"),
    ],
)
def test_what_works_only_somewhere_is_warned_about(fields: dict[str, Any], words: str) -> None:
    with pytest.warns(InferenceWarning, match=words):
        LlamaCpp(**{"model": "s3://models/qwen-q4_k_m.gguf", **fields})


def test_a_named_quantisation_needs_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LlamaCpp(arg_dict={"hf_repo": "acme/GGUF", "hf_file": "q8.gguf"})
        LlamaCpp(arg_dict={"hf_repo": "acme/GGUF:Q8_0"})
