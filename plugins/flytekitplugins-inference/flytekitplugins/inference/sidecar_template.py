"""`ModelInferenceTemplate`: the description of a model server that runs beside a Flyte task.

A description is frozen data. It performs no I/O and imports neither flytekit nor kubernetes. It is
created again in the task's pod, which imports the user's module once more.
`dataclasses.replace(template, …)` returns a variant of it.

flytekit's `PodTemplate` can be imported from here too; it is looked up on access.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .client.methods import ClientMethods
from .client.protocols import Protocol_co
from .errors import ConfigError
from .pod import check
from .pod.assemble import assemble, cold_start_file
from .pod.compile import Manifest, compile_plan
from .pod.description import OUR_CONTAINERS, UNSET, Description
from .pod.images import REGISTRY_VARIABLE, mirror_problems, parse_mirrors, with_mirrors
from .pod.lint import lint
from .pod.merge import merge_manifests, normalise
from .pod.parts import PRIMARY, Helper, Probe, Probes, Volume
from .pod.plan import named
from .pod.secrets import SecretReference
from .pod.server import Server, Setup
from .pod.whole_numbers import read_whole_numbers
from .public_dataclass import PublicDataclass

if TYPE_CHECKING:
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
"""Called with each new subclass of `PodDescription`; the flytekit edge registers itself here, since
this module must not import it."""

_LOCAL_SERVER_HOOKS: list[Callable[[ModelInferenceTemplate], LocalServer | None]] = []
"""Return a template's server on this machine, if it runs. The module of local runs registers itself
here; before it is imported there are no local runs."""


class InferenceWarning(UserWarning):
    """A description is valid, but may not work everywhere or not as its author expects."""


@dataclass(frozen=True, kw_only=True)
class PodDescription(PublicDataclass):
    """A task's pod with its model servers, which can be attached to a task or run on one machine.

    Attach it to a task with `@task(task_config=…)`, which also runs it on a machine without a
    cluster, or with `@task(pod_template=….pod_template, secret_requests=….secret_requests)`.
    """

    base: PodTemplate | Mapping[str, Any] | None = None
    """The user's own pod as a starting point: node selectors, tolerations, service account,
    volumes, labels. A flytekit `PodTemplate` or a `v1/Pod` manifest. The servers are merged into it
    by name; what it sets is never changed."""
    images: Mapping[str, str] | None = None
    """Mirrors and pins for the images of our containers: a registry, a repository or an image →
    what takes its place, such as `{"docker.io": "mirror.example.com/hub"}`. They come before those
    of the variable `INFERENCE_IMAGE_REGISTRY`. The task's own image is flytekit's and stays."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # flytekit finds a task's type by the exact class of `task_config`
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
            helper: The image for our own programs; `helper_image` takes precedence over it.
            bound_inputs: The inputs of a map task that are the same for each element.

        Raises:
            ConfigError: If the helper's image cannot load the model.
            SpecConflictError: If `base` and the description, or two servers, set one thing to
                different values.
        """
        plan = assemble(
            self.servers, helper, primary=self.primary_container_name, bound_inputs=bound_inputs
        )
        # the task's own image runs in the task's container too, which flytekit writes
        keep = () if helper.bundled else (helper.image,)
        manifest = with_mirrors(compile_plan(plan), self._mirrors(), keep=keep)
        return manifest if self.base is None else merge_manifests(_manifest_of(self.base), manifest)

    def _mirrors(self) -> dict[str, str]:
        """Return the rules for images: the user's own before those of this machine."""
        return {**parse_mirrors(os.environ.get(REGISTRY_VARIABLE, "")), **(self.images or {})}

    @property
    def primary_container_name(self) -> str:
        """The name of the task's own container: that of `base`, else `primary`."""
        # only a `PodTemplate` names it; a manifest's is called `primary`
        name: str = getattr(self.base, "primary_container_name", PRIMARY)
        return name

    def with_servers(
        self, change: Callable[[ModelInferenceTemplate], ModelInferenceTemplate]
    ) -> Self:
        """Return this pod with each of its servers changed."""
        raise NotImplementedError

    def bounded(self) -> Self:
        """Return this pod with a bounded start, unless one of its servers says otherwise.

        `@task(task_config=…)` attaches it in this form.
        """
        if not all(server.leaves_start_open for server in self.servers.values()):
            return self
        with warnings.catch_warnings():
            # its author has read them already
            warnings.simplefilter("ignore", InferenceWarning)
            return self.with_servers(lambda server: replace(server, startup_timeout="auto"))

    @property
    def primary_image(self) -> str | None:
        """The image of the task's own container in `base`, which flytekit prefers to the task's."""
        if self.base is None:
            return None
        containers = _manifest_of(self.base)["spec"].get("containers", ())
        images = (
            container.get("image")
            for container in containers
            if container["name"] == self.primary_container_name
        )
        return next(images, None)

    @property
    def base_metadata(self) -> Manifest:
        """The pod's labels and annotations. `base` alone sets them, so the pod is not compiled."""
        if self.base is None:
            return {}
        metadata: Manifest = _manifest_of(self.base).get("metadata", {})
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
            ConfigError: If `model=` comes from a hub or registry and there is no `helper_image`:
                flytekit's default image cannot download it. `task_config=` does not read this; its
                helpers run on the task's image.
        """
        from .flyte.pod_template import default_helper

        return self.compile(default_helper())

    @property
    def pod_template(self) -> PodTemplate:
        """A new flytekit `PodTemplate`, which builds its `pod_spec` when it is first read.

        That is a `kubernetes.client.V1PodSpec`. Reading it raises the errors of `manifest`.
        """
        # Built late, because importing the kubernetes client takes 0.2 s, and the task's pod, which
        # imports the user's module too, never reads the spec (docs/decisions/0002).
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

        `@task(task_config=…, enable_deck=True)` adds it to the task's Deck.

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
        """Return what Kubernetes would refuse in the compiled pod, or accept and then hang on."""
        ours = {named(container, server) for container in OUR_CONTAINERS for server in self.servers}
        # any image will do, but not a bundled helper: it would refuse models of a hub
        pod = self.compile(Helper(image="helper", bundled=False))
        return lint(pod, ours={*OUR_CONTAINERS, *ours, self.primary_container_name})

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        if self.base is not None:
            yield from check.check_base(self.base)
        if self.images is not None:
            yield from mirror_problems("images", self.images)

    def settle(self) -> None:
        """Complete a frozen description: check it, and copy all values that it holds.

        Whole numbers given as text become numbers before any check reads them.

        Raises:
            ConfigError: Lists every problem.
        """
        read_whole_numbers(self)
        problems = list(self.problems())
        # the linter compiles the pod, which needs fields that are right
        if not problems:
            for field in fields(self):
                # the dataclass is frozen, also for its own methods
                object.__setattr__(self, field.name, _own_copy(getattr(self, field.name)))
            problems = self.lint()
        if problems:
            count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
            raise ConfigError(f"{type(self).__name__}(…) has {count}:", problems=problems)


@dataclass(frozen=True, kw_only=True)
class ModelInferenceTemplate(Description, PodDescription, ClientMethods[Protocol_co]):
    """A model server of any image, run as a native Kubernetes sidecar beside a task.

    Attach it to a task with `@task(task_config=template)`, which also runs it on a machine without
    a cluster, or with `@task(pod_template=template.pod_template,
    secret_requests=template.secret_requests)`.

    Raises:
        ConfigError: If the description is wrong; lists every problem of it.
        SpecConflictError: If `base` and the template set one thing to different values.

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
        """Return the problems of the pod as a whole, once the single fields are right."""
        problems = [
            f"env[{name!r}] is set by the template; give port= instead"
            for name in self.server().port_variables
            if name in (self.env or {})
        ]
        if self.api_key and not self.server().api_key_variable:
            problems.append(
                f"api_key_secret: {type(self).__name__} reads no key from a variable; leave it out"
            )
        problems += self.exporter_problems()
        return problems + super().lint()

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields; each server's class adds its own."""
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
        """The address of the server: `http://localhost:{port}`.

        A local run whose port is busy uses another port, which is then part of the address. The
        variable `INFERENCE_URL` replaces the address (`INFERENCE_URL_<NAME>` for one of several
        servers).

        Raises:
            ConfigError: If that variable holds no address.
            ServerError: If several local servers run and the thread does not belong to the function
                of one of them.
        """
        return self.endpoint.url

    @property
    def endpoint(self) -> Endpoint[Protocol_co]:
        """The server's address, protocol, model name, readiness address and metrics address.

        Raises:
            ConfigError: If the variable `INFERENCE_URL` holds no address.
            ServerError: If several local servers run and the thread does not belong to the function
                of one of them.
        """
        from .client.endpoint import Endpoint, ServerDetails, from_environment

        server, local_server = self.server(), self._local_server
        url = local_server.base_url if local_server else f"http://localhost:{self.port}"
        metrics_port = server.metrics_port or self.port
        port = local_server.pod.port(metrics_port) if local_server else metrics_port
        metrics = f"http://localhost:{port}{server.metrics_path}"
        health_path = self.health_endpoint.lstrip("/") if self.health_endpoint else ""
        image = self.image or self.default_image
        endpoint = Endpoint(
            url=url,
            protocol=cast("Protocol_co", server.model_api),
            model=server.served_model_name,
            health_url=f"{url}/{health_path}" if self.health_endpoint else None,
            metrics_url=metrics if server.metrics_path else None,
            api_key=self._api_key_here(),
            cold_start=self._cold_start_path(local_server),
            about=ServerDetails(
                name=self.name,
                kind=type(self).__name__,
                model=self.model_source.name if self.model_source else "",
                # an `ImageSpec` has no name before it is built
                image=image if isinstance(image, str) else "",
                gpus=self.gpu,
                cpu=str(self.cpu),
                mem=self.mem,
                metric_names=server.metric_names,
            ),
        )
        # last, because it also replaces the address of a local run
        remote = from_environment(self.name)
        return endpoint.at(remote[0], api_key=remote[1]) if remote else endpoint

    def _cold_start_path(self, local_server: LocalServer | None) -> str | None:
        """Return the path of the gate's report on the start; only a gate writes one."""
        if self.startup_timeout is None:
            return None
        try:
            path = cold_start_file(self.name)
            here = str(local_server.pod.path(path)) if local_server else path
        except ConfigError:  # a local pod without a gate has no volume for it
            return None
        # how the start is bounded depends on the task as long as this description leaves it open
        is_known = self.startup_timeout is not UNSET or Path(here).exists()
        return here if is_known else None

    def _api_key_here(self) -> str:
        """Return the server's API key, if this machine has it.

        A secret request puts it into the platform's variable. On a machine without the platform it
        is in the server's own variable, which the server and its gate read too.
        """
        if self.api_key is None:
            return ""
        names = (self.api_key.variable, self.server().api_key_variable)
        return next((key for name in names if (key := os.environ.get(name, ""))), "")

    def at(self, url: str, *, api_key: str = "") -> Endpoint[Protocol_co]:
        """Return the endpoint of a remote server of this kind, for the same clients.

        Args:
            url: The base address of its API.
            api_key: Sent as a bearer token.

        Raises:
            ConfigError: If `url` is not an address.
        """
        return self.endpoint.at(url, api_key=api_key)

    def _endpoint(self) -> Endpoint[Protocol_co]:
        endpoint = self.endpoint
        self._require_presence(endpoint)
        return endpoint

    def _require_presence(self, endpoint: Endpoint[Protocol_co]) -> None:
        """Require a server before a client waits for it, on a machine where nobody starts one.

        Raises:
            ServerError: If nothing answers, or another program does.
        """
        from .client import presence
        from .client.endpoint import from_environment, url_variable

        if presence.is_in_a_cluster():
            return
        if from_environment(self.name):
            presence.require_server_elsewhere(endpoint, url_variable(self.name))
        elif self._local_server is None:
            presence.require_described_server(
                endpoint, type(self).__name__, has_list=self.server().lists_models
            )

    @property
    def _local_server(self) -> LocalServer | None:
        servers = (look_up(self) for look_up in _LOCAL_SERVER_HOOKS)
        return next((server for server in servers if server is not None), None)

    @contextlib.contextmanager
    def run_locally(
        self, inputs: Mapping[str, Any] | None = None, *, volumes: Mapping[str, str] | None = None
    ) -> Iterator[LocalServer]:
        """Run the pod's other containers on this machine for the duration of the `with` block.

        Args:
            inputs: The task's inputs, by name, for `download_inputs`.
            volumes: Directories in place of volumes that exist only on a cluster, such as claims,
                by the volume's name.

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
    """Return a copy that later changes by the caller do not reach."""
    # a list becomes a tuple, so that nobody changes a frozen description in place
    return tuple(copy.deepcopy(value)) if isinstance(value, list) else copy.deepcopy(value)


def _manifest_of(base: Any) -> Manifest:
    if not isinstance(base, Mapping):
        from .flyte.pod_template import manifest_of

        base = manifest_of(base)
    manifest: Manifest = normalise(base)
    return manifest


def _caller_depth() -> int:
    """Return the `stacklevel` of the first frame outside this package and any `__init__`.

    The `__init__` that `dataclass` generates for a user's subclass belongs to the user's module; a
    warning there would name no line of the user's.
    """
    depth, frame = 1, sys._getframe(1)
    package = __package__ or ""
    while frame.f_back and (
        frame.f_globals.get("__name__", "").startswith(package)
        or frame.f_code.co_name == "__init__"
    ):
        depth, frame = depth + 1, frame.f_back
    return depth


def __getattr__(name: str) -> Any:
    # documents of version 0 import it from this module; flytekit must not be imported for others
    if name == "PodTemplate":
        from flytekit import PodTemplate

        return PodTemplate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
