"""The kinds of faults of a row, and when each leads to a retry.

| kind | what happened | retried in this run | retried by a rerun |
|---|---|---|---|
| `invalid_row` | the row cannot become a request | no | no |
| `duplicate_id` | an earlier row has this id | no | no |
| `rejected` | another 4xx: the server refuses this request | no | no |
| `misconfigured` | key, address, path, model or certificate is wrong | no | yes |
| `too_long` | the row needs a longer context than the server has | no | yes |
| `not_json` | the answer is not JSON at all, such as a proxy's HTML page | no | yes |
| `invalid_output` | the model's text does not fit the schema, or there is none | no | yes |
| `function` | the user's own function raised | no | yes |
| `invalid_answer` | broken JSON, or JSON that is not what this route answers | yes | yes |
| `server_error` | another 5xx | yes | yes |
| `disconnected` | the connection broke, also in the middle of an answer | yes | yes |
| `timeout` | no answer within the deadline | yes | yes |
| `overloaded` | 429, 502 or 503 | yes, uncounted while the server refuses others too | yes |
| `unreachable` | nothing listens at the address | once it does again | yes |
| `no_files` | this process has too many open files | yes, uncounted | yes |

`timeout` and `overloaded` also say something about the server's load (`recent_requests`), and when
no row is answered any more, `server_error`, `timeout` and `disconnected` are the server's
(`breaker`).
"""

from __future__ import annotations

import errno
import re
import ssl
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from ...facts.retry_after import parse_retry_after
from ..health import is_unknown_host

FaultKind = Literal[
    "invalid_row",
    "duplicate_id",
    "rejected",
    "misconfigured",
    "too_long",
    "not_json",
    "invalid_output",
    "function",
    "invalid_answer",
    "server_error",
    "disconnected",
    "timeout",
    "overloaded",
    "unreachable",
    "no_files",
]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
FINAL = frozenset({"invalid_row", "duplicate_id", "rejected"})
"""The same row would fail in the same way again."""
RETRYABLE = frozenset(
    {
        "invalid_answer",
        "server_error",
        "disconnected",
        "timeout",
        "overloaded",
        "unreachable",
        "no_files",
    }
)
UNAVAILABLE = RETRYABLE - {"invalid_answer"}
"""While only these occur, the server may be gone."""
ANSWERED = frozenset(KINDS) - UNAVAILABLE - {"invalid_row", "duplicate_id"}
"""The server answered, though not as expected."""
_KIND_OF_STATUS: dict[int, FaultKind] = {
    401: "misconfigured",
    403: "misconfigured",
    404: "misconfigured",
    405: "misconfigured",
    407: "misconfigured",
    408: "timeout",
    409: "server_error",
    413: "too_long",
    425: "server_error",
    429: "overloaded",
    502: "overloaded",  # a gateway that cannot reach the server, as in `attempts.BUSY`
    503: "overloaded",
}
_ADVICE_BY_STATUS = {
    401: "the server wants another key",
    403: "the key does not allow this",
    404: "check url, path and the name of the model",
    405: "check url and path",
    407: "a proxy wants a key",
}
_TOO_LONG = re.compile(
    r"exceed_context_size|context_length_exceeded"
    r"|exceeds? (the )?((available|maximum|model'?s?)\b.{0,30})?(context|length)"
    r"|maximum (context|model|input|prompt|allowed)( input)? length"
    r"|longer than the (maximum )?model'?s? (context )?length"
    r"|must have less than \d+ tokens|too large to process",
    re.IGNORECASE,
)
"""How servers say that a request does not fit their context. A server with a longer one takes the
same row. llama.cpp: `exceed_context_size_error`, for embeddings 500 and "too large to process";
vLLM and NIM: "maximum context length is"; SGLang: "longer than the model's context length"; Ollama:
"exceeds the context length"; TEI: "must have less than 512 tokens"."""
_SHOWN = 300
"""Characters of a server's answer that a message quotes."""
_READ = 10_000
"""Characters of a server's error that are searched."""


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
    excerpt = shortened(text) or "nothing more"
    message = f"The server answered with status {status}: {excerpt}"
    retry_after = parse_retry_after(headers.get("Retry-After"))
    if 300 <= status < 400:
        place = shortened(headers.get("Location", ""), 200) or "nowhere"
        return Fault(
            "misconfigured",
            f"The server redirects to {place} (status {status}). A redirect is not followed, "
            "because it may lead to another host; set url or path to where it leads.",
            status=status,
        )
    kind = _kind_of_status(status, text)
    if advice := _ADVICE_BY_STATUS.get(status):
        message += f" ({advice})"
    return Fault(kind, message, status=status, retry_after=retry_after or 0.0)


def _kind_of_status(status: int, text: str) -> FaultKind:
    if status in (400, 413, 422, 500) and _TOO_LONG.search(text[:_READ]):
        return "too_long"
    return _KIND_OF_STATUS.get(status, "server_error" if status >= 500 else "rejected")


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
    return (
        _fault_of_setting(error, text)
        or _fault_of_connection(error, text)
        or Fault("function", text)
    )


def _fault_of_connection(error: Exception, text: str) -> Fault | None:
    for cause in _causes(error):
        if _is(cause, *_CONNECTS):
            return Fault("unreachable", f"Nothing listens at the server's address ({text}).")
        if _is(cause, *_TIMEOUTS):
            return Fault("timeout", f"No answer in time ({text}).")
    if _is(error, *_BREAKS):
        return Fault(
            "disconnected", f"The connection broke before the whole answer arrived ({text})."
        )
    return None


def _fault_of_setting(error: Exception, text: str) -> Fault | None:
    """Return the fault of a failed connection that waiting does not cure."""
    for cause in _chain(error):
        # OpenSSL's errors also occur when a connection breaks; this one only when it is made
        if isinstance(cause, ssl.SSLCertVerificationError) or (
            isinstance(cause, ssl.SSLError) and _is(error, *_CONNECTS, *_WRAPPERS)
        ):
            return Fault(
                "misconfigured",
                f"No TLS connection to the server ({text}). Does the address speak https? "
                "SSL_CERT_FILE names the authorities to trust.",
            )
        if is_unknown_host(cause):
            return Fault("misconfigured", f"The host's name has no address ({text}).")
        if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            return Fault("no_files", f"Too many open files ({text}).")
    return None


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


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and the operating system's errors that they hold."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        held = getattr(following, "os_error", None)  # aiohttp's errors of connecting
        if isinstance(held, BaseException):
            yield held
        following = following.__cause__ or following.__context__


def _is(error: BaseException, *names: str) -> bool:
    for name in names:
        module, _, attribute = name.rpartition(".")
        class_ = getattr(sys.modules.get(module), attribute, None)
        if isinstance(class_, type) and isinstance(error, class_):
            return True
    return False
