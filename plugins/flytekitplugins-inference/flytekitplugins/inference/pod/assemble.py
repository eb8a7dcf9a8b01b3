"""Description → group: the containers of one model server. Group(s) → the plan of the whole pod."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
    TMP_DIRECTORY,
)
from .check import OUR_PREFIX
from .description import Description, seconds
from .helpers import (
    HELPER_USER,
    LEAST_PRIVILEGE,
    adapter_sources,
    input_downloader,
    lora_downloader,
    model_gate,
    model_loader,
    preflight,
    server_gate,
    server_setup,
)
from .model import TaskInputModel, VolumeModel, refuse_bare_helper, volumes_of
from .parts import MODEL_SERVER, Container, EnvVar, Helper, PodPlan, Probe, Probes, Volume
from .plan import Group, named, plan_pod
from .quantity import format_quantity, parse_quantity

__all__ = ["assemble", "cold_start_file"]


def assemble(
    servers: Mapping[str, Description],
    helper: Helper,
    *,
    primary: str,
    bound_inputs: Iterable[str] = (),
) -> PodPlan:
    """Return the plan of a pod with these servers.

    Args:
        servers: Descriptions by name; of a single one the name is empty.
        helper: The image that our own programs run in; a description's `helper_image` goes before
            it.
        primary: Name of the task's own container.
        bound_inputs: Of a map task, the inputs that are the same for each element.

    Raises:
        ConfigError: If the helper's image cannot bring a model.
        SpecConflictError: If two servers want something different of the pod.
    """
    helpers = {name: _helper(described, helper) for name, described in servers.items()}
    periods = [described.grace_period_seconds for described in servers.values()]
    return plan_pod(
        {
            name: _Assembly(described, helpers[name], name).group()
            for name, described in servers.items()
        },
        downloader=_downloader(servers, helpers, bound_inputs),
        primary=primary,
        termination_grace_period_seconds=max(
            (period for period in periods if period is not None), default=None
        ),
    )


def image_name(image: Any) -> str:
    """Return the reference of an image given as text or as flytekit's `ImageSpec`."""
    return image if isinstance(image, str) else str(image.image_name())


def _helper(described: Description, helper: Helper) -> Helper:
    own = described.helper_image
    return helper if own is None else Helper(image=image_name(own), bundled=False)


def _downloader(
    servers: Mapping[str, Description], helpers: Mapping[str, Helper], bound_inputs: Iterable[str]
) -> Container | None:
    """Return the one downloader of the pod, with the largest resources that a server wants for it."""
    wanting = {name: described for name, described in servers.items() if described.download_inputs}
    if not wanting:
        return None
    cpu = _largest(described.download_inputs_cpu for described in wanting.values())
    memory = _largest(described.download_inputs_mem for described in wanting.values())
    budgets = [
        bound for described in servers.values() if (bound := described.startup_seconds) is not None
    ]
    return input_downloader(
        helpers[next(iter(wanting))],
        resources={"cpu": cpu, "memory": memory},
        env=_start(max(budgets)) if budgets else (),
        bound_inputs=bound_inputs,
    )


def _start(seconds: int) -> tuple[EnvVar, ...]:
    """Return the variable by which every container that ends knows when the start has to be over."""
    return (
        EnvVar(
            name=START_VARIABLE, value=json.dumps({"seconds": seconds, "clock": START_CLOCK_FILE})
        ),
    )


def _largest(quantities: Iterable[Any]) -> str:
    return max(map(format_quantity, quantities), key=parse_quantity)


class _Assembly:
    """Makes the containers of one description.

    Args:
        described: A description without problems.
        helper: The image that our own programs run in.
        name: The server's name in a pod with several.
    """

    def __init__(self, described: Description, helper: Helper, name: str) -> None:
        self._is = described
        self._helper = helper
        self._name = name
        self._server = described.server()
        self._source = described.model_source
        token = described.hub_token
        # what reaches hubs, stores and registries: tokens, and the user's own variables
        self._loader_env = (
            *(token.env("HF_TOKEN") if token else ()),
            *(
                EnvVar(name=name, value=value)
                for name, value in (described.model_loader_env or {}).items()
            ),
        )
        key = described.api_key
        self._api_key = (
            key.env(self._server.api_key_variable) if key and self._server.api_key_variable else ()
        )

    def group(self) -> Group:
        server = self._server
        return Group(
            server=self._model_server(),
            preflight=self._preflight(),
            adapters=self._adapters(),
            loader=self._loader(),
            setup=server_setup(self._helper, server.setup, env=self._start)
            if server.setup
            else None,
            model_gate=self._model_gate(),
            gate=self._gate(),
            volumes=(
                *volumes_of(self._source, self._is.model_cache, has_adapters=bool(server.adapters)),
                *(*server.volumes, *self._shm(), *self._is.volumes),
            ),
            image_pull_secrets=server.image_pull_secrets,
            enable_service_links=server.enable_service_links,
            fs_group=server.fs_group or (HELPER_USER if self._writes_to_a_lent_volume else None),
        )

    @property
    def _is_gated(self) -> bool:
        return self._is.startup_timeout is not None

    @property
    def _is_loaded(self) -> bool:
        return self._source is not None and not isinstance(self._source, VolumeModel)

    @property
    def _writes_to_a_lent_volume(self) -> bool:
        """Whether the loader, which is no root, writes to a volume that root may own, as that of a new claim."""
        return self._is.model_cache is not None and (self._is_loaded or bool(self._server.adapters))

    @property
    def _start(self) -> tuple[EnvVar, ...]:
        bound = self._is.startup_seconds
        return () if bound is None else _start(bound)

    # The server

    def _model_server(self) -> Container:
        described, server = self._is, self._server
        return Container(
            name=MODEL_SERVER,
            image=image_name(described.image or described.default_image),
            command=self._command,
            args=(*server.args, *(described.args or ())),
            env=self._environment(),
            port=described.port,
            more_ports=server.more_ports,
            resources=self._resources(),
            probes=self._probes(),
            sidecar=True,
            security_context=self._security(),
        )

    @property
    def _command(self) -> tuple[str, ...]:
        return tuple(self._is.command or self._server.command)

    def _environment(self) -> tuple[EnvVar, ...]:
        described, server = self._is, self._server
        ours = [
            EnvVar(name=name, value=str(described.port))
            for name in (PORT_VARIABLE, *server.port_variables)
        ]
        if described.model_path is not None:
            ours.append(EnvVar(name=MODEL_PATH_VARIABLE, value=described.model_path))
        user = described.env or {}
        replaced = (
            variable
            for variable in (*ours, *self._api_key, *server.env)
            if variable.name not in user
        )
        return (*replaced, *(EnvVar(name=name, value=value) for name, value in user.items()))

    def _resources(self) -> dict[str, str]:
        described = self._is
        quantities: dict[str, str | float | None] = {
            "cpu": described.cpu,
            "memory": described.mem,
            "ephemeral-storage": described.ephemeral_storage,
            described.gpu_resource: described.gpu or None,
        }
        return {
            name: format_quantity(value) for name, value in quantities.items() if value is not None
        }

    def _probes(self) -> Probes:
        own, servers = self._is.probes or Probes(), self._server.probes
        usual = (
            Probe(failure_threshold=STARTUP_FAILURE_THRESHOLD) if self._is.health_endpoint else None
        )
        return Probes(
            startup=self._asking(
                own.startup or (usual and servers.startup) or usual, servers.startup
            ),
            readiness=self._asking(own.readiness, servers.readiness),
            liveness=self._asking(own.liveness, servers.liveness),
        )

    def _asking(self, probe: Probe | None, servers: Probe | None) -> Probe | None:
        """Return `probe` with the path that it lacks."""
        if probe is None or probe.path is not None or probe.command:
            return probe
        return replace(probe, path=(servers.path if servers else None) or self._is.health_endpoint)

    def _security(self) -> dict[str, Any]:
        context = {
            **LEAST_PRIVILEGE,
            **self._server.security_context,
            **(self._is.security_context or {}),
        }
        return {key: value for key, value in context.items() if value is not None}

    def _shm(self) -> tuple[Volume, ...]:
        size = self._is.shm_size or self._server.shm_size
        if size is None:
            return ()
        source = {"emptyDir": {"medium": "Memory", "sizeLimit": format_quantity(size)}}
        return (Volume(name=f"{OUR_PREFIX}shm", source=source, mount_path="/dev/shm"),)

    # What stands around it

    def _preflight(self) -> Container | None:
        variables = tuple(
            dict.fromkeys((*self._token_variables(), *self._api_key, *self._loader_env))
        )
        own = self._is.model_loader_env or {}
        required = [
            variable.name
            for variable in variables
            if variable.value is not None and variable.name not in own
        ]
        sources = self._sources_to_look_at()
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
        limit = self._is.model_cache_limit
        return ("--cache-limit", format_quantity(limit)) if limit is not None else ()

    def _sources_to_look_at(self) -> tuple[str, ...]:
        """Return the sources of model and adapters, without those that are there only later: inputs and volumes."""
        server, source = self._server, self._source
        model = (
            ()
            if source is None or isinstance(source, TaskInputModel | VolumeModel)
            else source.source
        )
        # adapters are brought by an image of their own when the helper's has no client of the hub
        adapters = {} if self._helper.bundled else server.adapters
        return model + adapter_sources(adapters, server.adapters_directory)

    def _token_variables(self) -> tuple[EnvVar, ...]:
        """Return those of the server's variables that bring its secrets, and those that refer to them."""
        secret = {reference.variable for reference in self._server.secrets}
        return tuple(
            variable
            for variable in self._server.env
            if variable.name in secret or any(f"$({name})" == variable.value for name in secret)
        )

    def _adapters(self) -> Container | None:
        server = self._server
        if not server.adapters:
            return None
        return lora_downloader(
            self._helper,
            adapters=server.adapters,
            directory=server.adapters_directory,
            state=named(f"{TMP_DIRECTORY}/loras", self._name),
            memory=format_quantity(server.adapters_mem),
            env=(*self._loader_env, *self._start),
            options=self._cache_limit,
        )

    def _loader(self) -> Container | None:
        described, source = self._is, self._source
        if source is None or isinstance(source, VolumeModel):
            return None
        refuse_bare_helper(source, self._helper)
        interval = seconds(described.update_interval)
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
        described = self._is
        return {
            "cpu": format_quantity(described.model_loader_cpu),
            "memory": format_quantity(described.model_loader_mem),
        }

    def _model_gate(self) -> Container | None:
        """Return what holds back a server that cannot wait by itself until its model is there, or ends the pod."""
        bound = self._is.startup_seconds
        if bound is None or self._command or not self._is_loaded:
            return None
        return model_gate(self._helper, timeout_seconds=bound, env=self._start)

    def _gate(self) -> Container | None:
        described, server = self._is, self._server
        bound = described.startup_seconds
        if bound is None:
            return None
        path = "/" + described.health_endpoint.lstrip("/") if described.health_endpoint else ""
        options: tuple[str, ...] = ()
        if server.served_model_name and server.model_api != "none" and server.lists_models:
            options += ("--api", server.model_api)
            wanted = (server.served_model_name, *server.more_models)
            options += tuple(word for name in wanted for word in ("--model", name))
        if self._is_loaded:
            options += ("--models", MODELS_DIRECTORY)
        if described.download_inputs:
            options += ("--inputs", INPUTS_FILE)
        if self._api_key:
            options += ("--token-env", server.api_key_variable)
        return server_gate(
            self._helper,
            url=f"http://localhost:{described.port}{path}",
            timeout_seconds=bound,
            report=cold_start_file(self._name),
            options=options,
            env=(*self._api_key, *self._start),
        )


def cold_start_file(name: str) -> str:
    """Return the file that holds what the start of a server took."""
    stem, dot, suffix = COLD_START_FILE.rpartition(".")
    return f"{named(stem, name)}{dot}{suffix}"
