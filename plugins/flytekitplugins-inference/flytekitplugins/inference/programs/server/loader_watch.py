"""Whether the model loader failed for good, told from what it leaves in the directory where it publishes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ... import errors
from ...errors import InferenceError, ServerExitedError
from ..protocol import ERROR_NAME, READY_NAME, STARTS_NAME

if TYPE_CHECKING:
    from pathlib import Path

MAX_FAILURES = 3
"""After so many ends with an error that a rerun could have mended, or without a word, none is
expected to."""
KILLED_HINT = (
    "Read the log of model-loader; exit code 137 means its memory: raise model_loader_mem."
)


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
        """Whether the model is there. What fails after that, such as an update, is no concern of a start."""
        return (self._models / READY_NAME).exists()

    @property
    def state(self) -> str:
        """What there is to say of a loader that is not ready; nothing of any other."""
        if self.is_ready:
            return ""
        return (
            f"The model loader failed last with: {self.last.message}"
            if self.last
            else "The model loader had not finished."
        )

    @property
    def hint(self) -> str:
        """What to do about a loader that is not ready; nothing about any other."""
        return "" if self.is_ready else (self.last and self.last.hint) or KILLED_HINT

    def check(self) -> None:
        """Look once.

        Raises:
            InferenceError: The loader failed for good; of the kind, and with the exit code, of its
                own error.
            ServerExitedError: It was killed again and again.
        """
        self._check_starts()
        path = self._models / ERROR_NAME
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

    def _check_starts(self) -> None:
        try:
            starts = int((self._models / STARTS_NAME).read_bytes())
        except (OSError, ValueError):  # not there, or not complete
            return
        if starts > MAX_FAILURES and not self.is_ready:
            raise ServerExitedError(
                f"The model loader was killed {starts - 1} times, and brought nothing.",
                hint=KILLED_HINT,
            )


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
