"""What must hold before anything large is pulled or started: variables, addresses, space and memory.

Each check returns its problems as errors, so that all of them end up in one message.
"""

from __future__ import annotations

import os
import re
import ssl
import time
import urllib.request
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError

from ..errors import (
    ConfigError,
    DestinationError,
    InferenceError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from .cgroup import memory_limit_bytes
from .server_probe import Call
from .stores import mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REACH_SECONDS = 5.0
"""How long an address may take to answer; all are asked at once."""
MAX_REPORTED = 10
"""Problems that a message names."""

_REFERENCE = re.compile(r"\$\([A-Za-z_][\w.-]*\)")
_TOKEN = re.compile(r"[!-~]+")
_CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a pod needs."""

    variables: Sequence[str] = ()
    """Environment variables that hold something."""
    urls: Sequence[str] = ()
    """Addresses that answer."""
    token_variable: str = ""
    """The variable whose value is sent to the addresses; the request goes without where it is empty."""
    space: Sequence[tuple[Path, int]] = ()
    """Directories and the bytes that must be free there."""
    memory_bytes: int = 0
    """What this container may use at least."""


def check(needs: Needs, environ: Mapping[str, str]) -> None:
    """Check everything.

    Raises:
        InferenceError: Something does not hold; names all of it. Of the kind of the first that no rerun would mend.
    """
    problems = [
        *variable_problems(needs.variables, environ),
        *_url_problems(needs.urls, needs.token_variable, environ),
        *(problem for directory, size in needs.space for problem in _space_problems(directory, size)),
        *_memory_problems(needs.memory_bytes),
    ]
    if problems:
        raise combined(problems)


def combined(problems: Sequence[InferenceError]) -> InferenceError:
    """Return one error for several; of the kind of the first that a rerun would not mend."""
    first = next((problem for problem in problems if not problem.retryable), problems[0])
    if len(problems) == 1:
        return first
    texts = [f"({number}) {problem.message}" for number, problem in enumerate(problems[:MAX_REPORTED], 1)]
    if len(problems) > MAX_REPORTED:
        texts.append(f"and {len(problems) - MAX_REPORTED} more.")
    hints = dict.fromkeys(problem.hint for problem in problems[:MAX_REPORTED] if problem.hint)
    return type(first)(f"{len(problems)} problems. {' '.join(texts)}", hint=" ".join(hints))


def variable_problems(names: Sequence[str], environ: Mapping[str, str]) -> list[InferenceError]:
    """Return an error for each variable that holds nothing, or still names another one; never with its value."""
    problems: list[InferenceError] = []
    for name in dict.fromkeys(names):
        value = environ.get(name)
        if value is None:
            state = "is not set"
        elif not value.strip():
            state = "is empty"
        elif _REFERENCE.search(value):  # the kubelet leaves $(X) as it is when X is not there
            state = "still is a reference to a variable that is not there"
        else:
            continue
        hint = "A secret did not arrive: check that it exists in this namespace with the group and key asked for."
        problems.append(SourceForbiddenError(f"The environment variable {name} {state}.", hint=hint))
    return problems


def token(name: str, environ: Mapping[str, str]) -> str:
    """Return the token that a variable holds; empty when it holds none or only a reference.

    Raises:
        SourceForbiddenError: It holds what cannot be sent as a token.
    """
    value = environ.get(name, "").strip() if name else ""
    if not value or _REFERENCE.search(value):
        return ""
    if not _TOKEN.fullmatch(value):  # said here, because http.client's own error would quote it
        message = f"The environment variable {name} holds spaces or characters that no token has."
        raise SourceForbiddenError(message, hint="Check the secret's value: one token, without line breaks.")
    return value


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer. Following it would send the token to whom it names."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _url_problems(urls: Sequence[str], token_variable: str, environ: Mapping[str, str]) -> list[InferenceError]:
    problems: list[InferenceError] = []
    secret = ""
    try:
        secret = token(token_variable, environ)
    except SourceForbiddenError as error:
        problems.append(error)
    calls = [(url, Call(partial(_status, url, secret, environ))) for url in dict.fromkeys(urls)]
    deadline = time.monotonic() + REACH_SECONDS
    for url, call in calls:
        where = mask(url)
        if not call.wait(deadline - time.monotonic()):
            reason = f"no answer within {REACH_SECONDS:g} s"
        else:
            try:
                status = call.result()
            except (OSError, HTTPException, ValueError) as error:
                reason = _reason(error)
            else:
                problem = _status_problem(status, where, token_variable, is_sent=bool(secret))
                problems += [problem] if problem else []
                continue
        hint = "Check the address, the network policy and the proxy (HTTPS_PROXY, NO_PROXY) of this pod."
        problems.append(SourceUnavailableError(f"{where} cannot be reached: {reason}.", hint=hint))
    return problems


def _status(url: str, secret: str, environ: Mapping[str, str]) -> int:
    """Return how `url` answers a HEAD, or a GET where that is refused: signed addresses allow only one of them."""
    context = ssl.create_default_context()
    for name in _CA_BUNDLES:
        if path := environ.get(name):
            try:
                context.load_verify_locations(**{"capath" if Path(path).is_dir() else "cafile": path})
            except OSError as error:
                raise OSError(error.errno, f"the certificates that {name} names cannot be read") from error
            break
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
    headers = {"User-Agent": "flytekitplugins-inference", **({"Authorization": f"Bearer {secret}"} if secret else {})}
    status = 0
    for method in ("HEAD", "GET"):
        request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310 (the scheme was checked)
        try:
            with opener.open(request, timeout=REACH_SECONDS) as response:
                return int(response.status)
        except HTTPError as error:
            error.close()
            status = error.code
        if status < 400:
            break
    return status


def _status_problem(status: int, where: str, token_variable: str, *, is_sent: bool) -> InferenceError | None:
    if status in (401, 403):
        given = f"with the token of {token_variable}" if is_sent else "without a token"
        return SourceForbiddenError(
            f"{where} answered {status} {given}.",
            hint="Give a token that may read it; a gated model's terms must be accepted by the token's account. "
            "Hubs also answer so for what does not exist.",
        )
    if status == 404:
        return SourceNotFoundError(f"{where} answered 404.", hint="Check the model's name and revision.")
    if status >= 500:
        return SourceUnavailableError(f"{where} answered {status}.", hint="Try again when the service is back.")
    return None


def _space_problems(directory: Path, size: int) -> list[InferenceError]:
    place = next((path for path in (directory, *directory.parents) if path.exists()), Path("/"))
    try:
        status = os.statvfs(place)
    except OSError as error:
        return [DestinationError(f"The free space of {directory} cannot be told: {error.strerror or error}.")]
    free = status.f_bavail * status.f_frsize
    if free >= size:
        return []
    message = f"{directory} needs {_bytes(size)} of free space and has {_bytes(free)}."
    return [DestinationError(message, hint="Give it a larger volume, or let fewer versions stay in the cache.")]


def _memory_problems(size: int) -> list[InferenceError]:
    limit = memory_limit_bytes()
    if not size or limit is None or limit >= size:
        return []
    message = f"This container needs {_bytes(size)} of memory and may use {_bytes(limit)}."
    return [ConfigError(message, hint="Raise its memory limit.")]


def _bytes(size: int) -> str:
    return f"{size} bytes ({size / 2**30:.1f} GiB)"


def _reason(error: Exception) -> str:
    """Return why there was no answer, but not the text of what may quote a header or an address."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({cause.verify_message})"
    return getattr(cause, "strerror", None) or type(cause).__name__
