"""`Ollama`: what the server and `create_model` are told, and a run against a stand-in server.

Facts: ollama/ollama v0.33.3, `envconfig/config.go` (variables), `.github/workflows/release.yaml`
(images).
"""

from __future__ import annotations

import json
import stat
import sys
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference import (
    ConfigError,
    HuggingFaceModel,
    InferenceWarning,
    ModelServers,
    Ollama,
    OllamaModel,
    VolumeModel,
)
from flytekitplugins.inference.pod.parts import Helper
from flytekitplugins.inference.testing import unanswered

STAND_IN = Path(__file__).parent.parent / "users" / "ollama_stand_in.py"
HELPER = Helper(image="helper:1", bundled=False)
CLAIM = {"persistentVolumeClaim": {"claimName": "ollama"}}


def containers(template: Ollama | ModelServers) -> dict[str, Any]:
    return {
        container["name"]: container
        for container in template.compile(HELPER)["spec"]["initContainers"]
    }


def variables(template: Ollama) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in containers(template)["model-server"]["env"]}


def setup_args(template: Ollama) -> list[str]:
    args: list[str] = containers(template)["server-setup"]["args"]
    return args


def problems(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Ollama(**options)
    return str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "llama3.2"},
        {"model": "s3://models/llama"},
        {"model": OllamaModel("mine", modelfile="FROM llama3.2")},
        {"model": VolumeModel(volume=CLAIM, path="llama")},
    ],
)
def test_every_question_is_answered(options: dict[str, Any]) -> None:
    assert unanswered(Ollama, **options) == []


# The published plugin's interface


def test_the_published_arguments_are_accepted() -> None:
    """Source: flytekitplugins-inference 1.16, `ollama/serve.py`: `Model` takes positions."""
    model = OllamaModel(
        "llama3-mario", "1Gi", 2, "FROM llama3\nADAPTER {inputs.gguf}\nPARAMETER temperature 1\n"
    )
    template = Ollama(
        model=model,
        image="ollama/ollama",
        port=11434,
        cpu=1,
        gpu=1,
        mem="15Gi",
        download_inputs_mem="500Mi",
        download_inputs_cpu=2,
    )
    found = containers(template)
    assert list(found) == ["input-downloader", "model-server", "server-setup"]
    assert found["server-setup"]["resources"]["requests"] == {"cpu": "2", "memory": "1Gi"}
    assert template.base_url == "http://localhost:11434"


def test_the_defaults_are_the_published_ones() -> None:
    assert (OllamaModel("m").mem, OllamaModel("m").cpu, OllamaModel("m").modelfile) == (
        "500Mi",
        1,
        None,
    )
    template = Ollama(model="m")
    assert (template.port, template.cpu, template.gpu, template.mem) == (11434, 1, 1, "15Gi")


@pytest.mark.parametrize(
    ("modelfile", "downloads"),
    [("FROM x\nSYSTEM {inputs.a}", True), ("FROM x\nSYSTEM {{ .System }}", False)],
)
def test_inputs_are_brought_when_the_modelfile_asks_for_them(
    modelfile: str, downloads: bool
) -> None:
    template = Ollama(model=OllamaModel("m", modelfile=modelfile))
    assert template.download_inputs is downloads
    assert ("input-downloader" in containers(template)) is downloads


# The server


@pytest.mark.parametrize(
    ("options", "image"),
    [
        ({}, "ollama/ollama:0.33.3"),
        ({"gpu": 4}, "ollama/ollama:0.33.3"),
        ({"gpu": 0}, "ollama/ollama:0.33.3"),
        ({"gpu_resource": "nvidia.com/mig-1g.10gb"}, "ollama/ollama:0.33.3"),
        ({"gpu_resource": "amd.com/gpu"}, "ollama/ollama:0.33.3-rocm"),
        ({"gpu": 0, "gpu_resource": "amd.com/gpu"}, "ollama/ollama:0.33.3"),
    ],
)
def test_the_image_fits_the_hardware(options: dict[str, Any], image: str) -> None:
    assert containers(Ollama(model="m", **options))["model-server"]["image"] == image


def test_the_environment() -> None:
    found = variables(
        Ollama(model="m", port=11500, env={"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "10m"})
    )
    assert found == {
        "INFERENCE_PORT": "11500",
        "OLLAMA_HOST": "0.0.0.0:$(INFERENCE_PORT)",
        "HOME": "/ollama",
        "OLLAMA_MODELS": "/ollama/models",
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_KEEP_ALIVE": "10m",
    }


def test_a_volume_that_pods_share_is_not_pruned() -> None:
    template = Ollama(model="m", models_volume=CLAIM)
    assert variables(template)["OLLAMA_NOPRUNE"] == "1"
    volumes = {volume["name"]: volume for volume in template.compile(HELPER)["spec"]["volumes"]}
    assert volumes["inference-ollama"] == {"name": "inference-ollama", **CLAIM}


@pytest.mark.parametrize("timeout", [None, 600])
def test_both_start_modes(timeout: int | None) -> None:
    found = containers(Ollama(model="llama3.2", startup_timeout=timeout))
    probe = found["model-server"].get("startupProbe")
    if timeout is None:
        assert probe["httpGet"]["path"] == "/api/version"
        assert list(found) == ["model-server", "server-setup"]
    else:
        assert probe is None
        assert list(found) == ["model-server", "server-setup", "server-gate"]
        assert found["server-setup"]["args"][-2:] == ["--timeout", "600"]
        assert found["server-gate"]["args"][-4:] == [
            "--api",
            "openai",
            "--model",
            "llama3.2:latest",
        ]


# What is created


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("llama3.2:1b", ["--name", "llama3.2:1b"]),
        ("hf.co/bartowski/Qwen:Q4_K_M", ["--name", "hf.co/bartowski/Qwen:Q4_K_M"]),
        ("s3://m/qwen", ["--name", "qwen", "--source", "/models/current", "--models", "/models"]),
        (
            "input:weights",
            ["--name", "weights", "--source", "/models/current", "--models", "/models"],
        ),
        (VolumeModel(volume=CLAIM, path="a/q"), ["--name", "q", "--source", "/models/a/q"]),
        (
            HuggingFaceModel(repo="Qwen/Qwen2.5-7B-Instruct-GGUF", include=("*q4_k_m.gguf",)),
            [
                "--name",
                "Qwen/Qwen2.5-7B-Instruct-GGUF",
                "--source",
                "/models/current",
                "--models",
                "/models",
            ],
        ),
        (
            OllamaModel("mine", source="hf://owner/name"),
            ["--name", "mine", "--source", "/models/current", "--models", "/models"],
        ),
    ],
)
def test_each_source_becomes_arguments(model: Any, arguments: list[str]) -> None:
    downloads = isinstance(model, str) and model.startswith("input:")
    assert setup_args(Ollama(model=model, download_inputs=downloads)) == [
        "http://localhost:11434",
        *arguments,
    ]


def test_a_modelfile_reaches_the_program_unchanged() -> None:
    text = 'FROM x\nTEMPLATE """{{ .Prompt }} $(HOME) $$ {"a": 1}"""\n'
    (entry,) = containers(Ollama(model=OllamaModel("m", modelfile=text)))["server-setup"]["env"]
    from flytekitplugins.inference.local.plan.rewrite import expand  # as the kubelet does

    assert entry["name"] == "INFERENCE_MODELFILE"
    assert expand(entry["value"], {"HOME": "/evil"}) == text


def test_two_servers_in_a_pod() -> None:
    pod = ModelServers({"a": Ollama(model="x", gpu=0), "b": Ollama(model="y", gpu=0, port=11435)})
    found = containers(pod)
    assert {"server-setup-a", "server-setup-b"} <= set(found)
    assert found["server-setup-b"]["args"][0] == "http://localhost:11435"


# What is wrong


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "model is missing"),
        ({"model": 3}, "model must be a text or a model's source, not a int"),
        ({"model": "two words"}, "'two words' is not a model's name"),
        ({"model": "m'; rm -rf /"}, "is not a model's name"),
        ({"model": "s3://"}, "it names no bucket"),
        ({"model": "hf://x/y/z"}, "is not a model reference"),
        ({"model": "s3://models/a b"}, "give OllamaModel(name, source=…)"),
        ({"model": OllamaModel(3)}, "the name must be a text"),  # type: ignore[arg-type]
        ({"model": OllamaModel("m", mem="lots")}, "model: mem='lots'"),
        ({"model": OllamaModel("m", cpu=0)}, "model: cpu=0"),
        ({"model": OllamaModel("m", modelfile=3)}, "modelfile: it must be a text"),  # type: ignore[arg-type]
        ({"model": OllamaModel("m", modelfile="FROM x\nPARAMETR a 1")}, "Did you mean PARAMETER?"),
        ({"model": OllamaModel("m", modelfile="FROM x\nSYSTEM {inputs}")}, "line 2 (SYSTEM)"),
        (
            {"model": OllamaModel("m", modelfile=f"FROM x\nLICENSE {'x' * 100_000}")},
            "holds at most",
        ),
        (
            {"model": OllamaModel("m", source="hf://a/b", modelfile="FROM llama3")},
            "give one of them",
        ),
        (
            {"model": OllamaModel("m", modelfile="FROM ./a.gguf")},
            "would be one of the files that source= brings",
        ),
        ({"model": "m", "env": {"OLLAMA_HOST": "127.0.0.1"}}, "give port= instead"),
        ({"model": "m", "models_volume": {"claim": "x"}}, "models_volume: "),
        ({"model": "input:weights"}, "needs download_inputs=True"),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], text: str) -> None:
    assert text in problems(**options)


def test_a_parameter_that_ollama_dropped_is_a_warning() -> None:
    with pytest.warns(InferenceWarning, match=r"line 2 \(PARAMETER mirostat\) is ignored"):
        Ollama(model=OllamaModel("m", modelfile="FROM x\nPARAMETER mirostat 1"))


def test_a_public_model_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Ollama(model="llama3.2")


def test_an_adapter_may_be_brought_for_a_model_of_the_library() -> None:
    template = Ollama(
        model=OllamaModel("m", source="hf://a/b", modelfile="FROM llama3.2\nADAPTER ./adapter.gguf")
    )
    assert setup_args(template)[3:5] == ["--source", "/models/current"]


# On one machine


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program `ollama` into the path that answers as Ollama does."""
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.mark.usefixtures("ollama")
@pytest.mark.parametrize("timeout", [None, 60])
def test_a_local_run_has_the_model(timeout: int | None) -> None:
    modelfile = 'FROM llama3.2\nSYSTEM """{inputs.rules} {{ .Prompt }} $(HOME)"""'
    template = Ollama(
        model=OllamaModel("mine", modelfile=modelfile), gpu=0, startup_timeout=timeout
    )
    with template.run_locally({"rules": "Be kind."}) as server:
        models = json.load(urllib.request.urlopen(f"{server.base_url}/v1/models"))
        assert {model["id"] for model in models["data"]} == {"llama3.2:latest", "mine:latest"}
        loaded = json.load(urllib.request.urlopen(f"{server.base_url}/api/ps"))
        assert [model["name"] for model in loaded["models"]] == ["mine:latest"]
