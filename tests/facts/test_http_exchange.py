"""The one HTTP client, against real sockets that do what no sound server does."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from facts.peer import Peer, Peers, Talk, repeating, saying
from flytekitplugins.inference.facts.address import parse_address
from flytekitplugins.inference.facts.http_exchange import (
    HttpExchange,
    NoAnswerError,
    NoAnswerReason,
    ask,
)

SHORT = 0.5
"""Seconds of an exchange that is meant to run out of them."""
LONG = 30.0
"""Seconds of an exchange that must end for another reason."""


def resetting(text: bytes) -> Talk:
    """Send some text and then reset the connection."""

    def talk(connected: socket.socket) -> None:
        connected.sendall(text)
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    return talk


OK = b"HTTP/1.1 200 OK\r\n"


def read(url: str, *, seconds: float = LONG, limit: int = 1000) -> tuple[int, bytes]:
    with ask(parse_address(url), seconds=seconds) as answer:
        return answer.status, answer.read(limit)


# Answers


@pytest.mark.parametrize(
    ("text", "status", "body"),
    [
        (OK + b"Content-Length: 2\r\n\r\nhi", 200, b"hi"),
        (OK + b"\r\nto the end", 200, b"to the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 503\r\nContent-Length: 4\r\n\r\nbusy", 503, b"busy"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;x=y\r\n!\r\n0\r\n\r\n", 200, b"hi!"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi", 200, b"hi"),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 102 Processing\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
            200,
            b"hi",
        ),
        (b"HTTP/1.1 302 Found\r\nLocation: http://h/\r\nContent-Length: 0\r\n\r\n", 302, b""),
    ],
    ids=[
        "length",
        "to the end",
        "HTTP/1.0",
        "no content",
        "no phrase",
        "chunked",
        "100",
        "103 and 102",
        "a redirect",
    ],
)
def test_an_answer(peers: Peers, text: bytes, status: int, body: bytes) -> None:
    assert read(peers(text).url) == (status, body)


def test_the_request(peers: Peers) -> None:
    peer = peers(OK + b"Content-Length: 0\r\n\r\n")
    with ask(
        parse_address(f"{peer.url}/a?b=c"),
        "POST",
        seconds=LONG,
        headers={"X-A": "1"},
        body=b"{}",
    ) as answer:
        assert answer.header("content-length") == "0"
    line, *headers = peer.requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert line == "POST /a?b=c HTTP/1.1"
    assert sorted(headers) == [
        "Accept-Encoding: identity",  # so that no body is compressed
        "Accept: */*",
        "Connection: close",
        "Content-Length: 2",
        f"Host: 127.0.0.1:{peer.port}",
        "User-Agent: flytekitplugins-inference",
        "X-A: 1",
    ]
    assert peer.requests[0].endswith(b"{}")


def test_a_header_that_is_given_replaces_our_own(peers: Peers) -> None:
    peer = peers(OK + b"\r\n")
    headers = {"user-agent": "kube-probe/1.36", "host": "model", "ACCEPT": "text/plain"}
    with ask(parse_address(peer.url), seconds=LONG, headers=headers):
        pass
    assert sorted(peer.requests[0].decode().lower().split("\r\n")[1:-2]) == [
        "accept-encoding: identity",
        "accept: text/plain",
        "connection: close",
        "host: model",
        "user-agent: kube-probe/1.36",
    ]


def test_ipv6(peers: Peers) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        peer = peers(OK + b"Content-Length: 2\r\n\r\nhi", family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    assert read(peer.url) == (200, b"hi")
    assert f"Host: [::1]:{peer.port}".encode() in peer.requests[0]


def test_a_host_with_two_addresses_is_asked_at_the_one_that_listens(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = peers(OK + b"Content-Length: 2\r\n\r\nhi")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    given = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number))
        for number in (port, peer.port)
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: given)
    assert read("http://two.invalid/") == (200, b"hi")


def test_lines_as_they_come(peers: Peers) -> None:
    goes_on = threading.Event()

    def talk(connected: socket.socket) -> None:
        connected.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\na\nb\n\r\n")
        goes_on.wait(LONG)
        connected.sendall(b"1\r\nc\r\n0\r\n\r\n")

    with ask(parse_address(peers(talk).url), seconds=LONG) as answer:
        lines = [answer.line(), answer.line()]
        goes_on.set()
        lines += [answer.line(), answer.line()]
    assert lines == [b"a\n", b"b\n", b"c", b""]


def test_a_body_is_read_up_to_its_limit(peers: Peers) -> None:
    assert read(peers(repeating(OK + b"\r\n", b"x" * 1000)).url, limit=5000) == (200, b"x" * 5000)


# No answer


@pytest.mark.parametrize(
    ("talk", "reason", "text"),
    [
        (saying(b""), "broken", "closed without an answer"),
        (saying(b"SSH-2.0-OpenSSH\r\n"), "not_http", "BadStatusLine"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"), "broken", "within the answer"),
        (saying(OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhi"), "broken", "within the answer"),
        (saying(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhi"), "broken", "within the answer"),
        (resetting(OK + b"\r\n"), "broken", "reset"),
        (repeating(OK, b"X-A: b\r\n"), "not_http", "HTTPException"),
        (repeating(OK + b"X-A: ", b"x" * 1000), "not_http", "more bytes"),
        (repeating(b"HTTP/1.1 ", b"x" * 1000), "not_http", "more bytes"),
        (repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "not_http", "more bytes"),
        (
            repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b"x" * 1000),
            "not_http",
            "more bytes",
        ),
        (
            repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n"),
            "not_http",
            "more bytes",
        ),
    ],
    ids=[
        "nothing",
        "another protocol",
        "a short body",
        "a short chunk",
        "no size of a chunk",
        "a reset",
        "headers without end",
        "a header without end",
        "a status line without end",
        "interim answers without end",
        "a chunk of -1",
        "trailers without end",
    ],
)
def test_what_is_no_answer(peers: Peers, talk: Talk, reason: str, text: str) -> None:
    with pytest.raises(NoAnswerError) as caught:
        read(peers(talk).url)
    assert (caught.value.reason, caught.value.is_connected) == (NoAnswerReason(reason), True)
    assert text in caught.value.text


@pytest.mark.parametrize(
    "talk",
    [
        lambda connected: connected.recv(1),
        repeating(b"", b"H", 0.05),
        repeating(OK, b"X", 0.05),
        repeating(OK + b"\r\n", b"x", 0.05),
        repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.05),
    ],
    ids=["silence", "a dripping status", "a dripping header", "a dripping body", "dripping chunks"],
)
def test_the_time_is_that_of_the_whole_exchange(peers: Peers, talk: Talk) -> None:
    with pytest.raises(NoAnswerError) as caught:
        read(peers(talk).url, seconds=SHORT, limit=2**20)
    assert caught.value.reason is NoAnswerReason.TIMEOUT


def test_a_request_that_is_not_read_runs_out_of_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = parse_address(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with (
            pytest.raises(NoAnswerError) as caught,
            HttpExchange(address, seconds=SHORT) as exchange,
        ):
            exchange.send("POST", blocks=itertools.repeat(b"x" * 65536))
    assert caught.value.reason is NoAnswerReason.TIMEOUT


def test_an_error_of_what_is_sent_is_the_callers(peers: Peers) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"x"
        raise TimeoutError("of the caller")

    peer = peers(OK + b"\r\n")
    with (
        pytest.raises(TimeoutError, match="of the caller"),
        HttpExchange(parse_address(peer.url), seconds=LONG) as exchange,
    ):
        exchange.send("POST", blocks=blocks())


def test_a_resolver_that_hangs_runs_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: is_over.wait(LONG))
    with pytest.raises(NoAnswerError) as caught:
        read("http://slow.invalid/", seconds=SHORT)
    is_over.set()
    assert (caught.value.reason, caught.value.is_connected) == (NoAnswerReason.TIMEOUT, False)


def test_each_line_may_get_its_own_time(peers: Peers) -> None:
    peer = peers(repeating(OK + b"\r\n", b"a\n", 0.1))
    with HttpExchange(parse_address(peer.url), seconds=LONG) as exchange:
        exchange.send("GET")
        answer = exchange.receive()
        for _ in range(10):
            exchange.allow(LONG)
            assert answer.line() == b"a\n"
        exchange.allow(0)
        with pytest.raises(NoAnswerError):
            answer.line()


def test_a_line_without_end_is_refused(peers: Peers) -> None:
    peer = peers(repeating(OK + b"\r\n", b"x" * 1000))
    with (
        pytest.raises(NoAnswerError, match="more bytes"),
        ask(parse_address(peer.url), seconds=LONG) as answer,
    ):
        answer.line(5000)


def test_a_port_that_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NoAnswerError, match="nothing listens") as caught:
        read(f"http://127.0.0.1:{port}/")
    assert (caught.value.reason, caught.value.is_connected) == (NoAnswerReason.REFUSED, False)


@pytest.mark.parametrize("host", ["model.invalid", "a..b", f"{'x' * 64}.invalid"])
def test_a_name_without_an_address(host: str) -> None:
    with pytest.raises(NoAnswerError) as caught:
        read(f"http://{host}/")
    assert (caught.value.reason, caught.value.is_connected) == (NoAnswerReason.UNREACHABLE, False)


def test_a_body_that_breaks_off_is_quoted_as_far_as_it_came(peers: Peers) -> None:
    peer = peers(b"HTTP/1.1 500 Oh\r\nContent-Length: 999\r\n\r\nout of\n  memory")
    with ask(parse_address(peer.url), seconds=LONG) as answer:
        assert answer.excerpt() == "'out of memory'"


@pytest.mark.parametrize("value", ["two\nlines", "k\r\nX: y", "schlüssel€"])
def test_a_header_that_cannot_be_sent_is_never_shown(peers: Peers, value: str) -> None:
    peer = peers(OK + b"\r\n")
    with (
        pytest.raises(NoAnswerError) as caught,
        ask(parse_address(peer.url), seconds=LONG, headers={"Authorization": value}),
    ):
        pass
    assert caught.value.reason is NoAnswerReason.NOT_SENT
    assert value not in f"{caught.value!r} {caught.value.text} {caught.value.__cause__}"
    assert caught.value.__suppress_context__
    assert peer.requests == []


# Through a proxy


def test_a_proxy_is_asked_where_it_may_be(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = peers(OK + b"Content-Length: 2\r\n\r\nhi")
    monkeypatch.setenv("http_proxy", peer.url.replace("://", "://us%20er:pass@"))
    monkeypatch.delenv("no_proxy", raising=False)
    with ask(parse_address("http://model.invalid/x"), seconds=LONG, proxied=True) as answer:
        assert answer.read(9) == b"hi"
    assert peer.requests[0].startswith(b"GET http://model.invalid:80/x HTTP/1.1\r\n")
    assert b"\r\nHost: model.invalid:80\r\n" in peer.requests[0]
    assert b"\r\nProxy-Authorization: Basic dXMgZXI6cGFzcw==\r\n" in peer.requests[0]
    with pytest.raises(NoAnswerError):
        read("http://model.invalid/x")


def test_no_proxy_stands_before_this_machine(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = peers(OK + b"\r\nproxy"), peers(OK + b"\r\nserver")
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "")
    with ask(parse_address(server.url), seconds=LONG, proxied=True) as answer:
        assert answer.read(9) == b"server"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"HTTP/1.1 403 No\r\n\r\n", "the proxy answered 403"),
        (b"HTTP/1.1 200 OK\r\n\r\nno TLS", "(?i)ssl|tls"),
    ],
)
def test_a_tunnel_that_leads_nowhere(
    peers: Peers, monkeypatch: pytest.MonkeyPatch, text: bytes, reason: str
) -> None:
    peer = peers(text)
    monkeypatch.setenv("https_proxy", peer.url)
    monkeypatch.delenv("no_proxy", raising=False)
    with (
        pytest.raises(NoAnswerError, match=reason),
        ask(parse_address("https://model.invalid/"), seconds=LONG, proxied=True),
    ):
        pass
    assert peer.requests[0].startswith(b"CONNECT model.invalid:443 HTTP/1.1\r\n")


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for nobody that anybody trusts."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=nobody", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


def test_a_certificate_is_not_verified_on_this_machine_only(
    certificate: Path, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    class Secure(Peer):
        def _answer(self, connected: socket.socket) -> None:
            with contextlib.suppress(OSError):
                super()._answer(context.wrap_socket(connected, server_side=True))

    peer = Secure(saying(OK + b"Content-Length: 2\r\n\r\nhi"))
    assert read(f"https://127.0.0.1:{peer.port}/") == (200, b"hi")
    given = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", peer.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: given)
    with pytest.raises(NoAnswerError) as caught:
        read(f"https://model.invalid:{peer.port}/")
    assert caught.value.reason is NoAnswerReason.UNREACHABLE
    assert "certificate" in caught.value.text.lower()
    peer.close()
