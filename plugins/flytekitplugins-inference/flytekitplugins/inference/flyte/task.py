"""`@task(task_config=template)`: the task class behind it.

On registration it adds the server's pod, with the helper containers on the task's own image.
Outside a cluster it runs the pod's containers on this machine around the function.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flytekit import FlyteContextManager, ImageSpec, PodTemplate, Secret
from flytekit.configuration import SerializationSettings
from flytekit.configuration.default_images import DefaultImages
from flytekit.core.python_auto_container import get_registerable_container_image
from flytekit.core.python_function_task import PythonFunctionTask
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.models.task import K8sPod

from ..errors import ConfigError, InferenceError, UnsupportedError
from ..pod.assemble import image_name
from ..pod.compile import Manifest
from ..pod.model import local_model_path
from ..pod.parts import Helper
from ..sidecar_template import InferenceWarning, ModelInferenceTemplate, PodDescription
from .kubernetes_models import to_pod_spec
from .pod_template import to_pod_template

try:
    from flytekit.core.python_function_task import AsyncPythonFunctionTask
except ImportError:  # before flytekit 1.15, which knows no async tasks
    AsyncPythonFunctionTask = PythonFunctionTask

__all__ = ["InferenceTask"]


class InferenceTask(AsyncPythonFunctionTask[PodDescription]):
    """A task with a model server beside it; for plain and for `async` functions.

    Args:
        task_config: The description of the server.
        task_function: The user's function.
        pod_template: The user's own pod; the same as `base=` of the description.
        secret_requests: Secrets that the function itself needs; the server's are added.
        kwargs: The other arguments of `@task`.

    Raises:
        ConfigError: If both `base=` and `pod_template=` are given.
        UnsupportedError: If the function is `async` and this flytekit has no async tasks.
    """

    def __init__(
        self,
        task_config: PodDescription,
        task_function: Any,
        pod_template: PodTemplate | None = None,
        secret_requests: Sequence[Secret] | None = None,
        **kwargs: Any,
    ) -> None:
        if (
            inspect.iscoroutinefunction(task_function)
            and AsyncPythonFunctionTask is PythonFunctionTask
        ):
            raise UnsupportedError(
                f"{task_function.__name__} is async, which needs flytekit 1.15 or newer."
            )
        if pod_template is not None:
            if task_config.base is not None:
                raise ConfigError(
                    "The task has pod_template= and its template has base=.",
                    hint="Give one of them.",
                )
            task_config = replace(task_config, base=pod_template)
        task_config = task_config.bounded()
        helper = functools.partial(_unregistered_helper, task_config, kwargs.get("container_image"))
        requests = list(secret_requests or ())
        super().__init__(
            task_config,
            task_function,
            pod_template=to_pod_template(task_config, helper),
            secret_requests=requests
            + [secret for secret in task_config.secret_requests if secret not in requests],
            **kwargs,
        )

    @property
    def template(self) -> PodDescription:
        """The description of the server."""
        template: PodDescription = self.task_config
        return template

    # Registration

    pod_template: PodTemplate

    def get_k8s_pod(self, settings: SerializationSettings) -> K8sPod:
        """Return the pod with the facts that are only known at serialisation.

        These are the images, the bound inputs, the timeout, and the accelerator's key.
        """
        template = _with_registered_images(self.template, settings)
        helper = _helper(template, self.get_image(settings))
        _warn_of_the_other_product(self.container_image, self.template)
        _warn_of_this_machines_models(self.template)
        manifest = template.compile(helper, bound_inputs=_bound_inputs(self.get_command(settings)))
        serialised = copy.copy(self)  # this task keeps the pod that it describes
        serialised.pod_template = _with_spec(template, manifest)
        pod = super(InferenceTask, serialised).get_k8s_pod(settings)
        _complete(pod.pod_spec, template.primary_container_name, self.metadata.timeout)
        for gpu_resource in {
            server.gpu_resource for server in template.servers.values() if server.gpu
        }:
            _let_flyte_see_the_gpu(pod.pod_spec, gpu_resource, template.primary_container_name)
        return pod

    # Execution

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task.

        Returns:
            A coroutine for an `async` function, a result or a promise for a plain one.
        """
        if self._is_async:
            return super().__call__(*args, **kwargs)
        return PythonFunctionTask.__call__(self, *args, **kwargs)

    def execute(self, **kwargs: Any) -> Any:
        """Run the function; outside a cluster with the server running around it.

        Raises:
            FlyteRecoverableException: In a cluster, in place of an `InferenceError` that is
                retryable, so that `retries=` counts.
        """
        if self._is_async:
            from flytekit.utils.asyn import loop_manager

            return loop_manager.run_sync(self.async_execute, **kwargs)
        with contextlib.ExitStack() as around:
            if _is_outside_a_cluster():
                # imported on use: a task in a cluster needs none of it
                from .local_run import server_for_task

                around.enter_context(
                    server_for_task(self.template, kwargs, self.python_interface.inputs)
                )
            else:
                around.enter_context(_recoverable())
            if self._has_deck:
                from .deck import reporting

                around.enter_context(reporting(self.template))
            return PythonFunctionTask.execute(self, **kwargs)

    async def async_execute(self, *args: Any, **kwargs: Any) -> Any:
        """Run the `async` function; outside a cluster with the server running around it.

        Raises:
            FlyteRecoverableException: As `execute` does.
        """
        async with contextlib.AsyncExitStack() as around:
            if _is_outside_a_cluster():
                from .local_run import async_server_for_task

                servers = async_server_for_task(self.template, kwargs, self.python_interface.inputs)
                await around.enter_async_context(servers)
            else:
                around.enter_context(_recoverable())
            if self._has_deck:
                from .deck import async_reporting

                await around.enter_async_context(async_reporting(self.template))
            return await super().async_execute(*args, **kwargs)

    @property
    def _is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.task_function)

    @property
    def _has_deck(self) -> bool:
        # the private name: `enable_deck` is newer than flytekit 1.13, `disable_deck` warns later
        return not self._disable_deck


def _is_outside_a_cluster() -> bool:
    state = FlyteContextManager.current_context().execution_state
    return state is not None and state.is_local_execution()


@contextlib.contextmanager
def _recoverable() -> Iterator[None]:
    """Raise an error after which another attempt may succeed as one that Flyte tries again.

    Flyte 1.x ends a task whose function raises anything else, whatever `retries=` says.
    """
    try:
        yield
    except InferenceError as error:
        if not error.retryable:
            raise
        raise FlyteRecoverableException(f"{error.code}: {error}") from error


def _warn_of_the_other_product(image: Any, template: PodDescription) -> None:
    """Warn of images that install the index's other package of our name."""
    from .image import other_product

    helper_images = [server.helper_image for server in template.servers.values()]
    for package in filter(None, map(other_product, [image, *helper_images])):
        warnings.warn(
            f"ImageSpec(packages=[{package!r}]) installs flytekit's own plugin of that name, "
            "without the programs that this pod starts; make the image by image_spec() of "
            "flytekitplugins.inference.flyte.image.",
            InferenceWarning,
            stacklevel=3,
        )


def _warn_of_this_machines_models(template: PodDescription) -> None:
    """Warn of models that lie on this machine when a task is packaged for a cluster."""
    for server in template.servers.values():
        if path := local_model_path(server.model_source):
            warnings.warn(
                f"model={path!r} is a path of the machine where the model loader runs; on a "
                "cluster that is its container, whose image must hold the model. Name a store, or "
                "a volume (VolumeModel).",
                InferenceWarning,
                stacklevel=3,
            )


def _with_registered_images(
    template: PodDescription, settings: SerializationSettings
) -> PodDescription:
    """Build the images given as `ImageSpec`; flytekit only builds those of regular containers."""

    def registered(server: ModelInferenceTemplate) -> ModelInferenceTemplate:
        images = {
            name: get_registerable_container_image(getattr(server, name), settings.image_config)
            for name in ("image", "helper_image")
            if not isinstance(getattr(server, name), str | None)
        }
        return replace(server, **images) if images else server

    return template.with_servers(registered)


def _with_spec(template: PodDescription, manifest: Manifest) -> PodTemplate:
    metadata = manifest["metadata"]
    return PodTemplate(
        pod_spec=to_pod_spec(manifest["spec"]),
        primary_container_name=template.primary_container_name,
        labels=metadata.get("labels"),
        annotations=metadata.get("annotations"),
    )


def _helper(template: PodDescription, image: str) -> Helper:
    """Return the image of our programs: the task's own, or the primary's image in `base`."""
    return Helper(image=template.primary_image or image, bundled=False)


def _unregistered_helper(template: PodDescription, image: str | ImageSpec | None) -> Helper:
    """Return the helper that is known without an image config.

    flytekit reads a task's pod before serialisation: `pyflyte register` computes a version from its
    hash.
    """
    return _helper(template, image_name(image or DefaultImages.default_image()))


def _complete(pod_spec: Manifest, primary: str, timeout: timedelta | int | None) -> None:
    """Bound the pod's life, and let its primary tell how it ended; `base=` has the last word.

    Flyte drops `timeout=` when a task is launched alone, and nothing else ends a pod whose image
    cannot be pulled. A primary that ends without Python (a segmentation fault, `os._exit`) would
    leave an empty message.
    """
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout or 0
    if seconds > 0:
        pod_spec.setdefault("activeDeadlineSeconds", math.ceil(seconds))
    for container in pod_spec["containers"]:
        if container["name"] == primary:
            container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")


def _let_flyte_see_the_gpu(pod_spec: Manifest, gpu_resource: str, primary: str) -> None:
    """Give the primary a limit of no GPU, unless it has GPUs of its own.

    Flyte applies an accelerator's node selector and toleration only when a regular container's
    limits have the GPU's key; the value 0 is enough (flyteorg/flyte v1.16.8 `pod_helper.go`,
    ApplyGPUNodeSelectors; flyte#6396).
    """
    for container in pod_spec["containers"]:
        if container["name"] == primary:
            resources = container.setdefault("resources", {})
            names = {name for kind in ("requests", "limits") for name in resources.get(kind) or {}}
            if not any(name in ("gpu", gpu_resource) or name.endswith("/gpu") for name in names):
                resources["limits"] = {**(resources.get("limits") or {}), "gpu": "0"}


def _bound_inputs(command: Sequence[str]) -> list[str]:
    """Return the inputs that a map task does not map over.

    They are in its command: `pyflyte-map-execute … -- vars a,b resolver …`.
    """
    if "pyflyte-map-execute" not in command:
        return []
    names = command[command.index("vars") + 1]
    return names.split(",") if names else []
