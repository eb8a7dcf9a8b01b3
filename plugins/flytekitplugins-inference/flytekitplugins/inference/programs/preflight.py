"""Checks that run before large downloads: variables, permissions, space and memory.

Each check returns its problems as errors, so one message can report all of them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import TYPE_CHECKING

from ..errors import ConfigError, DestinationError, InferenceError, SourceForbiddenError
from .disk import check_space, owner_hint
from .kernel import memory_limit_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_REPORTED = 10
"""Maximum number of problems in a message."""

_REFERENCE = re.compile(r"\$\([A-Za-z_][\w.-]*\)")
_TOKEN = re.compile(r"[!-~]+")


def combined(problems: Sequence[InferenceError]) -> InferenceError:
    """Return one error for several, with the type of the first one that is not retryable."""
    # its exit code tells whether a rerun can help: not if any of the problems needs a person
    first = next((problem for problem in problems if not problem.retryable), problems[0])
    if len(problems) == 1:
        return first
    texts = [
        f"({number}) {problem.message}" for number, problem in enumerate(problems[:MAX_REPORTED], 1)
    ]
    if len(problems) > MAX_REPORTED:
        texts.append(f"and {len(problems) - MAX_REPORTED} more.")
    hints = dict.fromkeys(problem.hint for problem in problems[:MAX_REPORTED] if problem.hint)
    return type(first)(f"{len(problems)} problems. {' '.join(texts)}", hint=" ".join(hints))


def variable_problems(names: Sequence[str], environ: Mapping[str, str]) -> list[InferenceError]:
    """Return an error for each variable that is missing, empty or an unresolved reference.

    An error never shows a value.
    """
    problems: list[InferenceError] = []
    for name in dict.fromkeys(names):
        value = environ.get(name)
        if value is None:
            state = "is not set"
        elif not value.strip():
            state = "is empty"
        # the kubelet leaves $(X) unchanged if the container has no variable X
        elif _REFERENCE.search(value):
            state = "still is a reference to a variable that is not there"
        else:
            continue
        hint = (
            "A secret did not arrive: check that it exists in this namespace with the group "
            "and key asked for."
        )
        problems.append(
            SourceForbiddenError(f"The environment variable {name} {state}.", hint=hint)
        )
    return problems


def token(name: str, environ: Mapping[str, str]) -> str:
    """Return the token in a variable; empty without one, or if it is an unresolved reference.

    Raises:
        SourceForbiddenError: The value cannot be sent as a token.
    """
    value = environ.get(name, "").strip() if name else ""
    if not value or _REFERENCE.search(value):
        return ""
    # checked here, because http.client's own error would quote the token
    if not _TOKEN.fullmatch(value):
        message = f"The environment variable {name} holds spaces or characters that no token has."
        raise SourceForbiddenError(
            message, hint="Check the secret's value: one token, without line breaks."
        )
    return value


def write_problems(directories: Sequence[Path]) -> list[InferenceError]:
    """Return an error for each place where this user may not create or write `directories`.

    A read-only mount is not a problem: the container that writes has the same user, and mounts the
    volume writable.
    """
    places = (
        next(path for path in (directory, *directory.parents) if path.exists())
        for directory in directories
    )
    return [
        DestinationError(
            f"{place} cannot be written by user {os.geteuid()}: its owner is user "
            f"{place.stat().st_uid}, group {place.stat().st_gid}, its mode "
            f"{stat.S_IMODE(place.stat().st_mode):o}.",
            hint=owner_hint(),
        )
        for place in dict.fromkeys(places)
        if _access_error(place) not in (0, errno.EROFS)
    ]


def _access_error(directory: Path) -> int:
    """Return the error number with which the kernel refuses writes in `directory`, or 0.

    `os.access` hides the number. The kernel checks owner, mode and access lists before the mount:
    `do_faccessat`, Linux 6.12 `fs/open.c`.
    """
    # imported on use: it takes a megabyte, and only this check needs it
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    is_denied = libc.access(os.fsencode(directory), os.W_OK | os.X_OK) != 0
    return ctypes.get_errno() if is_denied else 0


def space_problems(directory: Path, needed: int) -> list[InferenceError]:
    """Return an error unless the volume of `directory` has `needed` free bytes."""
    try:
        check_space(directory, needed)
    except DestinationError as error:
        return [error]
    except OSError as error:
        return [
            DestinationError(
                f"The free space of {directory} cannot be told: {error.strerror or error}."
            )
        ]
    return []


def memory_problems(needed: int) -> list[InferenceError]:
    """Return an error if this container may use less than `needed` bytes of memory."""
    limit = memory_limit_bytes()
    if limit is None or limit >= needed:
        return []
    message = f"This container needs {needed} bytes of memory and may use {limit}."
    return [ConfigError(message, hint="Raise its memory limit.")]
