"""The level of the Pod Security Standards that a pod meets, and what keeps it from a stricter one.

Source: the checks of `k8s.io/pod-security-admission` (`policy/check_*.go`, v0.36). A namespace with
the label `pod-security.kubernetes.io/enforce` refuses pods that do not meet its level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .compile import Manifest

__all__ = ["LEVELS", "PodSecurity", "pod_security"]

Level = Literal["privileged", "baseline", "restricted"]
LEVELS: tuple[Level, ...] = ("privileged", "baseline", "restricted")
"""From the most permissive to the strictest."""
_BASELINE_CAPABILITIES = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
_RESTRICTED_VOLUMES = frozenset(
    (
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
        *("persistentVolumeClaim", "projected", "secret"),
    )
)
_SECCOMP = ("RuntimeDefault", "Localhost")
_SELINUX_TYPES = (
    None,
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
)
_SAFE_SYSCTLS = frozenset(
    (
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"),
        *("net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"),
        *("net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time"),
        *("net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
        *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PodSecurity:
    """A pod, judged by the Pod Security Standards."""

    level: Level
    """The strictest level that the pod meets."""
    obstacles: tuple[str, ...]
    """What violates the next stricter level; empty for `restricted`."""


def pod_security(spec: Manifest) -> PodSecurity:
    """Return the level that a pod meets.

    Args:
        spec: The pod's `spec`.
    """
    if obstacles := tuple(_baseline(spec)):
        return PodSecurity(level="privileged", obstacles=obstacles)
    if obstacles := tuple(_restricted(spec)):
        return PodSecurity(level="baseline", obstacles=obstacles)
    return PodSecurity(level="restricted", obstacles=())


def _containers(spec: Manifest) -> list[Manifest]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _contexts(spec: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yield the security contexts of the pod and of its containers, with what to call them."""
    yield "the pod", spec.get("securityContext") or {}
    for container in _containers(spec):
        yield container["name"], container.get("securityContext") or {}


def _baseline(spec: Manifest) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"the pod sets {field}"
    for volume in spec.get("volumes") or ():
        if "hostPath" in volume:
            yield f"the volume {volume['name']} is a hostPath"
    for sysctl in (spec.get("securityContext") or {}).get("sysctls") or ():
        if sysctl.get("name") not in _SAFE_SYSCTLS:
            yield f"the pod sets the sysctl {sysctl.get('name')}"
    for name, context in _contexts(spec):
        yield from (f"{name} {problem}" for problem in _baseline_context(context))
    for container in _containers(spec):
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            yield f"{container['name']} has a hostPort"


def _baseline_context(context: Manifest) -> Iterator[str]:
    if context.get("privileged"):
        yield "is privileged"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "is a hostProcess"
    added = set((context.get("capabilities") or {}).get("add") or ())
    if more := sorted(added - _BASELINE_CAPABILITIES):
        yield f"adds the capabilities {', '.join(more)}"
    if context.get("procMount") not in (None, "Default"):
        yield "unmasks /proc"
    for field in ("seccompProfile", "appArmorProfile"):
        if (context.get(field) or {}).get("type") == "Unconfined":
            yield f"has the {field} Unconfined"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "sets seLinuxOptions"


def _restricted(spec: Manifest) -> Iterator[str]:
    for volume in spec.get("volumes") or ():
        kinds = volume.keys() - {"name"}
        if kinds and not kinds & _RESTRICTED_VOLUMES:
            yield f"the volume {volume['name']} is of the kind {', '.join(sorted(kinds))}"
    pod = spec.get("securityContext") or {}
    if pod.get("runAsUser") == 0:
        yield "the pod sets runAsUser 0"
    if pod.get("runAsNonRoot") is False:
        yield "the pod sets runAsNonRoot: false"
    for container in _containers(spec):
        context = container.get("securityContext") or {}
        yield from (
            f"{container['name']} {problem}" for problem in _restricted_context(context, pod)
        )


def _restricted_context(context: Manifest, pod: Manifest) -> Iterator[str]:
    if context.get("allowPrivilegeEscalation") is not False:
        yield "lacks allowPrivilegeEscalation: false"
    # a container's own setting counts before the pod's
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "lacks runAsNonRoot: true"
    if context.get("runAsUser") == 0:
        yield "sets runAsUser 0"
    seccomp = context.get("seccompProfile") or pod.get("seccompProfile") or {}
    if seccomp.get("type") not in _SECCOMP:
        yield "lacks a seccompProfile of RuntimeDefault"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "does not drop all capabilities"
    if more := sorted(set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}):
        yield f"adds the capabilities {', '.join(more)}"
