"""Probes as data: what a manifest says of one, with the defaults of Kubernetes filled in.

Source: kubernetes `pkg/apis/core/v1/defaults.go`, v1.36.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

POD_IP = "127.0.0.1"
"""The address of a pod whose containers are processes of this machine."""
LOCAL_HOSTS = frozenset({POD_IP, "localhost", "0.0.0.0", "::1"})
"""Hosts that are the pod itself; a probe of another host keeps its port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGet:
    """`httpGet`: success is a status from 200 to 399."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"GET {self.url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSocket:
    """`tcpSocket`: success is a connection."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"connect to {self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """`exec`: success is exit code 0 of a command in the container."""

    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"run {self.command[0]}" if self.command else "run nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """A startup, liveness or readiness probe with every default filled in. Times are in seconds."""

    action: HttpGet | TcpSocket | Exec
    initial_delay: float = 0
    period: float = 10
    timeout: float = 1
    failure_threshold: int = 3
    success_threshold: int = 1
    termination_grace_period: float | None = None

    @property
    def budget(self) -> float:
        """Seconds after which a kubelet gives a startup probe up."""
        return self.initial_delay + self.failure_threshold * self.period


def parse_probe(
    probe: Mapping[str, Any],
    *,
    ports: Mapping[str, int],
    replaced: Mapping[int, int],
    problems: list[str],
    where: str,
) -> ProbePlan | None:
    """Read one probe of a container.

    Args:
        probe: The probe as in the manifest. Words of an `exec` command are taken as they are.
        ports: The container's port numbers by their names.
        replaced: Port on this machine by port of the manifest, where the two differ.
        problems: Takes a sentence when the probe cannot be asked here.
        where: The container and the kind of probe, for that sentence.

    Returns:
        `None` when a problem was added.
    """
    action: HttpGet | TcpSocket | Exec | None = None
    if "httpGet" in probe or "tcpSocket" in probe:
        action = _network_action(probe, ports, replaced)
    elif "exec" in probe:
        action = Exec(command=tuple(str(word) for word in probe["exec"].get("command") or ()))
    if action is None:
        given = "grpc" if "grpc" in probe else ", ".join(sorted(probe)) or "nothing"
        problems.append(
            f"{where}: a probe needs httpGet, tcpSocket or exec with a known port; this one has "
            f"{given}."
        )
        return None
    grace = probe.get("terminationGracePeriodSeconds")
    return ProbePlan(
        action=action,
        initial_delay=float(probe.get("initialDelaySeconds") or 0),
        period=float(probe.get("periodSeconds") or 10),
        timeout=float(probe.get("timeoutSeconds") or 1),
        failure_threshold=int(probe.get("failureThreshold") or 3),
        success_threshold=int(probe.get("successThreshold") or 1),
        termination_grace_period=None if grace is None else float(grace),
    )


def _network_action(
    probe: Mapping[str, Any], ports: Mapping[str, int], replaced: Mapping[int, int]
) -> HttpGet | TcpSocket | None:
    fields = probe.get("httpGet") or probe.get("tcpSocket") or {}
    host = str(fields.get("host") or POD_IP)
    given = str(fields.get("port", ""))
    port = int(given) if given.isdecimal() else ports.get(given)
    if port is None:
        return None
    if host in LOCAL_HOSTS:
        port = replaced.get(port, port)
    if "tcpSocket" in probe:
        return TcpSocket(host=host, port=port)
    scheme = str(fields.get("scheme") or "HTTP").lower()
    path = "/" + str(fields.get("path") or "/").lstrip("/")
    headers = tuple(
        (str(header["name"]), str(header["value"])) for header in fields.get("httpHeaders") or ()
    )
    return HttpGet(
        url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}", headers=headers
    )
