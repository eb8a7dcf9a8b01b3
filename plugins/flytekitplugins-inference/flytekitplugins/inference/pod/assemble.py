"""Assembles descriptions into containers of each model server, and these into the pod's plan."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..facts.readiness import STARTUP_FAILURE_THRESHOLD
from ..programs.protocol import (
    COLD_START_FILE,
    INPUTS_FILE,
    MODEL_PATH_VARIABLE,
    MODELS_DIRECTORY,
    PORT_VARIABLE,
    START_CLOCK_FILE,
    START_VARIABLE,
    SUMMARY_FILE,
    TMP_DIRECTORY,
)
from .check import OUR_PREFIX
from .description import Description, seconds
from .exporter import exporter_arguments, with_exporter_probes
from .helpers import (
    HELPER_USER,
    LEAST_PRIVILEGE,
    adapter_sources,
    adapter_volumes,
    input_downloader,
    lora_downloader,
    metrics_exporter,
    model_gate,
    model_loader,
    preflight,
    server_gate,
    server_setup,
)
from .model import TaskInputModel, VolumeModel, refuse_bare_helper, volumes_of
from .parts import MODEL_SERVER, Container, EnvVar, Helper, PodPlan, Probe, Probes, Volume
from .plan import ServerContainers, named, plan_pod
from .quantity import format_quantity, parse_quantity

__all__ = ["assemble", "cold_start_file"]

DEFAULT_GRACE_SECONDS = 30
"""What Kubernetes gives a pod that does not say."""


def assemble(
    servers: Mapping[str, Description],
    helper: Helper,
    *,
    primary: str,
    bound_inputs: Iterable[str] = (),
) -> PodPlan:
    """Return the plan of a pod with these servers.

    Args:
        servers: Descriptions by name; the name of a single one is empty.
        helper: The image that our own programs run in; a description's `helper_image` takes
            precedence.
        primary: Name of the task's own container.
        bound_inputs: The inputs of a map task that are the same for each element.

    Raises:
        ConfigError: If the helper's image cannot download a model.
        SpecConflictError: If two servers need different settings of the pod.
    """
    helpers = {name: _helper(description, helper) for name, description in servers.items()}
    return plan_pod(
        {
            name: _Assembly(description, helpers[name], name).containers()
            for name, description in servers.items()
        },
        downloader=_downloader(servers, helpers, bound_inputs),
        primary=primary,
        termination_grace_period_seconds=_grace_period(servers.values()),
    )


def _grace_period(servers: Collection[Description]) -> int | None:
    """Return the seconds between SIGTERM and SIGKILL; Kubernetes has one period for the whole pod.

    Sidecars stop one after the other within it, in the reverse of their order (seen with Kubernetes
    1.36), so it has to last for all servers.
    """
    periods = [description.grace_period_seconds for description in servers]
    if len(periods) == 1:
        return periods[0]
    return sum(DEFAULT_GRACE_SECONDS if period is None else period for period in periods)


def image_name(image: Any) -> str:
    """Return the reference of an image given as text or as flytekit's `ImageSpec`."""
    return image if isinstance(image, str) else str(image.image_name())


def _helper(description: Description, helper: Helper) -> Helper:
    # an image that the user names must hold this package, so nothing travels in the pod
    own = description.helper_image
    return helper if own is None else Helper(image=image_name(own), bundled=False)


def _downloader(
    servers: Mapping[str, Description], helpers: Mapping[str, Helper], bound_inputs: Iterable[str]
) -> Container | None:
    """Return the pod's only downloader, with the largest resources that a server requests."""
    consumers = {
        name: description for name, description in servers.items() if description.download_inputs
    }
    if not consumers:
        return None
    cpu = _largest(description.download_inputs_cpu for description in consumers.values())
    memory = _largest(description.download_inputs_mem for description in consumers.values())
    # all servers share the downloader, so the shortest budget must not end the start of another one
    budgets = [
        bound
        for description in servers.values()
        if (bound := description.startup_seconds) is not None
    ]
    return input_downloader(
        # of the first server that wants the inputs: the program is the same in each image
        helpers[next(iter(consumers))],
        resources={"cpu": cpu, "memory": memory},
        env=_start(max(budgets)) if budgets else (),
        bound_inputs=bound_inputs,
    )


def _start(seconds: int) -> tuple[EnvVar, ...]:
    """Return the variable with the budget of the start, for every container that ends."""
    return (
        EnvVar(
            name=START_VARIABLE, value=json.dumps({"seconds": seconds, "clock": START_CLOCK_FILE})
        ),
    )


def _largest(quantities: Iterable[Any]) -> str:
    return max(map(format_quantity, quantities), key=parse_quantity)


class _Assembly:
    """Builds the containers of one description.

    Args:
        description: A valid description.
        helper: The image that our own programs run in.
        name: The server's name in a pod with several servers.
    """

    def __init__(self, description: Description, helper: Helper, name: str) -> None:
        self._description = description
        self._helper = helper
        self._name = name
        self._server = description.server()
        self._source = description.model_source
        token = description.hub_token
        # the loader's access to hubs, stores and registries: tokens, and the user's own variables
        self._loader_env = (
            *(token.env("HF_TOKEN") if token else ()),
            *(
                EnvVar(name=name, value=value)
                for name, value in (description.model_loader_env or {}).items()
            ),
        )
        key = description.api_key
        self._api_key = (
            key.env(self._server.api_key_variable) if key and self._server.api_key_variable else ()
        )

    def containers(self) -> ServerContainers:
        server, description = self._server, self._description
        return ServerContainers(
            model_server=self._model_server(),
            exporter=self._exporter(),
            preflight=self._preflight(),
            adapters=self._adapters(),
            loader=self._loader(),
            setup=server_setup(self._helper, server.setup, env=self._start)
            if server.setup
            else None,
            model_gate=self._model_gate(),
            gate=self._gate(),
            volumes=(
                *volumes_of(
                    self._source, self._description.model_cache, has_adapters=bool(server.adapters)
                ),
                *(*server.volumes, *adapter_volumes(server.adapters)),
                *(*self._shm(), *self._description.volumes),
            ),
            image_pull_secrets=server.image_pull_secrets,
            enable_service_links=server.enable_service_links,
            stop_seconds=description.stop_seconds,
            fs_group=server.fs_group or (HELPER_USER if self._writes_to_a_lent_volume else None),
        )

    @property
    def _is_gated(self) -> bool:
        return self._description.is_bounded

    @property
    def _is_loaded(self) -> bool:
        return self._source is not None and not isinstance(self._source, VolumeModel)

    @property
    def _writes_to_a_lent_volume(self) -> bool:
        """Whether the loader writes to a volume that root may own."""
        # root owns the volume of a new claim, and the loader runs as another user
        return self._description.model_cache is not None and (
            self._is_loaded or bool(self._server.adapters)
        )

    @property
    def _start(self) -> tuple[EnvVar, ...]:
        bound = self._description.startup_seconds
        return () if bound is None else _start(bound)

    # The server

    def _model_server(self) -> Container:
        description = self._description
        server = self._server
        return Container(
            name=MODEL_SERVER,
            image=image_name(description.image or description.default_image),
            command=self._command,
            args=(*server.args, *(description.args or ())),
            env=self._environment(),
            port=description.port,
            more_ports=server.more_ports,
            resources=self._resources(),
            probes=self._probes(),
            sidecar=True,
            security_context=self._security(),
        )

    @property
    def _command(self) -> tuple[str, ...]:
        return tuple(self._description.command or self._server.command)

    def _environment(self) -> tuple[EnvVar, ...]:
        description = self._description
        server = self._server
        # a command may name its port and its model by these, and a local run replaces their values
        ours = [
            EnvVar(name=name, value=str(description.port))
            for name in (PORT_VARIABLE, *server.port_variables)
        ]
        if description.model_path is not None:
            ours.append(EnvVar(name=MODEL_PATH_VARIABLE, value=description.model_path))
        user = description.env or {}
        # the user's variables come last, so they can refer to ours: Kubernetes expands `$(X)` only
        # if X is defined before
        defaults = (
            variable
            for variable in (*ours, *self._api_key, *server.env)
            if variable.name not in user
        )
        return (*defaults, *(EnvVar(name=name, value=value) for name, value in user.items()))

    def _resources(self) -> dict[str, str]:
        description = self._description
        quantities: dict[str, str | float | None] = {
            "cpu": description.cpu,
            "memory": description.mem,
            "ephemeral-storage": description.ephemeral_storage,
            description.gpu_resource: description.gpu or None,
        }
        return {
            name: format_quantity(value) for name, value in quantities.items() if value is not None
        }

    def _probes(self) -> Probes:
        own, servers = self._description.probes or Probes(), self._server.probes
        default = (
            Probe(failure_threshold=STARTUP_FAILURE_THRESHOLD)
            if self._description.health_endpoint
            else None
        )
        probes = Probes(
            startup=self._with_path(
                own.startup or (default and servers.startup) or default, servers.startup
            ),
            readiness=self._with_path(own.readiness, servers.readiness),
            liveness=self._with_path(own.liveness, servers.liveness),
        )
        exporter = self._description.exporter
        if exporter is None or not self._description.judges_progress:
            return probes
        return with_exporter_probes(probes, exporter, is_gated=self._is_gated)

    def _with_path(self, probe: Probe | None, servers: Probe | None) -> Probe | None:
        """Return `probe` with a path: its own, else the server's, else the health endpoint."""
        if probe is None or probe.path is not None or probe.command:
            return probe
        return replace(
            probe, path=(servers.path if servers else None) or self._description.health_endpoint
        )

    def _security(self) -> dict[str, Any]:
        # the user's fields win, and a user's `None` removes one
        context = {
            **LEAST_PRIVILEGE,
            **self._server.security_context,
            **(self._description.security_context or {}),
        }
        return {key: value for key, value in context.items() if value is not None}

    def _shm(self) -> tuple[Volume, ...]:
        size = self._description.shm_size or self._server.shm_size
        if size is None:
            return ()
        # a runtime gives 64 MiB, and `@task(shared_memory=)` reaches only the primary
        source = {"emptyDir": {"medium": "Memory", "sizeLimit": format_quantity(size)}}
        return (Volume(name=f"{OUR_PREFIX}shm", source=source, mount_path="/dev/shm"),)

    # The containers around it

    def _preflight(self) -> Container | None:
        variables = tuple(
            dict.fromkeys((*self._token_variables(), *self._api_key, *self._loader_env))
        )
        # only secrets can fail to arrive; the user's own values are always there
        own = self._description.model_loader_env or {}
        required = [
            variable.name
            for variable in variables
            if variable.value is not None and variable.name not in own
        ]
        sources = self._reachable_sources()
        # without a gate, the pod keeps the documented order, which has no such container
        if not self._is_gated or not (required or sources):
            return None
        return preflight(
            self._helper,
            required=required,
            sources=(*sources, *self._cache_limit) if sources else (),
            resources=self._loader_resources(),
            env=(*variables, *self._start),
        )

    @property
    def _cache_limit(self) -> tuple[str, ...]:
        limit = self._description.model_cache_limit
        return ("--cache-limit", format_quantity(limit)) if limit is not None else ()

    def _reachable_sources(self) -> tuple[str, ...]:
        """Return the sources of model and adapters that exist before the pod starts."""
        server, source = self._server, self._source
        model = (
            ()
            if source is None or isinstance(source, TaskInputModel | VolumeModel)
            else source.source
        )
        # without the hub's client in the helper's image, another image downloads the adapters, and
        # the preflight cannot check them
        return model + adapter_sources(None if self._helper.bundled else server.adapters)

    def _token_variables(self) -> tuple[EnvVar, ...]:
        """Return the server's variables that hold its secrets, or refer to them."""
        secret = {reference.variable for reference in self._server.secrets}
        return tuple(
            variable
            for variable in self._server.env
            if variable.name in secret or any(f"$({name})" == variable.value for name in secret)
        )

    def _adapters(self) -> Container | None:
        adapters = self._server.adapters
        if adapters is None:
            return None
        return lora_downloader(
            self._helper,
            adapters,
            state=named(f"{TMP_DIRECTORY}/loras", self._name),
            env=(*self._loader_env, *self._start),
            options=self._cache_limit,
        )

    def _loader(self) -> Container | None:
        description = self._description
        source = self._source
        if source is None or isinstance(source, VolumeModel):
            return None
        refuse_bare_helper(source, self._helper)
        interval = seconds(description.update_interval)
        updates = (
            ("--update-interval", str(interval), *self._server.update_options) if interval else ()
        )
        return model_loader(
            self._helper,
            source.source,
            resources=self._loader_resources(),
            env=self._loader_env,
            options=(*self._cache_limit, *updates),
            is_probed=not self._is_gated,
        )

    def _loader_resources(self) -> dict[str, str]:
        description = self._description
        return {
            "cpu": format_quantity(description.model_loader_cpu),
            "memory": format_quantity(description.model_loader_mem),
        }

    def _model_gate(self) -> Container | None:
        """Return the gate of a server that cannot wait for its model by itself."""
        bound = self._description.startup_seconds
        # only a known command can be made to wait; an image's own entry point cannot
        if bound is None or self._command or not self._is_loaded:
            return None
        return model_gate(self._helper, timeout_seconds=bound, env=self._start)

    def _gate(self) -> Container | None:
        description = self._description
        server = self._server
        bound = description.startup_seconds
        if bound is None:
            return None
        options: tuple[str, ...] = ()
        # a server may be healthy before its model is there, so the gate looks for its name too
        if server.served_model_name and server.model_api != "none" and server.lists_models:
            options += ("--api", server.model_api)
            names = (server.served_model_name, *server.more_models)
            options += tuple(word for name in names for word in ("--model", name))
        # the gate then names the loader's fault and not only the server that waits for it
        if self._is_loaded:
            options += ("--models", MODELS_DIRECTORY)
        if description.download_inputs:
            options += ("--inputs", INPUTS_FILE)
        if self._api_key:
            options += ("--token-env", server.api_key_variable)
        return server_gate(
            self._helper,
            url=self._health_url,
            timeout_seconds=bound,
            report=cold_start_file(self._name),
            options=options,
            env=(*self._api_key, *self._start),
        )

    def _exporter(self) -> Container | None:
        description = self._description
        server = self._server
        exporter = description.exporter
        if exporter is None:
            return None
        options: tuple[str, ...] = ("--health", self._health_url)
        if server.served_model_name:
            options += ("--model", server.served_model_name)
            if server.model_api != "none" and server.lists_models:
                options += ("--api", server.model_api)
        if self._is_loaded:
            options += ("--models", MODELS_DIRECTORY)
        if self._is_gated:
            options += ("--start-report", cold_start_file(self._name))
        if self._api_key:
            options += ("--token-env", server.api_key_variable)
        kind = type(description).__name__.lower()
        args = exporter_arguments(exporter, server, port=description.port, kind=kind)
        summary = ("--summary", _file_of(SUMMARY_FILE, self._name))
        return metrics_exporter(
            self._helper, exporter, (*args, *options, *summary), env=self._api_key
        )

    @property
    def _health_url(self) -> str:
        endpoint = self._description.health_endpoint
        path = "/" + endpoint.lstrip("/") if endpoint else ""
        return f"http://localhost:{self._description.port}{path}"


def cold_start_file(name: str) -> str:
    """Return the file of the report on a server's start."""
    return _file_of(COLD_START_FILE, name)


def _file_of(path: str, server: str) -> str:
    """Return the path of a file that each server of a pod has."""
    stem, dot, suffix = path.rpartition(".")
    return f"{named(stem, server)}{dot}{suffix}"
