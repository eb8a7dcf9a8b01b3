"""`Description`: what is told about one model server, and what is wrong with it.

A description is frozen data without any I/O. `assemble` makes containers of it, `sidecar_template`
adds what users read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import ConfigError
from ..programs.protocol import (
    INPUTS_VARIABLE,
    MODEL_PATH_VARIABLE,
    PORT_VARIABLE,
    PROGRAMS_VARIABLE,
)
from . import check
from .exporter import MetricsExporter, judges_progress
from .image_version import vendor_problem
from .images import ServerImage
from .model import (
    HuggingFaceModel,
    Model,
    VolumeModel,
    model_problems,
    parse_model,
    path_of,
    startup_budget,
)
from .parts import (
    INPUT_DOWNLOADER,
    LORA_DOWNLOADER,
    METRICS_EXPORTER,
    MODEL_GATE,
    MODEL_LOADER,
    MODEL_SERVER,
    PREFLIGHT,
    PRIMARY,
    SERVER_GATE,
    SERVER_SETUP,
    Probe,
    Probes,
    Volume,
)
from .secrets import APIKeySecret, SecretReference
from .server import Server

if TYPE_CHECKING:
    from flytekit import ImageSpec

__all__ = ["OUR_CONTAINERS", "UNSET", "Description", "Unset", "seconds"]

EVERY_ADDRESS = ("0.0.0.0", "::")
"""Hosts on which a server can be reached at the pod's address."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts on which only the pod's own containers reach it."""

OUR_CONTAINERS = frozenset(
    (
        *(PREFLIGHT, LORA_DOWNLOADER, INPUT_DOWNLOADER, MODEL_LOADER, MODEL_GATE),
        *(MODEL_SERVER, SERVER_SETUP, SERVER_GATE, METRICS_EXPORTER),
    )
)
_RESERVED_VARIABLES = {
    INPUTS_VARIABLE: "its place is fixed, read it",
    PROGRAMS_VARIABLE: "choose another name",
    PORT_VARIABLE: "give port= instead",
    MODEL_PATH_VARIABLE: "give model= instead",
}


class Unset(Enum):
    """The type of a default that depends on how the description is attached."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return self.name


UNSET = Unset.UNSET


@dataclass(frozen=True, kw_only=True)
class Description:
    """One model server: image, resources, model, probes, and how its start is bounded.

    Fields declared as `int` also take the number as text in plain decimal digits (`gpu="1"`, as the
    published plugin's examples write it), which becomes the `int`; it is not declared, since nobody
    reads a text from them.
    """

    image_vendors: ClassVar[frozenset[str]] = frozenset({"nvidia.com", "gpu"})
    """The vendors of GPUs for which `default_image` is one; of another's an image has to be
    given."""
    published_images: ClassVar[tuple[ServerImage, ...]] = ()
    """Every image that `default_image` may name, with its source."""
    template_variables: ClassVar[Mapping[str, str]] = {}
    """Variables that the template sets and `env` must not → what to do instead."""

    name: str = field(default="", init=False)
    """Its name in a pod with several servers, which gives it."""
    image: str | ImageSpec | None = None
    """The model server's image; `None` is `default_image`.
    `spec.initContainers[model-server].image`."""
    health_endpoint: str | None = None
    """HTTP path that answers 200 to 399 once the model is loaded; becomes the startup probe.
    `None`: no probe, so that the task starts at once."""
    port: int = 8000
    """The port the server listens on. A command names it `$(INFERENCE_PORT)`, after the variable
    that holds it."""
    cpu: int | float | str = 1
    """Cores; requests and limits."""
    gpu: int = 1
    """Number of GPUs; 0 asks for none."""
    mem: str = "1Gi"
    """Memory; requests and limits. Includes what the server keeps in `/dev/shm`."""
    ephemeral_storage: str | None = None
    """Disk for what is written outside of volumes; requests and limits. `None` sets none, and
    Flyte's platform default applies: a limit that is too small gets the pod evicted."""
    env: Mapping[str, str] | None = None
    """The server's environment variables; they come after, and replace, those that the template
    sets."""
    download_inputs: bool = False
    """Whether the task's inputs are to lie on the shared volumes before the server starts, listed
    in `/shared/inputs.json`."""
    download_inputs_mem: str = "500Mi"
    """Memory of the input downloader."""
    download_inputs_cpu: int | float | str = 2
    """Cores of the input downloader."""

    model: Model | str | None = None
    """The model to bring: a type of `pod.model`, or a text such as `"Qwen/Qwen2.5-0.5B-Instruct"`,
    `"models:/fraud/3"`, `"s3://bucket/prefix"` or `"input:model"`. It is downloaded beside the
    server's start, verified, cached and mounted read-only at `/models/current`. `None`: the server
    finds its model by itself."""
    model_cache: Mapping[str, Any] | None = None
    """The volume that keeps complete versions, as Kubernetes writes a source, e.g. a claim that
    pods share. `None`: each pod has its own."""
    model_cache_limit: str | None = None
    """What complete versions may take in the cache; the least recently used go first. `None` keeps
    all."""
    model_loader_env: Mapping[str, str] | None = None
    """Variables of the containers that look for, bring and check models and adapters:
    `HF_ENDPOINT`, `HTTPS_PROXY`, `SSL_CERT_FILE`, `MLFLOW_TRACKING_URI`."""
    model_loader_mem: str = "2Gi"
    """Memory of the model loader."""
    model_loader_cpu: int | float | str = 2
    """Cores of the model loader."""
    update_interval: int | timedelta | None = None
    """Seconds between two looks for a newer version of the model; `None` looks once."""
    startup_timeout: int | timedelta | Literal["auto"] | Unset | None = UNSET
    """Seconds that the whole start may take, or `"auto"`: half an hour, or by the model's size
    (`startup_budget`). Everything then starts at the same time, and the pod ends with the reason
    when the server is not ready in time. `None`: the kubelet's startup probe, in order and without
    an end. `UNSET`: `"auto"` with `task_config=`, unless `probes=` has a startup probe, and `None`
    everywhere else."""
    expose: bool = False
    """Whether the server listens on all of the pod's addresses in a bounded start too, where
    otherwise only the pod's own containers reach it. A readiness or liveness probe of `probes=`
    that asks a port exposes it as well, since the kubelet asks the pod's address."""

    metrics: bool | MetricsExporter = False
    """Whether a sidecar serves the server's metrics in one vocabulary; or its settings."""
    liveness: Literal["auto", "progress"] | None = "auto"
    """`"progress"`: the kubelet restarts a server that has work and does none of it, as the metrics
    exporter tells; `"auto"`: so with `metrics`, if the server's metrics show its work. `None`: only
    `probes` say."""

    api_key_secret: APIKeySecret | None = None
    """The key that the server asks of its clients: it, the gate and the task's clients get it."""
    shm_size: str | None = None
    """Size of `/dev/shm`, in memory and within `mem`; `None` is the server's own choice, else the
    container runtime's 64 MiB."""
    gpu_resource: str = "nvidia.com/gpu"
    """The resource that `gpu` counts: another vendor's, a MIG profile, or `"gpu"`, which Flyte
    renames."""
    command: Sequence[str] | None = None
    """Replaces the server's command (`command[]`, one text per argument)."""
    args: Sequence[str] | None = None
    """Added behind the arguments that the template makes."""
    probes: Probes | None = None
    """The server's probes; each one given replaces the template's."""
    volumes: Sequence[Volume] = ()
    """More volumes, and where they are mounted."""
    security_context: Mapping[str, Any] | None = None
    """What replaces single keys of the server's security context (Kubernetes' own names), for an
    image that cannot work with least privilege; `None` as a value removes the key."""
    termination_grace_period: int | timedelta | None = None
    """Seconds (or a `timedelta`) between SIGTERM and SIGKILL for all containers; Kubernetes'
    default is 30. Servers of one pod stop one after the other, so their periods add up."""
    stop_timeout: int | timedelta | None = 10
    """Seconds (or a `timedelta`) that the server has after SIGTERM in a bounded start; then what is
    left of its container is killed, so that a server which ignores SIGTERM does not keep its GPU.
    It needs a known command and the image's `sh`. `None`, and every other start, leaves that to the
    pod's `termination_grace_period`."""
    helper_image: str | ImageSpec | None = None
    """Image of our own programs, which must hold this package (usually the task's own image).
    `None`: flytekit's default image, into which the programs travel in the pod spec."""

    # What a server's room overrides

    @property
    def default_image(self) -> str:
        """The image, for the hardware asked for, when none is given; empty where one must be."""
        return ""

    def server(self) -> Server:
        """Return what this kind of server needs. Only called on a description without problems."""
        return Server()

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields; a room with own fields adds to it."""
        yield from check.check_image("image", self.image or self.default_image)
        if self.helper_image is not None:
            yield from check.check_image("helper_image", self.helper_image)
        if self.health_endpoint is not None:
            yield from check.check_path("health_endpoint", self.health_endpoint)
        yield from check.check_port("port", self.port)
        yield from self._resource_problems()
        yield from self._model_problems()
        yield from check.check_environment(
            "env", self.env, {**_RESERVED_VARIABLES, **self.template_variables}
        )
        yield from self._api_key_problems()
        yield from self._metrics_problems()
        for name in ("command", "args"):
            if getattr(self, name) is not None:
                yield from check.check_command(name, getattr(self, name))
        if self.probes is not None:
            yield from check.check_probes(self.probes)
        yield from check.check_volumes(self.volumes, OUR_CONTAINERS | {PRIMARY})
        yield from check.check_switch("download_inputs", self.download_inputs)
        yield from check.check_switch("expose", self.expose)
        if self.security_context is not None and not isinstance(self.security_context, Mapping):
            yield f"security_context must be a dict, not a {type(self.security_context).__name__}"
        for name in ("termination_grace_period", "stop_timeout"):
            if getattr(self, name) is not None:
                yield from check.check_seconds(name, getattr(self, name))
        yield from self._class_problems()

    def cautions(self) -> Iterator[str]:
        """Yield what works, but not everywhere or not as its author may think.

        Only called on a description without problems.
        """
        for secret in self.secret_references:
            yield from secret.warnings()

    # Checks

    def _class_problems(self) -> Iterator[str]:
        """Find new defaults in a subclass that is no dataclass, which Python would ignore."""
        for cls in type(self).__mro__:
            if "__dataclass_fields__" in vars(cls):
                return
            for name in self.__dataclass_fields__.keys() & vars(cls).keys():
                yield (
                    f"class {cls.__name__} sets {name}, which counts only with "
                    "@dataclass(frozen=True, kw_only=True)"
                )

    def _resource_problems(self) -> Iterator[str]:
        yield from check.check_quantity("cpu", self.cpu)
        yield from check.check_quantity("mem", self.mem, memory=True)
        yield from check.check_quantity("download_inputs_cpu", self.download_inputs_cpu)
        yield from check.check_quantity(
            "download_inputs_mem", self.download_inputs_mem, memory=True
        )
        for name in ("ephemeral_storage", "shm_size"):
            if getattr(self, name) is not None:
                yield from check.check_quantity(name, getattr(self, name), memory=True)
        if not isinstance(self.gpu, int) or isinstance(self.gpu, bool) or self.gpu < 0:
            yield f"gpu={self.gpu!r} must be a whole number, 0 for none"
        yield from check.check_resource_name("gpu_resource", self.gpu_resource)
        if self.gpu and (
            problem := vendor_problem(self.image, str(self.gpu_resource), self.published_images)
        ):
            yield problem
        vendor = str(self.gpu_resource).partition("/")[0]
        if self.gpu and not self.image and self.default_image and vendor not in self.image_vendors:
            kind = type(self).__name__
            yield (
                f"gpu_resource={self.gpu_resource!r}: {kind} has no image of its own for it; "
                "give image="
            )

    def _metrics_problems(self) -> Iterator[str]:
        if isinstance(self.metrics, MetricsExporter):
            yield from self.metrics.problems()
        elif not isinstance(self.metrics, bool):
            yield f"metrics must be True, False or a MetricsExporter(…), not {self.metrics!r}"
        if self.liveness not in ("auto", "progress", None):
            yield f"liveness must be 'auto', 'progress' or None, not {self.liveness!r}"
        elif self.liveness == "progress" and not self.metrics:
            yield "liveness='progress' needs metrics=True: the metrics exporter tells the progress"

    def _api_key_problems(self) -> Iterator[str]:
        secret = self.api_key_secret
        if secret is not None and not isinstance(secret, APIKeySecret):
            # not its value: a key given by mistake must not end up in a log
            yield (
                "api_key_secret must be an APIKeySecret(key=…, group=…), not a "
                f"{type(secret).__name__}"
            )
        elif secret is not None:
            yield from (f"api_key_secret: {problem}" for problem in secret.reference().problems())

    def _model_problems(self) -> Iterator[str]:
        yield from check.check_quantity("model_loader_cpu", self.model_loader_cpu)
        yield from check.check_quantity("model_loader_mem", self.model_loader_mem, memory=True)
        for name in ("update_interval", "startup_timeout"):
            value = getattr(self, name)
            if value not in (None, UNSET) and (name, value) != ("startup_timeout", "auto"):
                yield from check.check_seconds(name, value, least=1)
        yield from check.check_environment(
            "model_loader_env", self.model_loader_env, _RESERVED_VARIABLES
        )
        if self.model_cache is not None:
            yield from (
                f"model_cache: {problem}" for problem in check.check_volume_source(self.model_cache)
            )
        if self.model_cache_limit is not None:
            yield from check.check_quantity(
                "model_cache_limit", self.model_cache_limit, memory=True
            )
        try:
            source = self.model_source
        except ConfigError as error:
            yield str(error)
            return
        if source is not None:
            yield from model_problems(source, has_inputs=self.download_inputs)
        if self.update_interval is not None and (source is None or isinstance(source, VolumeModel)):
            yield (
                "update_interval needs model=: only what the model loader brings is looked at "
                "for newer versions"
            )

    # What follows from the fields

    @property
    def model_source(self) -> Model | None:
        """Where the model comes from, also when it was given as text.

        Raises:
            ConfigError: If that text is not understood.
        """
        return parse_model(self.model) if isinstance(self.model, str) else self.model

    @property
    def model_path(self) -> str | None:
        """Where the server finds the model, or `None` when it finds its own."""
        source = self.model_source
        return path_of(source) if source is not None else None

    @property
    def hub_token(self) -> SecretReference | None:
        """The token with which models and adapters are brought from the hub."""
        source = self.model_source
        secret = source.secret if isinstance(source, HuggingFaceModel) else None
        return secret.reference() if secret else self.server().hub_token

    @property
    def secret_references(self) -> tuple[SecretReference, ...]:
        """Every secret of the pod, each once."""
        optional = (self.hub_token, self.api_key)
        return tuple(
            dict.fromkeys((*self.server().secrets, *(secret for secret in optional if secret)))
        )

    @property
    def api_key(self) -> SecretReference | None:
        """The key that the server asks of its clients, by the parts of its name."""
        return self.api_key_secret.reference() if self.api_key_secret else None

    @property
    def exporter(self) -> MetricsExporter | None:
        """The settings of the metrics exporter; `None` without one."""
        if isinstance(self.metrics, MetricsExporter):
            return self.metrics
        return MetricsExporter() if self.metrics else None

    def exporter_problems(self) -> Iterator[str]:
        """Yield why there cannot be a metrics exporter, once the single fields are right."""
        server, exporter = self.server(), self.exporter
        if exporter and not (exporter.path or server.metrics_path):
            yield (
                f"metrics: {type(self).__name__} tells no page of metrics; give "
                "metrics=MetricsExporter(path=…), or leave it out"
            )
        has_names = exporter and (judges_progress(server.metric_names) or exporter.path)
        if self.liveness == "progress" and not has_names:
            yield (
                f"liveness='progress': the metrics of {type(self).__name__} do not show its "
                "progress; leave it out"
            )

    @property
    def judges_progress(self) -> bool:
        """Whether the metrics exporter answers the server's liveness probe."""
        if self.exporter is None or self.liveness is None:
            return False
        return self.liveness == "progress" or judges_progress(self.server().metric_names)

    @property
    def startup_seconds(self) -> int | None:
        """`startup_timeout` in seconds; `None` when the start is not bounded."""
        if isinstance(self.startup_timeout, str):
            return startup_budget(self.model_source)
        return None if isinstance(self.startup_timeout, Unset) else seconds(self.startup_timeout)

    @property
    def stop_seconds(self) -> int | None:
        """`stop_timeout` in seconds; at most the pod's grace period, if that is given."""
        stop, grace = seconds(self.stop_timeout), self.grace_period_seconds
        return stop if stop is None or grace is None else min(stop, grace)

    @property
    def is_bounded(self) -> bool:
        """Whether the start is bounded: by a gate, and without a startup probe."""
        return self.startup_timeout not in (None, UNSET)

    @property
    def leaves_start_open(self) -> bool:
        """Whether its author has not said how the start is bounded."""
        has_probe = isinstance(self.probes, Probes) and self.probes.startup is not None
        return self.startup_timeout is UNSET and not has_probe

    @property
    def host(self) -> str:
        """The address on which the server listens by default.

        In a bounded start nobody asks it but the task and our own containers, on `localhost`.
        """
        if not self.is_bounded or self.expose or self._is_asked_by_the_kubelet:
            return EVERY_ADDRESS[0]
        return LOOPBACK[0]

    @property
    def _is_asked_by_the_kubelet(self) -> bool:
        # `problems()` reads this too, before it has refused probes of another type
        own = self.probes if isinstance(self.probes, Probes) else Probes()
        probes = (own.readiness, own.liveness)
        return any(isinstance(probe, Probe) and not probe.command for probe in probes)

    @property
    def grace_period_seconds(self) -> int | None:
        """`termination_grace_period` in seconds."""
        return seconds(self.termination_grace_period)


def seconds(period: int | timedelta | None) -> int | None:
    """Return a period in seconds, however it was given."""
    return int(period.total_seconds()) if isinstance(period, timedelta) else period
