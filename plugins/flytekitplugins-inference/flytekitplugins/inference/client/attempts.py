"""What may be sent again, when, and what is said when it may not: decisions only, no I/O.

An `Attempts` accompanies one request. It is asked after each failure and each answer, and says how
to go on, so that the blocking and the asynchronous transport do the same thing.
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
"""How often a request may be under way when the server goes away: more, and it may be what ends the
server."""
FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 8.0
BUSY = frozenset({429, 502, 503})
"""Answers of a server that has not worked on the request: full (vLLM, SGLang, Ollama: 503; TEI:
429), loading (503), or behind a gateway that does not reach it (502). Not 504: there it may still
work on it."""
AWAY = BUSY - {429}
"""Those that a server which is not ready gives, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long one request may take, and how long it is tried."""

    timeout_seconds: float
    """Of a request that was sent: to the first byte of its answer, and between two parts of it.
    Never tried again."""
    outage_seconds: float
    """From the first refusal of a request: how long it waits for the server's return, or to be let
    in."""
    retry_busy: bool
    """Whether 429, 502 and 503 of a server that is well are asked again; otherwise the caller gets
    them."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What comes before the next attempt."""

    reason: str
    """What the last attempt came to: the name of an error, or a status."""
    for_server: bool
    """Whether the server must answer its readiness address first."""
    pause_seconds: float = 0.0


class Attempts:
    """The attempts to get one request answered.

    Args:
        request: The request, of `http`.
        limits: How long it is tried.
        watch: Knows whether the server is there.
        record: Knows how often it went away.
        http: The library whose exceptions are told apart.
        clock: Seconds that never go back.
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
        self._can_repeat = isinstance(
            request.stream, http.ByteStream
        )  # in memory: can be sent again
        self._trouble_since: float | None = None
        self._losses = self._pauses = 0
        self._reason = ""
        self._error: Exception | None = None

    def after_error(self, error: Exception) -> Wait:
        """Return what comes before the next attempt, when the last one got no answer.

        Raises:
            ServerError: There is no next one.
            Exception: What was given, when it is not the server's doing.
        """
        http = self._http
        if isinstance(error, http.ReadTimeout | http.WriteTimeout):
            raise self._too_slow(error) from error
        if isinstance(error, http.ConnectError | http.ConnectTimeout):
            self._refuse_hopeless(error)
            self._record.server_left()
            return self._wait_after(error, f"found no connection: {_text(error)}")
        if isinstance(error, http.ReadError | http.WriteError | http.RemoteProtocolError):
            self._losses += 1
            wait = self._wait_after(
                error, f"was sent, and the connection ended without an answer: {_text(error)}"
            )
            if not self._can_repeat or self._losses >= MAX_LOSSES:
                raise self._lost() from error
            return wait
        raise error

    def after_answer(self, status: int, headers: Mapping[str, str]) -> Wait | None:
        """Return what comes before the next attempt, or `None` when this answer is the caller's."""
        if (
            status not in BUSY
            or not self._can_repeat
            or (status not in AWAY and not self._limits.retry_busy)
        ):
            return None
        self._begin_trouble(f"was answered {status}")
        self._error = None
        wanted = parse_retry_after(headers.get("retry-after"))
        # who says 0, and stays busy, is not asked without a pause for as long as an outage may last
        pause = wanted * random.uniform(1, 1.1) if wanted else self._backoff()  # noqa: S311 (not for secrets)
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
        """Return for how many seconds the server's return may still be waited for."""
        return max(self._left(), 0.0)

    def _wait_after(self, error: Exception, reason: str) -> Wait:
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
            hint="The model server's log tells whether it ended (exit code 137: its memory limit "
            "is too low) or still "
            "loads. If it only needs longer, raise outage_seconds.",
        )

    @property
    def _asked(self) -> str:
        url = self._request.url
        return f"{self._request.method} {url.scheme}://{url.netloc.decode()}{url.path}"

    @property
    def _timeout(self) -> float:
        """The seconds that this request has, which its caller may have changed."""
        seconds = self._request.extensions.get("timeout", {}).get("read")
        return self._limits.timeout_seconds if seconds is None else float(seconds)

    def broken(self, error: Exception, size: int) -> ServerExitedError:
        """Return the error of a request whose answer broke off after so many bytes."""
        return ServerExitedError(
            f"The answer to {self._asked} broke off after {size} bytes: {_text(error)}. "
            f"{self._history()}",
            hint="It is not asked again, since its answer had begun. The model server's log tells "
            "whether it ended "
            "(exit code 137: its memory limit is too low).",
        )

    def stalled(self, error: Exception, size: int) -> ServerNotReadyError:
        """Return the error of a request whose answer stopped coming after so many bytes."""
        return ServerNotReadyError(
            f"The answer to {self._asked} stopped after {size} bytes: nothing more came within "
            f"{self._timeout:g} s ({type(error).__name__}). {self._history()}",
            hint="It is not asked again, since its answer had begun. Raise timeout if parts of it "
            "may take longer.",
        )

    def not_json(self, body_type: str) -> ServerError:
        """Return the error of a request that is answered by a web page."""
        return ServerError(
            f"{self._asked} was answered with {body_type} instead of JSON.",
            hint="This is not the address of a model server's API, or something stands before it "
            "(a sign-in page, a "
            "proxy): check url and the server's port.",
        )

    def _too_slow(self, error: Exception) -> ServerNotReadyError:
        return ServerNotReadyError(
            f"{self._asked} was sent, and nothing came within {self._timeout:g} s "
            f"({type(error).__name__}). {self._history()}",
            hint="It is not asked again: the server may still work on it. Raise timeout, ask for "
            "less (max_tokens), or "
            "stream the answer, for then each part has the whole timeout.",
        )

    def _refuse_hopeless(self, error: Exception) -> None:
        """Raise for failures that waiting cannot fix: an unknown host, an untrusted certificate."""
        for cause in _causes(error):
            if is_unknown_host(cause):
                raise ServerError(
                    f"{self._asked} found no server: the host's name has no address.",
                    hint="Check the address, and whether it can be resolved from here.",
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
            hint = "Send a body that is in memory, or ask again."
        else:
            why = f"That happened {_times(self._losses)}."
            hint = (
                "This request may be what ends the server (too long, too large): read the log "
                "of the model server."
            )
        return ServerExitedError(
            f"{self._asked} {self._reason}. {why} {self._health()} {self._history()}", hint=hint
        )

    def _backoff(self) -> float:
        longest = min(FIRST_PAUSE_SECONDS * 2**self._pauses, MAX_PAUSE_SECONDS)
        self._pauses += 1
        return random.uniform(longest / 2, longest)  # noqa: S311 (not for secrets)

    def _begin_trouble(self, reason: str) -> None:
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
            return "Since the first client was made, the server was not seen to go away."
        end = f"came back {_times(returned)}" if returned else "did not come back"
        return f"Since the first client was made, the server went away {_times(left)} and {end}."


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes
