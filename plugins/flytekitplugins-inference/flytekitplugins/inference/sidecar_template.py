"""`ModelInferenceTemplate`: the description of a model server that runs beside a Flyte task.

A description is frozen data. It performs no I/O, imports neither flytekit nor kubernetes, and may be made again in the
task's pod, where the user's module is imported once more. A variant of it is `dataclasses.replace(template, …)`.

`PodTemplate` (flytekit's) can be imported from here too; it is looked up on access.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from .errors import ConfigError
from .pod import check
from .pod.compile import Manifest, compile_plan
from .pod.helpers import LEAST_PRIVILEGE, input_downloader, lora_downloader, model_loader, preflight, server_gate
from .pod.lint import lint
from .pod.merge import merge_manifests, normalised
from .pod.model import (
    HuggingFaceModel,
    Model,
    VolumeModel,
    bytes_of,
    model_problems,
    parse_model,
    path_of,
    refuse_bare_helper,
    startup_budget,
    volumes_of,
)
from .pod.parts import (
    INPUT_DOWNLOADER,
    LORA_DOWNLOADER,
    MODEL_LOADER,
    MODEL_SERVER,
    PREFLIGHT,
    PRIMARY,
    SERVER_GATE,
    Container,
    EnvVar,
    Helper,
    Probe,
    Probes,
    Volume,
)
from .pod.plan import Surroundings, plan_pod
from .pod.quantity import format_quantity
from .pod.secrets import SecretReference
from .pod.server import Server
from .programs.protocol import (
    INPUTS_FILE,
    INPUTS_VARIABLE,
    MODEL_PATH_VARIABLE,
    MODELS_DIRECTORY,
    PORT_VARIABLE,
    PROGRAMS_VARIABLE,
)

if TYPE_CHECKING:
    from flytekit import ImageSpec, PodTemplate, Secret

    from .flyte.local import LocalServer

__all__ = ["InferenceWarning", "ModelInferenceTemplate", "PodTemplate", "Probe", "Probes", "Server", "Volume"]

STARTUP_FAILURE_THRESHOLD = 100
"""Documented: with a period of 10 s, a server has about 16 minutes to load its model."""
_OURS = frozenset({PREFLIGHT, LORA_DOWNLOADER, INPUT_DOWNLOADER, MODEL_LOADER, MODEL_SERVER, SERVER_GATE})
_CONTAINERS = _OURS | {PRIMARY}
_TEMPLATE_TYPE_HOOKS: list[Callable[[type[ModelInferenceTemplate]], None]] = []


class InferenceWarning(UserWarning):
    """Something in a description works, but not everywhere or not as its author may think."""


@dataclass(frozen=True, kw_only=True)
class ModelInferenceTemplate:
    """A model server of any image, run as a native Kubernetes sidecar beside a task.

    Attach it to a task with `@task(task_config=template)`, which also runs it on a machine without a cluster, or with
    `@task(pod_template=template.pod_template, secret_requests=template.secret_requests)`.

    Raises:
        ConfigError: If the description is wrong; lists every problem of it.
        SpecConflictError: If `base` and the template differ about one thing.

    Example:
        ```python
        template = ModelInferenceTemplate(image="registry/my-server:1.0", health_endpoint="/health", port=8080, gpu=0)
        ```
    """

    image: str | ImageSpec | None = None
    """The model server's image; required. `spec.initContainers[model-server].image`."""
    health_endpoint: str | None = None
    """HTTP path that answers 200 to 399 once the model is loaded; becomes the startup probe. `None`: no probe, so that
    the task starts at once."""
    port: int = 8000
    """The port the server listens on. A command names it `$(INFERENCE_PORT)`, after the variable that holds it."""
    cpu: int | float | str = 1
    """Cores; requests and limits."""
    gpu: int = 1
    """Number of GPUs; 0 asks for none."""
    mem: str = "1Gi"
    """Memory; requests and limits. Includes what the server keeps in `/dev/shm`."""
    ephemeral_storage: str | None = None
    """Disk for what is written outside of volumes; requests and limits. `None` sets none, and Flyte's platform default
    applies: a limit that is too small gets the pod evicted."""
    env: Mapping[str, str] | None = None
    """The server's environment variables; they come after, and replace, those that the template sets."""
    download_inputs: bool = False
    """Whether the task's inputs are to lie on the shared volumes before the server starts, listed in
    `/shared/inputs.json`."""
    download_inputs_mem: str = "500Mi"
    """Memory of the input downloader."""
    download_inputs_cpu: int | float | str = 2
    """Cores of the input downloader."""

    model: Model | str | None = None
    """The model to bring: a type of `pod.model`, or a text such as `"Qwen/Qwen2.5-0.5B-Instruct"`, `"models:/fraud/3"`,
    `"s3://bucket/prefix"` or `"input:model"`. It is downloaded beside the server's start, verified, cached and mounted
    read-only at `/models/current`. `None`: the server finds its model by itself."""
    model_cache: Mapping[str, Any] | None = None
    """The volume that keeps complete versions, as Kubernetes writes a source, e.g. a claim that pods share. `None`:
    each pod has its own."""
    model_loader_mem: str = "2Gi"
    """Memory of the model loader."""
    model_loader_cpu: int | float | str = 2
    """Cores of the model loader."""
    update_interval: int | timedelta | None = None
    """Seconds between two looks for a newer version of the model; `None` looks once."""
    startup_timeout: int | timedelta | Literal["auto"] | None = None
    """Seconds that the whole start may take, or `"auto"`: half an hour, or by the model's size (`startup_budget`).
    Everything then starts at the same time, and the pod ends with the reason when the server is not ready in time.
    `None`: the kubelet's startup probe, in order and without an end."""

    base: PodTemplate | Mapping[str, Any] | None = None
    """The user's own pod to start from: node selectors, tolerations, service account, volumes, labels. A flytekit
    `PodTemplate` or a `v1/Pod` manifest; merged by name, add-only, never changed."""
    shm_size: str | None = None
    """Size of `/dev/shm`, in memory and within `mem`; `None` leaves the container runtime's 64 MiB."""
    gpu_resource: str = "nvidia.com/gpu"
    """The resource that `gpu` counts: another vendor's, a MIG profile, or `"gpu"`, which Flyte renames."""
    command: Sequence[str] | None = None
    """Replaces the server's command (`command[]`, one text per argument)."""
    args: Sequence[str] | None = None
    """Added behind the arguments that the template makes."""
    probes: Probes | None = None
    """The server's probes; each one given replaces the template's."""
    volumes: Sequence[Volume] = ()
    """More volumes, and where they are mounted."""
    security_context: Mapping[str, Any] | None = None
    """What replaces single keys of the server's security context (Kubernetes' own names), for an image that cannot
    work with least privilege; `None` as a value removes the key."""
    termination_grace_period: int | timedelta | None = None
    """Seconds (or a `timedelta`) between SIGTERM and SIGKILL for all containers; Kubernetes' default is 30."""
    helper_image: str | ImageSpec | None = None
    """Image of our own programs, which must hold this package (usually the task's own image). `None`: flytekit's
    default image, into which the programs travel in the pod spec."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for hook in _TEMPLATE_TYPE_HOOKS:
            hook(cls)

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if not problems:
            self._detach()
            problems = list(self._pod_problems())
        if problems:
            count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
            raise ConfigError(f"{type(self).__name__}(…) has {count}:", problems=problems)
        for text in self._warnings():
            warnings.warn(text, InferenceWarning, stacklevel=_caller_depth())

    # What differs from server to server

    def server(self) -> Server:
        """Return what this kind of server needs. The one method that a server's room overrides."""
        return Server()

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields; a room with own fields adds to it."""
        yield from check.check_image("image", self.image)
        if self.helper_image is not None:
            yield from check.check_image("helper_image", self.helper_image)
        if self.health_endpoint is not None:
            yield from check.check_path("health_endpoint", self.health_endpoint)
        yield from check.check_port("port", self.port)
        yield from self._resource_problems()
        yield from self._model_problems()
        yield from check.check_environment(self.env, self._reserved_variables())
        for name in ("command", "args"):
            if getattr(self, name) is not None:
                yield from check.check_command(name, getattr(self, name))
        if self.base is not None:
            yield from check.check_base(self.base)
        if self.probes is not None:
            yield from check.check_probes(self.probes)
        yield from check.check_volumes(self.volumes, _CONTAINERS)
        yield from check.check_switch("download_inputs", self.download_inputs)
        if self.security_context is not None and not isinstance(self.security_context, Mapping):
            yield f"security_context must be a dict, not a {type(self.security_context).__name__}"
        if self.termination_grace_period is not None:
            yield from check.check_seconds("termination_grace_period", self.termination_grace_period)
        yield from self._class_problems()

    def _class_problems(self) -> Iterator[str]:
        """Find new defaults in a subclass that is no dataclass, which Python would ignore without a word."""
        for cls in type(self).__mro__:
            if "__dataclass_fields__" in vars(cls):
                return
            for name in self.__dataclass_fields__.keys() & vars(cls).keys():
                yield f"class {cls.__name__} sets {name}, which counts only with @dataclass(frozen=True, kw_only=True)"

    def _pod_problems(self) -> Iterator[str]:
        """Yield what is wrong with the pod as a whole, once the single fields are right."""
        for name in self.server().port_variables:
            if name in (self.env or {}):
                yield f"env[{name!r}] is set by the template; give port= instead"
        pod = self.compile(Helper(image="helper", bundled=False))
        yield from lint(pod, ours={*_OURS, self.primary_container_name})

    def _resource_problems(self) -> Iterator[str]:
        yield from check.check_quantity("cpu", self.cpu)
        yield from check.check_quantity("mem", self.mem, memory=True)
        yield from check.check_quantity("download_inputs_cpu", self.download_inputs_cpu)
        yield from check.check_quantity("download_inputs_mem", self.download_inputs_mem, memory=True)
        for name in ("ephemeral_storage", "shm_size"):
            if getattr(self, name) is not None:
                yield from check.check_quantity(name, getattr(self, name), memory=True)
        if not isinstance(self.gpu, int) or isinstance(self.gpu, bool) or self.gpu < 0:
            yield f"gpu={self.gpu!r} must be a whole number, 0 for none"
        yield from check.check_resource_name("gpu_resource", self.gpu_resource)

    def _model_problems(self) -> Iterator[str]:
        yield from check.check_quantity("model_loader_cpu", self.model_loader_cpu)
        yield from check.check_quantity("model_loader_mem", self.model_loader_mem, memory=True)
        for name in ("update_interval", "startup_timeout"):
            value = getattr(self, name)
            if value is not None and (name, value) != ("startup_timeout", "auto"):
                yield from check.check_seconds(name, value, least=1)
        if self.model_cache is not None:
            yield from (f"model_cache: {problem}" for problem in check.check_volume_source(self.model_cache))
        try:
            source = self._source
        except ConfigError as error:
            yield str(error)
            return
        if source is not None:
            yield from model_problems(source, has_inputs=self.download_inputs)

    def _warnings(self) -> Iterator[str]:
        """Yield what the author of the description should know."""
        for secret in self._secrets():
            yield from secret.warnings()

    # The pod

    def compile(self, helper: Helper, *, bound_inputs: Iterable[str] = ()) -> Manifest:
        """Return the pod as a `v1/Pod` manifest that shares nothing with the template.

        Args:
            helper: The image that our own programs run in; `helper_image`, when given, goes before it.
            bound_inputs: Of a map task, the inputs that are the same for each element.

        Raises:
            SpecConflictError: If `base` and the template differ about one thing.
        """
        server = self.server()
        if self.helper_image is not None:
            helper = Helper(image=_image_name(self.helper_image), bundled=False)
        container = self._container(server)
        plan = plan_pod(
            container,
            around=self._surroundings(server, container, helper, bound_inputs),
            volumes=(*self._model_volumes(server), *server.volumes, *self._shm(), *self.volumes),
            primary=self.primary_container_name,
            image_pull_secrets=server.image_pull_secrets,
            enable_service_links=server.enable_service_links,
            fs_group=server.fs_group,
            termination_grace_period_seconds=self.grace_period_seconds,
        )
        manifest = compile_plan(plan)
        return manifest if self.base is None else merge_manifests(_manifest_of(self.base), manifest)

    def _hub_token(self, server: Server) -> SecretReference | None:
        secret = self._source.secret if isinstance(self._source, HuggingFaceModel) else None
        return secret.reference() if secret else server.hub_token

    def _secrets(self) -> tuple[SecretReference, ...]:
        """Return every secret of the pod, each once."""
        server = self.server()
        token = self._hub_token(server)
        return tuple(dict.fromkeys((*server.secrets, *((token,) if token else ()))))

    def _model_volumes(self, server: Server) -> tuple[Volume, ...]:
        return volumes_of(self._source, self.model_cache, has_adapters=bool(server.adapters))

    def _surroundings(
        self, server: Server, container: Container, helper: Helper, bound_inputs: Iterable[str]
    ) -> Surroundings:
        first = adapters = downloader = loader = gate = None
        token = self._hub_token(server)
        hub_token = token.env("HF_TOKEN") if token else ()
        if server.adapters:
            adapters = lora_downloader(
                helper,
                adapters=server.adapters,
                directory=server.adapters_directory,
                memory=format_quantity(server.adapters_mem),
                env=hub_token,
            )
        if self.download_inputs:
            resources = _quantities(self.download_inputs_cpu, self.download_inputs_mem)
            downloader = input_downloader(helper, resources=resources, bound_inputs=bound_inputs)
        if self._source is not None and not isinstance(self._source, VolumeModel):
            refuse_bare_helper(self._source, helper)
            loader = model_loader(
                helper,
                self._source.source,
                resources=_quantities(self.model_loader_cpu, self.model_loader_mem),
                env=hub_token,
                options=("--update-interval", str(_seconds(self.update_interval))) if self.update_interval else (),
                is_waited_for=self.startup_timeout is None or not container.command,
            )
        if self.startup_timeout is not None:
            tokens = tuple(dict.fromkeys((*self._token_variables(server), *hub_token)))
            size = bytes_of(self._source)
            first = preflight(helper, tokens=tokens, model_bytes=size) if tokens or size else None
            gate = self._gate(server, helper, loader is not None)
        return Surroundings(preflight=first, adapters=adapters, downloader=downloader, loader=loader, gate=gate)

    def _gate(self, server: Server, helper: Helper, has_loader: bool) -> Container:
        path = "/" + self.health_endpoint.lstrip("/") if self.health_endpoint else ""
        options: tuple[str, ...] = ()
        if server.served_model_name and server.model_api != "none":
            options += ("--api", server.model_api, "--model", server.served_model_name)
        if has_loader:
            options += ("--models", MODELS_DIRECTORY)
        if self.download_inputs:
            options += ("--inputs", INPUTS_FILE)
        url = f"http://localhost:{self.port}{path}"
        budget = self.startup_timeout
        seconds = startup_budget(self._source) if isinstance(budget, str) else _seconds(budget)
        return server_gate(helper, url=url, timeout_seconds=seconds or 0, options=options)

    def _token_variables(self, server: Server) -> tuple[EnvVar, ...]:
        """Return those of the server's variables that bring its secrets, and those that refer to them."""
        secret = {reference.variable for reference in server.secrets}
        return tuple(
            variable
            for variable in server.env
            if variable.name in secret or any(f"$({name})" == variable.value for name in secret)
        )

    @property
    def _source(self) -> Model | None:
        return parse_model(self.model) if isinstance(self.model, str) else self.model

    @property
    def model_path(self) -> str | None:
        """Where the server finds the model, or `None` when it finds its own."""
        return path_of(self._source) if self._source is not None else None

    def _container(self, server: Server) -> Container:
        return Container(
            name=MODEL_SERVER,
            image=_image_name(self.image),
            command=tuple(self.command or server.command),
            args=(*server.args, *(self.args or ())),
            env=self._environment(server),
            port=self.port,
            resources=self._resources(),
            probes=self._probes(),
            sidecar=True,
            security_context=self._security(server),
        )

    def _security(self, server: Server) -> dict[str, Any]:
        context = {**LEAST_PRIVILEGE, **server.security_context, **(self.security_context or {})}
        return {key: value for key, value in context.items() if value is not None}

    def _environment(self, server: Server) -> tuple[EnvVar, ...]:
        port = [EnvVar(name=name, value=str(self.port)) for name in (PORT_VARIABLE, *server.port_variables)]
        if self.model_path is not None:
            port.append(EnvVar(name=MODEL_PATH_VARIABLE, value=self.model_path))
        user = self.env or {}
        ours = (variable for variable in (*port, *server.env) if variable.name not in user)
        return (*ours, *(EnvVar(name=name, value=value) for name, value in user.items()))

    def _resources(self) -> dict[str, str]:
        quantities: dict[str, str | float | None] = {
            "cpu": self.cpu,
            "memory": self.mem,
            "ephemeral-storage": self.ephemeral_storage,
            self.gpu_resource: self.gpu or None,
        }
        return {name: format_quantity(value) for name, value in quantities.items() if value is not None}

    def _probes(self) -> Probes:
        own = self.probes or Probes()
        startup = Probe(failure_threshold=STARTUP_FAILURE_THRESHOLD) if self.health_endpoint else None
        return Probes(
            startup=self._with_path(own.startup or startup),
            readiness=self._with_path(own.readiness),
            liveness=self._with_path(own.liveness),
        )

    def _with_path(self, probe: Probe | None) -> Probe | None:
        return replace(probe, path=self.health_endpoint) if probe and probe.path is None else probe

    def _shm(self) -> tuple[Volume, ...]:
        if self.shm_size is None:
            return ()
        source = {"emptyDir": {"medium": "Memory", "sizeLimit": format_quantity(self.shm_size)}}
        return (Volume(name=f"{check.OUR_PREFIX}shm", source=source, mount_path="/dev/shm"),)

    def _reserved_variables(self) -> dict[str, str]:
        return {
            INPUTS_VARIABLE: "its place is fixed, read it",
            PROGRAMS_VARIABLE: "choose another name",
            PORT_VARIABLE: "give port= instead",
            MODEL_PATH_VARIABLE: "give model= instead",
        }

    @property
    def grace_period_seconds(self) -> int | None:
        """`termination_grace_period` in seconds."""
        return _seconds(self.termination_grace_period)

    def _detach(self) -> None:
        """Keep own copies of what the caller gave, so that no later change of theirs reaches this description."""
        for name in ("command", "args", "volumes"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in fields(self):
            object.__setattr__(self, field.name, copy.deepcopy(getattr(self, field.name)))

    # What users read

    @property
    def primary_container_name(self) -> str:
        """The name of the task's own container: that of `base`, else `primary`."""
        name: str = getattr(self.base, "primary_container_name", PRIMARY)
        return name

    @property
    def base_url(self) -> str:
        """Where the server answers: `http://localhost:{port}`.

        In a local run whose port was busy, the port that was taken instead.
        """
        local = sys.modules.get(f"{__package__}.flyte.local")
        port = local.port_of(self) if local else None
        return f"http://localhost:{port or self.port}"

    @property
    def manifest(self) -> Manifest:
        """The pod as plain Kubernetes dictionaries, as `pod_template` holds it."""
        from .flyte.pod_template import default_helper

        return self.compile(default_helper())

    @property
    def pod_template(self) -> PodTemplate:
        """A new flytekit `PodTemplate`; its `pod_spec` (a `kubernetes.client.V1PodSpec`) is made when first read."""
        from .flyte.pod_template import to_pod_template

        return to_pod_template(self)

    @property
    def secret_requests(self) -> list[Secret]:
        """The `flytekit.Secret`s to give to `@task(secret_requests=…)`."""
        from .flyte.secrets import to_secret_requests

        return to_secret_requests(self._secrets())

    def run_locally(
        self, inputs: Mapping[str, Any] | None = None, *, volumes: Mapping[str, str] | None = None
    ) -> AbstractContextManager[LocalServer]:
        """Run the pod's other containers on this machine, as long as the `with` block lasts.

        Args:
            inputs: The task's inputs, by name, for `download_inputs`.
            volumes: Directories for volumes that exist on a cluster only, such as claims, by the volume's name.

        Example:
            ```python
            with template.run_locally() as server:
                requests.get(f"{server.base_url}/health")
            ```

        Raises:
            UnsupportedError: If nothing on this machine can run the server.
            ServerError: If a container ends or the server does not become ready.
        """
        from .flyte.local import run_locally

        return run_locally(self, inputs or {}, volumes or {})


def _quantities(cpu: str | float, memory: str | float) -> dict[str, str]:
    return {"cpu": format_quantity(cpu), "memory": format_quantity(memory)}


def _seconds(period: int | timedelta | None) -> int | None:
    return int(period.total_seconds()) if isinstance(period, timedelta) else period


def _image_name(image: Any) -> str:
    """Return the reference of an image given as text or as flytekit's `ImageSpec`."""
    return image if isinstance(image, str) else str(image.image_name())


def _manifest_of(base: Any) -> Manifest:
    if not isinstance(base, Mapping):
        from .flyte.pod_template import manifest_of

        base = manifest_of(base)
    manifest: Manifest = normalised(base)
    return manifest


def _caller_depth() -> int:
    """Return the `stacklevel` of the first frame outside of this package and of the generated `__init__`."""
    depth, frame = 1, sys._getframe(1)
    package = __package__ or ""
    while frame.f_back and (
        frame.f_globals.get("__name__", "").startswith(package) or frame.f_code.co_name == "__init__"
    ):
        depth, frame = depth + 1, frame.f_back
    return depth


def __getattr__(name: str) -> Any:
    if name == "PodTemplate":
        from flytekit import PodTemplate

        return PodTemplate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
