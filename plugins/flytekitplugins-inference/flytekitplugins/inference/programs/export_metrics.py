"""The metrics exporter: a server's metrics in one vocabulary, and a liveness that is true.

    python -m flytekitplugins.inference.programs.export_metrics http://localhost:8000/metrics
        --health http://localhost:8000/health --port 9090

runs as a sidecar beside a model server. It asks the server for its page every five seconds, however
many read its own: `/metrics` is the page, `/live` whether the server works (the kubelet's liveness
probe of the server), `/started` whether a restarted server is up again (its startup probe),
`/healthz` whether the exporter itself works, `/summary` what was seen so far. At SIGTERM it writes
the summary to a file.
"""

from __future__ import annotations

if __name__ == "__main__":  # before all else is imported
    from .sigterm import end_at_once

    end_at_once()

import json
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DestinationError, ServerError, UsageError
from ..facts.liveness import BOUND_SECONDS, LivenessRule
from ..facts.metric_names import FAMILIES, KNOWN_NAMES, QUANTITIES
from ..facts.readiness import HEALTH_SECONDS
from .command_line import CommandLine, positive_seconds, say
from .disk import write_json
from .exporter.exporter_page import ExporterPage
from .exporter.page_server import PageServer
from .exporter.server_monitor import CHECK_SECONDS, ServerMonitor
from .exporter.start_facts import StartFacts
from .exporter.upstream import Upstream
from .main import start
from .preflight import token
from .protocol import (
    EXPORTER_ALIASES,
    EXPORTER_PATH,
    EXPORTER_PORT,
    LIVE_PATH,
    METADATA_NAME,
    STARTED_PATH,
    VERSION,
)
from .server.server_probe import Api, ServerProbe, server_address

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from ..facts.metric_names import MetricNames
    from .exporter.page_server import Page

PROGRAM = "export_metrics"
SUMMARY_SECONDS = 60.0
"""How often the summary is written before the end, for ends without SIGTERM."""
PAGE_TYPE = "text/plain; version=0.0.4"

_say = partial(say, PROGRAM)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program until SIGTERM; see `--help`.

    Raises:
        UsageError: The arguments are wrong.
        ServerError: It cannot listen on its port.
    """
    parsed = _parser().parse_args(argv)
    names = _names(parsed.names)
    key = token(parsed.token_env, environ)
    upstream = Upstream(server_address(parsed.url), names, token=key, keeps_native=parsed.native)
    monitor = ServerMonitor(upstream, _readiness(parsed, key), LivenessRule(parsed.bound))
    page = ExporterPage(
        {"server": parsed.server, "model_name": parsed.model},
        aliases=parsed.alias,
        facts=StartFacts(
            parsed.start_report, parsed.models / METADATA_NAME if parsed.models else None
        ),
    )
    server = _listening(parsed.host, parsed.port)
    server.pages = _pages(monitor, page, server)
    monitor.start()
    threading.Thread(target=server.serve_forever, name="exporter-pages", daemon=True).start()
    _say(f"ready port={server.port}")
    try:
        while True:
            threading.Event().wait(SUMMARY_SECONDS)
            _write_summary(parsed, monitor)
    finally:
        _write_summary(parsed, monitor)


def _pages(monitor: ServerMonitor, page: ExporterPage, server: PageServer) -> dict[str, Any]:
    def metrics() -> Page:
        text = page.text(monitor.reading(), closed_connections=server.closed_connections)
        return 200, PAGE_TYPE, text

    def live() -> Page:
        verdict = monitor.verdict()
        return _answer(verdict.is_live, verdict.reason)

    def started() -> Page:
        has_started = monitor.has_started()
        return _answer(has_started, "started" if has_started else "The server starts anew.")

    def healthz() -> Page:
        is_watching = monitor.is_watching()
        return _answer(is_watching, "watching" if is_watching else "A thread hangs.")

    def summary() -> Page:
        return 200, "application/json", json.dumps(monitor.summary())

    return {
        "/metrics": metrics,
        LIVE_PATH: live,
        STARTED_PATH: started,
        EXPORTER_PATH: healthz,
        "/summary": summary,
    }


def _answer(is_good: bool, text: str) -> Page:
    return 200 if is_good else 503, "text/plain", f"{text}\n"


def _listening(host: str, port: int) -> PageServer:
    try:
        return PageServer(host, port, {})
    except OSError as error:
        raise ServerError(
            f"The exporter cannot listen on port {port}: {error.strerror}.",
            hint="Give it another port: Metrics(port=…).",
        ) from None


def _readiness(parsed: argparse.Namespace, key: str) -> Any:
    """Return the function that asks the server whether it is ready with its model."""
    if not parsed.health:
        return lambda: None
    probe = ServerProbe(
        server_address(parsed.health),
        model=parsed.model,
        api=Api(parsed.api),
        token=key,
        tick=lambda: None,
    )

    def ask() -> bool | None:
        answer = probe.ask_readiness(HEALTH_SECONDS)
        if answer.is_ready and probe.asks_for_model:
            answer = probe.ask_model(CHECK_SECONDS)
        # an answer that is late is none: a saturated server gives it too
        return answer.is_ready if answer.has_answered else None

    return ask


def _write_summary(parsed: argparse.Namespace, monitor: ServerMonitor) -> None:
    if parsed.summary is None:
        return
    try:
        write_json(
            parsed.summary, {"version": VERSION, "server": parsed.server, **monitor.summary()}
        )
    # the task must not fail because of a report on it
    except DestinationError as error:
        _say(f"no summary: {error}")


def _names(text: str) -> MetricNames:
    """Return the server's names: those of a known server, or a JSON object.

    Raises:
        UsageError: The text is neither.
    """
    if not text:
        return KNOWN_NAMES
    if text in FAMILIES:
        return FAMILIES[text]
    try:
        given = json.loads(text)
        names = {
            quantity: (name,) if isinstance(name, str) else tuple(map(str, name))
            for quantity, name in given.items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UsageError(
            "--names is neither a known server nor a JSON object of names.",
            hint=f"Known servers: {', '.join(FAMILIES)}. An object has a name or a list of names "
            'for each quantity: {"requests_running": "my_requests"}.',
        ) from None
    if unknown := names.keys() - QUANTITIES:
        raise UsageError(
            f"--names has unknown quantities: {', '.join(sorted(unknown))}.",
            hint=f"There are {', '.join(sorted(QUANTITIES))}.",
        )
    return names


def _parser() -> CommandLine:
    parser = CommandLine(
        prog=PROGRAM,
        description="Serve a model server's metrics in one vocabulary, and tell whether it works.",
    )
    add = parser.add_argument
    add("url", metavar="URL", help="the server's own page of metrics")
    add("--port", type=_port, default=EXPORTER_PORT, help="port to listen on (%(default)s)")
    add("--host", default="0.0.0.0", help="address to listen on (%(default)s)")
    add("--health", metavar="URL", help="the server's readiness address")
    add("--model", default="", metavar="NAME", help="the model that the server must have")
    add(
        "--api",
        choices=[api.value for api in Api],
        default=Api.NONE.value,
        help="the API that reports the model (%(default)s)",
    )
    add(
        "--names",
        default="",
        metavar="SERVER|JSON",
        help="whose names the page has, or the names by quantity; default: any known server's",
    )
    add("--server", default="", metavar="NAME", help="value of the label `server`")
    add(
        "--bound",
        type=positive_seconds,
        default=BOUND_SECONDS,
        metavar="SECONDS",
        help="how long a busy server may make no progress (%(default)g)",
    )
    add(
        "--alias",
        action="append",
        choices=EXPORTER_ALIASES,
        default=[],
        help="also serve these names (repeatable)",
    )
    add("--native", action="store_true", help="also serve the server's own lines")
    add("--token-env", default="", metavar="NAME", help="the variable with the server's key")
    add("--models", type=Path, metavar="DIRECTORY", help="where the model loader publishes")
    add("--start-report", type=Path, metavar="FILE", help="the gate's report on the start")
    add("--summary", type=Path, metavar="FILE", help="where to write the summary at SIGTERM")
    return parser


def _port(text: str) -> int:
    import argparse

    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    start(PROGRAM, main)
