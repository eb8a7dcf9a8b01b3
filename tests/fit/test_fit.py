"""What a model needs, against sizes that its publishers tell.

`models.json` holds, for public models: the number of parameters of their model cards, the
`total_size` of their index where it is given, the bytes of cache for a token (32 to 126 layers of
two vectors; DeepSeek's own 70.272 KB), and the fields of their `config.json` that count.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference.cli.commands import main
from flytekitplugins.inference.errors import ConfigError
from flytekitplugins.inference.fit.accelerators import ACCELERATORS, accelerator_bytes
from flytekitplugins.inference.fit.architecture import read_architecture
from flytekitplugins.inference.fit.estimate import Workload, estimate
from flytekitplugins.inference.fit.kv_cache import bytes_for_sequence, bytes_for_token
from flytekitplugins.inference.fit.weights import (
    parameters,
    weight_bytes,
    weight_bytes_of_index,
)

MODELS = json.loads((Path(__file__).parent / "models.json").read_text())
BY_NAME = {model["name"]: model for model in MODELS}
LLAMA_8B = BY_NAME["meta-llama/Llama-3.1-8B-Instruct"]
GIB = 2**30


def name_of(model: dict[str, Any]) -> str:
    return str(model["name"])


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_parameters_are_those_that_are_published(model: dict[str, Any]) -> None:
    # the biases of Qwen and the extra norms of Gemma are not counted
    counted = parameters(read_architecture(model["config"]))
    assert counted == pytest.approx(model["parameters"], rel=1e-4)


@pytest.mark.parametrize("model", [m for m in MODELS if "total_size" in m], ids=name_of)
def test_counted_weights_are_those_of_the_index(model: dict[str, Any]) -> None:
    counted = weight_bytes(read_architecture(model["config"]))
    assert counted == pytest.approx(model["total_size"], rel=1e-4)


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_the_cache_of_a_token_is_exact(model: dict[str, Any]) -> None:
    architecture = read_architecture(model["config"])
    assert bytes_for_token(architecture) == model["kv_bytes"]
    assert bytes_for_token(architecture, value_bytes=1) == model["kv_bytes"] // 2


@pytest.mark.parametrize(
    ("quantization", "gigabytes"),
    [
        # the sizes of the repositories of Llama 3.1 8B: meta-llama's fp8, hugging-quants' AWQ
        ({"quant_method": "fp8"}, 9.1),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 5.7),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 5.7),
        ({"quant_method": "something-new"}, 16.06),
    ],
)
def test_quantised_weights(quantization: dict[str, Any], gigabytes: float) -> None:
    config = {**LLAMA_8B["config"], "quantization_config": quantization}
    assert weight_bytes(read_architecture(config)) / 1e9 == pytest.approx(gigabytes, rel=0.15)


@pytest.mark.parametrize(
    ("name", "tokens", "factor"),
    [
        # half of Gemma 2's layers keep 4,096 tokens
        ("google/gemma-2-9b-it", 4096, 1.0),
        ("google/gemma-2-9b-it", 8192, 0.75),
        # a window that is switched off
        ("Qwen/Qwen2.5-7B-Instruct", 131072, 1.0),
    ],
)
def test_layers_with_a_window_keep_only_the_newest_tokens(
    name: str, tokens: int, factor: float
) -> None:
    model = BY_NAME[name]
    whole = tokens * model["kv_bytes"]
    sequence = bytes_for_sequence(read_architecture(model["config"]), tokens)
    assert sequence == pytest.approx(whole * factor)


def test_a_hybrid_model_keeps_tokens_in_its_attention_layers_only() -> None:
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    config = {**LLAMA_8B["config"], "layer_types": kinds * 8}
    assert bytes_for_token(read_architecture(config)) == LLAMA_8B["kv_bytes"] // 4


@pytest.mark.parametrize("key", ["text_config", "llm_config"])
def test_a_multimodal_model_nests_its_language_model(key: str) -> None:
    config = {"model_type": "seeing", "torch_dtype": "bfloat16", key: LLAMA_8B["config"]}
    assert parameters(read_architecture(config)) == LLAMA_8B["parameters"]


def test_the_older_names_of_gpt2() -> None:
    config = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257,
              "torch_dtype": "float32"}  # fmt: skip
    architecture = read_architecture(config)
    assert parameters(architecture) == pytest.approx(124_439_808, rel=0.01)
    assert bytes_for_token(replace(architecture, value_bytes=2)) == 36864


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, ["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"]),
        ({"model_type": "resnet", "hidden_size": 3}, ["num_hidden_layers"]),
    ],
)
def test_what_is_no_decoder_says_what_it_lacks(config: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read_architecture(config)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("index", [{}, {"metadata": {}}, {"metadata": {"total_size": "big"}},
                                   {"metadata": {"total_size": 0}}])  # fmt: skip
def test_an_index_without_a_size_is_refused(index: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="total_size"):
        weight_bytes_of_index(index)


# Against accelerators


@pytest.mark.parametrize(
    ("name", "accelerator", "count", "length", "sequences", "fits"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "A10G", 1, 4096, 8, True),
        ("meta-llama/Llama-3.1-8B-Instruct", "A10G", 1, 131072, 1, False),
        ("meta-llama/Llama-3.1-8B-Instruct", "T4", 1, 2048, 1, False),
        ("meta-llama/Llama-3.1-8B-Instruct", "T4", 2, 4096, 1, True),
        ("meta-llama/Llama-3.1-70B-Instruct", "H100", 1, 4096, 1, False),
        ("meta-llama/Llama-3.1-70B-Instruct", "H100", 4, 8192, 8, True),
        ("Qwen/Qwen2.5-0.5B-Instruct", "L4", 1, 32768, 8, True),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "A100", 1, 4096, 1, False),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "A100", 2, 32768, 4, True),
        ("deepseek-ai/DeepSeek-V3", "H100", 8, 4096, 1, False),
        ("deepseek-ai/DeepSeek-V3", "H200", 8, 16384, 16, True),
    ],
)
def test_what_fits(
    name: str, accelerator: str, count: int, length: int, sequences: int, fits: bool
) -> None:
    need = estimate(
        read_architecture(BY_NAME[name]["config"]),
        Workload(max_model_len=length, sequences=sequences, accelerators=count),
        memory=accelerator_bytes(accelerator),
    )
    assert need.fits is fits
    assert need.needed == need.weights + need.kv_cache + need.activations + need.context


def test_the_tokens_of_cache_are_those_that_just_fit() -> None:
    model = read_architecture(LLAMA_8B["config"])
    memory = accelerator_bytes("A10G")
    tokens = estimate(model, Workload(max_model_len=1), memory=memory).cache_tokens
    assert estimate(model, Workload(max_model_len=tokens), memory=memory).fits
    assert not estimate(model, Workload(max_model_len=tokens + 1), memory=memory).fits


def test_heads_of_keys_are_copied_when_there_are_fewer_than_accelerators() -> None:
    model = read_architecture(BY_NAME["Qwen/Qwen2.5-7B-Instruct"]["config"])  # 4 heads
    memory = accelerator_bytes("H100")
    each = {
        count: estimate(
            model, Workload(max_model_len=4096, accelerators=count), memory=memory
        ).kv_cache
        for count in (1, 4, 8)
    }
    assert each[4] == each[1] // 4
    assert each[8] == each[4]


@pytest.mark.parametrize("name", ["A10G", "a10g", "nvidia-tesla-t4", "nvidia-a100-40gb", "H100"])
def test_accelerators_have_the_names_that_people_write(name: str) -> None:
    assert accelerator_bytes(name) > 10 * GIB


def test_an_unknown_accelerator_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'P4'") as error:
        accelerator_bytes("P4")
    assert all(name in str(error.value) for name in ACCELERATORS)


# The command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B["config"]))
    index = {"metadata": {"total_size": LLAMA_8B["total_size"]}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_the_command_shows_each_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(folder), "--accelerator", "A10G"]) == 0
    out = capsys.readouterr().out
    assert "15.0 GiB weights (files)" in out
    assert "4.0 GiB cache for 8 sequences of 4,096 tokens" in out
    assert "of 22.5 GiB" in out
    assert "It fits; there is room for" in out


def test_the_command_ends_with_1_if_the_model_does_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", str(folder / "config.json"), "--accelerator", "16Gi", "--json"]
    assert main(words) == 1
    fields = json.loads(capsys.readouterr().out)
    assert fields["fits"] is False
    assert fields["memory"] == 16 * GIB
    assert fields["weights"] == LLAMA_8B["total_size"]


def test_a_cache_of_one_byte_halves_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for more in ([], ["--fp8-cache"]):
        main(["fit", str(folder), "--accelerator", "H100", "--json", *more])
        sizes.append(json.loads(capsys.readouterr().out)["kv_cache"])
    assert sizes[1] == sizes[0] // 2


@pytest.mark.parametrize(
    ("text", "words", "code", "part"),
    [
        (None, [], 64, "no file"),
        ("{", [], 78, "cannot be read as JSON"),
        ("[]", [], 78, "holds a list"),
        ("{}", [], 78, "no transformer decoder"),
        (json.dumps(LLAMA_8B["config"]), ["--accelerator", "P4"], 78, "'P4' is no accelerator"),
        (json.dumps(LLAMA_8B["config"]), ["--gpus", "0"], 64, "--gpus"),
        (json.dumps(LLAMA_8B["config"]), ["--gpu-memory-utilization", "2"], 64, "memory-util"),
    ],
)
def test_wrong_use(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    words: list[str],
    code: int,
    part: str,
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert main(["fit", str(tmp_path), "--accelerator", "A10G", *words]) == code
    assert part in capsys.readouterr().err
