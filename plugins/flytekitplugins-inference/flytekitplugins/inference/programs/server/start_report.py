"""The phases of a cold start, from the files of the loader and downloader and from the gate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..protocol import METADATA_NAME, VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_PHASES = 16
"""Maximum number of the loader's phases in a report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartPhase:
    """A part of the start; both times are seconds since 1970."""

    name: str
    started: float
    ended: float


def start_phases(
    *,
    started: float,
    ended: float,
    oldest: float,
    models: Path | None,
    inputs: Path | None,
    first_answer_seconds: float | None,
) -> list[StartPhase]:
    """Return the phases of a start that left a trace.

    The server's own phase begins when the model is published, or with the gate. Its port is no
    indication: some servers open it first and others last. The loader's phases, the server's and
    the first answer therefore follow one another.

    Args:
        started: When the gate started.
        ended: When the wait ended.
        oldest: Phases that ended before belong to an earlier start, on a volume that outlives pods.
        models: Where the loader publishes.
        inputs: The input downloader's JSON file.
        first_answer_seconds: Duration of the model's first answer; None if it gave none.
    """
    loader = [phase for phase in (_loader_phases(models) if models else []) if phase.ended <= ended]
    loaded = max((phase.ended for phase in loader), default=started)
    if loaded < oldest:
        loader, loaded = [], started
    others = [
        phase
        for phase in (_input_phases(inputs) if inputs else [])
        if oldest <= phase.ended <= ended
    ]
    answer_start = ended - (first_answer_seconds or 0)
    load_start = min(max(started, loaded), answer_start)
    phases = [
        *loader,
        *others,
        StartPhase(name="server_load", started=load_start, ended=answer_start),
    ]
    if first_answer_seconds is not None:
        phases.append(StartPhase(name="first_answer", started=answer_start, ended=ended))
    return phases


def report(
    phases: Sequence[StartPhase], *, outcome: str, started: float, ended: float
) -> dict[str, Any]:
    """Return the report as JSON objects.

    Args:
        phases: In order of appearance.
        outcome: `ready`, or the name of the error that ended the wait.
        started: When the gate started; the total includes phases that began earlier.
        ended: When the wait ended.
    """
    first = min([started, *(phase.started for phase in phases)])
    return {
        "version": VERSION,
        "phases": [
            {
                "name": phase.name,
                "seconds": round(phase.ended - phase.started, 3),
                "started": _text(phase.started),
                "ended": _text(phase.ended),
            }
            for phase in phases
        ],
        "total_seconds": round(ended - first, 3),
        "outcome": outcome,
    }


def table(value: dict[str, Any]) -> str:
    """Return the report as a table: each phase, its seconds, its start and its end."""
    phases = value["phases"]
    times = [
        [datetime.fromisoformat(phase[key]) for key in ("started", "ended")] for phase in phases
    ]
    origin = min((began for began, _ in times), default=datetime.now(timezone.utc))
    width = max(len("total"), *(len(phase["name"]) for phase in phases), 0)
    lines = [f"{'phase':<{width}} {'seconds':>9} {'from':>9} {'to':>9}"]
    for phase, (began, ended) in zip(phases, times, strict=True):
        span = f"{(began - origin).total_seconds():>9.3f} {(ended - origin).total_seconds():>9.3f}"
        lines.append(f"{phase['name']:<{width}} {phase['seconds']:>9.3f} {span}")
    lines.append(f"{'total':<{width}} {value['total_seconds']:>9.3f} {value['outcome']}")
    return "\n".join(lines)


def _loader_phases(models: Path) -> list[StartPhase]:
    """Return the loader's phases of the model, and one phase for each adapter."""
    path = models / METADATA_NAME
    metadata = _read_json(path)
    modified = path.stat().st_mtime if metadata else 0.0
    phases = _phases_of(metadata, "loader", modified)
    adapters = metadata.get("adapters")
    for name, adapter in (adapters if isinstance(adapters, dict) else {}).items():
        parts = _phases_of(adapter if isinstance(adapter, dict) else {}, "", modified)
        if parts:
            phases.append(
                StartPhase(
                    name=f"loader.adapter.{name}", started=parts[0].started, ended=parts[-1].ended
                )
            )
    return phases[:MAX_PHASES]


def _phases_of(description: dict[str, Any], prefix: str, modified: float) -> list[StartPhase]:
    """Return the phases of `seconds`, one after another, the last one ending at `loaded_at`."""
    seconds = description.get("seconds")
    ended = _moment(description.get("loaded_at"))
    if not isinstance(seconds, dict) or ended is None:
        return []
    # `loaded_at` has whole seconds; the time of the file is exact
    if 0 <= modified - ended < 1:
        ended = modified
    durations = [
        (str(name), duration)
        for name, value in seconds.items()
        if (duration := _number(value)) is not None
    ]
    phases: list[StartPhase] = []
    for name, duration in reversed([item for item in durations if item[0] != "total"]):
        phases.insert(0, StartPhase(name=f"{prefix}.{name}", started=ended - duration, ended=ended))
        ended -= duration
    return phases


def _input_phases(inputs: Path) -> list[StartPhase]:
    """Return the input downloader's phase, which ended when it wrote its manifest."""
    manifest = inputs.with_suffix(".manifest.json")
    seconds = _number(_read_json(manifest).get("seconds"))
    if seconds is None:
        return []
    ended = manifest.stat().st_mtime
    return [StartPhase(name="input_download", started=ended - seconds, ended=ended)]


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, or an empty one on any failure: a report must not end a start."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value < 2**32 else None  # NaN is neither


def _moment(value: object) -> float | None:
    """Return the seconds since 1970 of a number or an ISO 8601 text (UTC without an offset)."""
    if not isinstance(value, str):
        return _number(value)
    try:
        # before Python 3.11, `fromisoformat` does not read the suffix Z
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")
