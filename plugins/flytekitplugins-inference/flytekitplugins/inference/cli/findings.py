"""What a check says of a pod, without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from ..flyte.task_pod import TASK_IMAGE
from ..pod.compile import Manifest
from ..pod.lint import lint
from ..pod.model import local_model_path
from ..pod.pod_resources import pod_resources, quality_of_service
from ..pod.pod_security import LEVELS, pod_security
from ..sidecar_template import PodDescription
from .target import PodTarget

__all__ = ["PodCheck", "PodFinding", "RequiredSecret", "check_target", "display_amount"]

Status = Literal["ok", "note", "warning", "problem"]
BINARY_UNITS = (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


@dataclass(frozen=True, kw_only=True)
class PodFinding:
    """One sentence about a pod."""

    check: str
    """The subject, such as `lint`."""
    status: Status
    """`problem` makes the check fail."""
    text: str


@dataclass(frozen=True, kw_only=True)
class RequiredSecret:
    """A Kubernetes secret that the pod reads."""

    name: str
    keys: tuple[str, ...]
    """The keys that it needs; empty for one with which an image is pulled."""
    purpose: str

    @property
    def command(self) -> str:
        """The command that creates it."""
        if not self.keys:
            return (
                f"kubectl create secret docker-registry {self.name} --docker-server=… "
                "--docker-username=… --docker-password=…"
            )
        values = " ".join(f"--from-literal={key}=…" for key in self.keys)
        return f"kubectl create secret generic {self.name} {values}"


@dataclass(frozen=True, kw_only=True)
class PodCheck:
    """What is known of a pod without a cluster."""

    target: PodTarget
    findings: tuple[PodFinding, ...]
    requests: Mapping[str, Fraction]
    limits: Mapping[str, Fraction]
    images: Mapping[str, str]
    """Container → image."""
    secrets: tuple[RequiredSecret, ...]


def check_target(target: PodTarget, *, level: str) -> PodCheck:
    """Return what can be said of a pod without a cluster.

    Args:
        target: The description and its pod.
        level: The Pod Security level that the pod must meet.
    """
    spec = target.manifest["spec"]
    resources = pod_resources(spec)
    secrets = tuple(required_secrets(target.description, spec))
    findings = (
        *_lint(target.manifest),
        *(PodFinding(check="warning", status="warning", text=text) for text in target.cautions),
        *_security(spec, level),
        _quality(spec, target),
        *_models(target.description),
        *_secrets(target.description),
    )
    return PodCheck(
        target=target,
        findings=findings,
        requests=resources.requests,
        limits=resources.limits,
        images={
            container["name"]: container["image"]
            for container in (*spec.get("initContainers", ()), *spec["containers"])
            if container.get("image") and container["image"] != TASK_IMAGE
        },
        secrets=secrets,
    )


def _lint(manifest: Manifest) -> Iterator[PodFinding]:
    problems = lint(manifest)
    for problem in problems:
        yield PodFinding(check="lint", status="problem", text=problem)
    if not problems:
        yield PodFinding(check="lint", status="ok", text="Kubernetes accepts the pod.")


def _security(spec: Manifest, level: str) -> Iterator[PodFinding]:
    security = pod_security(spec)
    met = LEVELS.index(security.level) >= LEVELS.index(level)
    text = f"The pod meets the level {security.level} of the Pod Security Standards"
    text += f"; {level} is required." if not met else "."
    yield PodFinding(check="pod security", status="ok" if met else "problem", text=text)
    stricter = LEVELS[min(LEVELS.index(security.level) + 1, len(LEVELS) - 1)]
    for obstacle in security.obstacles:
        yield PodFinding(
            check="pod security",
            status="note" if met else "problem",
            text=f"Not {stricter}: {obstacle}.",
        )


def _quality(spec: Manifest, target: PodTarget) -> PodFinding:
    quality = quality_of_service(spec)
    text = f"Quality of service {quality.name}: {quality.reason}."
    primary = target.description.primary_container_name
    if any(c["name"] == primary and not c.get("resources") for c in spec["containers"]):
        text += f" The resources of {primary} come from @task, else from the platform's defaults."
    return PodFinding(check="qos", status="note", text=text)


def _models(description: PodDescription) -> Iterator[PodFinding]:
    for server in description.servers.values():
        if path := local_model_path(server.model_source):
            text = f"The model {path!r} is a path in the image of the model loader."
            yield PodFinding(check="model", status="warning", text=text)


def _secrets(description: PodDescription) -> Iterator[PodFinding]:
    for secret in description.secret_references:
        if not secret.in_kubernetes:
            text = f"The platform must deliver the secret {secret.key!r} as {secret.variable}."
            yield PodFinding(check="secrets", status="note", text=text)


def required_secrets(description: PodDescription, spec: Manifest) -> Iterator[RequiredSecret]:
    """Yield the Kubernetes secrets that a pod reads, each once."""
    keys: dict[str, dict[str, None]] = {}
    for secret in description.secret_references:
        if secret.in_kubernetes and secret.group:
            keys.setdefault(secret.group, {})[secret.key] = None
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for name, key in _references(container):
            keys.setdefault(name, {})[key] = None
    for name, wanted in sorted(keys.items()):
        yield RequiredSecret(name=name, keys=tuple(wanted), purpose="variables")
    for reference in spec.get("imagePullSecrets", ()):
        yield RequiredSecret(name=reference["name"], keys=(), purpose="image pull")


def _references(container: Manifest) -> Iterator[tuple[str, str]]:
    for variable in container.get("env", ()):
        reference: Any = (variable.get("valueFrom") or {}).get("secretKeyRef")
        if reference:
            yield reference["name"], reference["key"]


def display_amount(name: str, amount: Fraction) -> str:
    """Return an amount of a resource for a reader: `4`, `500m`, `17.5Gi`."""
    if name in ("memory", "ephemeral-storage") or name.startswith("hugepages-"):
        for suffix, unit in BINARY_UNITS:
            if amount >= unit:
                return f"{float(amount / unit):.4g}{suffix}"
        return str(int(amount))
    if amount.denominator == 1:
        return str(amount.numerator)
    return f"{float(amount * 1000):.4g}m"
