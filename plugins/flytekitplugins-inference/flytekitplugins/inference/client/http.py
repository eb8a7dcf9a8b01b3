"""The HTTP client of one endpoint, on httpx2 or httpx. Imported when a client is created."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from ..dependencies import requires
from ..distribution import install_command
from ..errors import ServerError
from ..facts.address import parse_address, proxy_for
from .outage import watch_of
from .record import record_of
from .transport import AsyncTransport, Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from .attempts import Limits
    from .server_address import ServerAddress

__all__ = ["async_client", "client", "library"]

CONNECT_SECONDS = 2.0
MAX_CONNECTIONS = 1000
"""More than any sidecar works on at once. All of them are kept open, so that hundreds of concurrent
requests do not reconnect."""


def library() -> Any:
    """Return `httpx2`, or `httpx` if only that is installed.

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
        endpoint: The server.
        limits: For how long a request is tried.
        http: The library.
        convert: Turns an error of ours into one that users of the client also catch.
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
    address = parse_address(endpoint.url)
    return {
        "limits": limits,
        # a proxy for all of http would also get the requests to the sidecar, and cannot reach it
        "trust_env": not address.is_loopback,
        # the libraries read proxy settings only for a transport that they create themselves
        "proxy": proxy_for(address),
    }


def _settings(endpoint: ServerAddress, limits: Limits, http: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    return {
        "base_url": endpoint.url,
        "headers": headers,
        # no timeout for a place in the pool: the requests that hold one have timeouts themselves
        "timeout": http.Timeout(limits.timeout_seconds, connect=CONNECT_SECONDS, pool=None),
        "trust_env": not parse_address(endpoint.url).is_loopback,
        "follow_redirects": True,  # as the OpenAI client does by itself
    }


def _parts(
    endpoint: ServerAddress, limits: Limits, http: Any, convert: Convert | None
) -> dict[str, Any]:
    record = record_of(endpoint.url)
    watch = watch_of(endpoint.health_url or endpoint.url, api_key=endpoint.api_key, record=record)
    parts: dict[str, Any] = {"http": http, "limits": limits, "watch": watch, "record": record}
    return parts if convert is None else {**parts, "convert": convert}


if TYPE_CHECKING:
    Convert = Callable[[ServerError, Any], Exception]
