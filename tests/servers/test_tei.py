"""`TEI`: arguments, images and warnings, against facts of the router's source (`data/tei.json`).

No real server runs here: TEI is on no package registry. Facts:
huggingface/text-embeddings-inference v1.9.3.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference import (
    TEI,
    ConfigError,
    HFSecret,
    HuggingFaceModel,
    InferenceWarning,
    ModelServers,
    VolumeModel,
)
from flytekitplugins.inference.pod.parts import Helper
from flytekitplugins.inference.tei import options
from flytekitplugins.inference.testing import unanswered

ROOT = Path(__file__).parent.parent.parent
FACTS = json.loads((Path(__file__).parent / "data" / "tei.json").read_text(encoding="utf-8"))
HELPER = Helper(image="helper:1", bundled=False)
MODEL = {"model_id": "BAAI/bge-m3", "auto_truncate": True}
SECRET = HFSecret(hf_token_group="huggingface", hf_token_key="token")


def containers(template: TEI | ModelServers) -> dict[str, Any]:
    return {
        container["name"]: container
        for container in template.compile(HELPER)["spec"]["initContainers"]
    }


def server(**given: Any) -> dict[str, Any]:
    found: dict[str, Any] = containers(TEI(**given))["model-server"]
    return found


def args(**given: Any) -> list[str]:
    words: list[str] = server(arg_dict={**MODEL, **given})["args"]
    return words


def following(words: list[str], flag: str) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == flag]


def problems(**given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TEI(**given)
    return str(caught.value)


# Options


def test_the_options_are_those_of_the_source() -> None:
    kinds = {
        **dict.fromkeys(options.VALUES, "value"),
        **dict.fromkeys(options.SWITCHES, "switch"),
        **dict.fromkeys(options.BOOLEANS, "boolean"),
        **dict.fromkeys(options.APPENDED, "appended"),
    }
    kind_of = {"bool": "switch", "Option<Vec<String>>": "appended"}
    expected = {name: kind_of.get(kind, "value") for name, kind in FACTS["types"].items()}
    expected["auto_truncate"] = "boolean"  # `num_args = 0..=1, default_value = "true"`
    assert kinds == expected
    assert FACTS["defaults"]["auto_truncate"] == "true"
    assert f"v{options.VERSION}," in FACTS["source"]


def test_the_script_reads_the_source() -> None:
    source = """
    #[clap(long, env)]
    #[redact(partial)]
    model_id: String,
    #[clap(default_value = "3000", long, short, env)]
    port: u16,
    #[clap(long, env)]
    json_output: bool,
    #[clap(long, env, default_value = "true", num_args = 0..=1, default_missing_value = "true")]
    auto_truncate: bool,
    #[clap(long, env)]
    cors_allow_origin: Option<Vec<String>>,
    """
    command = [sys.executable, "-m", "dev.options", "tei", "1.2.3"]
    written = subprocess.run(
        command, cwd=ROOT, input=source, capture_output=True, text=True, check=True
    ).stdout
    names: dict[str, Any] = {}
    exec(written, names)
    assert (names["VERSION"], names["VALUES"]) == ("1.2.3", {"model_id", "port"})
    assert (names["SWITCHES"], names["BOOLEANS"]) == ({"json_output"}, {"auto_truncate"})
    assert names["APPENDED"] == {"cors_allow_origin"}


def test_options_become_arguments() -> None:
    words = args(
        auto_truncate=False,
        max_batch_tokens=4096,
        **{"max-client-batch-size": 64},
        disable_spans=True,
    )
    assert following(words, "--auto-truncate") == ["false"]
    assert following(words, "--max-batch-tokens") == ["4096"]
    assert following(words, "--max-client-batch-size") == ["64"]
    assert "--disable-spans" in words
    assert following(args(cors_allow_origin=["a", "b"]), "--cors-allow-origin") == ["a", "b"]


def test_logs_are_json_unless_told_otherwise() -> None:
    assert "--json-output" in args()
    assert "--json-output" not in args(json_output=False)
    assert args(json_output=True).count("--json-output") == 1


def test_address_and_port_are_arguments() -> None:
    """The router also reads `HOSTNAME`, which Kubernetes sets, and `PORT`, which the image sets."""
    words = server(arg_dict=MODEL, port=9000)["args"]
    assert following(words, "--hostname") == ["0.0.0.0"]
    assert following(words, "--port") == ["9000"]
    assert following(words, "--prometheus-port") == ["0"]
    assert following(args(prometheus_port=9100), "--prometheus-port") == ["9100"]
    assert following(args(hostname="::"), "--hostname") == ["::"]


def test_two_servers_in_a_pod_do_not_collide() -> None:
    pod = ModelServers({"embed": TEI(arg_dict=MODEL), "rerank": TEI(arg_dict=MODEL, port=8001)})
    ports = {
        name: following(one["args"], "--prometheus-port") for name, one in containers(pod).items()
    }
    assert ports == {"model-server-embed": ["0"], "model-server-rerank": ["0"]}


# The server


@pytest.mark.parametrize(
    ("given", "tag", "command"),
    [
        ({}, "cuda-1.9.3", "/entrypoint.sh"),
        ({"gpu_resource": "gpu"}, "cuda-1.9.3", "/entrypoint.sh"),
        ({"gpu_resource": "nvidia.com/mig-1g.10gb"}, "cuda-1.9.3", "/entrypoint.sh"),
        ({"gpu": 0}, "cpu-1.9.3", "text-embeddings-router"),
        ({"gpu": 0, "gpu_resource": "amd.com/gpu"}, "cpu-1.9.3", "text-embeddings-router"),
        ({"gpu_resource": "habana.ai/gaudi"}, "hpu-1.9.3", "text-embeddings-router"),
        ({"gpu_resource": "gpu.intel.com/xe"}, "xpu-ipex-1.9.3", "text-embeddings-router"),
    ],
)
def test_image_and_command_fit_the_hardware(given: dict[str, Any], tag: str, command: str) -> None:
    found = server(arg_dict=MODEL, **given)
    assert found["image"] == f"ghcr.io/huggingface/text-embeddings-inference:{tag}"
    assert found["command"] == [command]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("s3://models/bge-m3", "/models/current"),
        (HuggingFaceModel(repo="BAAI/bge-m3"), "/models/current"),
        (
            VolumeModel(volume={"persistentVolumeClaim": {"claimName": "models"}}, path="e/bge-m3"),
            "/models/e/bge-m3",
        ),
    ],
)
def test_each_source_becomes_the_models_path(model: Any, path: str) -> None:
    words = server(model=model, arg_dict={"auto_truncate": True})["args"]
    assert following(words, "--model-id") == [path]
    assert following(words, "--served-model-name") == [
        "BAAI/bge-m3" if isinstance(model, HuggingFaceModel) else "bge-m3"
    ]


@pytest.mark.parametrize("timeout", [None, 600])
def test_both_start_modes(timeout: int | None) -> None:
    found = containers(TEI(arg_dict=MODEL, startup_timeout=timeout))
    if timeout is None:
        assert found["model-server"]["startupProbe"]["httpGet"]["path"] == "/health"
    else:
        gate = found["server-gate"]["args"]
        assert gate[0] == "http://localhost:8000/health"
        assert "--api" not in gate  # the router has no /v1/models


def test_a_token_is_referred_to_never_written() -> None:
    found = server(hf_secret=SECRET, arg_dict=MODEL)
    names = [entry["name"] for entry in found["env"]]
    assert names.index("_FSEC_HUGGINGFACE_TOKEN") < names.index("HF_TOKEN")
    assert not [
        word for word in found["args"] if "token" in word.lower() and word != "--max-batch-tokens"
    ]


def test_every_question_is_answered() -> None:
    assert unanswered(TEI, arg_dict=MODEL) == []
    assert unanswered(TEI, model="s3://models/bge-m3", arg_dict={"auto_truncate": True}) == []


# What is wrong


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "model is missing"),
        (
            {"arg_dict": {"max_batch_token": 1, **MODEL}},
            "TEI 1.9.3 has no option 'max_batch_token' (did you mean",
        ),
        (
            {"arg_dict": {"auto_truncate": "false", "model_id": "x"}},
            "give True or False, not 'false'",
        ),
        (
            {"arg_dict": {"api_key": "x", **MODEL}},
            "would put a secret into the pod's specification",
        ),
        ({"arg_dict": {"hf_token": "x", **MODEL}}, "give hf_secret="),
        ({"arg_dict": {"port": 81, **MODEL}}, "give port= only"),
        ({"arg_dict": {"hostname": "127.0.0.1", **MODEL}}, "the kubelet's probes cannot reach"),
        ({"arg_dict": MODEL, "model": "s3://models/x"}, "give one of them"),
        ({"arg_dict": {"revision": "x"}, "model": "s3://models/x"}, "arg_dict has revision 'x'"),
        (
            {"arg_dict": {"default_prompt": "a", "default_prompt_name": "b", **MODEL}},
            "takes only one of them",
        ),
        ({"arg_dict": MODEL, "env": {"PORT": "80"}}, "env['PORT'] is set by the template"),
        ({"arg_dict": MODEL, "args": ["--port=80"]}, "give port= instead"),
        ({"arg_dict": MODEL, "gpu_resource": "amd.com/gpu"}, "TEI publishes no image for it"),
        ({"arg_dict": MODEL, "image": "ghcr.io/x/tei:cpu-1.9.3-grpc"}, "speaks gRPC only"),
        ({"arg_dict": MODEL, "hf_secret": "hf_abc"}, "hf_secret must be an HFSecret"),
        ({"arg_dict": ["model_id"]}, "arg_dict must be a dict"),
    ],
)
def test_what_is_wrong_is_told(given: dict[str, Any], text: str) -> None:
    assert text in problems(**given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"arg_dict": {"model_id": "BAAI/bge-m3"}}, "silently cuts inputs that are too long"),
        ({"arg_dict": MODEL, "gpu": 2}, "uses one GPU"),
    ],
)
def test_what_may_surprise_is_a_warning(given: dict[str, Any], text: str) -> None:
    with pytest.warns(InferenceWarning, match=text):
        TEI(**given)


@pytest.mark.parametrize("truncate", [True, False])
def test_a_choice_warns_of_nothing(truncate: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TEI(arg_dict={**MODEL, "auto_truncate": truncate})
