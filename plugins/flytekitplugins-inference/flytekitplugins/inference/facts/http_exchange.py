"""An HTTP client that bounds time and bytes, for every request that is not part of a batch.

It asks for readiness, models, metrics and Ollama's API. Servers may be broken in any way, so an
exchange ends at its deadline, however slowly an answer arrives, and every part of an answer has a
maximum size. The standard library's client offers neither: its timeout applies to each `recv`, so
an answer of one byte per second never ends, and it resolves names without a timeout.

The parser is the standard library's (`http.client`), on a socket that watches the deadline and
counts the bytes. Redirects are ordinary answers, a proxy is used only on request, and bodies arrive
as they are stored (`Accept-Encoding: identity`). Callers interpret the answers.
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
"""Maximum size of an answer's head, including interim answers (1xx)."""
BLOCK_BYTES = 64 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Maximum size of a line of a stream: Ollama repeats a model's whole description in one line."""
MAX_OVERHEAD = 8
"""Bytes on the connection per byte of a body: chunks of one byte need six."""
_HEADERS = {
    "Accept": "*/*",
    "User-Agent": "flytekitplugins-inference",
    "Connection": "close",
}


class NoAnswerReason(Enum):
    """Why no answer arrived, as far as callers distinguish the reasons."""

    REFUSED = "refused"
    """Nothing listens on the port."""
    UNREACHABLE = "unreachable"
    """The connection failed for another reason: the name, the network, a certificate."""
    TIMEOUT = "timeout"
    """The answer was not complete at the deadline."""
    BROKEN = "broken"
    """The connection ended before the answer did."""
    NOT_HTTP = "not_http"
    """The bytes are not HTTP, or exceed a limit."""
    NOT_SENT = "not_sent"
    """The request cannot be written, for example because a header contains a line break."""


class NoAnswerError(Exception):
    """An exchange ended without a complete answer. Its text contains no header and no query.

    Args:
        reason: The kind of failure.
        text: The detail in words, without a full stop.
        is_connected: Whether the server had accepted the connection.
    """

    def __init__(self, reason: NoAnswerReason, text: str, *, is_connected: bool) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.is_connected = is_connected


class _TooLong(http.client.HTTPException):
    """An answer exceeds its maximum size."""


class _BoundedSocket(io.RawIOBase):
    """The socket that `http.client` uses, with one deadline and one byte count for an exchange.

    Args:
        connected: The underlying connection.
        end: The deadline on the monotonic clock.
    """

    def __init__(self, connected: socket.socket, end: float) -> None:
        self.socket = connected
        self.end = end
        self.bytes_left: float = MAX_HEADER_BYTES
        # shared by all responses: the reader of an interim answer may hold bytes of the next one
        self._reader = io.BufferedReader(self, BLOCK_BYTES)

    def makefile(self, *_: object) -> io.BufferedReader[_BoundedSocket]:
        """Return the reader of `http.client`."""
        return self._reader

    def sendall(self, data: bytes) -> None:
        """Send all bytes; with TLS, the timeout of `socket.sendall` applies to each part only."""
        view = memoryview(data)
        while view:
            self._arm()
            view = view[self.socket.send(view) :]

    def readable(self) -> bool:
        """Return true, which `io.BufferedReader` requires."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the bytes that are available, within the limits."""
        if self.bytes_left <= 0:
            raise _TooLong
        self._arm()
        count = self.socket.recv_into(buffer)
        self.bytes_left -= count
        return count

    def close(self) -> None:
        """Do nothing: `http.client` would close the socket while this exchange still reads."""

    def _arm(self) -> None:
        remaining = self.end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self.socket.settimeout(None if math.isinf(remaining) else remaining)


class _FinalResponse(http.client.HTTPResponse):
    def begin(self) -> None:
        """Read the head and skip interim answers: `http.client` skips 100 only, not 103."""
        super().begin()
        while 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            # `begin` returns immediately once a response has headers
            self.headers = None  # type: ignore[assignment]
            super().begin()


class HttpAnswer:
    """The head of an answer, and methods that read its body."""

    def __init__(
        self, response: http.client.HTTPResponse, exchange: HttpExchange, connected: _BoundedSocket
    ) -> None:
        self._response = response
        self._exchange = exchange
        self._connected = connected
        self.status = response.status
        self.reason = response.reason

    def header(self, name: str) -> str:
        """Return the value of a header, or an empty text."""
        return self._response.getheader(name) or ""

    def read(self, limit: int) -> bytes:
        """Return the body, or its first `limit` bytes.

        Raises:
            NoAnswerError: It did not arrive in time, or the connection broke.
        """
        body = bytearray()
        self._read_into(body, limit)
        return bytes(body)

    def line(self, limit: int = MAX_LINE_BYTES) -> bytes:
        """Return the next line with its line break, or nothing after the last one.

        Raises:
            NoAnswerError: It did not arrive in time, is incomplete, or is longer than `limit`.
        """
        with self._reading(limit):
            line = self._response.readline(limit + 1)
            if len(line) > limit:
                raise _TooLong
            if not line.endswith(b"\n"):
                self._check_end()
            return line

    def excerpt(self) -> str:
        """Return the beginning of the body for a message, even if the connection breaks."""
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
        # bounds empty chunks, endless trailers, and a chunk that declares the size -1, which
        # `http.client` reads to the end of the connection
        self._connected.bytes_left = MAX_OVERHEAD * limit + MAX_HEADER_BYTES
        with self._exchange._told(NoAnswerReason.NOT_HTTP):
            yield

    def _check_end(self) -> None:
        """Refuse a truncated body, which `http.client` reports as complete."""
        if self._response.length:
            raise http.client.IncompleteRead(b"", self._response.length)


class HttpExchange:
    """One request and its answer on their own connection, which the end of the context closes.

    Args:
        address: The server's address.
        seconds: Time for the whole exchange: the name, the connection, the request and the answer.
        verify: Whether to verify the server's certificate. By default, certificates on loopback are
            not verified, as the kubelet does: no authority certifies a name for a pod's own server.
        proxied: Whether to use the proxy that the environment names, if any.
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
        """Replace the remaining time of the exchange by `seconds` from now."""
        self._end = time.monotonic() + seconds
        if self._socket is not None:
            self._socket.end = self._end

    def connect(self) -> None:
        """Connect to the server.

        Raises:
            NoAnswerError: The connection failed.
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
        """Send a request, connecting first if needed.

        Args:
            method: `GET`, …
            headers: The request's headers. They appear in no error.
            body: The request's body.
            blocks: The body in pieces, instead of `body`; `headers` must contain its length.

        Raises:
            NoAnswerError: The connection failed or broke. The server may have answered before it
                had read everything, so `receive` is worth a try.
        """
        connected = self._connected()
        self._method = method
        with self._told(NoAnswerReason.NOT_SENT):
            self._writer(connected, method, body, headers or {}).endheaders(body or None)
        # the iterable runs outside `_told`: its OSErrors belong to the caller, not the connection
        for block in blocks:
            with self._told(NoAnswerReason.NOT_SENT):
                connected.sendall(block)

    def receive(self) -> HttpAnswer:
        """Return the answer after its head has arrived.

        Raises:
            NoAnswerError: No complete head arrived.
        """
        connected = self._connected()
        with self._told(NoAnswerReason.NOT_HTTP):
            return HttpAnswer(_received(connected, self._method), self, connected)

    def _connected(self) -> _BoundedSocket:
        if self._socket is None:
            self.connect()
        return cast("_BoundedSocket", self._socket)

    def _left(self) -> float:
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining

    def _dial(self, host: str, port: int) -> socket.socket:
        """Return a connection to the first address of a host that accepts one."""
        places = self._resolve(host, port)
        errors: list[OSError] = []
        for index, (family, kind, protocol, _, place) in enumerate(places):
            connected = socket.socket(family, kind, protocol)
            try:
                # divided, so an address that drops packets leaves time for the next ones
                timeout = self._left() / (len(places) - index)
                connected.settimeout(None if math.isinf(timeout) else timeout)
                connected.connect(place)
                # head and body leave in separate writes; Nagle's algorithm would delay the second
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                connected.close()
                errors.append(error)
            else:
                return connected
        raise errors[-1]

    def _resolve(self, host: str, port: int) -> Sequence[_Resolved]:
        """Return the addresses of a host."""
        # in a thread: `getaddrinfo` has no timeout, and a resolver may hang
        lookup = BackgroundCall(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        ).start()
        timeout = self._left()
        if not lookup.wait(None if math.isinf(timeout) else timeout):
            raise TimeoutError
        return lookup.result()

    def _secured(self, connected: socket.socket) -> socket.socket:
        if self._verify:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        timeout = self._left()
        connected.settimeout(None if math.isinf(timeout) else timeout)
        return context.wrap_socket(connected, server_hostname=self._address.host)

    def _writer(
        self, connected: _BoundedSocket, method: str, body: bytes, headers: Mapping[str, str]
    ) -> http.client.HTTPConnection:
        """Return an `http.client` connection with the request's head, except for its end."""
        address = self._address
        writer = http.client.HTTPConnection(address.host, address.port)
        writer.default_port = 443 if address.scheme == "https" else 80
        # `_BoundedSocket` has `sendall`, the only method that a writer calls
        writer.sock = connected
        target = address.path or "/"
        if self._proxy is not None and address.scheme == "http":
            target = f"{address.origin}{target}"
            headers = {**_proxy_headers(self._proxy), **headers}
        names = {name.lower() for name in headers}
        # a caller's own headers replace the defaults: `http.client` would send both
        writer.putrequest(method, target, skip_host="host" in names)
        if body:
            writer.putheader("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            if name.lower() not in names:
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
        """Make the proxy open a tunnel to the server (RFC 9110, 9.3.6)."""
        authority = self._address.authority
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in _proxy_headers(self._proxy or "").items()]
        connected.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        response = _received(connected, "CONNECT")
        if response.status != http.client.OK:
            raise OSError(0, f"the proxy answered {response.status}")

    @contextlib.contextmanager
    def _told(self, malformed: NoAnswerReason) -> Iterator[None]:
        """Turn every failure into a `NoAnswerError`.

        It has no cause: the texts of `http.client`'s errors quote headers and paths.

        Args:
            malformed: The reason that a ValueError or an error of `http.client` stands for here.
        """
        # read before the block runs: `connect` sets the socket, and its failures are UNREACHABLE
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
    """Return the head of an answer, and lift the byte limit: `HttpAnswer` sets one per read."""
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
    """Send one request and yield its answer; see `HttpExchange`.

    Raises:
        NoAnswerError: No complete answer arrived.
    """
    with HttpExchange(address, seconds=seconds, verify=verify, proxied=proxied) as exchange:
        exchange.send(method, headers=headers, body=body)
        yield exchange.receive()
