"""Run probes as the kubelet would, over the network or as commands.

Any status from 200 to 399 is a success. Redirects are followed on the same host only, certificates
are not verified, and proxies are not used. Nothing here keeps state between two attempts.

Source: kubernetes `pkg/probe/http`, `pkg/probe/tcp` and `pkg/kubelet/prober`, v1.36.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urljoin

from ..facts.address import Address, AddressError, parse_address
from ..facts.http_exchange import HttpExchange, NoAnswerError, NoAnswerReason, ask
from ..facts.readiness import is_ready
from .plan.probe_plan import Exec, HttpGet, TcpSocket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .plan.probe_plan import ProbePlan

USER_AGENT = "kube-probe/1.36"
"""The kubelet's user agent; servers and their access logs filter on its beginning."""

_MAX_REDIRECTS = 10
_BODY_BYTES = 200  # as much of an error's body as is useful in one line


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """How one attempt ended."""

    ok: bool
    text: str
    """The request and its answer, on one line."""


class CommandRunner(Protocol):
    """What an `exec` probe needs of a running container."""

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, str]:
        """Run a command in the container, and return its exit code and its last line.

        The exit code is `None` if the command did not end within `timeout` seconds.
        """
        ...


class Prober(Protocol):
    """Runs a probe once."""

    def __call__(self, probe: ProbePlan, container: CommandRunner) -> ProbeResult:
        """Run `probe` once, for at most about `probe.timeout` seconds."""
        ...


def ask_probe(probe: ProbePlan, container: CommandRunner) -> ProbeResult:
    """Run a probe once, over the network or as a command in the container.

    This is the default `Prober` of a local pod.
    """
    action = probe.action
    if isinstance(action, Exec):
        return _ask_command(action, probe.timeout, container)
    try:
        if isinstance(action, TcpSocket):
            return _connect(action, probe.timeout)
        return _follow(action, probe.timeout)
    except NoAnswerError as error:
        return ProbeResult(ok=False, text=f"{action}: {_reason(error, probe.timeout)}")


def _reason(error: NoAnswerError, seconds: float) -> str:
    if error.reason is NoAnswerReason.TIMEOUT:
        return f"no answer within {seconds:g} s"
    if error.reason is NoAnswerReason.REFUSED:
        return "connection refused"
    return error.text.lower()


def _ask_command(action: Exec, timeout: float, container: CommandRunner) -> ProbeResult:
    code, line = container.execute(action.command, timeout)
    ended = f"no end within {timeout:g} s" if code is None else f"exit code {code}"
    return ProbeResult(ok=code == 0, text=f"{action}: {ended}" + (f", {line}" if line else ""))


def _connect(action: TcpSocket, timeout: float) -> ProbeResult:
    address = Address(scheme="http", host=action.host, port=action.port)
    with HttpExchange(address, seconds=timeout) as exchange:
        exchange.connect()
    return ProbeResult(ok=True, text=f"{action}: connected")


def _follow(action: HttpGet, timeout: float) -> ProbeResult:
    """Request a URL and follow redirects on the same host, all within the time of one attempt."""
    end = time.monotonic() + timeout
    url = action.url
    try:
        for _ in range(_MAX_REDIRECTS):
            address = parse_address(url)
            # each hop gets what is left, so a chain of redirects takes no longer than one answer
            status, location, body = _get(address, action.headers, end - time.monotonic())
            target = urljoin(url, location) if location else ""
            # as the kubelet does: a redirect to another host is a success, and is not followed
            if not target or parse_address(target).host != address.host:
                ok = is_ready(status)
                detail = f" {body}" if body and not ok else ""
                return ProbeResult(ok=ok, text=f"{action}: HTTP {status}{detail}")
            url = target
    except AddressError as error:
        return ProbeResult(ok=False, text=f"{action}: the address, or that of a redirect, {error}")
    return ProbeResult(ok=False, text=f"{action}: more than {_MAX_REDIRECTS} redirects")


def _get(
    address: Address, headers: Sequence[tuple[str, str]], seconds: float
) -> tuple[int, str, str]:
    """Return the status, a redirect's `Location`, and the beginning of an error's body."""
    own = {"User-Agent": USER_AGENT, **dict(headers)}
    # the kubelet probes an IP address instead of a name, so no certificate could match
    with ask(address, seconds=seconds, headers=own, verify=False) as answer:
        location = answer.header("Location") if 300 <= answer.status < 400 else ""
        body = answer.read(_BODY_BYTES) if answer.status >= 400 else b""
    return answer.status, location, " ".join(body.decode("utf-8", "replace").split())
