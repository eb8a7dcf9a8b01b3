"""The pod of a template or of a task, before an image is built or anything is registered."""

from __future__ import annotations

from typing import Any

from flytekit import Resources
from flytekit.core.python_function_task import PythonFunctionTask

from ..errors import ConfigError
from ..pod.compile import Manifest
from ..pod.parts import Helper
from ..pod.quantity import format_quantity
from ..sidecar_template import PodDescription
from .pod_template import InferencePodTemplate, default_helper
from .task import InferenceTask

__all__ = ["TASK_IMAGE", "described_by", "pod_of"]

TASK_IMAGE = "the-image-of-the-task"
"""Stands for the task's own image where no task is known."""
RESOURCES = {
    "cpu": "cpu",
    "mem": "memory",
    "gpu": "nvidia.com/gpu",
    "ephemeral_storage": "ephemeral-storage",
}
"""flytekit's name → Kubernetes' name."""


def described_by(value: Any) -> PodDescription | None:
    """Return the description that a value is or has; `None` if it has none.

    Args:
        value: A template, a task with `task_config=` or with our `pod_template=`, or anything else.
    """
    if isinstance(value, PodDescription):
        return value
    if isinstance(value, InferenceTask):
        return value.template
    own = getattr(value, "pod_template", None) if isinstance(value, PythonFunctionTask) else None
    return own.description if isinstance(own, InferencePodTemplate) else None


def pod_of(value: Any) -> Manifest:
    """Return the pod of a template or a task that `described_by` knows.

    That of a task has the task's resources in its container. That of a template is what its
    `pod_template` holds, if that exists: a model of a hub needs the task's own image, for which
    `TASK_IMAGE` stands.

    Raises:
        ConfigError: If the pod cannot be compiled.
    """
    if isinstance(value, PodDescription):
        try:
            return value.compile(default_helper())
        except ConfigError:
            return value.compile(Helper(image=TASK_IMAGE, bundled=False))
    own = value.pod_template
    manifest: Manifest = own.description.compile(own.helper())
    for container in manifest["spec"]["containers"]:
        if container["name"] == own.primary_container_name:
            container["resources"] = _resources(value)
    return manifest


def _resources(task: PythonFunctionTask[Any]) -> Manifest:
    """Return the resources that a task asks for its own container."""
    kinds = {"requests": task.resources.requests, "limits": task.resources.limits}
    amounts = {kind: _amounts(given) for kind, given in kinds.items() if given is not None}
    return {kind: given for kind, given in amounts.items() if given}


def _amounts(given: Resources) -> dict[str, str]:
    return {
        name: format_quantity(value)
        for field, name in RESOURCES.items()
        if (value := getattr(given, field, None)) is not None
    }
