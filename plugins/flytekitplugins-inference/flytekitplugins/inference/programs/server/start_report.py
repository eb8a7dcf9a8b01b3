"""What a cold start took, phase by phase: from what the loader and the downloader left, and what the gate saw."""

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
"""Of the loader."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartPhase:
    """A part of the start; both times in seconds since 1970."""

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
    """Return the phases of a start; what left no trace has none.

    The server's own begins when the model was there, or with the gate: its port tells nothing, for
    some servers open it first and others last. So the loader's phases, the server's and the first
    answer follow one another.

    Args:
        started: When the gate started.
        ended: When the wait ended.
        oldest: What ended before is an earlier start's, left on a volume that outlives the pod.
        models: Where the loader publishes.
        inputs: The input downloader's JSON file.
        first_answer_seconds: How long the model took to answer at last; None when it did not.
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
    answered = ended - (first_answer_seconds or 0)
    begun = min(max(started, loaded), answered)
    phases = [*loader, *others, StartPhase(name="server_load", started=begun, ended=answered)]
    if first_answer_seconds is not None:
        phases.append(StartPhase(name="first_answer", started=answered, ended=ended))
    return phases


def report(
    phases: Sequence[StartPhase], *, outcome: str, started: float, ended: float
) -> dict[str, Any]:
    """Return the report as JSON objects.

    Args:
        phases: In order of appearance.
        outcome: `ready`, or the name of what ended the wait.
        started: When the gate started; the total begins earlier when a phase did.
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
    """Return the report's lines for a person: the phase, its seconds, and when it began and ended."""
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
    """Return the loader's phases of the model, and one for each adapter; none when it left none."""
    path = models / METADATA_NAME
    metadata = _read_json(path)
    written = path.stat().st_mtime if metadata else 0.0
    phases = _phases_of(metadata, "loader", written)
    adapters = metadata.get("adapters")
    for name, adapter in (adapters if isinstance(adapters, dict) else {}).items():
        parts = _phases_of(adapter if isinstance(adapter, dict) else {}, "", written)
        if parts:
            phases.append(
                StartPhase(
                    name=f"loader.adapter.{name}", started=parts[0].started, ended=parts[-1].ended
                )
            )
    return phases[:MAX_PHASES]


def _phases_of(description: dict[str, Any], prefix: str, written: float) -> list[StartPhase]:
    """Return what `seconds` holds by phase, one after the other up to `loaded_at`."""
    seconds = description.get("seconds")
    ended = _moment(description.get("loaded_at"))
    if not isinstance(seconds, dict) or ended is None:
        return []
    if (
        0 <= written - ended < 1
    ):  # the loader's own time is to the second, that of its file is exact
        ended = written
    known = [
        (str(name), spent)
        for name, value in seconds.items()
        if (spent := _number(value)) is not None
    ]
    phases: list[StartPhase] = []
    for name, spent in reversed([item for item in known if item[0] != "total"]):
        phases.insert(0, StartPhase(name=f"{prefix}.{name}", started=ended - spent, ended=ended))
        ended -= spent
    return phases


def _input_phases(inputs: Path) -> list[StartPhase]:
    """Return the input downloader's phase, which ended when its manifest was written; none without one."""
    manifest = inputs.with_suffix(".manifest.json")
    seconds = _number(_read_json(manifest).get("seconds"))
    if seconds is None:
        return []
    ended = manifest.stat().st_mtime
    return [StartPhase(name="input_download", started=ended - seconds, ended=ended)]


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one when there is none, for a report must not end a start."""
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
    """Return seconds since 1970 of a number or an ISO 8601 text (UTC where it does not say)."""
    if not isinstance(value, str):
        return _number(value)
    try:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")
