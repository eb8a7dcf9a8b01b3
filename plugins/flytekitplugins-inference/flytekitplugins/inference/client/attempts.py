"""Decides whether and when a request is sent again, and builds its final error. No I/O.

An `Attempts` accompanies one request. The transport consults it after each failure and each answer.
The blocking and the asynchronous transport share it, so they behave the same.
"""

from __future__ import annotations

import random
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ServerError, ServerExitedError, ServerNotReadyError
from ..facts.retry_after import parse_retry_after
from .health import is_unknown_host
from .outage import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .outage import OutageWatch
    from .record import Record

__all__ = ["Attempts", "Limits", "Wait"]

MAX_LOSSES = 3
"""How often the server may go away while a request is in flight. After that, the request itself may
be what crashes the server, so it is not sent again."""
FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 8.0
BUSY = frozenset({429, 502, 503})
"""Answers of a server that has not started on the request: it is full (vLLM, SGLang, Ollama: 503;
TEI: 429), still loading (503), or behind a gateway that cannot reach it (502). Not 504: the server
may still be working on the request."""
AWAY = BUSY - {429}
"""Those that may also come from a server that is not ready."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long one request may take, and for how long it is retried."""

    timeout_seconds: float
    """From sending a request to the first byte of its answer, and between two parts of the answer.
    A request that takes longer is not retried: the server may still be working on it."""
    outage_seconds: float
    """For how long a request, from its first refusal, waits for the server to return or to accept
    it."""
    retry_busy: bool
    """Whether a request is retried after a 429, 502 or 503 of a healthy server; otherwise the
    caller gets that answer."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What must happen before the next attempt."""

    reason: str
    """The outcome of the last attempt: the name of an error, or a status."""
    for_server: bool
    """Whether the server must answer its readiness address first."""
    pause_seconds: float = 0.0


class Attempts:
    """The attempts to get one request answered.

    Args:
        request: The request, an object of `http`.
        limits: For how long it is retried.
        watch: Knows whether the server answers.
        record: Knows how often the server went away.
        http: The library that raises the exceptions.
        clock: Returns seconds that never go back.
    """

    def __init__(
        self,
        request: Any,
        *,
        limits: Limits,
        watch: OutageWatch,
        record: Record,
        http: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request = request
        self._limits = limits
        self._watch = watch
        self._record = record
        self._http, self._clock = http, clock
        # a body in memory can be sent again; one that is read from a stream is used up
        self._can_repeat = isinstance(request.stream, http.ByteStream)
        self._trouble_since: float | None = None
        self._losses = self._pauses = 0
        self._reason = ""
        self._error: Exception | None = None

    def after_error(self, error: Exception) -> Wait:
        """Return what must happen before the next attempt, after one that got no answer.

        Raises:
            ServerError: The request is not retried.
            Exception: `error` itself, if the server did not cause it.
        """
        http = self._http
        if isinstance(error, http.ReadTimeout | http.WriteTimeout):
            raise self._too_slow(error) from error
        # nothing was sent yet, so any request can be retried, even one with a streamed body
        if isinstance(error, http.ConnectError | http.ConnectTimeout):
            self._refuse_hopeless(error)
            self._record.server_left()
            return self._wait_after(error, f"found no connection: {_text(error)}")
        if isinstance(error, http.ReadError | http.WriteError | http.RemoteProtocolError):
            # a server that crashes and a kept connection that it closed look the same from here
            self._losses += 1
            wait = self._wait_after(
                error, f"was sent, and the connection ended without an answer: {_text(error)}"
            )
            if not self._can_repeat or self._losses >= MAX_LOSSES:
                raise self._lost() from error
            return wait
        raise error

    def after_answer(self, status: int, headers: Mapping[str, str]) -> Wait | None:
        """Return what must happen before the next attempt; `None` if the caller gets the answer."""
        if (
            status not in BUSY
            or not self._can_repeat
            or (status not in AWAY and not self._limits.retry_busy)
        ):
            return None
        self._begin_trouble(f"was answered {status}")
        # `after_wait` passes this answer on if the server was there; an error leaves none
        self._error = None
        retry_after = parse_retry_after(headers.get("retry-after"))
        # A busy server that says 0 would get requests without a pause for all of `outage_seconds`,
        # so 0 counts as absent. The random tenth keeps clients from returning at one moment.
        pause = retry_after * random.uniform(1, 1.1) if retry_after else self._backoff()  # noqa: S311 (not for secrets)
        return Wait(str(status), status in AWAY, pause) if pause <= self._left() else None

    def after_wait(self, finding: Finding) -> bool:
        """Return whether to try again; if not, the caller gets the last answer.

        Raises:
            ServerNotReadyError: The server did not come back in time.
        """
        if finding is Finding.AWAY:
            raise self._away() from self._error
        return self._error is not None or self._limits.retry_busy or finding is Finding.BACK

    def left(self) -> float:
        """Return for how many more seconds the request may wait for the server."""
        return max(self._left(), 0.0)

    def _wait_after(self, error: Exception, reason: str) -> Wait:
        # the first retry follows at once: perhaps the server only closed a kept connection
        is_first = self._trouble_since is None
        self._begin_trouble(reason)
        self._error = error
        if self._left() <= 0:
            raise self._away() from error
        return Wait(
            type(error).__name__, True, 0.0 if is_first else min(self._backoff(), self.left())
        )

    def _away(self) -> ServerNotReadyError:
        return ServerNotReadyError(
            f"{self._asked} {self._reason}. {self._health()} Waited {self._spent():.0f} s for the "
            "server's return. "
            f"{self._history()}",
            hint="The model server's log says whether it ended (exit code 137: its memory limit "
            "is too low) or is still loading. If it only needs longer, raise outage_seconds.",
        )

    @property
    def _asked(self) -> str:
        url = self._request.url
        return f"{self._request.method} {url.scheme}://{url.netloc.decode()}{url.path}"

    @property
    def _timeout(self) -> float:
        """The timeout of this request in seconds; the caller may have set one for this request."""
        seconds = self._request.extensions.get("timeout", {}).get("read")
        return self._limits.timeout_seconds if seconds is None else float(seconds)

    def broken(self, error: Exception, size: int) -> ServerExitedError:
        """Return the error of a request whose answer broke off after so many bytes."""
        return ServerExitedError(
            f"The answer to {self._asked} broke off after {size} bytes: {_text(error)}. "
            f"{self._history()}",
            hint="The request is not retried, because its answer had begun. The model server's log "
            "says whether it ended (exit code 137: its memory limit is too low).",
        )

    def stalled(self, error: Exception, size: int) -> ServerNotReadyError:
        """Return the error of a request whose answer stopped coming after so many bytes."""
        return ServerNotReadyError(
            f"The answer to {self._asked} stopped after {size} bytes: nothing more came within "
            f"{self._timeout:g} s ({type(error).__name__}). {self._history()}",
            hint="The request is not retried, because its answer had begun. Raise timeout if parts "
            "of it may take longer.",
        )

    def not_json(self, body_type: str) -> ServerError:
        """Return the error for a request whose answer is a web page."""
        return ServerError(
            f"{self._asked} was answered with {body_type} instead of JSON.",
            hint="This is not the address of a model server's API, or something in front of it "
            "answers (a sign-in page, a proxy): check url and the server's port.",
        )

    def redirected(self, status: int, place: str) -> ServerError:
        """Return the error for a redirect to another host."""
        return ServerError(
            f"{self._asked} was answered {status}: go to {place}. The request was not sent there, "
            "because another host must not get its content.",
            hint="If that is your server, make it the url of the endpoint.",
        )

    def _too_slow(self, error: Exception) -> ServerNotReadyError:
        return ServerNotReadyError(
            f"{self._asked} was sent, and nothing came within {self._timeout:g} s "
            f"({type(error).__name__}). {self._history()}",
            hint="The request is not retried: the server may still be working on it. Raise "
            "timeout, ask for less (max_tokens), or stream the answer: the timeout then applies "
            "to each part.",
        )

    def _refuse_hopeless(self, error: Exception) -> None:
        """Raise for failures that waiting cannot fix: an unknown host, an untrusted certificate."""
        for cause in _causes(error):
            if is_unknown_host(cause):
                raise ServerError(
                    f"{self._asked} found no server: the host's name has no address.",
                    hint="Check the address, and whether this machine can resolve it.",
                ) from error
            if isinstance(cause, ssl.SSLError):
                raise ServerError(
                    f"{self._asked} found no connection: {cause.reason or type(cause).__name__} "
                    f"({_text(error)}).",
                    hint="Check that the address speaks https; SSL_CERT_FILE names the "
                    "authorities to trust.",
                ) from error

    def _lost(self) -> ServerExitedError:
        if not self._can_repeat:
            why = "Its body was read from a stream and cannot be sent again."
            hint = "Send a body that is in memory, or send the request again."
        else:
            why = f"That happened {_times(self._losses)}."
            hint = (
                "This request may be what ends the server (too long, too large): see the log "
                "of the model server."
            )
        return ServerExitedError(
            f"{self._asked} {self._reason}. {why} {self._health()} {self._history()}", hint=hint
        )

    def _backoff(self) -> float:
        # the random half keeps requests that failed together from coming back together
        longest = min(FIRST_PAUSE_SECONDS * 2**self._pauses, MAX_PAUSE_SECONDS)
        self._pauses += 1
        return random.uniform(longest / 2, longest)  # noqa: S311 (not for secrets)

    def _begin_trouble(self, reason: str) -> None:
        # the latest reason with the time of the first: the final error tells the whole wait
        self._reason = reason
        if self._trouble_since is None:
            self._trouble_since = self._clock()

    def _spent(self) -> float:
        return 0.0 if self._trouble_since is None else self._clock() - self._trouble_since

    def _left(self) -> float:
        return self._limits.outage_seconds - self._spent()

    def _health(self) -> str:
        return (
            f"{self._watch.last}." if self._watch.last else "Its readiness address was not asked."
        )

    def _history(self) -> str:
        left, returned = self._record.outages
        if not left:
            return "The server did not go away since the first client was created."
        end = f"came back {_times(returned)}" if returned else "did not come back"
        return f"Since the first client was created, the server went away {_times(left)} and {end}."


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    # a chain of causes may lead back to its beginning
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes
