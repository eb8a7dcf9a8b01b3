"""`VLLM`: vLLM's OpenAI-compatible server.

Facts: vLLM 0.33.0, `vllm/entrypoints/cli/serve.py`, `vllm/envs.py`; docs.vllm.ai "Engine
Arguments".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ..facts.metric_names import FAMILIES
from ..pod.adapters import WithAdapters
from ..pod.arguments import WithArguments
from ..pod.flags import OptionTable, literally
from ..pod.images import ServerImage
from ..pod.parts import CACHE_DIRECTORY, EnvVar, Volume
from ..pod.secrets import HFSecret
from ..pod.server import Server
from ..sidecar_template import ModelInferenceTemplate
from . import options

__all__ = ["VLLM", "HFSecret"]

IMAGE = "vllm/vllm-openai:v0.33.0"
ROCM_IMAGE = "vllm/vllm-openai-rocm:v0.33.0"
CPU_IMAGE = "vllm/vllm-openai-cpu:v0.33.0"
"""The images of the release that `options.py` describes."""
FIRST_WITH_COMMAND = (0, 5, 2)
"""The first release with the command `vllm serve` (vllm-project/vllm#5090)."""
_SOURCE = "docs.vllm.ai, Using Docker"
PUBLISHED = tuple(
    ServerImage(reference=reference, hardware=hardware, source=_SOURCE, date="2026-11")
    for reference, hardware in (
        (IMAGE, "NVIDIA GPUs"),
        (ROCM_IMAGE, "AMD GPUs"),
        (CPU_IMAGE, "CPUs"),
    )
)

RANGES = {
    "gpu_memory_utilization": (0.001, 1),
    "max_model_len": (-1, None),
    **dict.fromkeys(
        (
            *("data_parallel_size", "pipeline_parallel_size", "tensor_parallel_size"),
            *("max_loras", "max_num_batched_tokens", "max_num_seqs"),
        ),
        (1, None),
    ),
}
"""The fields of `vllm/config` that people set most (0.33)."""
OPTIONS = OptionTable.read(
    options,
    server="vLLM",
    secret={
        "api_key": "give api_key_secret=",
        "hf_token": "give hf_secret=",
    },
    ranges=RANGES,
    secret_keys={
        "model_loader_extra_config": ("s3_access_key_id", "s3_secret_access_key"),
        "watermark_config": ("key",),
    },
)


@dataclass(frozen=True, kw_only=True)
class VLLM(WithArguments, WithAdapters, ModelInferenceTemplate[Literal["openai"]]):
    """A vLLM server beside a task.

    Raises:
        ConfigError: If the description is wrong, or `arg_dict` has an option that vLLM does not.

    Example:
        ```python
        VLLM(arg_dict={"model": "Qwen/Qwen2.5-0.5B-Instruct", "max_model_len": 4096}, mem="16Gi")
        ```
    """

    arg_dict: Mapping[str, Any] | None = None
    """Options of `vllm serve`, with `_` or `-`. `model` becomes the positional argument; without it
    the server loads its own default model. `host` and `port` are the template's. Options newer than
    `OPTIONS` go into `args`."""

    health_endpoint: str | None = "/health"
    """HTTP path that answers 200 once the model is loaded; becomes the startup probe."""
    cpu: int | float | str = 2
    """Cores; requests and limits."""
    mem: str = "10Gi"
    """Memory; requests and limits. Includes what the server keeps in `/dev/shm`."""

    published_images = PUBLISHED
    option_table = OPTIONS
    model_option = "model"
    exclusive_options = MappingProxyType({"lora_modules": "lora_adapters"})
    no_http_options = frozenset(
        {"uds", "headless", "grpc", *(name for name in OPTIONS.names if name.startswith("ssl_"))}
    )
    image_vendors = frozenset({"nvidia.com", "gpu", "amd.com"})

    @property
    def default_image(self) -> str:
        """The image for the vendor's GPUs, or for CPUs if `gpu` is 0."""
        if not self.gpu:
            return CPU_IMAGE
        return ROCM_IMAGE if self.gpu_resource.startswith("amd.com/") else IMAGE

    def server(self) -> Server:
        """Return what vLLM needs."""
        model = self.model_path or self.argument("model")
        name = self.served_name()
        token = self.token_reference()
        named_model: tuple[str, ...] = (literally(str(model)),) if model is not None else ()
        # the model is positional: `--model` "will be removed" (vllm/utils/argparse_utils.py)
        start: tuple[str, ...] = ("vllm", "serve")
        if (self.image_version or FIRST_WITH_COMMAND) < FIRST_WITH_COMMAND:
            start = ("python3", "-m", "vllm.entrypoints.openai.api_server")
            named_model = ("--model", *named_model) if named_model else ()
        return Server(
            command=start,
            args=(
                *named_model,
                *self.address_arguments(),
                *(
                    ("--served-model-name", literally(name))
                    if self.model_path and not self.argument("served_model_name")
                    else ()
                ),
                *self.other_arguments("model", "host", "port"),
                *self._lora_arguments(),
            ),
            env=(
                *self.token_variables("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
                # the home of other caches: Triton's, FlashInfer's, NVIDIA's
                EnvVar(name="HOME", value=CACHE_DIRECTORY),
                EnvVar(name="HF_HOME", value=f"{CACHE_DIRECTORY}/huggingface"),
                EnvVar(name="VLLM_CACHE_ROOT", value=f"{CACHE_DIRECTORY}/vllm"),
            ),
            secrets=(token,) if token else (),
            api_key_variable="VLLM_API_KEY",
            model_api="openai",
            served_model_name=name,
            metrics_path="/metrics",
            metric_names=FAMILIES["vllm"],
            shm_size=self._shared_memory(),
            hub_token=token,
            adapters=self.adapters(),
            volumes=(Volume(name="inference-cache", mount_path=CACHE_DIRECTORY),),
            # a Service named "vllm" would inject VLLM_PORT=tcp://…, which vllm/envs.py refuses
            enable_service_links=False,
        )

    def _shared_memory(self) -> str:
        """Return the size of the memory in which workers exchange tensors.

        With 64 MiB they die of a bus error (vllm-project/vllm#1710); for CPUs docs.vllm.ai
        recommends 4 GiB.
        """
        return f"{min(2 * self.gpu, 8)}Gi" if self.gpu else "4Gi"

    def _lora_arguments(self) -> tuple[str, ...]:
        if not self.lora_adapters:
            return ()
        switch = () if self.argument("enable_lora") else ("--enable-lora",)
        # One slot more than adapters: without it, requests for the base model that share a batch
        # with an adapter's get its answers on CPUs (vllm-project/vllm#48421, seen with 0.32.0).
        slots = (
            () if self.argument("max_loras") else ("--max-loras", str(len(self.lora_adapters) + 1))
        )
        return (*switch, *slots, "--lora-modules", *self.adapter_paths())

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        yield from super().problems()
        if self.lora_adapters and self.argument("enable_lora") is False:
            yield "arg_dict has enable_lora=False, the template has lora_adapters"
        ranks = self._ranks()
        if isinstance(self.gpu, int) and 0 < self.gpu < ranks:
            yield (
                f"arg_dict: tensor, pipeline and data parallelism need {ranks} GPUs, the template "
                f"has gpu={self.gpu}"
            )

    def cautions(self) -> Iterator[str]:
        """Yield warnings: what is valid but may not do what its author expects."""
        yield from super().cautions()
        if self.model is None and self.argument("model") is None:
            yield "no model is named (model=, or arg_dict={'model': …}); vLLM loads its own default"
        if not self.lora_adapters and not self.argument("enable_lora"):
            for name in _LORA_OPTIONS:
                if self.argument(name) is not None:
                    yield f"arg_dict has {name}, which vLLM ignores without enable_lora=True"
        if 0 < (ranks := self._ranks()) < self.gpu:
            yield (
                f"gpu={self.gpu}, but arg_dict uses {ranks}: give tensor_parallel_size, or "
                "data_parallel_size"
            )
        if self.argument("disable_log_stats"):
            yield (
                "arg_dict has disable_log_stats, which empties /metrics: reports and alerts get no "
                "data about the server"
            )

    def _ranks(self) -> int:
        """Return how many GPUs the options use in this pod, one for each rank."""
        # of the ranks of data parallelism, other pods may have some
        data = self.whole_number("data_parallel_size", 1)
        data = self.whole_number("data_parallel_size_local", data)
        sizes = [self.whole_number(name, 1) for name in _PARALLEL]
        return math.prod(sizes) * data


_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")
_LORA_OPTIONS = ("lora_dtype", "lora_modules", "max_cpu_loras", "max_lora_rank", "max_loras")
