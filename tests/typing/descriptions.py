"""What the public classes take, for type checkers. Checked and never run; see clients.py."""

from __future__ import annotations

from datetime import timedelta

from flytekitplugins.inference import (
    VLLM,
    APIKeySecret,
    HuggingFaceModel,
    LlamaCpp,
    ModelServers,
    Probe,
    Probes,
    Triton,
    Volume,
)

VLLM(
    model=HuggingFaceModel(repo="owner/name", revision="main"),
    arg_dict={"max_model_len": 4096},
    gpu=1,
    cpu="500m",
    startup_timeout=timedelta(minutes=20),
    api_key_secret=APIKeySecret(key="key"),
    probes=Probes(startup=Probe(path="/health")),
    volumes=[Volume(name="data", mount_path="/data")],
)
ModelServers({"llm": VLLM(), "ranker": Triton(model_repository="/models")}, base={"spec": {}})

VLLM(modle="owner/name")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
VLLM(node_selector={"a": "b"})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
VLLM(startup_timeout="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
VLLM("owner/name")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
LlamaCpp(health_endpoint=8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ModelServers({"llm": "owner/name"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
Probe(paht="/health")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Volume(name="data")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
