"""Ollama's own HTTP API: one request at a time, JSON in, JSON or lines of JSON out.

Facts: ollama/ollama v0.33.3, `server/routes.go` (streamResponse and the handlers), `api/types.go`.
An error is a status with `{"error": …}`, or, once a stream has begun, a line of it inside a 200.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from ...errors import ServerError, SourceUnavailableError, UsageError
from ...facts.http_exchange import HttpExchange, NoAnswerError, NoAnswerReason
from ...facts.wording import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from ...facts.address import Address
    from ...facts.http_exchange import HttpAnswer

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""What a plain question may take."""
MAX_BYTES = 16 * 1024 * 1024
"""How much of an answer, or of one line, is read: Ollama describes a whole model in one."""
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
        exchange: Where they come from, with the request sent.
        patience_seconds: How long a line may take; may be changed while lines are read.
    """

    def __init__(self, asked: str, exchange: HttpExchange, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        self._asked = asked
        self._exchange = exchange

    def events(self) -> Generator[dict[str, Any], None, None]:
        """Yield each line; closing this closes the connection, on which the server gives up.

        Raises:
            RefusedError: One of them is an error.
            SourceUnavailableError: The connection broke off, or nothing arrived.
        """
        with self._exchange, _broken(self._asked):
            self._exchange.allow(self.patience_seconds)
            answer = _accepted(self._asked, self._exchange.receive())
            while line := self._next(answer):
                event = _parsed(self._asked, line)
                if "error" in event:
                    raise RefusedError(self._asked, 200, str(event["error"]))
                yield event

    def _next(self, answer: HttpAnswer) -> bytes:
        self._exchange.allow(self.patience_seconds)
        line = answer.line(MAX_BYTES)
        if line and not line.endswith(b"\n"):
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
        return self._exchange("GET", path, b"", ANSWER_SECONDS)

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
        exchange = HttpExchange(self._address.at(path), seconds=CONNECT_SECONDS)
        with contextlib.ExitStack() as stack, _broken(f"POST {path}"):
            stack.enter_context(exchange)
            exchange.connect()
            exchange.allow(patience_seconds)
            exchange.send("POST", headers=_JSON, body=json.dumps(body).encode())
            stack.pop_all()  # from here on the stream hangs up
        return Stream(f"POST {path}", exchange, patience_seconds)

    def has_blob(self, digest: str) -> bool:
        """Whether the server has these bytes."""
        path = f"/api/blobs/{digest}"
        with self._asking("HEAD", path, b"", ANSWER_SECONDS) as answer:
            if answer.status not in (200, 404):
                raise _refused(f"HEAD {path}", answer)
            return answer.status == 200

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
        asked = f"POST {path}"
        headers = {"Content-Length": str(file.stat().st_size)}
        exchange = HttpExchange(self._address.at(path), seconds=CONNECT_SECONDS)

        def blocks() -> Iterator[bytes]:
            with file.open("rb") as content:
                while block := content.read(BLOCK_BYTES):
                    exchange.allow(seconds)
                    yield block
                    sent(len(block))
            exchange.allow(seconds)

        with _broken(asked), exchange:
            exchange.connect()
            try:
                exchange.send("POST", headers=headers, blocks=blocks())
            except NoAnswerError as error:  # it may have answered before it has read all
                if error.reason is NoAnswerReason.BROKEN:
                    with contextlib.suppress(NoAnswerError):
                        _accepted(asked, exchange.receive())
                raise
            _accepted(asked, exchange.receive())

    def _exchange(self, method: str, path: str, body: bytes, seconds: float) -> dict[str, Any]:
        with self._asking(method, path, body, seconds) as answer:
            asked = f"{method} {path}"
            return _parsed(asked, _accepted(asked, answer).read(MAX_BYTES))

    @contextlib.contextmanager
    def _asking(self, method: str, path: str, body: bytes, seconds: float) -> Iterator[HttpAnswer]:
        exchange = HttpExchange(self._address.at(path), seconds=CONNECT_SECONDS)
        with _broken(f"{method} {path}"), exchange:
            exchange.connect()
            exchange.allow(seconds)
            exchange.send(method, headers=_JSON if body else {}, body=body)
            yield exchange.receive()


_JSON = {"Content-Type": "application/json"}


def _parsed(asked: str, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ServerError(f"{asked} answered something that is not Ollama's: {excerpt(text)}.")
    return value


def _accepted(asked: str, answer: HttpAnswer) -> HttpAnswer:
    """Return an answer that is no error.

    Raises:
        RefusedError: It is one.
    """
    if answer.status >= 400:
        raise _refused(asked, answer)
    return answer


def _refused(asked: str, answer: HttpAnswer) -> RefusedError:
    body = answer.read(MAX_BYTES).decode("utf-8", errors="replace")
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = " ".join(body.split())
    return RefusedError(asked, answer.status, text)


@contextlib.contextmanager
def _broken(asked: str) -> Iterator[None]:
    """Turn an exchange without an answer into an error that may be tried again."""
    try:
        yield
    except NoAnswerError as error:
        if error.reason is NoAnswerReason.TIMEOUT:
            message = f"{asked} did not go on: nothing came from the server for too long."
        else:
            message = f"{asked} broke off: {error.text}."
        raise SourceUnavailableError(message) from error
