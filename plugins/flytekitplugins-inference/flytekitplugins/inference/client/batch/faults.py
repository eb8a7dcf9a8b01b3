"""The kinds of faults of a row, and when each leads to a retry.

| kind | what happened | retried in this run | retried by a rerun |
|---|---|---|---|
| `invalid_row` | the row cannot become a request | no | no |
| `duplicate_id` | an earlier row has this id | no | no |
| `rejected` | 4xx: the server refuses this request | no | no |
| `not_json` | the answer is not JSON at all, such as a proxy's HTML page | no | yes |
| `invalid_output` | the model's text does not fit the schema, or there is none | no | yes |
| `function` | the user's own function raised | no | yes |
| `invalid_answer` | broken JSON, or JSON that is not what this route answers | yes | yes |
| `server_error` | 5xx | yes | yes |
| `disconnected` | the connection broke, also in the middle of an answer | yes | yes |
| `timeout` | no answer within the deadline | yes | yes |
| `overloaded` | 429 or 503 | yes, uncounted while the server refuses others too | yes |
| `unreachable` | nothing listens at the address | once it does again | yes |

`timeout` and `overloaded` also say something about the server's load: `recent_requests`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from ...facts.retry_after import parse_retry_after

FaultKind = Literal[
    "invalid_row",
    "duplicate_id",
    "rejected",
    "not_json",
    "invalid_output",
    "function",
    "invalid_answer",
    "server_error",
    "disconnected",
    "timeout",
    "overloaded",
    "unreachable",
]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
FINAL = frozenset({"invalid_row", "duplicate_id", "rejected"})
"""The same row would fail in the same way again."""
RETRYABLE = frozenset(
    {"invalid_answer", "server_error", "disconnected", "timeout", "overloaded", "unreachable"}
)
UNAVAILABLE = frozenset({"disconnected", "timeout", "overloaded", "unreachable"})
"""While only these occur, the server may be gone."""
ANSWERED = frozenset(KINDS) - UNAVAILABLE - {"invalid_row", "duplicate_id"}
"""The server answered, though not as expected."""
_TRANSIENT_STATUS = {
    408: "timeout",
    409: "server_error",
    425: "server_error",
    429: "overloaded",
    503: "overloaded",
}
_SHOWN = 300
"""Characters of a server's answer that a message quotes."""


class Fault(Exception):  # noqa: N818, it says what happened to a row and is not raised to users
    """Why one row has no answer.

    Args:
        kind: One of the kinds above.
        message: What happened and what was expected.
        status: The HTTP status, if there was one.
        retry_after: The pause that the server asks for, in seconds.
    """

    def __init__(
        self, kind: FaultKind, message: str, *, status: int | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind
        self.message = message
        self.status = status
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:
        """Whether the row is retried in this run."""
        return self.kind in RETRYABLE

    @property
    def final(self) -> bool:
        """Whether a rerun keeps this failure instead of retrying the row."""
        return self.kind in FINAL

    def to_json(self) -> dict[str, Any]:
        """Return the `error` of the row's record."""
        return {"kind": self.kind, "message": self.message, "status": self.status}


def fault_of_status(status: int, text: str, headers: Mapping[str, str]) -> Fault:
    """Return the fault for an HTTP answer other than 2xx.

    Args:
        status: The HTTP status.
        text: The body.
        headers: May contain `Retry-After`.
    """
    kind: Any = _TRANSIENT_STATUS.get(status, "server_error" if status >= 500 else "rejected")
    message = f"The server answered with status {status}: {shortened(text) or 'nothing more'}"
    retry_after = parse_retry_after(headers.get("Retry-After"))
    return Fault(kind, message, status=status, retry_after=retry_after or 0.0)


def fault_of_exception(error: Exception) -> Fault:
    """Return the fault for an exception.

    It may come from aiohttp, the official `openai` client, httpx or any other library. A library
    that is not imported cannot have raised it, so none is imported here.
    """
    if isinstance(error, Fault):
        return error
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    if isinstance(status, int):
        headers = getattr(getattr(error, "response", None), "headers", None) or getattr(
            error, "headers", None
        )
        return fault_of_status(status, str(error), headers if isinstance(headers, Mapping) else {})
    text = f"{type(error).__name__}: {shortened(str(error))}".removesuffix(": ")
    for cause in _causes(error):
        if _is(cause, *_CONNECTS):
            return Fault("unreachable", f"Nothing listens at the server's address ({text}).")
        if _is(cause, *_TIMEOUTS):
            return Fault("timeout", f"No answer in time ({text}).")
    if _is(error, *_BREAKS):
        return Fault(
            "disconnected", f"The connection broke before the whole answer arrived ({text})."
        )
    return Fault("function", text)


_CONNECTS = ("aiohttp.ClientConnectorError", "httpx.ConnectError", "httpx2.ConnectError")
_TIMEOUTS = (
    "builtins.TimeoutError",
    "asyncio.TimeoutError",  # its own class until Python 3.10
    "openai.APITimeoutError",
    "httpx.TimeoutException",
    "httpx2.TimeoutException",
)
_WRAPPERS = ("flytekitplugins.inference.errors.ServerError", "openai.APIConnectionError")
"""Errors whose cause says more than they do."""
_BREAKS = (
    *_WRAPPERS,
    "builtins.ConnectionError",
    "aiohttp.ClientConnectionError",
    "aiohttp.ClientPayloadError",
    "aiohttp.http_exceptions.HttpProcessingError",
    "httpx.TransportError",
    "httpx2.TransportError",
)


def shortened(text: str, length: int = _SHOWN) -> str:
    """Return `text` in one line of at most `length` characters."""
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the causes of an error, the first one first, and then the error itself."""
    if error.__cause__ is not None and _is(error, *_WRAPPERS):
        yield from _causes(error.__cause__)
    yield error


def _is(error: BaseException, *names: str) -> bool:
    for name in names:
        module, _, attribute = name.rpartition(".")
        class_ = getattr(sys.modules.get(module), attribute, None)
        if isinstance(class_, type) and isinstance(error, class_):
            return True
    return False
