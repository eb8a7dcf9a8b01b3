"""Detects from the files in the published directory whether the model loader failed for good."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ... import errors
from ...errors import InferenceError, ServerExitedError
from ..protocol import ERROR_NAME, READY_NAME, STARTS_NAME

if TYPE_CHECKING:
    from pathlib import Path

MAX_FAILURES = 3
"""Number of runs that end with a retryable error, or without a message, before the start fails."""
KILLED_HINT = (
    "Read the log of model-loader; exit code 137 means its memory: raise model_loader_mem."
)


class LoaderWatch:
    """Reads the files that a loader leaves behind, again and again.

    Args:
        models: The directory where the loader publishes.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._failures: set[tuple[int, int]] = set()
        self.last: InferenceError | None = None
        """The loader's latest error."""

    @property
    def is_ready(self) -> bool:
        """Whether the model is published; later failures, as of updates, do not end the start."""
        return (self._models / READY_NAME).exists()

    @property
    def state(self) -> str:
        """A sentence about a loader that is not ready; empty for any other."""
        if self.is_ready:
            return ""
        return (
            f"The model loader failed last with: {self.last.message}"
            if self.last
            else "The model loader had not finished."
        )

    @property
    def hint(self) -> str:
        """A hint for a loader that is not ready; empty for any other."""
        return "" if self.is_ready else (self.last and self.last.hint) or KILLED_HINT

    def check(self) -> None:
        """Read the files once.

        Raises:
            InferenceError: The loader failed for good. The error has the type, and so the exit
                code, of the loader's own.
            ServerExitedError: The loader was killed again and again.
        """
        self._check_starts()
        path = self._models / ERROR_NAME
        try:
            status = path.stat()
            # each run replaces the file, so a new version is another failure
            version = (status.st_ino, status.st_mtime_ns)
            if version in self._failures or self.is_ready:
                return
            error, is_final = _parse(path.read_bytes())
        except (OSError, ValueError):  # not there, or not complete
            return
        self._failures.add(version)
        self.last = error
        if is_final or len(self._failures) >= MAX_FAILURES:
            times = f" {len(self._failures)} times" if len(self._failures) > 1 else ""
            raise type(error)(f"The model loader failed{times}: {error.message}", hint=error.hint)

    def _check_starts(self) -> None:
        try:
            starts = int((self._models / STARTS_NAME).read_bytes())
        except (OSError, ValueError):  # not there, or not complete
            return
        # a process that runs out of memory is killed and leaves no error, only this count
        if starts > MAX_FAILURES and not self.is_ready:
            raise ServerExitedError(
                f"The model loader was killed {starts - 1} times and made no progress.",
                hint=KILLED_HINT,
            )


def _parse(text: bytes) -> tuple[InferenceError, bool]:
    """Return the error, and whether a rerun would fail as well.

    An error of an unknown type, as from a loader of another version, may be temporary.

    Raises:
        ValueError: The text is not a termination message.
    """
    try:
        fields = json.loads(text)
        name, message, hint = (str(fields[key]) for key in ("error", "message", "hint"))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if name not in errors.__all__:
        return ServerExitedError(f"{name}: {message}", hint=hint), False
    failure: InferenceError = getattr(errors, name)(message, hint=hint)
    return failure, not failure.retryable
