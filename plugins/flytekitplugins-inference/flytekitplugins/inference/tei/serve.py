"""`TEI`: Hugging Face's Text Embeddings Inference: embeddings, rerankers, classifiers.

Facts: huggingface/text-embeddings-inference v1.9.3, `router/src/main.rs`, `router/src/lib.rs`,
`router/src/http/server.rs`, the Dockerfiles and their entry points,
`.github/workflows/{build.yaml,matrix.json}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ..facts.metric_names import FAMILIES
from ..pod.adapters import WithHubToken
from ..pod.arguments import WithArguments
from ..pod.flags import OptionTable, render_options
from ..pod.images import ServerImage
from ..pod.parts import EnvVar, Probe, Probes, Volume
from ..pod.secrets import HFSecret
from ..pod.server import Server
from ..sidecar_template import ModelInferenceTemplate
from . import options

__all__ = ["TEI", "HFSecret"]

_REPOSITORY = "ghcr.io/huggingface/text-embeddings-inference"
CPU_IMAGE = f"{_REPOSITORY}:cpu-{options.VERSION}"
"""The image for amd64."""
IMAGES: Mapping[str, str] = {
    "nvidia.com": f"{_REPOSITORY}:cuda-{options.VERSION}",
    "gpu": f"{_REPOSITORY}:cuda-{options.VERSION}",
    "habana.ai": f"{_REPOSITORY}:hpu-{options.VERSION}",
    "gpu.intel.com": f"{_REPOSITORY}:xpu-ipex-{options.VERSION}",
}
"""By the vendor of `gpu_resource`. `cuda-` contains a build for each architecture from Turing to
Blackwell and selects one when it starts; images for one architecture are smaller (`image=`)."""
PUBLISHED = tuple(
    ServerImage(
        reference=reference,
        hardware=hardware,
        source="github.com/huggingface/text-embeddings-inference, README",
        date="2026-11",
    )
    for reference, hardware in (
        (IMAGES["nvidia.com"], "NVIDIA GPUs"),
        (IMAGES["habana.ai"], "Intel Gaudi"),
        (IMAGES["gpu.intel.com"], "Intel GPUs"),
        (CPU_IMAGE, "CPUs"),
    )
)
CACHE = "/data"
"""The images' own directory for downloads."""

OPTIONS = OptionTable.read(
    options,
    server="TEI",
    secret={
        "api_key": "give api_key_secret=",
        "hf_token": "give hf_secret=",
        "hf_api_token": "give hf_secret=",
    },
)


@dataclass(frozen=True, kw_only=True)
class TEI(WithArguments, WithHubToken, ModelInferenceTemplate[Literal["openai"]]):
    """A Text Embeddings Inference server beside a task.

    Raises:
        ConfigError: If the description is wrong, or `arg_dict` has an option that TEI does not.

    Example:
        ```python
        TEI(arg_dict={"model_id": "BAAI/bge-base-en-v1.5", "auto_truncate": False}, gpu=0)
        ```
    """

    arg_dict: Mapping[str, Any] | None = None
    """Options of `text-embeddings-router`, with `_` or `-`. The server downloads a `model_id`
    itself; the model loader downloads a `model=`. `hostname` and `port` are the template's. Options
    newer than `OPTIONS` go into `args`."""

    health_endpoint: str | None = "/health"
    """HTTP path of the startup probe. The server starts to listen once the model is loaded and has
    embedded a test batch."""
    cpu: int | float | str = 2
    """Cores; requests and limits."""
    mem: str = "8Gi"
    """Memory; requests and limits. Includes what the server keeps in `/dev/shm`."""

    published_images = PUBLISHED
    option_table = OPTIONS
    image_vendors = frozenset(IMAGES)
    host_option = "hostname"
    model_option = "model_id"
    exclusive_options = MappingProxyType({"revision": "model"})
    template_variables = MappingProxyType(
        {
            "HOSTNAME": "leave it out, and give expose= instead",
            "PORT": "give port= instead",
        }
    )

    @property
    def default_image(self) -> str:
        """The image for the GPUs' vendor, or for CPUs; empty for a vendor without one."""
        return IMAGES.get(self._vendor, "") if self.gpu else CPU_IMAGE

    @property
    def _vendor(self) -> str:
        return str(self.gpu_resource).partition("/")[0]

    def server(self) -> Server:
        """Return what TEI needs."""
        # TEI also reads its options from variables without a prefix (PORT, and HOSTNAME, which
        # Kubernetes sets); an argument takes precedence over its variable
        defaults = {
            "model_id": self.model_path or self.argument("model_id"),
            "served_model_name": self.served_name() if self.model_path else None,
            "hostname": self.host,
            "port": self.port,
            # Metrics are on the server's own port. TEI binds this one at the start and releases it,
            # which fails if two servers of a pod do so; 0 is always free.
            "prometheus_port": 0,
        }
        arguments = {
            OPTIONS.canonical(name): value for name, value in (self.arg_dict or {}).items()
        }
        token = self.token_reference()
        return Server(
            # the entry point of NVIDIA's images selects the build and the driver libraries; cuda-
            # does not contain `text-embeddings-router` itself
            command=("/entrypoint.sh",) if self._has_entry_point else ("text-embeddings-router",),
            args=(
                *render_options(
                    {**defaults, **arguments, "port": self.port},
                    OPTIONS,
                    is_table_of_server=self.knows_image,
                ),
                *self._json_output(),
            ),
            env=(
                *self.token_variables("HF_TOKEN"),
                EnvVar(name="HUGGINGFACE_HUB_CACHE", value=CACHE),
            ),
            secrets=(token,) if token else (),
            hub_token=token,
            volumes=(Volume(name="inference-cache", mount_path=CACHE),),
            probes=Probes(liveness=Probe(path="/health")),
            # TEI has /v1/embeddings but no /v1/models, and accepts any model name; /health shows
            # that the model is loaded
            api_key_variable="API_KEY",
            model_api="openai",
            served_model_name=self.served_name(),
            lists_models=False,
            metrics_path="/metrics",
            metric_names=FAMILIES["tei"],
            # a Service named "prometheus" would inject PROMETHEUS_PORT=tcp://…, an option's
            # variable
            enable_service_links=False,
        )

    @property
    def _has_entry_point(self) -> bool:
        if not self.gpu or self._vendor not in ("nvidia.com", "gpu"):
            return False
        # images for one architecture (`89-1.9`) hold the router alone (Dockerfile-cuda)
        return self.image_version is None or ":cuda-" in str(self.image)

    def _json_output(self) -> tuple[str, ...]:
        """Return the option that the images' own `CMD` sets."""
        return () if self.argument("json_output") is not None else ("--json-output",)

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        yield from super().problems()
        if self.gpu and not self.image and not self.default_image:
            yield (
                f"gpu_resource={self.gpu_resource!r}: TEI publishes no image for it; build one "
                "and give image="
            )
        if isinstance(self.image, str) and self.image.endswith("-grpc"):
            yield f"image={self.image!r} speaks gRPC only; give the one without -grpc"
        if "-p" in (self.args or ()):
            yield "args: '-p' is the template's; give port= instead"
        yield from self._contradictions()

    def _contradictions(self) -> Iterator[str]:
        if (
            self.model is None
            and self.argument("model_id") is None
            and "MODEL_ID" not in (self.env or {})
        ):
            yield (
                "model is missing: give arg_dict={'model_id': 'owner/name'}, or model= to have "
                "it loaded and cached"
            )
        if (
            self.argument("default_prompt") is not None
            and self.argument("default_prompt_name") is not None
        ):
            yield "arg_dict has default_prompt and default_prompt_name; TEI takes only one of them"

    def cautions(self) -> Iterator[str]:
        """Yield warnings: what is valid but may not do what its author expects."""
        yield from super().cautions()
        if self.argument("auto_truncate") is None and "AUTO_TRUNCATE" not in (self.env or {}):
            yield (
                "TEI silently cuts inputs that are too long; give arg_dict={'auto_truncate': "
                "False} to refuse them, or True to keep this behaviour"
            )
        if isinstance(self.gpu, int) and self.gpu > 1:
            yield f"TEI uses one GPU, the template has gpu={self.gpu}"
