"""Values are checked as the server's own parser reads them, and reach it as they were written."""

from __future__ import annotations

from typing import Any

import pytest

from flytekitplugins.inference import VLLM, ConfigError, LlamaCpp, SGLang
from flytekitplugins.inference.local.plan.rewrite import expand  # as the kubelet does
from flytekitplugins.inference.pod.parts import Helper


@pytest.mark.parametrize(
    ("arg_dict", "part"),
    [
        ({"dtype": "int3"}, "'dtype' is one of auto, bfloat16"),
        ({"dtype": 16}, "'dtype' is one of"),
        ({"max_model_len": "4k!"}, "takes a whole number such as 4096, '4k'"),
        ({"max_model_len": "1.5K"}, "takes a whole number such as"),
        ({"max_model_len": 256.0}, "takes a whole number such as"),
        ({"max_model_len": -2}, "is at least -1"),
        ({"gpu_memory_utilization": 9}, "is at most 1, not 9"),
        ({"gpu_memory_utilization": 0}, "is at least"),
        ({"gpu_memory_utilization": "most"}, "takes a number, not 'most'"),
        ({"gpu_memory_utilization": "inf"}, "takes a number"),
        ({"max_num_seqs": 256.0}, "takes a whole number, not 256.0"),
        ({"max_num_seqs": "256.0"}, "takes a whole number"),
        ({"max_num_seqs": 0}, "is at least 1"),
        ({"seed": "x"}, "takes a whole number"),
        ({"limit_mm_per_prompt": "image=4"}, "is read as JSON, which 'image=4' is not"),
        ({"limit_mm_per_prompt": [1]}, "takes a dict"),
        ({"compilation_config": 3}, "takes a dict, not 3"),
        ({"compilation_config": "3"}, "takes a dict, not '3'"),
        ({"allowed_origins": "*"}, "is read as JSON"),
        ({"max_lora_rank": 7}, "'max_lora_rank' is one of 1, 8, 16"),
    ],
)
def test_what_vllm_would_refuse_is_refused_here(arg_dict: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match="a problem") as error:
        VLLM(arg_dict={"model": "a/b", **arg_dict})
    assert part in str(error.value)


@pytest.mark.parametrize(
    "arg_dict",
    [
        {"dtype": "bfloat16"},
        {"max_model_len": "4k"},
        {"max_model_len": "25.6k"},
        {"max_model_len": "4K"},
        {"max_model_len": "auto"},
        {"max_model_len": -1},
        {"gpu_memory_utilization": 1},
        {"gpu_memory_utilization": "0.9"},
        {"max_num_seqs": "256"},
        {"limit_mm_per_prompt": {"image": 4}},
        {"limit_mm_per_prompt": '{"image": 4}'},
        {"compilation_config": {"mode": 3}},
        {"compilation_config.mode": 3},
        {"allowed_origins": ["*"]},
        {"pt_load_map_location": "cpu"},
        {"max_lora_rank": 16, "enable_lora": True},
        {"max_num_seqs": None},
    ],
)
def test_what_vllm_reads_is_taken(arg_dict: dict[str, Any]) -> None:
    VLLM(arg_dict={"model": "a/b", **arg_dict})


@pytest.mark.parametrize(
    ("kind", "arg_dict"),
    [
        (VLLM, {"data_parallel_size": 4}),
        (VLLM, {"tensor_parallel_size": "4"}),
        (VLLM, {"tensor_parallel_size": 2, "data_parallel_size": 2}),
        (VLLM, {"tp": "2", "pp": 2}),
        (SGLang, {"tp_size": "4"}),
        (SGLang, {"dp_size": 4}),
    ],
)
def test_more_ranks_than_gpus_are_refused_however_they_are_written(
    kind: Any, arg_dict: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="need 4 GPUs, the template has gpu=2"):
        kind(model="a/b", gpu=2, arg_dict=arg_dict)


def test_ranks_of_other_pods_need_no_gpu_here() -> None:
    VLLM(model="a/b", gpu=2, arg_dict={"data_parallel_size": 4, "data_parallel_size_local": 2})


@pytest.mark.parametrize(
    ("kind", "options"),
    [(VLLM, {}), (SGLang, {}), (LlamaCpp, {"model_file": "x.gguf"})],
)
@pytest.mark.parametrize("text", ["$(PATH)", "$$", "a $$(PATH) $5", "$", "{{ $x }}"])
def test_dollars_of_an_option_reach_the_server_as_written(
    kind: Any, options: dict[str, Any], text: str
) -> None:
    template = kind(model="a/b", arg_dict={"chat_template": text}, **options)
    spec = template.compile(Helper(image="helper", bundled=False))["spec"]
    (server,) = (c for c in spec["initContainers"] if c["name"] == "model-server")
    arrived = [expand(word, {"PATH": "/evil"}) for word in server["args"]]
    assert arrived[arrived.index("--chat-template") + 1] == text


def test_dollars_of_args_are_those_of_kubernetes() -> None:
    template = VLLM(arg_dict={"model": "a/b"}, args=["--x", "$(INFERENCE_PORT)"])
    spec = template.compile(Helper(image="helper", bundled=False))["spec"]
    assert spec["initContainers"][0]["args"][-1] == "$(INFERENCE_PORT)"
