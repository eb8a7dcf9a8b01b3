"""Collects everything that is known of some servers."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .advice import advise
from .data import ReportData, ServerData
from .json_fields import from_json
from .metrics import sampler_of
from .report_files import Report
from .snapshots import BatchStats, ClientStats, ColdStart, ServerInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..server_address import ServerAddress

__all__ = ["collect", "note_batch", "report"]

MAX_BATCHES = 20
MAX_SERVERS_OF_BATCHES = 64
MAX_COLD_START_BYTES = 2**20

_batches: dict[str, list[BatchStats]] = {}
_lock = threading.Lock()


def note_batch(url: str, summary: Mapping[str, Any]) -> None:
    """Remember a batch for the report on its server.

    It keeps the first twenty batches of each of the last 64 servers.

    Args:
        url: The endpoint's address.
        summary: `BatchResult.summary()`: plain JSON with the fields of `BatchStats`, each of which
            may be missing. It replaces an earlier one with the same `path`, so that a running batch
            can be updated.
    """
    batch = from_json(BatchStats, summary)
    with _lock:
        if url not in _batches and len(_batches) >= MAX_SERVERS_OF_BATCHES:
            del _batches[next(iter(_batches))]  # the oldest one; dicts keep the order of insertion
        batches = _batches.setdefault(url, [])
        paths = [earlier.path for earlier in batches]
        if batch.path is not None and batch.path in paths:
            batches[paths.index(batch.path)] = batch
        elif len(batches) < MAX_BATCHES:
            batches.append(batch)


def collect(endpoint: ServerAddress) -> ServerData:
    """Return everything that is known of one server now."""
    with _lock:
        batches = tuple(_batches.get(endpoint.url, ()))
    sampler = sampler_of(endpoint.metrics_url)
    server = ServerData(
        name=endpoint.about.name if endpoint.about else "",
        about=_server_info(endpoint),
        cold_start=_cold_start(endpoint.cold_start),
        clients=from_json(ClientStats, endpoint.record.snapshot()),
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
        endpoints: The servers.
        path: A directory to which the page and its numbers are also written.
        running: Whether the task is still running.
        error: The exception of the task's function.
    """
    servers = tuple(collect(endpoint) for endpoint in endpoints)
    data = ReportData(made=time.time(), running=running, error=error[:300], servers=servers)
    report = Report(data)
    if path is not None:
        report.write(path)
    return report


def _server_info(endpoint: ServerAddress) -> ServerInfo:
    about = endpoint.about
    if about is None:
        return ServerInfo(url=endpoint.url, model=endpoint.model)
    return ServerInfo(
        kind=about.kind,
        url=endpoint.url,
        model=about.model or endpoint.model,
        image=about.image,
        gpus=about.gpus,
        cpu=about.cpu,
        mem=about.mem,
    )


def _cold_start(path: str | None) -> ColdStart | None:
    """Return the server gate's report, or `None` if it is missing or unreadable."""
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            return from_json(ColdStart, json.loads(file.read(MAX_COLD_START_BYTES)))
    # the rest of a report does not depend on it
    except (OSError, ValueError, RecursionError):
        return None
