"""The HTTP client of one endpoint, in whichever library is there. Imported when a client is made."""

from __future__ import annotations

import contextlib
import importlib
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..dependencies import requires
from ..distribution import install_command
from ..errors import ServerError
from .health import is_loopback
from .outage import watch_of
from .record import record_of
from .transport import AsyncTransport, Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from .address import ServerAddress
    from .retry import Limits

__all__ = ["async_client", "client", "library"]

CONNECT_SECONDS = 2.0
MAX_CONNECTIONS = 1000
"""More than any sidecar works on at a time, and all kept: a batch of some hundred requests must not
connect anew."""


def library() -> Any:
    """Return `httpx2`, or `httpx` where that is what there is.

    Raises:
        MissingDependencyError: If neither is installed.
    """
    with contextlib.suppress(ImportError):
        return importlib.import_module("httpx2")
    with requires(
        "httpx2 or httpx",
        "A client",
        hint=f"{install_command('openai')} (or the extra open-inference) in the task's image.",
    ):
        return importlib.import_module("httpx")


def client(
    endpoint: ServerAddress, limits: Limits, *, http: Any, convert: Convert | None = None
) -> Any:
    """Return a blocking client of `http` for an endpoint.

    Args:
        endpoint: Where it goes.
        limits: How long a request is tried.
        http: The library.
        convert: Makes an error of ours one that the users of the client above catch, too.
    """
    inner = http.HTTPTransport(**_options(endpoint, http))
    return http.Client(
        transport=Transport(inner, **_parts(endpoint, limits, http, convert)),
        **_settings(endpoint, limits, http),
    )


def async_client(
    endpoint: ServerAddress, limits: Limits, *, http: Any, convert: Convert | None = None
) -> Any:
    """As `client`, for asyncio."""
    inner = http.AsyncHTTPTransport(**_options(endpoint, http))
    return http.AsyncClient(
        transport=AsyncTransport(inner, **_parts(endpoint, limits, http, convert)),
        **_settings(endpoint, limits, http),
    )


def _options(endpoint: ServerAddress, http: Any) -> dict[str, Any]:
    limits = http.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
    trust_env = not is_loopback(endpoint.url)
    return {
        "limits": limits,
        "trust_env": trust_env,
        "proxy": _proxy(endpoint.url) if trust_env else None,
    }


def _settings(endpoint: ServerAddress, limits: Limits, http: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    return {
        "base_url": endpoint.url,
        "headers": headers,
        # no bound for a place in the pool: those who hold one are bounded themselves
        "timeout": http.Timeout(limits.timeout_seconds, connect=CONNECT_SECONDS, pool=None),
        "trust_env": not is_loopback(endpoint.url),
        "follow_redirects": True,  # as the OpenAI client does by itself
    }


def _parts(
    endpoint: ServerAddress, limits: Limits, http: Any, convert: Convert | None
) -> dict[str, Any]:
    record = record_of(endpoint.url)
    watch = watch_of(endpoint.health_url or endpoint.url, api_key=endpoint.api_key, record=record)
    parts: dict[str, Any] = {"http": http, "limits": limits, "watch": watch, "record": record}
    return parts if convert is None else {**parts, "convert": convert}


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for a host other than this one.

    The libraries look for it only where they make the transport themselves.
    """
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


if TYPE_CHECKING:
    Convert = Callable[[ServerError, Any], Exception]
