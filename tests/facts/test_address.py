"""Addresses: how they are read, whose they are, and what of them is shown."""

from __future__ import annotations

import pytest

from flytekitplugins.inference.client.endpoint import Endpoint
from flytekitplugins.inference.errors import ConfigError, UsageError
from flytekitplugins.inference.facts.address import (
    Address,
    AddressError,
    is_loopback,
    mask,
    parse_address,
    proxy_for,
    without_credentials,
)
from flytekitplugins.inference.programs.model.notify import parse_notifier
from flytekitplugins.inference.programs.server.server_probe import server_address

READ = [
    ("http://localhost:8000/health", "http", "localhost", 8000, "/health"),
    ("http://LOCALHOST", "http", "localhost", 80, ""),
    ("https://host/a/b?c=d", "https", "host", 443, "/a/b?c=d"),
    ("http://host?c=d", "http", "host", 80, "/?c=d"),
    ("http://[::1]:8000/", "http", "::1", 8000, "/"),
    ("http://host/#part", "http", "host", 80, "/"),
]

REFUSED = [
    "",
    "localhost:8000",
    "ftp://host",
    "http://",
    "http://host:0",
    "http://host:99999",
    "http://host:port",
    "http://[::1",
    "http://ho st",
    "http://höst",
    "http://host/\nx",
    "http://me:geheim@host",
    "http://geheim@host",
]


@pytest.mark.parametrize(("url", "scheme", "host", "port", "path"), READ)
def test_an_address_is_read(url: str, scheme: str, host: str, port: int, path: str) -> None:
    assert parse_address(url) == Address(scheme=scheme, host=host, port=port, path=path)


@pytest.mark.parametrize("url", REFUSED)
def test_everybody_refuses_the_same_and_shows_nothing_of_it(url: str) -> None:
    """The fact, the client's endpoint, the gate's address and the loader's `--notify`."""
    errors = []
    for read, kind in (
        (parse_address, AddressError),
        (lambda url: Endpoint(url=url), ConfigError),
        (server_address, UsageError),
        (lambda url: parse_notifier(f"triton={url}"), UsageError),
    ):
        with pytest.raises(kind) as caught:
            read(url)
        errors.append(str(caught.value))
    assert not any("geheim" in error for error in errors)


def test_what_is_shown_has_no_query() -> None:
    address = parse_address("https://[::1]:8443/health?key=geheim")
    assert address.shown == "https://[::1]:8443/health"
    assert address.origin == "https://[::1]:8443"
    assert address.at("/v1/models").shown == "https://[::1]:8443/v1/models"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("http://host", {}, None),
        ("http://host", {"http_proxy": "http://p:1"}, "http://p:1"),
        ("https://host", {"http_proxy": "http://p:1"}, None),
        ("https://host", {"all_proxy": "http://p:2"}, "http://p:2"),
        ("http://host", {"http_proxy": "http://p:1", "no_proxy": "host"}, None),
        ("http://localhost", {"http_proxy": "http://p:1", "no_proxy": "other"}, None),
        ("http://[::1]", {"http_proxy": "http://p:1", "no_proxy": "other"}, None),
    ],
)
def test_proxies(
    url: str, environ: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(parse_address(url)) == proxy


@pytest.mark.parametrize(
    ("uri", "masked", "bare"),
    [
        ("s3://bucket/key", "s3://bucket/key", "s3://bucket/key"),
        ("https://u:p@host/f?sig=x", "https://host/f?...", "https://host/f?sig=x"),
        ("zip://a::https://u:p@host/f", "zip://a::https://host/f", "zip://a::https://host/f"),
        ("/data/who?@/me", "/data/who?@/me", "/data/who?@/me"),
        ("https://host/a@b", "https://host/a@b", "https://host/a@b"),
        ("abfs://c@account/x", "abfs://c@account/x", "abfs://c@account/x"),
        ("zip://a::ABFSS://c@h/x?s", "zip://a::ABFSS://c@h/x?...", "zip://a::ABFSS://c@h/x?s"),
        ("abfs://me:key@account/x", "abfs://account/x", "abfs://account/x"),
    ],
)
def test_what_may_be_shown_of_a_source(uri: str, masked: str, bare: str) -> None:
    assert (mask(uri), without_credentials(uri)) == (masked, bare)
