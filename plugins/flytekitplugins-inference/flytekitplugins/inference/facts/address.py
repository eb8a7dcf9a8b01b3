"""Addresses: parsing a URL, recognizing this machine, and hiding credentials.

A URL may hold a password, or a signature in its query, so errors here never quote one.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

__all__ = [
    "Address",
    "AddressError",
    "CredentialsInUrlError",
    "is_loopback",
    "mask",
    "parse_address",
    "proxy_for",
    "scheme_of",
    "without_credentials",
]

_PORTS = {"http": 80, "https": 443}
_USER_INFO = re.compile(r"(abfss?)?://([^/]*@)", re.IGNORECASE)


class AddressError(ValueError):
    """A text is not the address of a server.

    The message continues a sentence that begins with the name of whatever holds the text.
    """


class CredentialsInUrlError(AddressError):
    """An address contains a user or password."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a server answers."""

    scheme: str
    """`http` or `https`."""
    host: str
    """A name or an IP address, without brackets."""
    port: int
    path: str = ""
    """Includes the query; empty when the URL has neither."""

    @property
    def authority(self) -> str:
        """Host and port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port as in a URL."""
        return f"{self.scheme}://{self.authority}"

    @property
    def shown(self) -> str:
        """The URL as messages show it: without its query, which may hold a key."""
        return f"{self.origin}{self.path.partition('?')[0]}"

    @property
    def is_loopback(self) -> bool:
        """Whether the address belongs to this machine; all containers of a pod share loopback."""
        return is_loopback(self.host)

    def at(self, path: str) -> Address:
        """Return the address of another path of the same server."""
        return replace(self, path=path)


def parse_address(url: str) -> Address:
    """Return the address that a URL names.

    Raises:
        AddressError: It is not an http or https URL.
        CredentialsInUrlError: It contains a user or password.
    """
    try:
        parts = urlsplit(url)
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
    except (ValueError, KeyError):
        raise AddressError("is not an http or https URL") from None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if not parts.hostname or not is_plain or port == 0:
        raise AddressError("is not an http or https URL")
    if parts.username is not None:
        raise CredentialsInUrlError("holds a user or password, which would be shown in logs")
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path
    return Address(scheme=parts.scheme, host=parts.hostname, port=port, path=path)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, or another container of the same pod."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    # before Python 3.13, `is_loopback` is false for an IPv4-mapped address (::ffff:127.0.0.1)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def proxy_for(address: Address) -> str | None:
    """Return the URL of the proxy that the environment names for an address, or `None`.

    Loopback never has one: HTTP_PROXY is set for a whole pod or laptop, often without a NO_PROXY
    for localhost, and a proxy's own localhost is another machine.
    """
    if address.is_loopback:
        return None
    # imported on use: the module is heavy, and most users of addresses never need it
    import urllib.request

    if urllib.request.proxy_bypass(address.host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(address.scheme) or proxies.get("all")


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI in lower case; `file` for a plain path."""
    head, separator, _ = uri.partition("://")
    return head.lower() if separator else "file"


def mask(uri: str) -> str:
    """Return a URI without the parts that may be secret: user, password and query."""
    if scheme_of(uri) == "file":
        return uri
    address, question, _ = without_credentials(uri).partition("?")
    return f"{address}?..." if question else address


def without_credentials(uri: str) -> str:
    """Return a URI without user and password.

    fsspec's chained URIs (`zip://a::https://u:p@host`) hold them in the middle of the text.
    """
    return uri if scheme_of(uri) == "file" else _USER_INFO.sub(_without_user, uri)


def _without_user(match: re.Match[str]) -> str:
    azure, user = match.groups()
    if azure and ":" not in user:  # Azure's `container@account`: the place, and no secret
        return match[0]
    return f"{azure or ''}://"
