"""Ollama's own HTTP API: one request at a time, JSON in, JSON or lines of JSON out.

Facts: ollama/ollama v0.33.3, `server/routes.go` (streamResponse and the handlers), `api/types.go`.
An error is a status with `{"error": …}`, or, once a stream has begun, a line of it inside a 200.
"""

from __future__ import annotations

import contextlib
import json
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from ...errors import InferenceError, ServerError, SourceUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from http.client import HTTPResponse
    from pathlib import Path

    from ..server.server_probe import Address

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""What a plain question may take."""
MAX_BYTES = 16 * 1024 * 1024
"""How much of an answer, or of one line, is read."""
BLOCK_BYTES = 1024 * 1024
MAX_SHOWN = 500


class RefusedError(ServerError):
    """The server answered with an error.

    Args:
        asked: The request.
        status: Its status; 200 for an error inside a stream.
        text: The error's text.
    """

    def __init__(self, asked: str, status: int, text: str) -> None:
        self.status, self.text = status, text[:MAX_SHOWN]
        super().__init__(f"{asked} answered {status}: {self.text or 'nothing'}.")


class Stream:
    """Lines of JSON, as they arrive.

    Args:
        asked: The request.
        connection: Where they come from, with the request sent.
        patience_seconds: How long nothing may arrive; may be changed while lines are read.
    """

    def __init__(self, asked: str, connection: HTTPConnection, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        self._asked = asked
        self._connection = connection
        self._socket = connection.sock

    def events(self) -> Generator[dict[str, Any], None, None]:
        """Yield each line; closing this closes the connection, on which the server gives up.

        Raises:
            RefusedError: One of them is an error.
            SourceUnavailableError: The connection broke off, or nothing arrived.
        """
        with contextlib.closing(self._connection), _broken(self._asked):
            response = self._response()
            while line := self._next(response):
                event = _parsed(self._asked, line)
                if "error" in event:
                    raise RefusedError(self._asked, 200, str(event["error"]))
                yield event

    def _response(self) -> HTTPResponse:
        self._socket.settimeout(self.patience_seconds)
        response = self._connection.getresponse()
        if response.status >= 400:
            raise _refused(self._asked, response)
        return response

    def _next(self, response: HTTPResponse) -> bytes:
        self._socket.settimeout(self.patience_seconds)
        line = response.readline(MAX_BYTES)
        if line and not line.endswith(b"\n") and len(line) < MAX_BYTES:
            raise SourceUnavailableError(f"{self._asked} broke off in the middle of a line.")
        return line


class OllamaApi:
    """Asks one server.

    Args:
        address: Where it listens; its path does not count.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        if address.scheme != "http":
            raise UsageError(
                "Ollama speaks http only.", hint="Write its address as http://localhost:11434."
            )

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer to GET.

        Raises:
            RefusedError: It is an error.
            SourceUnavailableError: There is none.
        """
        return self._exchange("GET", path, None, ANSWER_SECONDS)

    def post(
        self, path: str, body: dict[str, Any], *, seconds: float = ANSWER_SECONDS
    ) -> dict[str, Any]:
        """Return the answer to POST; see `get`.

        Args:
            path: What is asked.
            body: Sent as JSON.
            seconds: What it may take.
        """
        return self._exchange("POST", path, json.dumps(body).encode(), seconds)

    def stream(self, path: str, body: dict[str, Any], *, patience_seconds: float) -> Stream:
        """Send POST and return what it streams.

        Raises:
            SourceUnavailableError: There is no connection.
        """
        connection = self._sent("POST", path, json.dumps(body).encode())
        return Stream(f"POST {path}", connection, patience_seconds)

    def has_blob(self, digest: str) -> bool:
        """Whether the server has these bytes."""
        path = f"/api/blobs/{digest}"
        connection = self._sent("HEAD", path, None)
        with contextlib.closing(connection), _broken(f"HEAD {path}"):
            connection.sock.settimeout(ANSWER_SECONDS)
            response = connection.getresponse()
            if response.status not in (200, 404):
                raise _refused(f"HEAD {path}", response)
            return response.status == 200

    def upload(
        self, digest: str, file: Path, sent: Callable[[int], None], *, seconds: float
    ) -> None:
        """Give the server a file's bytes, which it hashes for itself.

        Args:
            digest: Their digest, `sha256:…`.
            file: The file.
            sent: Called with the size of each block that was sent.
            seconds: How long one block, or the answer behind the last, may take.

        Raises:
            RefusedError: It found another digest, or cannot write.
            SourceUnavailableError: The connection broke off.
        """
        path = f"/api/blobs/{digest}"
        with (
            _broken(f"POST {path}"),
            contextlib.closing(self._connection()) as connection,
            file.open("rb") as content,
        ):
            connection.putrequest("POST", path)
            connection.putheader("Content-Length", str(file.stat().st_size))
            connection.endheaders()
            connection.sock.settimeout(seconds)
            try:
                while block := content.read(BLOCK_BYTES):
                    connection.send(block)
                    sent(len(block))
            except ConnectionError:  # it may have answered before it has read all
                with contextlib.suppress(HTTPException, OSError):
                    self._check(f"POST {path}", connection.getresponse())
                raise
            self._check(f"POST {path}", connection.getresponse())

    def _check(self, asked: str, response: HTTPResponse) -> None:
        if response.status >= 400:
            raise _refused(asked, response)

    def _exchange(
        self, method: str, path: str, body: bytes | None, seconds: float
    ) -> dict[str, Any]:
        asked = f"{method} {path}"
        connection = self._sent(method, path, body)
        with contextlib.closing(connection), _broken(asked):
            connection.sock.settimeout(seconds)
            response = connection.getresponse()
            self._check(asked, response)
            return _parsed(asked, response.read(MAX_BYTES))

    def _sent(self, method: str, path: str, body: bytes | None) -> HTTPConnection:
        connection = self._connection()
        with _broken(f"{method} {path}"):
            connection.request(
                method, path, body, {"Content-Type": "application/json"} if body else {}
            )
        return connection

    def _connection(self) -> HTTPConnection:
        return HTTPConnection(self._address.host, self._address.port, timeout=CONNECT_SECONDS)


def _parsed(asked: str, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ServerError(f"{asked} answered something that is not Ollama's: {text[:100]!r}.")
    return value


def _refused(asked: str, response: HTTPResponse) -> RefusedError:
    body = response.read(MAX_BYTES).decode("utf-8", errors="replace")
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = " ".join(body.split())
    return RefusedError(asked, response.status, text)


@contextlib.contextmanager
def _broken(asked: str) -> Iterator[None]:
    """Turn what a connection can do wrong into an error that may be tried again."""
    try:
        yield
    except InferenceError:  # some of which are OSErrors too
        raise
    except TimeoutError as error:
        raise SourceUnavailableError(
            f"{asked} did not go on: nothing came from the server for too long."
        ) from error
    except (HTTPException, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SourceUnavailableError(f"{asked} broke off: {reason}.") from error
