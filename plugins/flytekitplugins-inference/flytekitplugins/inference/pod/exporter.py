"""The metrics exporter of a server: its settings, its container, and the probes that it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ..facts.metric_names import FAMILIES, QUANTITIES, MetricNames, names_of
from ..programs.protocol import (
    EXPORTER_ALIASES,
    EXPORTER_PATH,
    EXPORTER_PORT,
    LIVE_PATH,
    STARTED_PATH,
)
from ..public_dataclass import PublicDataclass
from . import check
from .parts import Container, Probe, Probes
from .server import Server
from .whole_numbers import read_whole_numbers

__all__ = [
    "PORT_NAME",
    "MetricsExporter",
    "asks_exporter",
    "exporter_arguments",
    "exporter_container",
    "judges_progress",
    "with_exporter_probes",
]

PORT_NAME = "inf-metrics"
"""Name of the container's port, by which a `PodMonitor` finds it; 15 characters at most."""
STALL_SECONDS = 120
"""`facts.liveness.BOUND_SECONDS`, as a whole number."""
RESTART_THRESHOLD = 360
"""Times ten seconds: how long a server that was started anew may take until it answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsExporter(PublicDataclass):
    """The sidecar that serves a server's metrics in one vocabulary and judges its liveness."""

    port: int = EXPORTER_PORT
    """The port of its page. Each server of a pod needs one of its own."""
    path: str | None = None
    """Path of the server's own page; `None` is what the template knows."""
    stall_timeout: int | timedelta = STALL_SECONDS
    """Seconds without progress after which a busy server counts as dead; more for prompts of which
    one step takes longer."""
    aliases: Sequence[str] = ()
    """Further names of the same metrics: `"ml"`, `"gen_ai"`."""
    native: bool = False
    """Whether the server's own metrics are on the page too."""
    cpu: int | float | str = "100m"
    """Cores; requests and limits."""
    mem: str = "64Mi"
    """Memory; requests and limits. It takes 25 MiB."""

    def __post_init__(self) -> None:
        read_whole_numbers(self)

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        yield from check.check_port("metrics.port", self.port)
        if self.path is not None:
            yield from check.check_path("metrics.path", self.path)
        yield from check.check_seconds("metrics.stall_timeout", self.stall_timeout, least=1)
        yield from check.check_switch("metrics.native", self.native)
        yield from check.check_quantity("metrics.cpu", self.cpu)
        yield from check.check_quantity("metrics.mem", self.mem, memory=True)
        if isinstance(self.aliases, str):
            yield f"metrics.aliases must be a list of names, such as [{self.aliases!r}]"
            return
        for alias in self.aliases:
            if alias not in EXPORTER_ALIASES:
                yield (
                    f"metrics.aliases: there is no {alias!r}; there are "
                    f"{', '.join(EXPORTER_ALIASES)}"
                )


def exporter_arguments(
    exporter: MetricsExporter, server: Server, *, port: int, kind: str
) -> tuple[str, ...]:
    """Return the program's arguments, but for those that ask whether the server is ready.

    Args:
        exporter: The settings.
        server: The server.
        port: The server's own port.
        kind: The server's kind, if its names are not a known server's.
    """
    path = "/" + (exporter.path or server.metrics_path).lstrip("/")
    family = next((name for name, names in FAMILIES.items() if names == server.metric_names), "")
    names = family or (_as_json(server.metric_names) if server.metric_names else "")
    bound = exporter.stall_timeout
    seconds = int(bound.total_seconds()) if isinstance(bound, timedelta) else bound
    return (
        f"http://localhost:{server.metrics_port or port}{path}",
        *("--port", str(exporter.port)),
        *(("--names", names) if names else ()),
        *("--server", family or kind),
        *("--bound", str(seconds)),
        *(word for alias in exporter.aliases for word in ("--alias", alias)),
        *(("--native",) if exporter.native else ()),
    )


def exporter_container(exporter: MetricsExporter, container: Container) -> Container:
    """Return the program's container as the native sidecar that it is."""
    return replace(
        container,
        sidecar=True,
        port=exporter.port,
        port_name=PORT_NAME,
        probes=Probes(liveness=Probe(path=EXPORTER_PATH)),
    )


def with_exporter_probes(probes: Probes, exporter: MetricsExporter, *, is_gated: bool) -> Probes:
    """Return a server's probes, of which the exporter answers what it can tell better.

    Args:
        probes: The server's own; a liveness probe of the user's stays.
        exporter: The settings.
        is_gated: Whether a gate bounds the start, so that the kubelet must not wait for the server.
    """
    if probes.liveness is not None:
        return probes
    liveness = Probe(path=LIVE_PATH, port=exporter.port)
    # Without a startup probe, a server that was started anew would be judged while it loads.
    startup = probes.startup
    if is_gated or startup is None:
        startup = Probe(path=STARTED_PATH, port=exporter.port, failure_threshold=RESTART_THRESHOLD)
    return Probes(startup=startup, readiness=probes.readiness, liveness=liveness)


def asks_exporter(probe: Probe) -> bool:
    """Return whether the exporter answers a startup probe: at once, at the pod's own start."""
    return probe.path == STARTED_PATH


def judges_progress(names: MetricNames) -> bool:
    """Return whether a server's metrics show its progress."""
    return bool(names_of(names, "heartbeat"))


def _as_json(names: MetricNames) -> str:
    # a server of another distribution may name more than there is; the program refuses what it
    # does not know
    lists: Mapping[str, Any] = {
        quantity: list(names_of(names, quantity)) for quantity in names if quantity in QUANTITIES
    }
    return json.dumps(lists, separators=(",", ":"))
