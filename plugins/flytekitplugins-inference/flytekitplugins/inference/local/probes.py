"""Probes as data, and the prober that asks them over the network.

A probe of a manifest becomes a frozen `Probe` with the defaults of Kubernetes filled in; nothing
here keeps state between two attempts. The prober answers as the kubelet would: any status from 200
to 399 is success, redirects are followed on the same host only, certificates are not verified,
proxies are not used.

Source: kubernetes `pkg/probe/http`, `pkg/probe/tcp` and `pkg/kubelet/prober`, v1.36.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POD_IP = "127.0.0.1"
"""The address of a pod whose containers are processes of this machine."""
LOCAL_HOSTS = frozenset({POD_IP, "localhost", "0.0.0.0", "::1"})
"""Hosts that are the pod itself; a probe of another host keeps its port."""
USER_AGENT = "kube-probe/1.36"
"""What the kubelet says of itself; servers and their access logs filter on its beginning."""

_MAX_REDIRECTS = 10
_BODY_BYTES = 200  # of a bad answer's body, as much as helps in one line


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
class Probe:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one attempt ended."""

    ok: bool
    text: str
    """What was asked and what came back, on one line."""


class CommandRunner(Protocol):
    """What an `exec` probe needs of a running container."""

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, str]:
        """Run a command in the container; return its exit code, `None` after `timeout` seconds, and its last line."""
        ...


class Prober(Protocol):
    """Asks a probe once."""

    def __call__(self, probe: Probe, container: CommandRunner) -> Answer:
        """Ask `probe` once, for at most about `probe.timeout` seconds."""
        ...


def parse_probe(
    probe: Mapping[str, Any],
    *,
    ports: Mapping[str, int],
    replaced: Mapping[int, int],
    problems: list[str],
    where: str,
) -> Probe | None:
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
    return Probe(
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


def ask(probe: Probe, container: CommandRunner) -> Answer:
    """Ask a probe once, over the network or as a command in the container: the `Prober` of real pods."""
    action = probe.action
    if isinstance(action, Exec):
        return _ask_command(action, probe.timeout, container)
    try:
        if isinstance(action, TcpSocket):
            socket.create_connection((action.host, action.port), timeout=probe.timeout).close()
            return Answer(ok=True, text=f"{action}: connected")
        return _ask_http(action, probe.timeout)
    except TimeoutError:
        return Answer(ok=False, text=f"{action}: no answer within {probe.timeout:g} s")
    except (OSError, http.client.HTTPException) as error:
        return Answer(ok=False, text=f"{action}: {_reason(error)}")


def _reason(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "connection closed without an answer"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _ask_command(action: Exec, timeout: float, container: CommandRunner) -> Answer:
    code, line = container.execute(action.command, timeout)
    ended = f"no end within {timeout:g} s" if code is None else f"exit code {code}"
    return Answer(ok=code == 0, text=f"{action}: {ended}" + (f", {line}" if line else ""))


def _ask_http(action: HttpGet, timeout: float) -> Answer:
    url = action.url
    for _ in range(_MAX_REDIRECTS):
        status, location, body = _get(url, action.headers, timeout)
        target = urljoin(url, location) if location else ""
        if not target or urlsplit(target).hostname != urlsplit(url).hostname:
            ok = 200 <= status < 400
            return Answer(
                ok=ok, text=f"{action}: HTTP {status}" + (f" {body}" if body and not ok else "")
            )
        url = target
    return Answer(ok=False, text=f"{action}: more than {_MAX_REDIRECTS} redirects")


def _get(url: str, headers: Sequence[tuple[str, str]], timeout: float) -> tuple[int, str, str]:
    """Return status, `Location` if it is a redirect, and the beginning of the body if it is an error."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # like the kubelet, which probes an address and not a name
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            str(parts.hostname), parts.port, timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=timeout)
    sent = {"User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close", **dict(headers)}
    try:
        connection.request(
            "GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=sent
        )
        response = connection.getresponse()
        redirect = response.getheader("Location", "") if 300 <= response.status < 400 else ""
        body = response.read(_BODY_BYTES) if response.status >= 400 else b""
        return response.status, redirect or "", " ".join(body.decode("utf-8", "replace").split())
    finally:
        connection.close()
