"""Everything that is known of some servers, put together."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .advice import advise
from .data import ReportData, ServerData
from .metrics import sampler_of
from .result import Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..address import ServerAddress

__all__ = ["collect", "note_batch", "report"]

MAX_BATCHES = 20
MAX_SERVERS_OF_BATCHES = 64
MAX_COLD_START_BYTES = 2**20

_batches: dict[str, list[dict[str, Any]]] = {}
_lock = threading.Lock()


def note_batch(url: str, summary: Mapping[str, Any]) -> None:
    """Remember a batch for the report on its server; the first twenty of each server are, of the last 64 servers.

    A report reads `rows`, `succeeded`, `failed`, `resumed`, `retried`, `duration` (seconds),
    `rows_per_second`, `tokens_per_second`, `prompt_tokens`, `completion_tokens`, `max_concurrency`,
    `concurrency` (points with `seconds`, `limit`, `in_flight` and `rows_per_second`) and `failures`
    (with `index`, `id`, `kind` and `message`). Each may be missing.

    Args:
        url: The endpoint's.
        summary: `BatchResult.summary()`: plain JSON. One with the `path` of an earlier one takes
            its place, so that a running batch may be noted again and again.
    """
    with _lock:
        if url not in _batches and len(_batches) >= MAX_SERVERS_OF_BATCHES:
            del _batches[next(iter(_batches))]  # the one that was first asked for a batch
        known = _batches.setdefault(url, [])
        path = summary.get("path")
        same = [
            index for index, one in enumerate(known) if path is not None and one.get("path") == path
        ]
        if same:
            known[same[0]] = dict(summary)
        elif len(known) < MAX_BATCHES:
            known.append(dict(summary))


def collect(endpoint: ServerAddress) -> ServerData:
    """Return what is known of one server now."""
    with _lock:
        batches = tuple(_batches.get(endpoint.url, ()))
    sampler = sampler_of(endpoint.metrics_url)
    about = endpoint.about
    server = ServerData(
        name=about.name if about else "",
        about=_about(endpoint),
        cold_start=_cold_start(endpoint.cold_start),
        clients=endpoint.record.snapshot(),
        batches=batches,
        metrics=sampler.snapshot() if sampler else None,
    )
    return replace(server, advice=tuple(advise(server)))


def report(
    endpoints: Iterable[ServerAddress],
    *,
    path: str | Path | None = None,
    running: bool = False,
    error: str = "",
) -> Report:
    """Return the report on some servers.

    Args:
        endpoints: Where they answer.
        path: A directory into which the page and its numbers are also written.
        running: Whether the task is still at work.
        error: What the task's function raised.
    """
    servers = tuple(collect(endpoint) for endpoint in endpoints)
    made = Report(ReportData(made=time.time(), running=running, error=error[:300], servers=servers))
    if path is not None:
        made.write(path)
    return made


def _about(endpoint: ServerAddress) -> dict[str, Any]:
    about = endpoint.about
    told = {
        "kind": about.kind if about else "",
        "url": endpoint.url,
        "model": (about.model if about else "") or endpoint.model,
        "image": about.image if about else "",
        "gpus": about.gpus if about else None,
        "cpu": about.cpu if about else "",
        "mem": about.mem if about else "",
    }
    return {name: value for name, value in told.items() if value not in ("", None)}


def _cold_start(path: str | None) -> dict[str, Any] | None:
    """Return the server gate's report, or `None` where there is none that can be read."""
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            value = json.loads(file.read(MAX_COLD_START_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _is_readable(value.get("phases")) else None


def _is_readable(phases: Any) -> bool:
    fields = {"name": str, "seconds": int | float, "started": str, "ended": str}
    return isinstance(phases, list) and all(
        isinstance(phase, dict)
        and all(isinstance(phase.get(key), kind) for key, kind in fields.items())
        for phase in phases
    )
