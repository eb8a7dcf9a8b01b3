"""Every error this package raises, in one tree.

```
InferenceError                    base: code, hint, retryable, exit_code
├── ConfigError (ValueError)      a description is wrong; shows all problems of one object      78
│   ├── ArgumentError (TypeError) a call takes no such argument; names the one that was meant
│   ├── QuantityError             a Kubernetes quantity cannot be read
│   ├── SpecConflictError         two things of one name differ; shows both
│   └── UnsupportedError          the server, its version or this machine lacks what was asked
├── MissingDependencyError (ImportError)  an optional dependency is absent; names it            78
├── UsageError (ValueError)       a program was called wrongly                                  64
├── FetchError (OSError)          something could not be fetched                                74
│   ├── SourceNotFoundError (FileNotFoundError)                                                 66
│   │   └── RevisionNotFoundError     the source exists, but not in this revision               66
│   ├── InvalidSourceError (ValueError)   it exists, but is not what it should be               66
│   ├── SourceForbiddenError (PermissionError)                                                  77
│   │   └── GatedModelError       its owner has not granted this account access                 77
│   ├── DestinationError          its destination cannot be written, or is too small            74
│   ├── IntegrityError            what arrived is not what was sent                  retryable  74
│   └── SourceUnavailableError (ConnectionError)  no answer, throttled, stalled      retryable  69
├── BatchFailedError              more rows of a batch failed than were allowed                 65
└── ServerError                   a model server did not do its part                            69
    ├── ServerNotReadyError (TimeoutError)    not ready within its budget            retryable
    └── ServerExitedError         it ended while it was needed
```

Standard library only: this module also travels to containers that do not have the package
installed. The numbers are exit codes of programs, those of sysexits.h (FreeBSD `sysexits(3)`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "ArgumentError",
    "BatchFailedError",
    "ConfigError",
    "DestinationError",
    "FetchError",
    "GatedModelError",
    "InferenceError",
    "IntegrityError",
    "InvalidSourceError",
    "MissingDependencyError",
    "QuantityError",
    "RevisionNotFoundError",
    "ServerError",
    "ServerExitedError",
    "ServerNotReadyError",
    "SourceForbiddenError",
    "SourceNotFoundError",
    "SourceUnavailableError",
    "SpecConflictError",
    "UnsupportedError",
    "UsageError",
]


class InferenceError(Exception):
    """Base of all errors of this package.

    Args:
        message: What was given and what was expected, in one or two sentences.
        hint: What to do about it; shown after the message.
    """

    exit_code: ClassVar[int] = 70
    """Exit code of a program that ends with this error (sysexits.h)."""
    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without any change."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def code(self) -> str:
        """The stable name of this kind of error, for logs and termination messages."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message


class ConfigError(InferenceError, ValueError):
    """A description is wrong. The error contains every problem, not only the first.

    Args:
        message: What is wrong, or the headline when `problems` are given.
        hint: What to do about it.
        problems: The single problems, each a full sentence.
    """

    exit_code = 78

    def __init__(self, message: str, *, hint: str = "", problems: Iterable[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {problem}" for problem in self.problems)])


class ArgumentError(ConfigError, TypeError):
    """A call does not take an argument that it was given.

    A `TypeError` too, which is what Python raises for it and what callers expect.
    """


class QuantityError(ConfigError):
    """A text or number is not a Kubernetes quantity."""


class SpecConflictError(ConfigError):
    """Two things of one name differ."""


class UnsupportedError(ConfigError):
    """The server, its version or this machine does not have what was asked for."""


class MissingDependencyError(InferenceError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 78


class UsageError(InferenceError, ValueError):
    """A program was called with arguments it cannot work with."""

    exit_code = 64


class FetchError(InferenceError, OSError):
    """Something could not be fetched from where it is to where it is needed."""

    exit_code = 74


class SourceNotFoundError(FetchError, FileNotFoundError):
    """The source does not exist."""

    exit_code = 66


class RevisionNotFoundError(SourceNotFoundError):
    """The source exists, but not in the revision that was asked for."""


class InvalidSourceError(FetchError, ValueError):
    """The source exists but does not hold what it should."""

    exit_code = 66


class SourceForbiddenError(FetchError, PermissionError):
    """The source exists, but these credentials may not read it."""

    exit_code = 77


class GatedModelError(SourceForbiddenError):
    """The model's owner must grant access to each account, and has not to this one."""


class DestinationError(FetchError):
    """The destination cannot be written or has too little space."""


class IntegrityError(FetchError):
    """What arrived differs from what the source said it would send."""

    retryable = True


class SourceUnavailableError(FetchError, ConnectionError):
    """The source did not answer, answered too slowly or asked to come back later."""

    exit_code = 69
    retryable = True

    retry_after_seconds: float = 0.0
    """How long the source asks clients to wait (`Retry-After`); 0 without that header."""


class BatchFailedError(InferenceError):
    """More rows of a batch failed than were allowed, or all of them.

    Finished rows are kept, and a rerun continues.

    Args:
        message: How many rows failed, and how many were allowed to.
        hint: What to do about it.
        failures: The first failures, one line each.
    """

    exit_code = 65

    def __init__(self, message: str, *, hint: str = "", failures: Iterable[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.failures = tuple(failures)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {failure}" for failure in self.failures)])


class ServerError(InferenceError):
    """A model server did not do its part.

    Args:
        message: What happened.
        hint: What to do about it.
        log_tail: The last lines the server wrote, newest last.
    """

    exit_code = 69

    def __init__(self, message: str, *, hint: str = "", log_tail: Iterable[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.log_tail = tuple(log_tail)

    def __str__(self) -> str:
        if not self.log_tail:
            return super().__str__()
        return "\n".join(
            [super().__str__(), "Its last lines:", *(f"  | {line}" for line in self.log_tail)]
        )


class ServerNotReadyError(ServerError, TimeoutError):
    """A server was not ready within its budget."""

    retryable = True


class ServerExitedError(ServerError):
    """A server, or a container it needs, ended while it was needed."""
