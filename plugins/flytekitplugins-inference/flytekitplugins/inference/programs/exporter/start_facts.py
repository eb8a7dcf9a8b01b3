"""What the files of the start say: which model was loaded, and how long each phase took."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...facts.address import mask

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["StartFacts"]

MAX_FILE_BYTES = 8 * 2**20
"""The metadata of a model list its files."""


class StartFacts:
    """Reads the gate's report on the start and the loader's metadata, again when they change.

    Args:
        report: The gate's report; `None` without a gate.
        metadata: The loader's description of the model; `None` without a loader.
    """

    def __init__(self, report: Path | None, metadata: Path | None) -> None:
        self._report = _JsonFile(report)
        self._metadata = _JsonFile(metadata)

    @property
    def phases(self) -> dict[str, float]:
        """The seconds of each phase."""
        phases = self._report.read().get("phases")
        seconds = {
            phase["name"]: _number(phase.get("seconds"))
            for phase in (phases if isinstance(phases, list) else [])
            if isinstance(phase, dict) and isinstance(phase.get("name"), str)
        }
        return {name: value for name, value in seconds.items() if value is not None}

    @property
    def seconds(self) -> float | None:
        """The seconds of the whole start."""
        return _number(self._report.read().get("total_seconds"))

    @property
    def model_bytes(self) -> float | None:
        """The size of the model."""
        return _number(self._metadata.read().get("bytes"))

    @property
    def model(self) -> dict[str, str]:
        """The model's labels; empty as long as none is published."""
        fields = self._metadata.read()
        labels = {
            "model_id": fields.get("model_id"),
            "revision": fields.get("revision"),
            "source": fields.get("source"),
            "loaded_at": fields.get("loaded_at"),
        }
        # an address may hold a signature in its query
        return {name: mask(value) for name, value in labels.items() if isinstance(value, str)}


class _JsonFile:
    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._version = (0, 0)
        self._value: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """Return the object in the file; empty if there is none."""
        if self._path is None:
            return {}
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns)
            if version != self._version and status.st_size <= MAX_FILE_BYTES:
                value = json.loads(self._path.read_bytes())
                self._value = value if isinstance(value, dict) else {}
                self._version = version
        except (OSError, ValueError, RecursionError):  # not there, or not complete
            pass
        return self._value


def _number(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 1e18 else None  # type: ignore[arg-type, operator]
