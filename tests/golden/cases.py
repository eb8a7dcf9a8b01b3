"""The templates whose pods are kept as golden files: minimal, full, and one per option that changes the shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from flytekit import PodTemplate
from kubernetes.client import V1Container, V1PodSpec, V1ResourceRequirements, V1Toleration, V1Volume

from flytekitplugins.inference import (
    NIM,
    VLLM,
    HFSecret,
    HuggingFaceModel,
    InferenceWarning,
    ModelInferenceTemplate,
    ModelServers,
    NIMSecrets,
    ObjectStoreModel,
    PodDescription,
    Probe,
    Probes,
    Volume,
    VolumeModel,
)

IMAGE = "registry.example.com/models/ranker:2.4.1"
NIM_IMAGE = "nvcr.io/nim/meta/llama-3.1-8b-instruct:1.8.4"
HF_GROUPED = HFSecret(hf_token_group="huggingface", hf_token_key="token")
NGC_GROUPED = NIMSecrets(ngc_image_secret="ngc-pull", ngc_secret_group="ngc", ngc_secret_key="api-key")
BASE = PodTemplate(
    primary_container_name="main",
    labels={"team": "search"},
    annotations={"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
    pod_spec=V1PodSpec(
        containers=[V1Container(name="main", resources=V1ResourceRequirements(limits={"memory": "4Gi"}))],
        init_containers=[V1Container(name="warm-disk", image="registry.example.com/tools/warm:1.0", command=["warm"])],
        node_selector={"pool": "gpu"},
        service_account_name="inference",
        tolerations=[V1Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")],
        volumes=[V1Volume(name="scratch", empty_dir={})],
    ),
)
MODELS = Volume(
    name="models",
    source={"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
    mount_path="/models",
    read_only=True,
    containers=("model-server", "primary"),
)


def _generic(**options: Any) -> Callable[[], ModelInferenceTemplate]:
    return lambda: ModelInferenceTemplate(image=IMAGE, **options)


CASES: dict[str, Callable[[], PodDescription]] = {
    "generic-minimal": _generic(),
    "generic-documented": lambda: ModelInferenceTemplate(
        image="my-model-server:latest",
        health_endpoint="/health",
        port=8080,
        cpu=4,
        gpu=1,
        mem="16Gi",
        env={"MODEL_PATH": "/shared/my_model.pt"},
        download_inputs=True,
        download_inputs_mem="1Gi",
        download_inputs_cpu=1,
    ),
    "generic-full": _generic(
        health_endpoint="healthz",
        port=9000,
        cpu=2.5,
        gpu=2,
        mem="24Gi",
        ephemeral_storage="50Gi",
        env={"LOG_LEVEL": "info", "ADDRESS": "0.0.0.0:$(INFERENCE_PORT)"},
        download_inputs=True,
        download_inputs_mem="1Gi",
        download_inputs_cpu="500m",
        base=BASE,
        shm_size="8Gi",
        gpu_resource="amd.com/gpu",
        command=["python", "-m", "ranker"],
        args=["--port", "$(INFERENCE_PORT)"],
        probes=Probes(readiness=Probe(), liveness=Probe(path="/live", period_seconds=30, failure_threshold=5)),
        volumes=[MODELS],
        security_context={"runAsUser": 1001, "runAsNonRoot": True},
        termination_grace_period=120,
        helper_image="registry.example.com/tasks/ranker:2.4.1",
    ),
    "generic-base": _generic(base=BASE, gpu=0),
    "generic-command": _generic(command=["ranker", "serve"], args=["--port", "$(INFERENCE_PORT)"]),
    "generic-download-inputs": _generic(download_inputs=True),
    "generic-download-inputs-helper-image": _generic(download_inputs=True, helper_image="registry.example.com/t:1"),
    "generic-ephemeral-storage": _generic(ephemeral_storage="20Gi"),
    "generic-gpu-0": _generic(gpu=0),
    "generic-gpu-mig": _generic(gpu=1, gpu_resource="nvidia.com/mig-1g.10gb"),
    "generic-gpu-neutral": _generic(gpu=4, gpu_resource="gpu"),
    "generic-probe": _generic(health_endpoint="/health"),
    "generic-probes": _generic(
        probes=Probes(
            startup=Probe(failure_threshold=30), readiness=Probe(path="/ready"), liveness=Probe(initial_delay_seconds=5)
        )
    ),
    "generic-security-context": _generic(security_context={"capabilities": {"add": ["SYS_NICE"], "drop": ["ALL"]}}),
    "generic-shm": _generic(mem="4Gi", shm_size="1Gi"),
    "generic-grace-period": _generic(termination_grace_period=5),
    "generic-volumes": _generic(volumes=[MODELS]),
    "generic-model-input": _generic(model="input:weights", download_inputs=True, command=["ranker", "serve"]),
    "generic-model-input-gate": _generic(
        model="input:weights",
        download_inputs=True,
        command=["ranker", "serve"],
        health_endpoint="/health",
        startup_timeout=600,
    ),
    "generic-gate": _generic(health_endpoint="/health", startup_timeout=600),
    "generic-gate-with-image-entry-point": _generic(model="s3://models/ranker/v3", startup_timeout=600),
    "vllm-lora": lambda: VLLM(
        model="Qwen/Qwen2.5-7B-Instruct",
        lora_adapters={"sql": "acme/sql-lora@v2", "chat": "s3://adapters/chat"},
        hf_secret=HF_GROUPED,
        helper_image="registry.example.com/tasks/ranker:2.4.1",
    ),
    "vllm-model-sized": lambda: VLLM(
        model=ObjectStoreModel(uri="s3://models/qwen2.5-7b", size="15Gi"), startup_timeout="auto"
    ),
    "nim-model-store": lambda: NIM(secrets=NGC_GROUPED, image=NIM_IMAGE, model="gs://models/llama/8b"),
    "vllm-minimal": VLLM,
    "vllm-documented": lambda: VLLM(
        hf_secret=HFSecret(secrets_prefix="my-secrets-prefix", hf_token_group="my-hf-group", hf_token_key="hf_token"),
        arg_dict={
            "model": "mistralai/Mistral-7B-Instruct-v0.2",
            "tensor_parallel_size": 1,
            "max_model_len": 4096,
        },
        image="vllm/vllm-openai:latest",
        cpu=4,
        gpu=1,
        mem="20Gi",
    ),
    "vllm-full": lambda: VLLM(
        hf_secret=HF_GROUPED,
        arg_dict={
            "model": "Qwen/Qwen2.5-7B-Instruct",
            "served-model-name": ["qwen", "default"],
            "tensor_parallel_size": 2,
            "enable-lora": True,
            "enable_prefix_caching": False,
            "limit_mm_per_prompt": {"image": 2},
            "seed": None,
        },
        port=9000,
        cpu=8,
        gpu=2,
        mem="64Gi",
        shm_size="16Gi",
        env={"VLLM_LOGGING_LEVEL": "INFO"},
        args=["--a-flag-of-a-newer-image"],
        download_inputs=True,
        base=BASE,
    ),
    "vllm-secret-without-group": lambda: VLLM(hf_secret=HFSecret(secrets_prefix="_UNION_", hf_token_key="hf_token")),
    "nim-minimal": lambda: NIM(secrets=NGC_GROUPED, image=NIM_IMAGE),
    "nim-documented": lambda: NIM(
        secrets=NIMSecrets(
            ngc_image_secret="my-ngc-image-pull-secret",
            ngc_secret_key="ngc_api_key",
            secrets_prefix="_FSEC_",
            hf_token_key="hf_token",
        ),
        image="nvcr.io/nim/meta/llama3-8b-instruct:1.0.0",
        cpu=2,
        gpu=1,
        mem="20Gi",
        shm_size="16Gi",
        env={"NIM_PEFT_SOURCE": "/opt/nim/lora_adapters", "NIM_MODEL_ID": "meta/llama3-8b-instruct"},
        hf_repo_ids=["tloen/alpaca-lora-7b"],
        lora_adapter_mem="2Gi",
    ),
    "nim-full": lambda: NIM(
        secrets=NIMSecrets(
            ngc_image_secret="ngc-pull",
            ngc_secret_group="ngc",
            ngc_secret_key="api-key",
            hf_token_group="huggingface",
            hf_token_key="token",
        ),
        image=NIM_IMAGE,
        port=9000,
        cpu=8,
        gpu=1,
        mem="96Gi",
        ephemeral_storage="200Gi",
        shm_size="32Gi",
        env={"NIM_PEFT_SOURCE": "/adapters", "NIM_LOG_LEVEL": "INFO"},
        hf_repo_ids=["acme/summaries-lora", "acme/titles-lora@v2"],
        lora_adapter_mem="2Gi",
        download_inputs=True,
    ),
}

HELPER_IMAGE = "registry.example.com/tasks/ranker:2.4.1"
SOURCES: dict[str, dict[str, Any]] = {
    "hub": {
        "model": HuggingFaceModel(repo="Qwen/Qwen2.5-7B-Instruct", revision="a09a354", exclude=("*.pth",)),
        "hf_secret": HF_GROUPED,
        "model_cache": {"persistentVolumeClaim": {"claimName": "model-cache"}},
        "helper_image": HELPER_IMAGE,
    },
    "store": {"model": "s3://models/qwen2.5-7b/2024-11"},
    "registered": {"model": "models:/qwen@production", "update_interval": 300, "helper_image": HELPER_IMAGE},
    "input": {"model": "input:weights", "download_inputs": True},
    "claim": {
        "model": VolumeModel(
            volume={"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}, path="qwen/7b"
        )
    },
    "host": {"model": VolumeModel(volume={"hostPath": {"path": "/data/models", "type": "Directory"}}, path="qwen/7b")},
    "image-volume": {
        "model": VolumeModel(volume={"image": {"reference": "registry.example.com/models/qwen:7b"}}, path="qwen"),
        "arg_dict": {"served_model_name": "qwen"},
    },
}
for _source, _options in SOURCES.items():
    CASES[f"model-{_source}-probe"] = partial(VLLM, mem="64Gi", **_options)
    CASES[f"model-{_source}-gate"] = partial(VLLM, mem="64Gi", startup_timeout=1800, **_options)
CASES["vllm-cpu"] = lambda: VLLM(
    model="s3://models/qwen", gpu=0, cpu=8, mem="24Gi", env={"VLLM_CPU_KVCACHE_SPACE": "8"}
)
CASES["vllm-amd"] = lambda: VLLM(
    model="s3://models/qwen",
    gpu=4,
    gpu_resource="amd.com/gpu",
    cpu=16,
    mem="128Gi",
    arg_dict={"tensor_parallel_size": 4},
)
CASES["vllm-mig"] = lambda: VLLM(model="s3://models/qwen", gpu_resource="nvidia.com/mig-3g.20gb", startup_timeout=900)
CASES["servers-probe"] = lambda: ModelServers(
    {
        "ranker": ModelInferenceTemplate(image=IMAGE, health_endpoint="/health", gpu=0, volumes=[MODELS]),
        "llm": VLLM(arg_dict={"model": "Qwen/Qwen2.5-0.5B-Instruct"}, port=8001, volumes=[MODELS]),
    }
)
CASES["servers-gate"] = lambda: ModelServers(
    {
        "embeddings": VLLM(
            model="s3://models/bge-m3", mem="8Gi", download_inputs=True, download_inputs_mem="2Gi", startup_timeout=900
        ),
        "llm": VLLM(
            model=HuggingFaceModel(repo="acme/chat", size="15Gi"),
            hf_secret=HF_GROUPED,
            lora_adapters={"sql": "acme/sql-lora"},
            port=8001,
            gpu=2,
            mem="48Gi",
            startup_timeout="auto",
            helper_image="registry.example.com/task:1",
            model_cache={"persistentVolumeClaim": {"claimName": "models"}},
        ),
        "nim": NIM(secrets=NGC_GROUPED, image=NIM_IMAGE, port=8002, startup_timeout=1800),
    },
    base=BASE,
)


OLDEST = {"model-image-volume-probe": "1.31", "model-image-volume-gate": "1.31"}
"""The Kubernetes that a case needs, where it is newer than the oldest supported: OCI image volumes (KEP-4639)."""


def make(name: str) -> PodDescription:
    """Return the template of one case; what it warns of is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)
        return CASES[name]()
