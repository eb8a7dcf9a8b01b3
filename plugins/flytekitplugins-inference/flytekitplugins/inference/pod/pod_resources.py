"""What the scheduler reserves for a pod, and the pod's quality of service.

Sources, at Kubernetes v1.36: `PodRequests` and `PodLimits` of
`k8s.io/component-helpers/resource/helpers.go`, and `ComputePodQOS` of
`pkg/apis/core/v1/helper/qos/qos.go`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from .compile import Manifest
from .quantity import parse_quantity

__all__ = ["PodResources", "QualityOfService", "pod_resources", "quality_of_service"]

Kind = Literal["requests", "limits"]
Amounts = Mapping[str, Fraction]
"""Resource name → amount in its base unit: cores, bytes, pieces."""
_NOTHING = Fraction(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PodResources:
    """The sums over a pod's containers."""

    requests: Amounts
    """What the scheduler reserves on the node, and what a quota counts."""
    limits: Amounts
    """What a quota of limits counts. A container without a limit adds nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityOfService:
    """A pod's class, which decides the order of eviction and whether it may have whole CPUs."""

    name: Literal["Guaranteed", "Burstable", "BestEffort"]
    reason: str
    """The containers and resources that decide it, as a clause."""


def pod_resources(spec: Manifest) -> PodResources:
    """Return what a pod's containers request and are limited to, as the scheduler counts it.

    Native sidecars run as long as the task, so they count beside it. An ordinary init container
    runs alone with the sidecars before it; it matters only if that is more than what runs later.

    Args:
        spec: The pod's `spec`.
    """
    return PodResources(requests=_total(spec, "requests"), limits=_total(spec, "limits"))


def _total(spec: Manifest, kind: Kind) -> Amounts:
    sidecars: dict[str, Fraction] = {}
    peak: dict[str, Fraction] = {}
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            _add(sidecars, _amounts(container, kind))
            now = dict(sidecars)
        else:
            # without the sidecars behind it, which the kubelet has not started yet
            now = dict(sidecars)
            _add(now, _amounts(container, kind))
        _raise_to(peak, now)
    total = dict(sidecars)
    for container in spec.get("containers") or ():
        _add(total, _amounts(container, kind))
    _raise_to(total, peak)
    # resources of the pod as a whole (Kubernetes 1.34) replace the sums
    total |= _amounts(spec, kind)
    overhead = spec.get("overhead") or {}
    # an overhead alone is no limit
    counted = overhead if kind == "requests" else overhead.keys() & total
    _add(total, {name: parse_quantity(str(overhead[name])) for name in counted})
    return {name: amount for name, amount in sorted(total.items()) if amount}


def _amounts(container: Manifest, kind: Kind) -> dict[str, Fraction]:
    resources = container.get("resources") or {}
    # the API server fills in a request that is missing by the limit
    given = {
        **((resources.get("limits") or {}) if kind == "requests" else {}),
        **(resources.get(kind) or {}),
    }
    return {name: parse_quantity(str(text)) for name, text in given.items()}


def _add(sums: dict[str, Fraction], amounts: Amounts) -> None:
    for name, amount in amounts.items():
        sums[name] = sums.get(name, _NOTHING) + amount


def _raise_to(sums: dict[str, Fraction], amounts: Amounts) -> None:
    for name, amount in amounts.items():
        sums[name] = max(sums.get(name, _NOTHING), amount)


def quality_of_service(spec: Manifest) -> QualityOfService:
    """Return a pod's class. Only CPU and memory count, those of init containers too.

    Args:
        spec: The pod's `spec`.
    """
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    # resources of the pod as a whole decide alone
    if spec.get("resources"):
        containers = [{"name": "the pod", "resources": spec["resources"]}]
    gaps = [gap for container in containers for gap in _gaps(container)]
    if not gaps:
        reason = "every container's CPU and memory have limits that equal the requests"
        return QualityOfService(name="Guaranteed", reason=reason)
    if not any(_of_qos(container, kind) for container in containers for kind in _KINDS):
        reason = "no container requests or limits CPU or memory"
        return QualityOfService(name="BestEffort", reason=reason)
    return QualityOfService(name="Burstable", reason="; ".join(gaps))


_KINDS: tuple[Kind, ...] = ("requests", "limits")


def _of_qos(container: Manifest, kind: Kind) -> Amounts:
    amounts = _amounts(container, kind)
    # the class looks only at these two, and an amount of zero counts as none
    return {name: amounts[name] for name in ("cpu", "memory") if amounts.get(name)}


def _gaps(container: Manifest) -> Iterator[str]:
    """Yield what keeps the container's pod from being Guaranteed."""
    requests, limits = _of_qos(container, "requests"), _of_qos(container, "limits")
    for name in ("cpu", "memory"):
        if name not in limits:
            yield f"{container['name']} has no {name} limit"
        elif requests.get(name) != limits[name]:
            yield f"{container['name']} requests less {name} than its limit"
