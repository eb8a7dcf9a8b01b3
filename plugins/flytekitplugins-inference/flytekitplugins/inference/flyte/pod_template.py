"""Converts a template to flytekit's `PodTemplate`.

The `pod_spec` is compiled when it is first read. The kubernetes client costs a fifth of a second
and some 30 MiB, and a task's pod, which imports the user's module again, never reads the spec: see
docs/decisions/0002.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from flytekit import PodTemplate
from flytekit.configuration.default_images import DefaultImages

from ..pod.compile import Manifest
from ..pod.parts import PRIMARY, Helper
from ..sidecar_template import InferenceWarning
from .kubernetes_models import from_pod_spec, to_pod_spec

if TYPE_CHECKING:
    from kubernetes.client import V1PodSpec

    from ..sidecar_template import PodDescription

__all__ = [
    "InferencePodTemplate",
    "default_helper",
    "manifest_of",
    "to_pod_template",
    "warn_of_images",
]


def default_helper() -> Helper:
    """Return flytekit's default image, the input downloader's; it lacks this package."""
    return Helper(image=DefaultImages.default_image(), bundled=True)


class InferencePodTemplate(PodTemplate):
    """A `PodTemplate` that compiles its `pod_spec` on first use.

    It adds no dataclass field, so flytekit hashes and compares it like any other.

    Args:
        pod_spec: The pod, if it is already known.
        primary_container_name: The name of the task's own container.
        labels: Labels of the pod.
        annotations: Annotations of the pod.
        template: The description from which the pod is compiled.
        helper: Returns the image of our own programs. Called only when the pod is compiled, because
            naming an `ImageSpec` may read files that only the registering machine has.
    """

    def __init__(
        self,
        pod_spec: V1PodSpec | None = None,
        primary_container_name: str = PRIMARY,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        *,
        template: PodDescription | None = None,
        helper: Callable[[], Helper] = default_helper,
    ) -> None:
        self._template = template
        self._helper = helper
        self._pod_spec = pod_spec
        self.primary_container_name = primary_container_name
        self.labels = labels
        self.annotations = annotations

    @property
    def description(self) -> PodDescription | None:
        """The description from which the pod is compiled."""
        return self._template

    def helper(self) -> Helper:
        """Return the image of our own programs, as it is known now."""
        return self._helper()

    @property
    def pod_spec(self) -> V1PodSpec:
        """The pod as a `kubernetes.client.V1PodSpec`.

        Each read returns the same object, which the reader may change.

        Raises:
            ConfigError: If the helper's image cannot download a model.
        """
        if self._pod_spec is None:
            spec = (
                self._template.compile(self._helper())["spec"]
                if self._template
                else {"containers": []}
            )
            self._pod_spec = to_pod_spec(spec)
        return self._pod_spec

    @pod_spec.setter
    def pod_spec(self, pod_spec: V1PodSpec) -> None:
        self._pod_spec = pod_spec


def to_pod_template(template: PodDescription, helper: Callable[[], Helper]) -> PodTemplate:
    """Return a new `PodTemplate` of `template` that shares nothing with an earlier one.

    Nothing is compiled before its `pod_spec` is read.

    Args:
        template: The description.
        helper: Returns the image of our own programs.
    """
    return InferencePodTemplate(
        template=template,
        helper=helper,
        primary_container_name=template.primary_container_name,
        labels=template.base_metadata.get("labels"),
        annotations=template.base_metadata.get("annotations"),
    )


def warn_of_images(template: PodDescription) -> None:
    """Warn the caller's caller of an `ImageSpec`: flytekit builds regular containers' only."""
    for server in template.servers.values():
        for name in ("image", "helper_image"):
            if not isinstance(getattr(server, name), str | None):
                text = (
                    f"{name} is an ImageSpec, which pod_template= does not build; attach by "
                    "@task(task_config=…)."
                )
                warnings.warn(text, InferenceWarning, stacklevel=3)


def manifest_of(pod_template: PodTemplate) -> Manifest:
    """Return a user's `PodTemplate` as a `v1/Pod` manifest that shares nothing with it."""
    metadata = {"labels": pod_template.labels, "annotations": pod_template.annotations}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {key: dict(value) for key, value in metadata.items() if value},
        "spec": from_pod_spec(pod_template.pod_spec),
    }
