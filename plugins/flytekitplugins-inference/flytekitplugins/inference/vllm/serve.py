"""`VLLM`: vLLM's OpenAI-compatible server.

Facts: vLLM 0.33.0, `vllm/entrypoints/cli/serve.py`, `vllm/envs.py`; docs.vllm.ai "Engine
Arguments".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..facts.metric_names import FAMILIES
from ..pod.adapters import ADAPTERS, WithAdapters
from ..pod.arguments import WithArguments
from ..pod.flags import OptionTable
from ..pod.parts import EnvVar, Volume
from ..pod.secrets import HFSecret
from ..pod.server import Server
from ..sidecar_template import ModelInferenceTemplate
from . import options

__all__ = ["VLLM", "HFSecret"]

IMAGE = "vllm/vllm-openai:v0.33.0"
ROCM_IMAGE = "vllm/vllm-openai-rocm:v0.33.0"
CPU_IMAGE = "vllm/vllm-openai-cpu:v0.33.0"
"""The images of the release whose options `options.py` holds (docs.vllm.ai, "Using Docker",
November 2026)."""
CACHE = "/root/.cache"
"""Holds both caches below; the image's user is root."""

OPTIONS = OptionTable.read(
    options,
    server="vLLM",
    secret={
        "api_key": "give api_key_secret=",
        "hf_token": "give hf_secret=",
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

    _option_table = OPTIONS
    image_vendors = frozenset({"nvidia.com", "gpu", "amd.com"})

    @property
    def default_image(self) -> str:
        """The image for the vendor's GPUs, or for CPUs where none is asked for."""
        if not self.gpu:
            return CPU_IMAGE
        return ROCM_IMAGE if self.gpu_resource.startswith("amd.com/") else IMAGE

    def server(self) -> Server:
        """Return what vLLM needs."""
        model = self.model_path or self._argument("model")
        name = self._served_model_name()
        token = self._token()
        return Server(
            command=("vllm", "serve"),
            args=(
                *((str(model),) if model is not None else ()),
                *self._address(),
                *(
                    ("--served-model-name", name)
                    if self.model_path and not self._argument("served_model_name")
                    else ()
                ),
                *self._other_arguments("model", "host", "port"),
                *self._lora_arguments(),
            ),
            env=(
                *self._token_variables("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
                EnvVar(name="HF_HOME", value=f"{CACHE}/huggingface"),
                EnvVar(name="VLLM_CACHE_ROOT", value=f"{CACHE}/vllm"),
            ),
            secrets=(token,) if token else (),
            api_key_variable="VLLM_API_KEY",
            model_api="openai",
            served_model_name=name,
            metrics_path="/metrics",
            metric_names=FAMILIES["vllm"],
            shm_size=self._shared_memory(),
            hub_token=token,
            adapters=self.lora_adapters or {},
            adapters_directory=ADAPTERS,
            adapters_mem=self.lora_adapter_mem,
            volumes=(Volume(name="inference-cache", mount_path=CACHE), *self._adapter_volumes()),
            # a Service named "vllm" would inject VLLM_PORT=tcp://…, which vllm/envs.py refuses
            enable_service_links=False,
        )

    def _shared_memory(self) -> str:
        """Workers exchange tensors there; 64 MiB end in a bus error (vllm-project/vllm#1710). On CPUs: docs.vllm.ai."""
        return f"{min(2 * self.gpu, 8)}Gi" if self.gpu else "4Gi"

    def _lora_arguments(self) -> tuple[str, ...]:
        if not self.lora_adapters:
            return ()
        switch = () if self._argument("enable_lora") else ("--enable-lora",)
        # with no slot left over, requests for the base model that are batched with an adapter's get
        # the adapter's answers on CPUs (vllm-project/vllm#48421, seen with 0.32.0)
        slots = (
            () if self._argument("max_loras") else ("--max-loras", str(len(self.lora_adapters) + 1))
        )
        return (*switch, *slots, "--lora-modules", *self._adapter_paths())

    def _served_model_name(self) -> str:
        """Return the first name under which the server lists the model; empty when that is the server's own default."""
        names = self._argument("served_model_name")
        if names:
            return str(names if isinstance(names, str) else names[0])
        if self.model_source is not None:
            return self.model_source.name
        return str(self._argument("model") or "")

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields."""
        yield from super().problems()
        yield from self._lora_problems()
        if isinstance(self.arg_dict, Mapping) and all(
            isinstance(name, str) for name in self.arg_dict
        ):
            yield from self._address_problems()
            yield from self._parallelism_problems()

    def cautions(self) -> Iterator[str]:
        """Yield what works, but not as its author may think."""
        yield from super().cautions()
        if self.model is None and self._argument("model") is None:
            yield "no model is named (model=, or arg_dict={'model': …}); vLLM loads its own default"
        given = {_canonical(name) for name in self.arg_dict or {}}
        if not self.lora_adapters and not self._argument("enable_lora"):
            for name in sorted(given & _LORA_OPTIONS):
                yield f"arg_dict has {name}, which vLLM does not look at without enable_lora=True"
        if 0 < (ranks := self._ranks()) < self.gpu:
            yield (
                f"gpu={self.gpu}, but arg_dict uses {ranks}: give tensor_parallel_size, or "
                "data_parallel_size"
            )
        if self._argument("disable_log_stats"):
            yield (
                "arg_dict has disable_log_stats, which empties /metrics: neither reports nor "
                "alerts see the server"
            )

    def _lora_problems(self) -> Iterator[str]:
        if not self.lora_adapters:
            return
        if self._argument("lora_modules") is not None:
            yield "arg_dict has lora_modules, the template has lora_adapters; give one of them"
        if self._argument("enable_lora") is False:
            yield "arg_dict has enable_lora=False, the template has lora_adapters"

    def _address_problems(self) -> Iterator[str]:
        if self.model is not None and (model := self._argument("model")) is not None:
            yield (
                f"arg_dict has model {model!r} and the template has model= as well; give one "
                "of them"
            )
        for name in self.arg_dict or ():
            if _canonical(name) in _NO_HTTP or _canonical(name).startswith("ssl_"):
                yield (
                    f"arg_dict: with {name!r} the server does not answer plain HTTP on the "
                    "template's port"
                )

    def _ranks(self, *names: str) -> int:
        """Return how many GPUs the options use, each rank one; 0 when that cannot be told."""
        sizes = [self._argument(name, 1) for name in names or _PARALLEL]
        return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else 0

    def _parallelism_problems(self) -> Iterator[str]:
        wanted = self._ranks("tensor_parallel_size", "pipeline_parallel_size")
        if isinstance(self.gpu, int) and 0 < self.gpu < wanted:
            yield (
                f"arg_dict: tensor and pipeline parallelism need {wanted} GPUs, the template "
                f"has gpu={self.gpu}"
            )


_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_LORA_OPTIONS = frozenset(
    {"max_loras", "max_lora_rank", "max_cpu_loras", "lora_modules", "lora_dtype"}
)
_NO_HTTP = frozenset({"uds", "headless", "grpc"})


def _canonical(name: str) -> str:
    return OPTIONS.canonical(name)
