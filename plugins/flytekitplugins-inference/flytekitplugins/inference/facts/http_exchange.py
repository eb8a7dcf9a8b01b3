"""Asking over HTTP with a bound on time and on bytes: the one client of everything that is not a batch.

It asks for readiness, models, metrics and Ollama's API, of servers that may be broken in any way: an
exchange ends at its deadline, however slowly an answer drips, and no part of an answer is read
without a bound. The standard library's client has neither. Its timeout is that of one `recv`, so an
answer of one byte a second never ends, and it resolves names without any.

The parser is the standard library's (`http.client`). It gets a socket that keeps the time and counts
the bytes. Redirects are answers like any other, a proxy is used only where asked, and bodies come as
they are stored (`Accept-Encoding: identity`). What an answer means is the caller's business.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import socket
import ssl
import time
from base64 import b64encode
from enum import Enum
from typing import TYPE_CHECKING, NoReturn, cast
from urllib.parse import unquote, urlsplit

from .address import proxy_for
from .background import BackgroundCall
from .wording import MAX_EXCERPT, excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from .address import Address

    _Resolved = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]

__all__ = [
    "MAX_HEADER_BYTES",
    "HttpAnswer",
    "HttpExchange",
    "NoAnswerError",
    "NoAnswerReason",
    "ask",
]

MAX_HEADER_BYTES = 64 * 1024
"""What the head of an answer may have, interim answers (1xx) included."""
BLOCK_BYTES = 64 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
"""What one line of a stream may have: Ollama repeats a model's whole description in one."""
MAX_OVERHEAD = 8
"""Bytes of the connection for one of a body: one that comes in chunks of one byte has six."""
_HEADERS = {
    "Accept": "*/*",
    "User-Agent": "flytekitplugins-inference",
    "Connection": "close",
}


class NoAnswerReason(Enum):
    """Why there is no answer, as far as callers do different things."""

    REFUSED = "refused"
    """Nothing listens on the port."""
    UNREACHABLE = "unreachable"
    """There is no connection for another reason: the name, the network, a certificate."""
    TIMEOUT = "timeout"
    """The time was over before the answer was."""
    BROKEN = "broken"
    """The connection ended before the answer did."""
    NOT_HTTP = "not_http"
    """What came is not HTTP, or is longer than it may be."""
    NOT_SENT = "not_sent"
    """The request cannot be written, such as a header with a line break."""


class NoAnswerError(Exception):
    """An exchange ended without a whole answer. Its text holds no header and no query.

    Args:
        reason: Why.
        text: The detail in words, without a full stop.
        is_connected: Whether the server had accepted the connection.
    """

    def __init__(self, reason: NoAnswerReason, text: str, *, is_connected: bool) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.is_connected = is_connected


class _TooLong(http.client.HTTPException):
    """More bytes came than may come."""


class _BoundedSocket(io.RawIOBase):
    """A socket as `http.client` needs one, with one clock and one count of bytes for all of an exchange.

    Args:
        connected: The connection itself.
        end: When its time is over, on the monotonic clock.
    """

    def __init__(self, connected: socket.socket, end: float) -> None:
        self.socket = connected
        self.end = end
        self.bytes_left: float = MAX_HEADER_BYTES
        # one buffer for all: an interim answer's reader may hold bytes of the next answer
        self._reader = io.BufferedReader(self, BLOCK_BYTES)

    def makefile(self, *_: object) -> io.BufferedReader[_BoundedSocket]:
        """Return the reader of `http.client`."""
        return self._reader

    def sendall(self, data: bytes) -> None:
        """Send all; `socket.sendall` with TLS has a timeout for each part only."""
        view = memoryview(data)
        while view:
            self._arm()
            view = view[self.socket.send(view) :]

    def readable(self) -> bool:
        """Say that this can be read, as `io.BufferedReader` asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, within the bounds."""
        if self.bytes_left <= 0:
            raise _TooLong
        self._arm()
        count = self.socket.recv_into(buffer)
        self.bytes_left -= count
        return count

    def close(self) -> None:
        """Do nothing: `http.client` closes early what this exchange still reads from."""

    def _arm(self) -> None:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket.settimeout(None if math.isinf(left) else left)


class _FinalResponse(http.client.HTTPResponse):
    def begin(self) -> None:
        """Read the head, and pass over interim answers: `http.client` knows 100 only, not 103."""
        super().begin()
        while 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            self.headers = None  # type: ignore[assignment]  # or it would not begin again
            super().begin()


class HttpAnswer:
    """The head of an answer, and its body as far as somebody reads it."""

    def __init__(
        self, response: http.client.HTTPResponse, exchange: HttpExchange, connected: _BoundedSocket
    ) -> None:
        self._response = response
        self._exchange = exchange
        self._connected = connected
        self.status = response.status
        self.reason = response.reason

    def header(self, name: str) -> str:
        """Return a header; empty when there is none."""
        return self._response.getheader(name) or ""

    def read(self, limit: int) -> bytes:
        """Return the body, or its first `limit` bytes.

        Raises:
            NoAnswerError: It did not come in time, or broke off.
        """
        body = bytearray()
        self._read_into(body, limit)
        return bytes(body)

    def line(self, limit: int = MAX_LINE_BYTES) -> bytes:
        """Return the next line with its end, and nothing after the last one.

        Raises:
            NoAnswerError: It did not come in time, broke off, or is longer than `limit`.
        """
        with self._reading(limit):
            line = self._response.readline(limit + 1)
            if len(line) > limit:
                raise _TooLong
            if not line.endswith(b"\n"):
                self._check_end()
            return line

    def excerpt(self) -> str:
        """Return the beginning of the body for a message; of a body that breaks off, what came."""
        body = bytearray()
        with contextlib.suppress(NoAnswerError):
            self._read_into(body, 4 * MAX_EXCERPT)
        return excerpt(bytes(body))

    def _read_into(self, body: bytearray, limit: int) -> None:
        with self._reading(limit):
            while len(body) < limit:
                block = self._response.read(min(BLOCK_BYTES, limit - len(body)))
                if not block:
                    self._check_end()
                    break
                body += block

    @contextlib.contextmanager
    def _reading(self, limit: int) -> Iterator[None]:
        # bounds chunks without data, endless trailers, and a chunk whose size is given as -1, which
        # `http.client` reads to the end of the connection
        self._connected.bytes_left = MAX_OVERHEAD * limit + MAX_HEADER_BYTES
        with self._exchange._told(NoAnswerReason.NOT_HTTP):
            yield

    def _check_end(self) -> None:
        """Refuse a body that is shorter than its head says, which `http.client` passes off as whole."""
        if self._response.length:
            raise http.client.IncompleteRead(b"", self._response.length)


class HttpExchange:
    """One request and its answer, on a connection of their own. A context manager: its end hangs up.

    Args:
        address: Whom to ask.
        seconds: What all of it may take: the name, the connection, the request and the answer.
        verify: Whether to verify the server's certificate. By default not on loopback, as the
            kubelet: no authority certifies a name for a pod's own server.
        proxied: Whether to ask through the proxy that the environment names, if it names one.
    """

    def __init__(
        self,
        address: Address,
        *,
        seconds: float,
        verify: bool | None = None,
        proxied: bool = False,
    ) -> None:
        self._address = address
        self._verify = not address.is_loopback if verify is None else verify
        self._proxy = proxy_for(address) if proxied else None
        self._end = time.monotonic() + seconds
        self._socket: _BoundedSocket | None = None
        self._method = ""

    def __enter__(self) -> HttpExchange:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.socket.close()

    def allow(self, seconds: float) -> None:
        """Give what comes next so many seconds from now, instead of what was left."""
        self._end = time.monotonic() + seconds
        if self._socket is not None:
            self._socket.end = self._end

    def connect(self) -> None:
        """Connect.

        Raises:
            NoAnswerError: There is no connection.
        """
        with self._told(NoAnswerReason.UNREACHABLE):
            if self._proxy is None:
                connected = self._dial(self._address.host, self._address.port)
            else:
                connected = self._dial(*self._proxy_place())
            self._socket = _BoundedSocket(connected, self._end)
            if self._address.scheme == "https":
                if self._proxy is not None:
                    self._open_tunnel(self._socket)
                self._socket.socket = self._secured(connected)

    def send(
        self,
        method: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        blocks: Iterable[bytes] = (),
    ) -> None:
        """Send a request; connects first where that has not happened.

        Args:
            method: `GET`, …
            headers: Sent with it. They appear in no error.
            body: What follows.
            blocks: Instead of `body`, what follows piece by piece; `headers` has its length.

        Raises:
            NoAnswerError: There is no connection, or it broke. The server may have answered before
                it had read everything, so `receive` is worth a try.
        """
        connected = self._connected()
        self._method = method
        with self._told(NoAnswerReason.NOT_SENT):
            self._writer(connected, method, body, headers or {}).endheaders(body or None)
        for block in blocks:  # whose own errors, some of which are OSErrors, are the caller's
            with self._told(NoAnswerReason.NOT_SENT):
                connected.sendall(block)

    def receive(self) -> HttpAnswer:
        """Return the answer, of which only the head is read yet.

        Raises:
            NoAnswerError: There is none.
        """
        connected = self._connected()
        with self._told(NoAnswerReason.NOT_HTTP):
            return HttpAnswer(_received(connected, self._method), self, connected)

    def _connected(self) -> _BoundedSocket:
        if self._socket is None:
            self.connect()
        return cast("_BoundedSocket", self._socket)

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _dial(self, host: str, port: int) -> socket.socket:
        """Return a connection to the first address of a host that takes it."""
        places = self._resolve(host, port)
        errors: list[OSError] = []
        for index, (family, kind, protocol, _, place) in enumerate(places):
            connected = socket.socket(family, kind, protocol)
            try:
                # an address that swallows packets leaves time for those behind it
                left = self._left() / (len(places) - index)
                connected.settimeout(None if math.isinf(left) else left)
                connected.connect(place)
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                connected.close()
                errors.append(error)
            else:
                return connected
        raise errors[-1]

    def _resolve(self, host: str, port: int) -> Sequence[_Resolved]:
        """Return the addresses of a host; in a thread, since a resolver may hang and has no timeout."""
        lookup = BackgroundCall(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        ).start()
        left = self._left()
        if not lookup.wait(None if math.isinf(left) else left):
            raise TimeoutError
        return lookup.result()

    def _secured(self, connected: socket.socket) -> socket.socket:
        if self._verify:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        left = self._left()
        connected.settimeout(None if math.isinf(left) else left)
        return context.wrap_socket(connected, server_hostname=self._address.host)

    def _writer(
        self, connected: _BoundedSocket, method: str, body: bytes, headers: Mapping[str, str]
    ) -> http.client.HTTPConnection:
        """Return a request without its end, as `http.client` writes it."""
        address = self._address
        writer = http.client.HTTPConnection(address.host, address.port)
        writer.default_port = 443 if address.scheme == "https" else 80
        writer.sock = connected  # all of a socket that a writer needs
        target = address.path or "/"
        if self._proxy is not None and address.scheme == "http":
            target = f"{address.origin}{target}"
            headers = {**_proxy_headers(self._proxy), **headers}
        given = {name.lower() for name in headers}
        writer.putrequest(method, target, skip_host="host" in given)
        if body:
            writer.putheader("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            if name.lower() not in given:
                writer.putheader(name, value)
        for name, value in headers.items():
            writer.putheader(name, value)
        return writer

    def _proxy_place(self) -> tuple[str, int]:
        parts = urlsplit(self._proxy or "")
        if parts.scheme != "http" or not parts.hostname:
            raise OSError(0, "the proxy of the environment is not an http:// address")
        return parts.hostname, parts.port or 80

    def _open_tunnel(self, connected: _BoundedSocket) -> None:
        """Have the proxy connect to the server (RFC 9110, 9.3.6)."""
        authority = self._address.authority
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in _proxy_headers(self._proxy or "").items()]
        connected.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        response = _received(connected, "CONNECT")
        if response.status != http.client.OK:
            raise OSError(0, f"the proxy answered {response.status}")

    @contextlib.contextmanager
    def _told(self, malformed: NoAnswerReason) -> Iterator[None]:
        """Turn what can go wrong into one kind of error.

        Without a cause: the texts of `http.client`'s errors quote headers and paths.

        Args:
            malformed: What a ValueError means here, and what an error of `http.client` does.
        """
        is_connected = self._socket is not None
        try:
            yield
        except TimeoutError:
            _fail(NoAnswerReason.TIMEOUT, "no answer in time", is_connected)
        except ConnectionRefusedError:
            _fail(NoAnswerReason.REFUSED, "nothing listens on the port", is_connected)
        except http.client.RemoteDisconnected:
            _fail(NoAnswerReason.BROKEN, "connection closed without an answer", is_connected)
        except http.client.IncompleteRead:
            _fail(NoAnswerReason.BROKEN, "connection closed within the answer", is_connected)
        except (_TooLong, http.client.LineTooLong):
            _fail(NoAnswerReason.NOT_HTTP, "more bytes than it may have", is_connected)
        except OSError as error:
            reason = NoAnswerReason.BROKEN if is_connected else NoAnswerReason.UNREACHABLE
            _fail(reason, error.strerror or type(error).__name__, is_connected)
        except http.client.BadStatusLine as error:
            text = f"{type(error).__name__} {excerpt(str(error))}"
            _fail(NoAnswerReason.NOT_HTTP, text, is_connected)
        except (http.client.HTTPException, ValueError) as error:
            _fail(malformed, type(error).__name__, is_connected)


def _received(connected: _BoundedSocket, method: str) -> http.client.HTTPResponse:
    """Return the head of an answer, and lift the bound of bytes: from here on it is the reader's."""
    connected.bytes_left = MAX_HEADER_BYTES
    response = _FinalResponse(connected, method=method)  # type: ignore[arg-type]
    response.begin()
    connected.bytes_left = math.inf
    return response


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _fail(reason: NoAnswerReason, text: str, is_connected: bool) -> NoReturn:
    raise NoAnswerError(reason, text, is_connected=is_connected) from None


@contextlib.contextmanager
def ask(
    address: Address,
    method: str = "GET",
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    verify: bool | None = None,
    proxied: bool = False,
) -> Iterator[HttpAnswer]:
    """Ask once, and hang up behind the block; see `HttpExchange`.

    Raises:
        NoAnswerError: There is no answer, or, where the block reads it, no whole one.
    """
    with HttpExchange(address, seconds=seconds, verify=verify, proxied=proxied) as exchange:
        exchange.send(method, headers=headers, body=body)
        yield exchange.receive()
