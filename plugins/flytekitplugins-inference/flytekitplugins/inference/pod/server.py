"""`Server`: what a server's room answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..facts.metric_names import MetricNames
from ..public_dataclass import PublicDataclass
from .parts import EnvVar, Probes, Volume
from .secrets import SecretReference

__all__ = ["Adapters", "Server", "Setup"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapters(PublicDataclass):
    """LoRA adapters that an init container downloads to a volume, which the server reads."""

    sources: Mapping[str, str]
    """Name → `owner/name[@revision]` of the hub, or a prefix of a store."""
    directory: str
    """Where the server finds them, each in a directory of its name."""
    mem: str
    """Memory of the init container."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup(PublicDataclass):
    """A run of one of this package's programs against the started server.

    It is the init container `server-setup`: the task starts once it has ended well.
    """

    program: str
    """The program, by its module's name in `programs`: `create_model` has a server with Ollama's
    API pull or create a model."""
    args: tuple[str, ...]
    """Its arguments."""
    env: tuple[EnvVar, ...] = ()
    """Its environment variables."""
    resources: Mapping[str, str]
    """Requests and limits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server(PublicDataclass):
    """What one kind of model server needs; all that a template's `server()` says of it.

    What every server has (image, resources, port, the user's own variables, volumes and probes) is
    added by `assemble`.
    """

    command: tuple[str, ...] = ()
    """`command[]`; empty leaves the image's entry point."""
    args: tuple[str, ...] = ()
    """`args[]`, before the user's own `args`."""
    env: tuple[EnvVar, ...] = ()
    """Variables that the user's `env` may replace."""
    port_variables: tuple[str, ...] = ()
    """Variables in which the server reads its port; the template sets them, and nobody else may."""
    more_ports: tuple[int, ...] = ()
    """What it listens on besides the template's port: gRPC, metrics."""
    secrets: tuple[SecretReference, ...] = ()
    """The secrets it reads."""
    api_key_variable: str = ""
    """The variable in which it reads the key that it asks of its clients; empty when it has
    none."""
    volumes: tuple[Volume, ...] = ()
    """Caches and other places it writes to."""
    security_context: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the least privilege that every container gets."""
    probes: Probes = field(default_factory=Probes)
    """Its startup probe, where the usual one does not fit; and the paths of readiness and liveness
    probes, which it has only when the user asks for them."""
    model_api: Literal["openai", "v2", "none"] = "none"
    """The protocol it speaks: OpenAI's, the Open Inference Protocol, or one of its own."""
    served_model_name: str = ""
    """The name under which requests ask for the model; empty when only the server knows."""
    lists_models: bool = True
    """Whether it can be asked for its models (`/v1/models`, `/v2/models/<name>/ready`), which the
    gate then does."""
    more_models: tuple[str, ...] = ()
    """Further models that the server must have before it is ready."""
    metrics_path: str = ""
    """Path of its Prometheus metrics; empty when it has none."""
    metrics_port: int | None = None
    """The port of its metrics, when it is not the template's."""
    metric_names: MetricNames = field(default_factory=dict)
    """Its name for each quantity (`facts.metric_names.QUANTITIES`) that it tells, for reports and
    batches; where versions differ, all names, the newest first. One that is missing here it does
    not tell."""
    setup: Setup | None = None
    """What one of our programs does to it once it runs, before the task starts."""
    update_options: tuple[str, ...] = ()
    """Arguments of the model loader that tell the server about a newer version; empty when it has
    no such way."""
    hub_token: SecretReference | None = None
    """The token with which models and adapters are brought from the hub."""
    adapters: Adapters | None = None
    """LoRA adapters to download, and the volume that they lie on."""
    shm_size: str | None = None
    """`/dev/shm` unless the user sizes it; `None` leaves the container runtime's 64 MiB."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of the Kubernetes secrets with which its image is pulled."""
    enable_service_links: bool | None = None
    """`False` for a server that reads variables which a Service of an unlucky name would inject."""
    fs_group: int | None = None
    """The group that owns the pod's volumes, for a server that is not root and must write to
    them."""
