"""A table of options belongs to a release: what is done with an image of another one."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from flytekitplugins.inference import (
    TEI,
    VLLM,
    ConfigError,
    InferenceWarning,
    LlamaCpp,
    SGLang,
    Triton,
)
from flytekitplugins.inference.pod.image_version import image_version
from flytekitplugins.inference.pod.parts import Helper

LLAMA_CPP = "ghcr.io/ggml-org/llama.cpp"
GGUF = {"model": "a/b", "model_file": "x.gguf"}
API_SERVER = ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "a/b"]
HELPER = Helper(image="helper", bundled=False)


def words(template: Any) -> list[str]:
    """Return the server's command line."""
    for container in template.compile(HELPER)["spec"]["initContainers"]:
        if container["name"] == "model-server":
            return [*container.get("command", ()), *container["args"]]
    raise AssertionError


@pytest.mark.parametrize(
    ("kind", "image", "version"),
    [
        (VLLM, "vllm/vllm-openai:v0.33.0", (0, 33, 0)),
        (VLLM, "vllm/vllm-openai:0.3.3", (0, 3, 3)),
        (VLLM, "mirror.example.com:5000/x/vllm-openai:v0.11.2", (0, 11, 2)),
        (VLLM, "vllm/vllm-openai:v0.33.0rc1", (0, 33, 0)),
        (VLLM, f"vllm/vllm-openai:v0.9.1@sha256:{'a' * 64}", (0, 9, 1)),
        (VLLM, "vllm/vllm-openai:latest", None),
        (VLLM, "vllm/vllm-openai:nightly-20260101", None),
        (VLLM, "vllm/vllm-openai", None),
        (VLLM, f"vllm/vllm-openai@sha256:{'a' * 64}", None),
        # somebody's own image may hold any release
        (VLLM, "acme/vllm:1.0", None),
        (VLLM, None, None),
        (SGLang, "lmsysorg/sglang:v0.5.19-cu129", (0, 5, 19)),
        (TEI, "ghcr.io/huggingface/text-embeddings-inference:cuda-1.9", (1, 9)),
        (TEI, "ghcr.io/huggingface/text-embeddings-inference:89-1.8.2", (1, 8, 2)),
        (TEI, "ghcr.io/huggingface/text-embeddings-inference:1.5", (1, 5)),
        (LlamaCpp, "ghcr.io/ggml-org/llama.cpp:server-cuda13-b11382", (11382,)),
        (LlamaCpp, "ghcr.io/ggml-org/llama.cpp:server-cuda", None),
        (Triton, "nvcr.io/nvidia/tritonserver:26.07-py3", (26, 7)),
    ],
)
def test_the_release_that_an_image_names(kind: Any, image: Any, version: Any) -> None:
    assert image_version(image, kind.published_images) == version


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (VLLM, {"image": "vllm/vllm-openai:v0.33.4"}),
        (VLLM, {"image": "acme/vllm:1.0"}),
        (VLLM, {"image": "vllm/vllm-openai:latest"}),
        (VLLM, {}),
        (SGLang, {"image": "lmsysorg/sglang:v0.5.23-cu129", "model": "a/b"}),
        (TEI, {"image": "ghcr.io/huggingface/text-embeddings-inference:cuda-1.9", "model": "a/b"}),
    ],
)
def test_within_the_release_of_the_table_options_are_checked_fully(
    kind: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="no option 'no_such_option'"):
        kind(arg_dict={"no_such_option": 1}, **options)


@pytest.mark.parametrize(
    ("kind", "options", "arg_dict", "expected"),
    [
        # gone since 0.18, and here in 0.17
        (
            VLLM,
            {"image": "vllm/vllm-openai:v0.17.0"},
            {"model": "a/b", "swap_space": 4},
            ["--swap-space", "4"],
        ),
        # a newer release has it
        (
            VLLM,
            {"image": "vllm/vllm-openai:v0.40.0"},
            {
                "model": "a/b",
                "brand_new": True,
                "old_one": False,
                "list_of": ["a", 1],
                "json": {"a": 1},
            },
            ["--brand-new", "--list-of", "a", "1", "--json", '{"a":1}'],
        ),
        # a choice that the table lacks
        (
            VLLM,
            {"image": "vllm/vllm-openai:v0.34.1"},
            {"model": "a/b", "dtype": "int3"},
            ["--dtype", "int3"],
        ),
        (
            SGLang,
            {"image": "lmsysorg/sglang:v0.5.9", "model": "a/b"},
            {"former_option": 3},
            ["--former-option", "3"],
        ),
        (
            TEI,
            {"image": "ghcr.io/huggingface/text-embeddings-inference:cuda-1.2", "model": "a/b"},
            {"auto_truncate": True, "former_option": "x"},
            ["--former-option", "x"],
        ),
        (
            LlamaCpp,
            {
                "image": f"{LLAMA_CPP}:server-b12000",
                "model": "a/b",
                "model_file": "x.gguf",
                "gpu": 0,
            },
            {"brand_new": 1},
            ["--brand-new", "1"],
        ),
        (
            Triton,
            {"image": "nvcr.io/nvidia/tritonserver:24.01-py3", "model_repository": "/models"},
            {"former_option": 1},
            ["--former-option", "1"],
        ),
    ],
)
def test_in_another_release_options_are_passed_on_with_one_warning(
    kind: Any, options: dict[str, Any], arg_dict: dict[str, Any], expected: list[str]
) -> None:
    with pytest.warns(InferenceWarning, match="passed on as it is") as caught:
        template = kind(arg_dict=arg_dict, **options)
    assert sum("passed on as it is" in str(one.message) for one in caught) == 1
    line = " ".join(words(template))
    assert " ".join(expected) in line


def test_an_option_keeps_its_name_in_another_release() -> None:
    template = VLLM(
        image="vllm/vllm-openai:v0.6.3", arg_dict={"model": "a/b", "disable-log-requests": True}
    )
    assert words(template)[-1] == "--disable-log-requests"
    newer = VLLM(arg_dict={"model": "a/b", "disable-log-requests": True})
    assert words(newer)[-1] == "--no-enable-log-requests"


def test_options_that_the_table_knows_need_no_warning_in_another_release() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", InferenceWarning)
        VLLM(image="vllm/vllm-openai:v0.20.0", arg_dict={"model": "a/b", "max_model_len": 4096})


@pytest.mark.parametrize(
    ("arg_dict", "part"),
    [
        ({"api_key": "x"}, "would put a secret"),
        ({3: 1}, "an option's name is text"),
        ({"seed": 1, "--seed": 2}, "are the same option"),
        ({"a": float("nan")}, "cannot hold"),
    ],
)
def test_what_is_wrong_in_every_release_stays_an_error(arg_dict: Any, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        VLLM(image="vllm/vllm-openai:v0.6.0", arg_dict=arg_dict)


@pytest.mark.parametrize(
    ("image", "command"),
    [
        (
            "vllm/vllm-openai:0.3.3",
            API_SERVER,
        ),
        (
            "vllm/vllm-openai:v0.5.1",
            API_SERVER,
        ),
        ("vllm/vllm-openai:v0.5.2", ["vllm", "serve", "a/b"]),
        ("acme/vllm:0.3", ["vllm", "serve", "a/b"]),
        (None, ["vllm", "serve", "a/b"]),
    ],
)
def test_very_old_images_of_vllm_start_as_they_start(image: Any, command: list[str]) -> None:
    assert words(VLLM(image=image, arg_dict={"model": "a/b"}))[: len(command)] == command


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("lmsysorg/sglang:v0.4.1", ["python3", "-m", "sglang.launch_server", "--model-path"]),
        ("lmsysorg/sglang:v0.5.23", ["sglang", "serve", "--model-type", "llm"]),
        ("lmsysorg/sglang:v0.6.0", ["sglang", "serve", "--model-type", "llm"]),
    ],
)
def test_older_images_of_sglang_start_by_their_module(image: str, command: list[str]) -> None:
    assert words(SGLang(image=image, model="a/b"))[: len(command)] == command


@pytest.mark.parametrize(
    ("tag", "command"),
    [
        ("cuda-1.9", "/entrypoint.sh"),
        ("89-1.9", "text-embeddings-router"),
        ("hopper-1.9.3", "text-embeddings-router"),
    ],
)
def test_images_of_tei_for_one_architecture_hold_the_router_alone(tag: str, command: str) -> None:
    image = f"ghcr.io/huggingface/text-embeddings-inference:{tag}"
    assert command in words(TEI(image=image, arg_dict={"model_id": "a/b"}))[:1]


@pytest.mark.parametrize(
    ("kind", "options", "resource"),
    [
        (VLLM, {"image": "vllm/vllm-openai:v0.33.0"}, "amd.com/gpu"),
        (VLLM, {"image": "vllm/vllm-openai:v0.20.0"}, "amd.com/gpu"),
        (VLLM, {"image": "vllm/vllm-openai-rocm:v0.33.0"}, "nvidia.com/gpu"),
        (VLLM, {"image": "vllm/vllm-openai-cpu:v0.33.0"}, "nvidia.com/mig-1g.5gb"),
        (
            LlamaCpp,
            {
                "image": "ghcr.io/ggml-org/llama.cpp:server-cuda-b11382",
                "model": "a/b",
                "model_file": "x.gguf",
            },
            "amd.com/gpu",
        ),
    ],
)
def test_an_image_for_other_gpus_is_refused(
    kind: Any, options: dict[str, Any], resource: str
) -> None:
    with pytest.raises(ConfigError, match=f"not for {resource}"):
        kind(gpu_resource=resource, **options)


@pytest.mark.parametrize(
    ("image", "resource"),
    [
        ("vllm/vllm-openai-rocm:v0.20.0", "amd.com/gpu"),
        ("acme/vllm:1", "amd.com/gpu"),
        ("vllm/vllm-openai:v0.33.0", "nvidia.com/gpu"),
        ("vllm/vllm-openai:v0.33.0", "gpu"),
        ("vllm/vllm-openai:v0.33.0", "example.com/gpu"),
    ],
)
def test_an_image_that_may_fit_is_taken(image: str, resource: str) -> None:
    VLLM(image=image, gpu_resource=resource, arg_dict={"model": "a/b"})
