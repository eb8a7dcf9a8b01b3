"""The templates of the golden pods: minimal, full, and one per option that changes the shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from flytekit import PodTemplate
from kubernetes.client import V1Container, V1PodSpec, V1ResourceRequirements, V1Toleration, V1Volume

from flytekitplugins.inference import (
    NIM,
    TEI,
    VLLM,
    HFSecret,
    HuggingFaceModel,
    InferenceWarning,
    LlamaCpp,
    MetricsExporter,
    MLServer,
    ModelInferenceTemplate,
    ModelServers,
    NIMSecrets,
    ObjectStoreModel,
    Ollama,
    OllamaModel,
    PodDescription,
    Probe,
    Probes,
    SGLang,
    Triton,
    Volume,
    VolumeModel,
)

IMAGE = "registry.example.com/models/ranker:2.4.1"
NIM_IMAGE = "nvcr.io/nim/meta/llama-3.1-8b-instruct:1.8.4"
HF_GROUPED = HFSecret(hf_token_group="huggingface", hf_token_key="token")
NGC_GROUPED = NIMSecrets(
    ngc_image_secret="ngc-pull", ngc_secret_group="ngc", ngc_secret_key="api-key"
)
BASE = PodTemplate(
    primary_container_name="main",
    labels={"team": "search"},
    annotations={"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
    pod_spec=V1PodSpec(
        containers=[
            V1Container(name="main", resources=V1ResourceRequirements(limits={"memory": "4Gi"}))
        ],
        init_containers=[
            V1Container(
                name="warm-disk", image="registry.example.com/tools/warm:1.0", command=["warm"]
            )
        ],
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
        probes=Probes(
            readiness=Probe(), liveness=Probe(path="/live", period_seconds=30, failure_threshold=5)
        ),
        volumes=[MODELS],
        security_context={"runAsUser": 1001, "runAsNonRoot": True},
        termination_grace_period=120,
        helper_image="registry.example.com/tasks/ranker:2.4.1",
    ),
    "generic-base": _generic(base=BASE, gpu=0),
    "generic-command": _generic(command=["ranker", "serve"], args=["--port", "$(INFERENCE_PORT)"]),
    "generic-download-inputs": _generic(download_inputs=True),
    "generic-download-inputs-helper-image": _generic(
        download_inputs=True, helper_image="registry.example.com/t:1"
    ),
    "generic-ephemeral-storage": _generic(ephemeral_storage="20Gi"),
    "generic-gpu-0": _generic(gpu=0),
    "generic-gpu-mig": _generic(gpu=1, gpu_resource="nvidia.com/mig-1g.10gb"),
    "generic-gpu-neutral": _generic(gpu=4, gpu_resource="gpu"),
    "generic-probe": _generic(health_endpoint="/health"),
    "generic-probes": _generic(
        probes=Probes(
            startup=Probe(failure_threshold=30),
            readiness=Probe(path="/ready"),
            liveness=Probe(initial_delay_seconds=5),
        )
    ),
    "generic-security-context": _generic(
        security_context={"capabilities": {"add": ["SYS_NICE"], "drop": ["ALL"]}}
    ),
    "generic-shm": _generic(mem="4Gi", shm_size="1Gi"),
    "generic-grace-period": _generic(termination_grace_period=5),
    "generic-volumes": _generic(volumes=[MODELS]),
    "generic-model-input": _generic(
        model="input:weights", download_inputs=True, command=["ranker", "serve"]
    ),
    "generic-model-input-gate": _generic(
        model="input:weights",
        download_inputs=True,
        command=["ranker", "serve"],
        health_endpoint="/health",
        startup_timeout=600,
    ),
    "generic-gate": _generic(health_endpoint="/health", startup_timeout=600),
    "generic-gate-with-image-entry-point": _generic(
        model="s3://models/ranker/v3", startup_timeout=600
    ),
    "vllm-lora": lambda: VLLM(
        model="Qwen/Qwen2.5-7B-Instruct",
        lora_adapters={"sql": "acme/sql-lora@v2", "chat": "s3://adapters/chat"},
        hf_secret=HF_GROUPED,
        helper_image="registry.example.com/tasks/ranker:2.4.1",
    ),
    "vllm-metrics-gate": lambda: VLLM(model="s3://models/qwen", startup_timeout=900, metrics=True),
    "generic-metrics-probe": _generic(
        health_endpoint="/health",
        metrics=MetricsExporter(
            path="/metrics", port=9191, stall_timeout=300, aliases=["ml"], native=True
        ),
        liveness="progress",
    ),
    "servers-metrics": lambda: ModelServers(
        {
            "chat": VLLM(model="s3://models/qwen", metrics=True, startup_timeout=900),
            "embed": TEI(
                model="s3://models/bge",
                port=8001,
                metrics=MetricsExporter(port=9091),
                startup_timeout=900,
            ),
        }
    ),
    "vllm-model-sized": lambda: VLLM(
        model=ObjectStoreModel(uri="s3://models/qwen2.5-7b", size="15Gi"), startup_timeout="auto"
    ),
    "nim-model-store": lambda: NIM(
        secrets=NGC_GROUPED, image=NIM_IMAGE, model="gs://models/llama/8b"
    ),
    "vllm-minimal": VLLM,
    "vllm-documented": lambda: VLLM(
        hf_secret=HFSecret(
            secrets_prefix="my-secrets-prefix",
            hf_token_group="my-hf-group",
            hf_token_key="hf_token",
        ),
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
    "vllm-secret-without-group": lambda: VLLM(
        hf_secret=HFSecret(secrets_prefix="_UNION_", hf_token_key="hf_token")
    ),
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
        env={
            "NIM_PEFT_SOURCE": "/opt/nim/lora_adapters",
            "NIM_MODEL_ID": "meta/llama3-8b-instruct",
        },
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
        "model": HuggingFaceModel(
            repo="Qwen/Qwen2.5-7B-Instruct", revision="a09a354", exclude=("*.pth",)
        ),
        "hf_secret": HF_GROUPED,
        "model_cache": {"persistentVolumeClaim": {"claimName": "model-cache"}},
        "helper_image": HELPER_IMAGE,
    },
    "store": {"model": "s3://models/qwen2.5-7b/2024-11"},
    "registered": {
        "model": "models:/qwen@production",
        "update_interval": 300,
        "helper_image": HELPER_IMAGE,
    },
    "input": {"model": "input:weights", "download_inputs": True},
    "claim": {
        "model": VolumeModel(
            volume={"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
            path="qwen/7b",
        )
    },
    "host": {
        "model": VolumeModel(
            volume={"hostPath": {"path": "/data/models", "type": "Directory"}}, path="qwen/7b"
        )
    },
    "image-volume": {
        "model": VolumeModel(
            volume={"image": {"reference": "registry.example.com/models/qwen:7b"}}, path="qwen"
        ),
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
CASES["vllm-mig"] = lambda: VLLM(
    model="s3://models/qwen", gpu_resource="nvidia.com/mig-3g.20gb", startup_timeout=900
)
CASES["servers-probe"] = lambda: ModelServers(
    {
        "ranker": ModelInferenceTemplate(
            image=IMAGE, health_endpoint="/health", gpu=0, volumes=[MODELS]
        ),
        "llm": VLLM(arg_dict={"model": "Qwen/Qwen2.5-0.5B-Instruct"}, port=8001, volumes=[MODELS]),
    }
)
CASES["servers-gate"] = lambda: ModelServers(
    {
        "embeddings": VLLM(
            model="s3://models/bge-m3",
            mem="8Gi",
            download_inputs=True,
            download_inputs_mem="2Gi",
            startup_timeout=900,
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
CASES["sglang-minimal"] = lambda: SGLang(model="s3://models/qwen2.5-7b")
CASES["sglang-full"] = lambda: SGLang(
    model=HuggingFaceModel(repo="Qwen/Qwen2.5-32B-Instruct", revision="5ede1c9", size="66Gi"),
    hf_secret=HF_GROUPED,
    arg_dict={
        "served-model-name": "qwen",
        "tensor_parallel_size": 2,
        "context_length": 32768,
        "max_queued_requests": 256,
        "json_model_override_args": {"rope_scaling": None},
        "lora_strict_loading": True,
    },
    lora_adapters={"sql": "acme/sql-lora@v2", "chat": "s3://adapters/chat"},
    gpu=2,
    cpu=8,
    mem="96Gi",
    update_interval=300,
    model_cache={"persistentVolumeClaim": {"claimName": "model-cache"}},
    helper_image="registry.example.com/tasks/ranker:2.4.1",
    startup_timeout="auto",
)
CASES["sglang-cpu"] = lambda: SGLang(
    arg_dict={"model_path": "Qwen/Qwen2.5-0.5B-Instruct"}, gpu=0, cpu=16, mem="32Gi"
)
CASES["sglang-amd"] = lambda: SGLang(
    image="lmsysorg/sglang:v0.5.23-rocm10-mi30x",
    model="s3://models/qwen2.5-7b",
    gpu_resource="amd.com/gpu",
)
CASES["llamacpp-minimal"] = lambda: LlamaCpp(model="s3://models/qwen2.5-0.5b-q4_k_m.gguf", gpu=0)
CASES["llamacpp-full"] = lambda: LlamaCpp(
    model=HuggingFaceModel(
        repo="acme/mixtral-GGUF", include=("*-Q4_K_M-*.gguf", "sql-lora.gguf"), size="26Gi"
    ),
    model_file="mixtral-Q4_K_M-00001-of-00003.gguf",
    lora_files=["sql-lora.gguf"],
    arg_dict={"ctx_size": 65536, "parallel": 8, "fa": "on", "no-ui": True, "cache-ram": 2048},
    gpu=2,
    cpu=8,
    mem="16Gi",
    port=9000,
    startup_timeout="auto",
    helper_image="registry.example.com/tasks/ranker:2.4.1",
    base=BASE,
)
CASES["llamacpp-hub"] = lambda: LlamaCpp(
    arg_dict={"hf_repo": "acme/private-GGUF:Q4_K_M"},
    hf_secret=HF_GROUPED,
    gpu_resource="nvidia.com/mig-1g.10gb",
)
CASES["llamacpp-amd"] = lambda: LlamaCpp(
    model=VolumeModel(
        volume={"persistentVolumeClaim": {"claimName": "models"}}, path="qwen/q8_0.gguf"
    ),
    gpu_resource="amd.com/gpu",
)

MARIO = """\
FROM llama3.2
ADAPTER {inputs.gguf}
PARAMETER temperature 1
TEMPLATE "{{ .System }} costs $(PRICE) {{ .Prompt }}"
SYSTEM \"\"\"
{inputs.system_prompt} Answer as {"name": "mario"}.
\"\"\"
"""
CASES["ollama-minimal"] = lambda: Ollama(model="llama3.2:1b")
CASES["ollama-cpu"] = lambda: Ollama(model="llama3.2:1b", gpu=0, cpu=8, port=11500)
CASES["ollama-amd"] = lambda: Ollama(model="llama3.2:1b", gpu=4, gpu_resource="amd.com/gpu")
CASES["ollama-modelfile"] = lambda: Ollama(
    model=OllamaModel(name="llama3-mario", mem="4Gi", cpu=2, modelfile=MARIO),
    gpu=1,
    cpu=2,
    mem="10Gi",
)
CASES["ollama-model-hub"] = lambda: Ollama(
    model=OllamaModel(
        name="qwen",
        modelfile="PARAMETER num_ctx 8192",
        source=HuggingFaceModel(
            repo="Qwen/Qwen2.5-7B-Instruct-GGUF",
            include=("*q4_k_m*.gguf",),
            secret=HF_GROUPED,
            size="5Gi",
        ),
    ),
    models_volume={"persistentVolumeClaim": {"claimName": "ollama"}},
    env={"OLLAMA_NUM_PARALLEL": "4"},
    helper_image="registry.example.com/tasks/ranker:2.4.1",
    startup_timeout="auto",
)
CASES["tei-minimal"] = lambda: TEI(arg_dict={"model_id": "BAAI/bge-base-en-v1.5"})
CASES["tei-cpu"] = lambda: TEI(arg_dict={"model_id": "BAAI/bge-base-en-v1.5"}, gpu=0, port=9000)
CASES["tei-mig"] = lambda: TEI(
    arg_dict={"model_id": "BAAI/bge-m3"}, gpu_resource="nvidia.com/mig-1g.10gb"
)
CASES["tei-gaudi"] = lambda: TEI(
    arg_dict={"model_id": "BAAI/bge-m3"}, gpu_resource="habana.ai/gaudi"
)
CASES["tei-model-store"] = lambda: TEI(model="s3://models/bge-m3/2024-11", startup_timeout=900)
CASES["tei-full"] = lambda: TEI(
    hf_secret=HF_GROUPED,
    arg_dict={
        "model_id": "acme/private-reranker",
        "revision": "9f2c1e",
        "served-model-name": "reranker",
        "auto_truncate": False,
        "max_batch_tokens": 65536,
        "cors_allow_origin": ["https://a.example.com", "https://b.example.com"],
        "json_output": False,
    },
    port=8080,
    cpu=8,
    mem="24Gi",
    env={"RUST_LOG": "info"},
    probes=Probes(liveness=Probe(period_seconds=30)),
    base=BASE,
)
CASES["triton-minimal"] = lambda: Triton(model="s3://models/repository")
CASES["triton-full"] = lambda: Triton(
    model=ObjectStoreModel(uri="s3://models/repository", size="12Gi"),
    model_names=["ranker", "tokenizer"],
    model_cache={"persistentVolumeClaim": {"claimName": "models"}},
    update_interval=300,
    hf_secret=HF_GROUPED,
    arg_dict={
        "backend-config": ["python,shm-default-byte-size=16777216", "default-max-batch-size=64"],
        "exit_timeout_secs": 60,
        "log_format": "ISO8601",
        "metrics_config": "histogram_latencies=true",
    },
    env={"LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4"},
    port=9000,
    grpc_port=9001,
    metrics_port=9002,
    gpu=4,
    cpu=16,
    mem="64Gi",
    probes=Probes(liveness=Probe()),
    termination_grace_period=90,
    startup_timeout=900,
)
CASES["triton-own-repositories-cpu"] = lambda: Triton(
    model_repository=["s3://models/shared", "/opt/models"],
    gpu=0,
    ephemeral_storage="20Gi",
    base=BASE,
)
CASES["triton-backend-image-mig"] = lambda: Triton(
    image="nvcr.io/nvidia/tritonserver:26.07-vllm-python-py3",
    model=VolumeModel(volume={"persistentVolumeClaim": {"claimName": "repository"}}),
    gpu_resource="nvidia.com/mig-3g.40gb",
    mem="32Gi",
)
CASES["mlserver-registered-model"] = lambda: MLServer(
    model="models:/fraud/3",
    helper_image="registry.example.com/task:1",
    startup_timeout=600,
    update_interval=60,
)
CASES["mlserver-folders"] = lambda: MLServer(
    model="s3://models/tabular",
    model_names=["fraud", "churn"],
    env={"MLSERVER_PARALLEL_WORKERS": "4"},
    port=9000,
    grpc_port=9001,
    metrics_port=9002,
    cpu=4,
    mem="12Gi",
    probes=Probes(liveness=Probe()),
)
CASES["mlserver-own-image"] = lambda: MLServer(
    image="registry.example.com/models/fraud:7", model_names=["fraud"]
)
CASES["tgi-recipe"] = lambda: ModelInferenceTemplate(
    image="ghcr.io/huggingface/text-generation-inference:3.3.7",
    command=["/tgi-entrypoint.sh"],
    args=[
        "--model-id",
        "/models/current",
        "--hostname",
        "0.0.0.0",
        "--port",
        "$(INFERENCE_PORT)",
        "--num-shard",
        "2",
    ],
    model=HuggingFaceModel(repo="Qwen/Qwen2.5-7B-Instruct", size="16Gi"),
    helper_image="registry.example.com/task:1",
    health_endpoint="/health",
    volumes=[Volume(name="tgi-cache", mount_path="/data")],
    gpu=2,
    cpu=8,
    mem="48Gi",
    shm_size="1Gi",
    startup_timeout="auto",
)


OLDEST = {"model-image-volume-probe": "1.31", "model-image-volume-gate": "1.31"}
"""The Kubernetes that a case needs, where it is newer than the oldest supported: OCI image volumes
(KEP-4639)."""


def make(name: str) -> PodDescription:
    """Return the template of one case; what it warns of is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)
        return CASES[name]()
