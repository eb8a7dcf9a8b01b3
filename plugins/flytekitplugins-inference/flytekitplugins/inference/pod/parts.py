"""The values that a plan is made of: frozen, keyword-only, without behaviour of their own.

Field names follow Kubernetes; `compile` writes them as camelCase. `Probe`, `Probes` and `Volume`
are also what users give to a template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..public_dataclass import PublicDataclass
from .whole_numbers import read_whole_numbers

__all__ = [
    "MODEL_SERVER",
    "Container",
    "EnvVar",
    "Helper",
    "Mount",
    "PodPlan",
    "Probe",
    "Probes",
    "Volume",
]

MODEL_SERVER = "model-server"
INPUT_DOWNLOADER = "input-downloader"
MODEL_LOADER = "model-loader"
LORA_DOWNLOADER = "download-loras"
PREFLIGHT = "preflight"
MODEL_GATE = "model-gate"
SERVER_GATE = "server-gate"
SERVER_SETUP = "server-setup"
METRICS_EXPORTER = "metrics-exporter"
PRIMARY = "primary"
# documented names of the published plugin; every other volume of ours has the prefix `inference-`
SHARED_VOLUME = "shared-data"
TMP_VOLUME = "tmp"
CACHE_DIRECTORY = "/var/cache/inference"
"""Where servers mount the volume of their caches, with a directory for each as below `~/.cache`:
every user may write there, whereas only root may below `/root`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvVar(PublicDataclass):
    """`env[]` of a container: a value, or a key of a Kubernetes secret that may be absent."""

    name: str
    value: str | None = None
    secret_name: str | None = None
    secret_key: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """`volumeMounts[]` of a container."""

    volume: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume(PublicDataclass):
    """A volume of the pod and where it is mounted.

    Example:
        ```python
        claim = {"persistentVolumeClaim": {"claimName": "models"}}
        Volume(name="models", source=claim, mount_path="/models")
        ```
    """

    name: str
    """`spec.volumes[].name`, a DNS-1123 label."""
    source: Mapping[str, Any] = field(default_factory=lambda: {"emptyDir": {}})
    """The volume's source as Kubernetes writes it, e.g. `{"emptyDir": {"sizeLimit": "20Gi"}}`."""
    mount_path: str
    """Absolute path in each container that mounts it."""
    read_only: bool = False
    """Whether these containers mount it read-only."""
    containers: tuple[str, ...] = (MODEL_SERVER,)
    """Names of the containers that mount it; `"primary"` is the task's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe(PublicDataclass):
    """A probe: HTTP GET on `path`, else a `command` in the container, else a TCP connection."""

    path: str | None = None
    """HTTP path; a missing leading slash is added."""
    port: int | None = None
    """The port asked; the server's own when `None`."""
    command: tuple[str, ...] = ()
    """Run in the container; success is exit code 0."""
    initial_delay_seconds: int = 0
    """Seconds between the container's start and the first probe."""
    period_seconds: int = 10
    """Seconds between two probes; 10 is Kubernetes' default."""
    timeout_seconds: int = 5
    """Seconds that an answer may take; Kubernetes' default is 1, which a busy server misses."""
    failure_threshold: int = 3
    """Failures in a row after which the kubelet acts; 3 is Kubernetes' default."""

    def __post_init__(self) -> None:
        read_whole_numbers(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Probes(PublicDataclass):
    """The model server's probes; `None` leaves the template's own choice."""

    startup: Probe | None = None
    """Holds back the containers after the server, and the other probes, until it succeeds."""
    readiness: Probe | None = None
    """Whether the pod counts as ready; Flyte does not look at it."""
    liveness: Probe | None = None
    """Starts the server anew when it fails."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """One container of the plan."""

    name: str
    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    port: int | None = None
    """The port that probes ask, unless they name another."""
    port_name: str = ""
    """The name of `port`."""
    more_ports: tuple[int, ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
    """Resource name → quantity: the requests, and the limits unless `limits` differ."""
    limits: Mapping[str, str] = field(default_factory=dict)
    """The limits that differ from the requests."""
    mounts: tuple[Mount, ...] = ()
    writes_to_tmp: bool = False
    """Whether it needs a writable `/tmp`, which a read-only root file system does not have."""
    probes: Probes = field(default_factory=Probes)
    sidecar: bool = False
    """Whether it is a native sidecar (an init container with `restartPolicy: Always`)."""
    security_context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PodPlan:
    """Which containers, in which order, sharing which volumes."""

    init_containers: tuple[Container, ...]
    primary: Container
    volumes: Mapping[str, Mapping[str, Any]]
    """Volume name → source."""
    image_pull_secrets: tuple[str, ...] = ()
    enable_service_links: bool | None = None
    termination_grace_period_seconds: int | None = None
    fs_group: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Helper:
    """The image that our own programs run in."""

    image: str
    bundled: bool
    """Whether the image lacks this package, so that the programs must travel in the pod spec."""
