"""`ModelInferenceTemplate`: the description of a model server that runs beside a Flyte task.

A description is frozen data. It performs no I/O, imports neither flytekit nor kubernetes, and may
be made again in the task's pod, where the user's module is imported once more. A variant of it is
`dataclasses.replace(template, …)`.

`PodTemplate` (flytekit's) can be imported from here too; it is looked up on access.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from .client.methods import ClientMethods
from .client.protocols import Protocol_co
from .errors import ConfigError
from .pod import check
from .pod.assemble import assemble, cold_start_file
from .pod.compile import Manifest, compile_plan
from .pod.description import OUR_CONTAINERS, Description
from .pod.lint import lint
from .pod.merge import merge_manifests, normalise
from .pod.parts import PRIMARY, Helper, Probe, Probes, Volume
from .pod.plan import named
from .pod.secrets import SecretReference
from .pod.server import Server, Setup
from .pod.whole_numbers import read_whole_numbers
from .public_dataclass import PublicDataclass

if TYPE_CHECKING:
    from pathlib import Path

    from flytekit import PodTemplate, Secret
    from typing_extensions import Self

    from .client.endpoint import Endpoint
    from .client.report import Report
    from .flyte.local_run import LocalServer

__all__ = [
    "InferenceWarning",
    "ModelInferenceTemplate",
    "PodDescription",
    "PodTemplate",
    "Probe",
    "Probes",
    "Server",
    "Setup",
    "Volume",
]

_POD_TYPE_HOOKS: list[Callable[[type[PodDescription]], None]] = []
"""Called with each new kind of pod; how the edge to flytekit learns of them."""

_LOCAL_SERVER_HOOKS: list[Callable[[ModelInferenceTemplate], LocalServer | None]] = []
"""Asked for a template's server on this machine; how templates learn of local runs, none of which
there is before the edge has been imported."""


class InferenceWarning(UserWarning):
    """Something in a description works, but not everywhere or not as its author may think."""


@dataclass(frozen=True, kw_only=True)
class PodDescription(PublicDataclass):
    """A task's pod with its model servers: what can be attached to a task and run on one machine.

    Attach it to a task with `@task(task_config=…)`, which also runs it on a machine without a
    cluster, or with `@task(pod_template=….pod_template, secret_requests=….secret_requests)`.
    """

    base: PodTemplate | Mapping[str, Any] | None = None
    """The user's own pod to start from: node selectors, tolerations, service account, volumes,
    labels. A flytekit `PodTemplate` or a `v1/Pod` manifest; merged by name, add-only, never
    changed."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for hook in _POD_TYPE_HOOKS:
            hook(cls)

    @classmethod
    def _belongs_elsewhere(cls, keyword: str) -> str:
        from .pod.foreign_keywords import place_of

        return place_of(keyword, cls.__dataclass_fields__)

    @property
    def servers(self) -> Mapping[str, ModelInferenceTemplate]:
        """The model servers by name; the name of a single one is empty."""
        raise NotImplementedError

    def compile(self, helper: Helper, *, bound_inputs: Iterable[str] = ()) -> Manifest:
        """Return the pod as a `v1/Pod` manifest that shares nothing with the description.

        Args:
            helper: The image that our own programs run in; `helper_image`, when given, goes before
                it.
            bound_inputs: Of a map task, the inputs that are the same for each element.

        Raises:
            ConfigError: If the helper's image cannot bring a model.
            SpecConflictError: If `base` and the description, or two servers, differ about one
                thing.
        """
        plan = assemble(
            self.servers, helper, primary=self.primary_container_name, bound_inputs=bound_inputs
        )
        manifest = compile_plan(plan)
        return manifest if self.base is None else merge_manifests(_manifest_of(self.base), manifest)

    @property
    def primary_container_name(self) -> str:
        """The name of the task's own container: that of `base`, else `primary`."""
        name: str = getattr(self.base, "primary_container_name", PRIMARY)
        return name

    def with_servers(
        self, change: Callable[[ModelInferenceTemplate], ModelInferenceTemplate]
    ) -> Self:
        """Return this pod with each of its servers changed."""
        raise NotImplementedError

    @property
    def primary_image(self) -> str | None:
        """The image that `base` gives the task's own container; flytekit puts it first."""
        containers = (
            _manifest_of(self.base)["spec"].get("containers", ()) if self.base is not None else ()
        )
        named = (
            container
            for container in containers
            if container["name"] == self.primary_container_name
        )
        return next((container.get("image") for container in named), None)

    @property
    def base_metadata(self) -> Manifest:
        """The pod's labels and annotations: `base` alone gives them, so nothing is compiled."""
        metadata: Manifest = (
            _manifest_of(self.base).get("metadata", {}) if self.base is not None else {}
        )
        return metadata

    @property
    def secret_references(self) -> tuple[SecretReference, ...]:
        """Every secret of the pod, each once."""
        return tuple(
            dict.fromkeys(
                secret for server in self.servers.values() for secret in server.secret_references
            )
        )

    @property
    def manifest(self) -> Manifest:
        """The pod as plain Kubernetes dictionaries, as `pod_template` holds it.

        Raises:
            ConfigError: If `model=` is of a hub or registry and no `helper_image` is given:
                flytekit's default image cannot bring it. `task_config=` does not read this; there
                the helpers run on the task's image.
        """
        from .flyte.pod_template import default_helper

        return self.compile(default_helper())

    @property
    def pod_template(self) -> PodTemplate:
        """A new flytekit `PodTemplate`, whose `pod_spec` is made when it is first read.

        It is a `kubernetes.client.V1PodSpec`. Reading it raises what reading `manifest` does.
        """
        from .flyte.pod_template import default_helper, to_pod_template, warn_of_images

        warn_of_images(self)
        return to_pod_template(self, default_helper)

    @property
    def secret_requests(self) -> list[Secret]:
        """The `flytekit.Secret`s to give to `@task(secret_requests=…)`."""
        from .flyte.secret_requests import to_secret_requests

        return to_secret_requests(self.secret_references)

    def report(self, *, path: str | Path | None = None) -> Report:
        """Return what the servers did so far, as a page and as numbers; see `Endpoint.report`.

        With `@task(task_config=…, enable_deck=True)` it is in the task's Deck without being asked
        for.

        Args:
            path: A directory into which both are also written.
        """
        from .client.report import report

        return report([server.endpoint for server in self.servers.values()], path=path)

    def _run_locally(
        self, inputs: Mapping[str, Any] | None, volumes: Mapping[str, str] | None
    ) -> AbstractContextManager[Mapping[str, LocalServer]]:
        from .flyte.local_run import run_locally

        return run_locally(self, inputs or {}, volumes or {})

    def lint(self) -> list[str]:
        """Return what Kubernetes would refuse, or accept and then hang on, in the compiled pod."""
        ours = {named(container, server) for container in OUR_CONTAINERS for server in self.servers}
        pod = self.compile(Helper(image="helper", bundled=False))
        return lint(pod, ours={*OUR_CONTAINERS, *ours, self.primary_container_name})

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields."""
        if self.base is not None:
            yield from check.check_base(self.base)

    def settle(self) -> None:
        """End the making of a frozen description: check it, and copy all that it was given.

        Whole numbers that were given as text become numbers before anything looks at them.

        Raises:
            ConfigError: Lists every problem.
        """
        read_whole_numbers(self)
        found = list(self.problems())
        if not found:
            for field in fields(self):
                object.__setattr__(self, field.name, _own_copy(getattr(self, field.name)))
            found = self.lint()
        if found:
            count = "a problem" if len(found) == 1 else f"{len(found)} problems"
            raise ConfigError(f"{type(self).__name__}(…) has {count}:", problems=found)


@dataclass(frozen=True, kw_only=True)
class ModelInferenceTemplate(Description, PodDescription, ClientMethods[Protocol_co]):
    """A model server of any image, run as a native Kubernetes sidecar beside a task.

    Attach it to a task with `@task(task_config=template)`, which also runs it on a machine without
    a cluster, or with `@task(pod_template=template.pod_template,
    secret_requests=template.secret_requests)`.

    Raises:
        ConfigError: If the description is wrong; lists every problem of it.
        SpecConflictError: If `base` and the template differ about one thing.

    Example:
        ```python
        template = ModelInferenceTemplate(
            image="registry/my-server:1.0", health_endpoint="/health", port=8080, gpu=0
        )
        ```
    """

    def __post_init__(self) -> None:
        self.settle()
        for text in self.cautions():
            warnings.warn(text, InferenceWarning, stacklevel=_caller_depth())

    def lint(self) -> list[str]:
        """Return what is wrong with the pod as a whole, once the single fields are right."""
        own = self.env or {}
        taken = [name for name in self.server().port_variables if name in own]
        found = [f"env[{name!r}] is set by the template; give port= instead" for name in taken]
        if self.api_key and not self.server().api_key_variable:
            found.append(
                f"api_key_secret: {type(self).__name__} reads no key from a variable; leave it out"
            )
        return found + super().lint()

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields; a server's room adds to it."""
        yield from super().problems()
        yield from PodDescription.problems(self)

    @property
    def servers(self) -> Mapping[str, ModelInferenceTemplate]:
        """This one server, without a name."""
        return {"": self}

    def with_servers(
        self, change: Callable[[ModelInferenceTemplate], ModelInferenceTemplate]
    ) -> Self:
        """Return this one server changed."""
        return cast("Self", change(self))

    @property
    def base_url(self) -> str:
        """Where the server answers: `http://localhost:{port}`.

        In a local run whose port was busy, the port that was taken instead; and what the variable
        `INFERENCE_URL` says, if it is set (`INFERENCE_URL_<NAME>` for one of several servers).

        Raises:
            ConfigError: If that variable holds no address.
            ServerError: Read in a thread that cannot tell which of several local servers is its
                function's.
        """
        return self.endpoint.url

    @property
    def endpoint(self) -> Endpoint[Protocol_co]:
        """Where the server answers and how it is spoken to.

        Address, protocol, the model's name, readiness and metrics.

        Raises:
            ConfigError: If the variable `INFERENCE_URL` holds no address.
            ServerError: Read in a thread that cannot tell which of several local servers is its
                function's.
        """
        from .client.endpoint import Endpoint, ServerDetails, from_environment

        server, here = self.server(), self._local_server
        url = here.base_url if here else f"http://localhost:{self.port}"
        metrics_port = server.metrics_port or self.port
        port = here.pod.port(metrics_port) if here else metrics_port
        metrics = f"http://localhost:{port}{server.metrics_path}"
        report = cold_start_file(self.name)
        endpoint = Endpoint(
            url=url,
            protocol=cast("Protocol_co", server.model_api),
            model=server.served_model_name,
            health_url=f"{url}/{self.health_endpoint.lstrip('/')}"
            if self.health_endpoint
            else None,
            metrics_url=metrics if server.metrics_path else None,
            api_key=self._api_key_here(),
            cold_start=(str(here.pod.path(report)) if here else report)
            if self.startup_timeout
            else None,
            about=ServerDetails(
                name=self.name,
                kind=type(self).__name__,
                model=self.model_source.name if self.model_source else "",
                image=image if isinstance(image := self.image or self.default_image, str) else "",
                gpus=self.gpu,
                cpu=str(self.cpu),
                mem=self.mem,
                metric_names=server.metric_names,
            ),
        )
        elsewhere = from_environment(self.name)
        return endpoint.at(elsewhere[0], api_key=elsewhere[1]) if elsewhere else endpoint

    def _api_key_here(self) -> str:
        """Return the server's API key, which a task gets by its secret requests; else nothing."""
        return os.environ.get(self.api_key.variable, "") if self.api_key else ""

    def at(self, url: str, *, api_key: str = "") -> Endpoint[Protocol_co]:
        """Return the endpoint of a server of this kind that runs elsewhere, for the same clients.

        Args:
            url: Where its API begins.
            api_key: Sent as a bearer token.

        Raises:
            ConfigError: If it is no address.
        """
        return self.endpoint.at(url, api_key=api_key)

    def _endpoint(self) -> Endpoint[Protocol_co]:
        return self.endpoint

    @property
    def _local_server(self) -> LocalServer | None:
        servers = (look_up(self) for look_up in _LOCAL_SERVER_HOOKS)
        return next((server for server in servers if server is not None), None)

    @contextlib.contextmanager
    def run_locally(
        self, inputs: Mapping[str, Any] | None = None, *, volumes: Mapping[str, str] | None = None
    ) -> Iterator[LocalServer]:
        """Run the pod's other containers on this machine, as long as the `with` block lasts.

        Args:
            inputs: The task's inputs, by name, for `download_inputs`.
            volumes: Directories for volumes that exist on a cluster only, such as claims, by the
                volume's name.

        Example:
            ```python
            with template.run_locally() as server:
                requests.get(f"{server.base_url}/health")
            ```

        Raises:
            UnsupportedError: If nothing on this machine can run the server.
            ServerError: If a container ends or the server does not become ready.
        """
        with self._run_locally(inputs, volumes) as servers:
            yield servers[""]


def _own_copy(value: Any) -> Any:
    """Return what no later change of the caller's reaches."""
    return tuple(copy.deepcopy(value)) if isinstance(value, list) else copy.deepcopy(value)


def _manifest_of(base: Any) -> Manifest:
    if not isinstance(base, Mapping):
        from .flyte.pod_template import manifest_of

        base = manifest_of(base)
    manifest: Manifest = normalise(base)
    return manifest


def _caller_depth() -> int:
    """Return the `stacklevel` of the first frame outside of this package and of any `__init__`."""
    depth, frame = 1, sys._getframe(1)
    package = __package__ or ""
    while frame.f_back and (
        frame.f_globals.get("__name__", "").startswith(package)
        or frame.f_code.co_name == "__init__"
    ):
        depth, frame = depth + 1, frame.f_back
    return depth


def __getattr__(name: str) -> Any:
    if name == "PodTemplate":
        from flytekit import PodTemplate

        return PodTemplate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
