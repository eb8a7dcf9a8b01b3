"""`Triton`: NVIDIA's Triton Inference Server.

Facts: triton-inference-server/server v2.71.0 (26.07): `src/command_line_parser.cc`, `build.py`,
`docs/user_guide/model_management.md`, `docs/user_guide/model_repository.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from ..facts.metric_names import FAMILIES
from ..pod.adapters import WithHubToken
from ..pod.arguments import EVERY_ADDRESS, WithArguments
from ..pod.images import ServerImage
from ..pod.model import HuggingFaceModel
from ..pod.named_models import model_name_problems, port_problems, update_options
from ..pod.parts import EnvVar, Probe, Probes, Volume
from ..pod.secrets import HFSecret
from ..pod.server import Server
from ..sidecar_template import ModelInferenceTemplate
from .option_rules import (
    OPTIONS,
    TEMPLATE_OPTIONS,
    cache_problems,
    ending_problems,
    option_cautions,
)

__all__ = ["HFSecret", "Triton"]

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"
"""The release that `options.py` describes; it also runs without a GPU
(docs/getting_started/quickstart.md)."""
PUBLISHED = (
    ServerImage(
        reference=IMAGE,
        hardware="NVIDIA GPUs and CPUs",
        source="github.com/triton-inference-server/server, docs/getting_started/quickstart.md",
        date="2026-11",
    ),
)
USER = 1000
"""`triton-server`, created "to run triton as non-root" (build.py); the image starts as root."""
HOME = "/home/triton-server"
"""A directory that the image lacks; back ends keep their caches below it."""
MODES = ("none", "explicit", "poll")
_REMOTE = ("s3://", "gs://", "as://")


@dataclass(frozen=True, kw_only=True)
class Triton(WithArguments, WithHubToken, ModelInferenceTemplate[Literal["v2"]]):
    """A Triton server beside a task.

    It serves a model repository: a directory with one folder for each model.

    Raises:
        ConfigError: If the description is wrong, or `arg_dict` has an option that Triton does not.

    Example:
        ```python
        Triton(model="s3://models/repository", model_names=["ranker"], gpu=1, mem="16Gi")
        ```
    """

    model_repository: str | Sequence[str] | None = None
    """Repositories that Triton reads itself, in addition to `model=` or instead of it: a directory
    of the image or of a volume, or `s3://`, `gs://`, `as://` with Triton's own credentials."""
    model_names: Sequence[str] = ()
    """The models that must answer before the task starts. They turn on explicit control: Triton
    loads only these, and can reload them. `["*"]` means every model."""
    model_control_mode: str | None = None
    """`none`, `explicit` or `poll`; `None` is `explicit` with `model_names` and `none` without."""
    grpc_port: int = 8001
    """The port for gRPC."""
    metrics_port: int = 8002
    """The port for metrics."""
    hf_secret: HFSecret | None = None
    """The token for gated repositories of the hub, for back ends (vLLM, Python) and the model
    loader."""
    arg_dict: Mapping[str, Any] | None = None
    """Options of `tritonserver`, with `_` or `-`. Options newer than `OPTIONS` go into `args`."""

    health_endpoint: str | None = "/v2/health/ready"
    """HTTP path of the startup probe. With strict readiness, which is Triton's default, it answers
    200 once all models are loaded."""
    cpu: int | float | str = 2
    """Cores; requests and limits."""
    mem: str = "8Gi"
    """Memory; requests and limits. Includes what the server keeps in `/dev/shm`."""
    termination_grace_period: int | timedelta | None = 45
    """Seconds between SIGTERM and SIGKILL for all containers: more than the server waits for
    requests in flight before it ends (`exit_timeout_secs`, 30)."""

    stop_timeout: int | timedelta | None = None
    """Seconds that the server has after SIGTERM; `None`: it ends by itself (`exit_timeout_secs`)
    within the pod's `termination_grace_period`."""

    published_images = PUBLISHED
    option_table = OPTIONS
    host_option = "http_address"
    port_option = "http_port"
    template_options = TEMPLATE_OPTIONS

    @property
    def default_image(self) -> str:
        """NVIDIA's image, for its GPUs and for CPUs."""
        return IMAGE

    def server(self) -> Server:
        """Return what Triton needs."""
        names = self._names()
        has_grpc = self.argument("allow_grpc", True)
        has_metrics = self.argument("allow_metrics", True)
        token = self.token_reference()
        return Server(
            command=("tritonserver",),
            args=(
                *(
                    word
                    for repository in self._repositories()
                    for word in ("--model-repository", repository)
                ),
                *self.address_arguments(),
                *(self._listener("grpc", self.grpc_port) if has_grpc else ()),
                *(self._listener("metrics", self.metrics_port) if has_metrics else ()),
                *("--model-control-mode", self._mode()),
                *self._loaded_at_start(),
                *self.other_arguments(),
            ),
            env=(*self.token_variables("HF_TOKEN"), EnvVar(name="HOME", value=HOME)),
            more_ports=((self.grpc_port,) if has_grpc else ())
            + ((self.metrics_port,) if has_metrics else ()),
            secrets=(token,) if token else (),
            hub_token=token,
            probes=Probes(liveness=Probe(path="/v2/health/live")),
            model_api="v2",
            served_model_name=names[0] if names else "",
            more_models=names[1:],
            metrics_path="/metrics" if has_metrics else "",
            metrics_port=self.metrics_port if has_metrics else None,
            metric_names=FAMILIES["triton"] if has_metrics else {},
            update_options=update_options("triton", self.port, self._updated()),
            volumes=(Volume(name="inference-cache", mount_path=HOME),),
            # the Python back end keeps tensors there: by default 1 MB or more for each model
            # instance
            shm_size=f"{min(max(self.gpu, 1), 4)}Gi",
            security_context={"runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": True},
            fs_group=USER,
        )

    def _listener(self, name: str, port: int) -> tuple[str, ...]:
        # Triton's default is every address, also when HTTP has another one
        is_default = self.host in EVERY_ADDRESS or self.argument(f"{name}_address") is not None
        address = () if is_default else (f"--{name}-address", self.host)
        return (*address, f"--{name}-port", str(port))

    def _repositories(self) -> tuple[str, ...]:
        places = self.model_repository or ()
        own = (places,) if isinstance(places, str) else tuple(places)
        return ((self.model_path,) if self.model_path else ()) + own

    def _names(self) -> tuple[str, ...]:
        return tuple(name for name in self.model_names if name != "*")

    def _mode(self) -> str:
        return self.model_control_mode or ("explicit" if self.model_names else "none")

    def _updated(self) -> tuple[str, ...]:
        """Return the models that Triton can reload; only explicit control has an API for that."""
        return self._names() if self._mode() == "explicit" else ()

    def _loaded_at_start(self) -> tuple[str, ...]:
        names = self.model_names if self._mode() == "explicit" else ()
        return tuple(word for name in names for word in ("--load-model", name))

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        yield from super().problems()
        yield from port_problems(
            {"port": self.port, "grpc_port": self.grpc_port, "metrics_port": self.metrics_port}
        )
        yield from self._repository_problems()
        yield from self._control_problems()
        yield from cache_problems(self.argument("cache_config"))
        if self.argument("allow_http") is False:
            yield "arg_dict: without HTTP (allow_http) the probes cannot reach the server"
        yield from ending_problems(
            self.argument("exit_timeout_secs"), self.termination_grace_period
        )

    def _repository_problems(self) -> Iterator[str]:
        places = self.model_repository
        if places is None and self.model is None:
            yield (
                "the model repository is missing: give model= to load one, or model_repository= "
                "for an existing one"
            )
        elif isinstance(places, (str, list, tuple)):
            for place in [places] if isinstance(places, str) else places:
                if (
                    not isinstance(place, str)
                    or not place.startswith(("/", *_REMOTE))
                    or not place.strip("/")
                ):
                    yield (
                        f"model_repository: {place!r} must be an absolute directory or begin with "
                        f"{', '.join(_REMOTE)}"
                    )
        elif places is not None:
            yield (
                f"model_repository must be a text or a list of texts, not a {type(places).__name__}"
            )

    def _control_problems(self) -> Iterator[str]:
        yield from (name_problems := list(model_name_problems(self.model_names)))
        if self.model_control_mode not in (None, *MODES):
            yield (
                f"model_control_mode={self.model_control_mode!r} must be one of "
                f"{', '.join(MODES)}, or None"
            )
        if name_problems:
            return
        if "*" in self.model_names and len(self.model_names) > 1:
            yield "model_names: '*' means every model; give it alone"
        if self.update_interval is not None and not (self._updated() or self._mode() == "poll"):
            yield ("update_interval needs model_names= with the names of the models to reload")

    def cautions(self) -> Iterator[str]:
        """Yield warnings: what is valid but may not do what its author expects."""
        yield from super().cautions()
        if isinstance(self.model_source, HuggingFaceModel) and not self.model_names:
            yield (
                f"model={self.model_source.repo!r}: Triton serves a model repository, a directory "
                "with one folder for each model (config.pbtxt, 1/…); most models of the hub are "
                "not one. If this one is, name its folders in model_names=; else make a repository "
                "whose model.py or model.json reads the model."
            )
        if self._mode() == "poll":
            yield (
                "model_control_mode='poll' may load a repository while it is being changed; "
                "Triton advises against it (model_management.md). Name the models in model_names= "
                "instead."
            )
        yield from option_cautions(self.arg_dict or {}, self._mode())
