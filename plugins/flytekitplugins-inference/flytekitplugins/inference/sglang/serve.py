"""`SGLang`: SGLang's OpenAI-compatible server.

Facts: SGLang 0.5.23, `sglang/cli/serve.py`, `sglang/srt/entrypoints/http_server.py`,
`sglang/srt/environ.py`; docs.sglang.io "Install SGLang".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ..facts.metric_names import FAMILIES
from ..facts.readiness import STARTUP_FAILURE_THRESHOLD
from ..pod.adapters import WithAdapters
from ..pod.arguments import WithArguments
from ..pod.flags import OptionTable, literally
from ..pod.images import ServerImage
from ..pod.parts import CACHE_DIRECTORY, EnvVar, Probe, Probes, Volume
from ..pod.secrets import HFSecret
from ..pod.server import Server
from ..sidecar_template import ModelInferenceTemplate
from . import options

__all__ = ["HFSecret", "SGLang"]

IMAGE = "lmsysorg/sglang:v0.5.23"
"""For CUDA 13; the last one for CUDA 12 is `v0.5.19-cu129`."""
INTEL_IMAGE = f"{IMAGE}-xpu"
CPU_IMAGE = f"{IMAGE}-xeon"
"""For x86-64 only. The images of a release: its notes, "To upgrade" (github.com/sgl-project/sglang,
November 2026)."""
AMD_IMAGES = {
    f"{IMAGE}-rocm10-mi30x": "MI300X and MI325X",
    f"{IMAGE}-rocm10-mi35x": "MI350X and MI355X",
}
PUBLISHED = tuple(
    ServerImage(
        reference=reference,
        hardware=hardware,
        source="github.com/sgl-project/sglang, release notes, To upgrade",
        date="2026-11",
    )
    for reference, hardware in (
        (IMAGE, "NVIDIA GPUs"),
        (INTEL_IMAGE, "Intel GPUs"),
        *((reference, f"AMD {gpus}") for reference, gpus in AMD_IMAGES.items()),
        (CPU_IMAGE, "CPUs"),
    )
)
HEALTH_TIMEOUT = 25
"""`/health` generates a token and polls for it once a second, for at most
`SGLANG_HEALTH_CHECK_TIMEOUT`, 20 seconds."""
RELEASE = (0, 5, 23)
"""The release of the images above."""
_KEY = "give args=['--{}', '$(NAME)'] with a variable that base= takes from a Kubernetes secret"

OPTIONS = OptionTable.read(
    options,
    server="SGLang",
    secret={
        name: _KEY.format(name.replace("_", "-"))
        for name in ("api_key", "admin_api_key", "ssl_keyfile_password")
    },
    secret_keys={"watermark_config": ("key", "key_b")},
    has_keys=False,
)


@dataclass(frozen=True, kw_only=True)
class SGLang(WithArguments, WithAdapters, ModelInferenceTemplate[Literal["openai"]]):
    """An SGLang server beside a task.

    A request asks for an adapter as `model="<model>:<adapter>"`.

    Raises:
        ConfigError: If the description is wrong, or `arg_dict` has an option that SGLang does not.

    Example:
        ```python
        SGLang(model="Qwen/Qwen2.5-0.5B-Instruct", arg_dict={"context_length": 4096})
        ```
    """

    arg_dict: Mapping[str, Any] | None = None
    """Options of `sglang serve`, with `_` or `-`. `model_path` is needed unless there is a `model`.
    `host` and `port` are the template's. Options newer than `OPTIONS` go into `args`."""

    health_endpoint: str | None = "/health"
    """HTTP path of the startup probe. It generates a token; `/ready` only reports the token that
    was generated at the start, and 0.5.19 lacks it."""
    port: int = 30000
    """The port the server listens on; SGLang's own default."""
    cpu: int | float | str = 4
    """Cores; requests and limits. Tokenizer, scheduler and detokenizer are processes that need one
    core each."""
    mem: str = "16Gi"
    """Memory; requests and limits. Includes what the server keeps in `/dev/shm`."""

    published_images = PUBLISHED
    option_table = OPTIONS
    release_parts = 3
    model_option = "model_path"
    exclusive_options = MappingProxyType({"lora_paths": "lora_adapters"})
    no_http_options = frozenset(
        ("smg_grpc_mode", "grpc_mode", "encoder_only", "ssl_certfile", "ssl_keyfile")
    )
    image_vendors = frozenset({"nvidia.com", "gpu", "gpu.intel.com"})

    @property
    def default_image(self) -> str:
        """The image for the hardware; empty for AMD, which needs one of two."""
        if not self.gpu:
            return CPU_IMAGE
        vendor = self.gpu_resource.partition("/")[0]
        return {"amd.com": "", "gpu.intel.com": INTEL_IMAGE}.get(vendor, IMAGE)

    def server(self) -> Server:
        """Return what SGLang needs."""
        name, token = self.served_name(), self.token_reference()
        has_metrics = self.argument("enable_metrics") is not False
        # without the type, SGLang asks the hub whether the model generates images
        start: tuple[str, ...] = ("sglang", "serve", "--model-type", "llm")
        if (self.image_version or RELEASE) < RELEASE:
            # older releases lack the type or the whole command; all have the module
            start = ("python3", "-m", "sglang.launch_server")
        return Server(
            command=start,
            args=(
                *(
                    "--model-path",
                    literally(str(self.model_path or self.argument("model_path"))),
                    *self.address_arguments(),
                ),
                *(
                    ("--served-model-name", literally(name))
                    if self.argument("served_model_name") is None
                    else ()
                ),
                *(("--device", "cpu") if not self.gpu and self.argument("device") is None else ()),
                *(("--enable-metrics",) if has_metrics else ()),
                *self.other_arguments("model_path", "host", "port", "enable_metrics"),
                *self._lora_arguments(),
            ),
            env=(
                *self.token_variables("HF_TOKEN"),
                # not below /root/.cache: a volume would hide kernels that the image may have there
                EnvVar(name="HF_HOME", value=f"{CACHE_DIRECTORY}/huggingface"),
                # SGLang moves the caches of Triton, Inductor and FlashInfer below it too
                # (`redirect_third_party_caches`)
                EnvVar(name="SGLANG_CACHE_DIR", value=f"{CACHE_DIRECTORY}/sglang"),
            ),
            secrets=(token,) if token else (),
            probes=Probes(
                startup=Probe(
                    timeout_seconds=HEALTH_TIMEOUT, failure_threshold=STARTUP_FAILURE_THRESHOLD
                )
            ),
            model_api="openai",
            served_model_name=name,
            metrics_path="/metrics" if has_metrics else "",
            metric_names=FAMILIES["sglang"] if has_metrics else {},
            # workers exchange tensors there; NCCL fails with the container runtime's 64 MiB
            shm_size=f"{min(2 * self.gpu, 8)}Gi" if self.gpu else "4Gi",
            hub_token=token,
            adapters=self.adapters(),
            update_options=("--notify", f"sglang=http://localhost:{self.port}"),
            volumes=(Volume(name="inference-cache", mount_path=CACHE_DIRECTORY),),
            # a Service named "sglang" would inject SGLANG_PORT=tcp://…, which is read as a number
            enable_service_links=False,
        )

    def _lora_arguments(self) -> tuple[str, ...]:
        if not self.lora_adapters:
            return ()
        switch = () if self.argument("enable_lora") else ("--enable-lora",)
        return (*switch, "--lora-paths", *self.adapter_paths())

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        yield from super().problems()
        if not self.image and self.gpu and str(self.gpu_resource).startswith("amd.com/"):
            images = " or ".join(f"{image!r} ({gpus})" for image, gpus in AMD_IMAGES.items())
            yield f"image: SGLang has one image for each generation of AMD's GPUs; give {images}"
        yield from self._model_path_problems()
        if self.lora_adapters and self.argument("enable_lora") is False:
            yield "arg_dict has enable_lora=False, the template has lora_adapters"
        yield from self._parallelism_problems()

    def _model_path_problems(self) -> Iterator[str]:
        served_name = self.argument("served_model_name")
        if self.model is None and self.argument("model_path") is None:
            yield (
                "the model is missing: give model=, or arg_dict={'model_path': …}, which the "
                "server then downloads"
            )
        if isinstance(served_name, str) and ":" in served_name:
            yield (
                f"arg_dict has served_model_name {served_name!r}; SGLang reads the text after a "
                "colon as the name of an adapter"
            )

    def _parallelism_problems(self) -> Iterator[str]:
        """Yield a sentence if the options need more GPUs than the template has.

        Each rank needs one. With `enable_dp_attention`, data parallelism uses the ranks of tensor
        parallelism.
        """
        names = ["tp_size", "pp_size"]
        if not self.argument("enable_dp_attention"):
            names.append("dp_size")
        sizes = [self.whole_number(name, 1) for name in names]
        if self.argument("nnodes", 1) != 1:
            yield "arg_dict has nnodes; a server beside a task runs on one node"
        if not isinstance(self.gpu, int):
            return
        ranks = math.prod(sizes)
        if 0 < self.gpu < ranks:
            yield (
                f"arg_dict: {', '.join(names)} need {ranks} GPUs, the template has gpu={self.gpu}"
            )

    def cautions(self) -> Iterator[str]:
        """Yield warnings: what is valid but may not do what its author expects."""
        yield from super().cautions()
        if not self.gpu and not self.image:
            yield (
                "gpu=0: SGLang's image for CPUs is for x86-64 with AMX (Xeon of the 4th "
                "generation or newer)"
            )
        sizes = [self.whole_number(name, 1) for name in ("tp_size", "pp_size", "dp_size")]
        if math.prod(sizes) < self.gpu:
            yield f"gpu={self.gpu}, but arg_dict uses {math.prod(sizes)}: give tp_size, or dp_size"
        if self.update_interval is not None:
            yield (
                "update_interval: after an update, SGLang 0.5.23 calls the model by the path of "
                "the new version in /v1/models and in answers; requests may still use its name"
            )
        if (
            not self.lora_adapters
            and not self.argument("enable_lora")
            and self.argument("lora_paths") is None
        ):
            for name in _LORA_OPTIONS:
                if self.argument(name) is not None:
                    yield f"arg_dict has {name}, which SGLang ignores without enable_lora=True"


_LORA_OPTIONS = (
    "lora_backend",
    "lora_target_modules",
    "max_loaded_loras",
    "max_lora_rank",
    "max_loras_per_batch",
)
