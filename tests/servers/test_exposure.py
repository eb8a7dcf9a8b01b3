"""Who reaches a server: in a bounded start only the pod's own containers, unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flytekitplugins.inference import (
    TEI,
    VLLM,
    ConfigError,
    LlamaCpp,
    MLServer,
    ModelInferenceTemplate,
    Ollama,
    Probe,
    Probes,
    SGLang,
    Triton,
)
from flytekitplugins.inference.pod.parts import Helper

EVERYWHERE = "0.0.0.0"
HELPER = Helper(image="helper:1", bundled=False)
SERVERS: dict[str, tuple[type[ModelInferenceTemplate[Any]], dict[str, Any], int]] = {
    # with the number of addresses that it is told
    "vllm": (VLLM, {"model": "s3://b/m", "gpu": 0}, 1),
    "sglang": (SGLang, {"model": "s3://b/m", "gpu": 0}, 1),
    "llamacpp": (LlamaCpp, {"model": "s3://b/m.gguf", "gpu": 0}, 1),
    "tei": (TEI, {"model": "s3://b/m", "arg_dict": {"auto_truncate": True}, "gpu": 0}, 1),
    "ollama": (Ollama, {"model": "llama3.2:1b", "gpu": 0}, 1),
    "mlserver": (MLServer, {"model": "s3://b/m", "model_names": ["m"]}, 1),
    "triton": (Triton, {"model": "s3://b/m", "model_names": ["m"]}, 3),
}
EXPOSED: dict[str, dict[str, Any]] = {
    "by the startup probe": {"startup_timeout": None},
    "by nothing said": {},
    "by a startup probe of the user's": {"probes": Probes(startup=Probe())},
    "by expose": {"startup_timeout": 60, "expose": True},
    "by a liveness probe": {"startup_timeout": 60, "probes": Probes(liveness=Probe(path="/"))},
    "by a readiness probe": {"startup_timeout": 60, "probes": Probes(readiness=Probe(path="/"))},
}
PRIVATE: dict[str, dict[str, Any]] = {
    "gate": {"startup_timeout": 60},
    "automatic": {"startup_timeout": "auto"},
    "probe in the container": {
        "startup_timeout": 60,
        "probes": Probes(liveness=Probe(command=("true",))),
    },
}


def _words(template: ModelInferenceTemplate[Any]) -> list[str]:
    """Return what the server is told: its arguments, and the values of its variables."""
    containers = template.compile(HELPER)["spec"]["initContainers"]
    server = next(one for one in containers if one["name"] == "model-server")
    values = [variable.get("value", "") for variable in server["env"]]
    return [*server.get("args", ()), *values]


def _count(words: list[str], host: str) -> int:
    return sum(word == host or word.startswith(f"{host}:") for word in words)


@pytest.mark.parametrize("how", PRIVATE)
@pytest.mark.parametrize("name", SERVERS)
def test_in_a_bounded_start_it_listens_on_loopback_only(name: str, how: str) -> None:
    kind, options, addresses = SERVERS[name]
    words = _words(kind(**options, **PRIVATE[how]))
    assert (_count(words, "127.0.0.1"), _count(words, EVERYWHERE)) == (addresses, 0)


@pytest.mark.parametrize("how", EXPOSED)
@pytest.mark.parametrize("name", SERVERS)
def test_it_listens_on_every_address(name: str, how: str) -> None:
    kind, options, _ = SERVERS[name]
    words = _words(kind(**options, **EXPOSED[how]))
    assert (_count(words, "127.0.0.1"), _count(words, EVERYWHERE)) == (0, 1)


def test_an_address_of_the_users_own_goes_before_the_templates() -> None:
    options = {"model": "s3://b/m", "gpu": 0, "startup_timeout": 60}
    for host in ("0.0.0.0", "::", "::1", "localhost"):
        assert host in _words(VLLM(arg_dict={"host": host}, **options))
    own = Triton(model="s3://b/m", arg_dict={"grpc_address": "::1"}, startup_timeout=60)
    assert _words(own).count("--grpc-address") == 1


REFUSED: dict[str, Callable[[], object]] = {
    "an address of another machine": lambda: VLLM(
        arg_dict={"host": "10.0.0.1"}, startup_timeout=60
    ),
    "loopback, which the kubelet must reach": lambda: VLLM(
        arg_dict={"host": "127.0.0.1"}, startup_timeout=60, expose=True
    ),
    "a text": lambda: VLLM(expose="yes"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_work_is_refused(what: str) -> None:
    with pytest.raises(ConfigError):
        REFUSED[what]()


def test_wrong_fields_beside_an_address_are_all_told() -> None:
    with pytest.raises(ConfigError) as caught:
        VLLM(
            model="nowhere://m",
            startup_timeout="auto",
            probes="all",  # type: ignore[arg-type]
            arg_dict={"host": "10.0.0.1"},
        )
    for words in ("nowhere", "probes must be Probes", "host '10.0.0.1'"):
        assert words in str(caught.value)
