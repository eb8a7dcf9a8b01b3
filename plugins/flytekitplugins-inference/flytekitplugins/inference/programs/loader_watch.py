"""Whether the model loader failed for good, told from the file that it leaves when it ends with an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .. import errors
from ..errors import InferenceError, ServerExitedError

if TYPE_CHECKING:
    from pathlib import Path

ERROR_FILE = "error.json"
"""The loader's termination message, below the models' directory."""
READY_FILE = ".ready"
"""Present once the model is; what fails after that, such as an update, is no concern of a start."""
MAX_FAILURES = 3
"""After so many ends with an error that a rerun could have mended, none is expected to."""


class LoaderWatch:
    """Looks at what a loader leaves behind, again and again.

    Args:
        models: The directory where it publishes.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._seen: set[tuple[int, int]] = set()
        self.last: InferenceError | None = None
        """Its latest error."""

    @property
    def is_ready(self) -> bool:
        """Whether the model is there."""
        return (self._models / READY_FILE).exists()

    def check(self) -> None:
        """Look once.

        Raises:
            InferenceError: The loader failed for good; of the kind, and with the exit code, of its own error.
        """
        path = self._models / ERROR_FILE
        try:
            status = path.stat()
            version = (status.st_ino, status.st_mtime_ns)
            if version in self._seen or self.is_ready:
                return
            error, is_final = _parse(path.read_bytes())
        except (OSError, ValueError):  # not there, or not complete
            return
        self._seen.add(version)
        self.last = error
        if is_final or len(self._seen) >= MAX_FAILURES:
            times = f" {len(self._seen)} times" if len(self._seen) > 1 else ""
            raise type(error)(f"The model loader failed{times}: {error.message}", hint=error.hint)


def _parse(text: bytes) -> tuple[InferenceError, bool]:
    """Return the error, and whether a rerun would fail as well; a kind that is unknown here may be a passing one.

    Raises:
        ValueError: This is no termination message.
    """
    try:
        fields = json.loads(text)
        name, message, hint = (str(fields[key]) for key in ("error", "message", "hint"))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if name not in errors.__all__:
        return ServerExitedError(f"{name}: {message}", hint=hint), False
    known: InferenceError = getattr(errors, name)(message, hint=hint)
    return known, not known.retryable
