"""The official OpenAI client for a model server. Imported when a client is created."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

from .. import errors
from ..dependencies import requires
from ..distribution import install_command

with requires(
    "openai",
    "client() of a server that speaks OpenAI's API",
    hint=f"{install_command('openai')} in the task's image, or take base_url with any client.",
):
    import openai

from . import http

if TYPE_CHECKING:
    from .attempts import Limits
    from .server_address import ServerAddress

_Client = TypeVar("_Client", openai.OpenAI, openai.AsyncOpenAI)

__all__ = ["async_openai_client", "openai_client"]


class _UnreachableError(Exception):
    """The base of the errors below.

    Each is an error of OpenAI's and one of this package's, so that callers may catch either.
    """

    def __init__(self, error: errors.ServerError, request: Any) -> None:
        # calls neither base's `__init__`: the two take different arguments
        BaseException.__init__(self, error.message)
        self._plain = type(error)
        self.message = error.message
        self.hint = error.hint
        self.log_tail = error.log_tail
        self.request = request  # this and the next ones are attributes of `openai.APIError`
        self.body = None
        self.param = None
        self.type = None

    @property
    def code(self) -> str:
        """The name of this package's error, which is stable."""
        return self._plain.__name__

    def __reduce__(self) -> Any:  # a request cannot be pickled
        return _plain, (self._plain, self.message, self.hint, self.log_tail)


class OpenAIServerError(_UnreachableError, errors.ServerError, openai.APIConnectionError):  # type: ignore[misc]
    """The client cannot talk to the server."""


class OpenAIServerNotReadyError(  # type: ignore[misc]
    _UnreachableError, errors.ServerNotReadyError, openai.APIConnectionError
):
    """The server did not answer, or did not come back, in time."""


class OpenAIServerExitedError(  # type: ignore[misc]
    _UnreachableError, errors.ServerExitedError, openai.APIConnectionError
):
    """The server ended while it was in use."""


def openai_client(endpoint: ServerAddress, limits: Limits) -> openai.OpenAI:
    """Return an `openai.OpenAI` for an endpoint.

    It raises OpenAI's errors; an error of the connection is both an `openai.APIConnectionError` and
    a `ServerError`.
    """
    client = http.client(endpoint, limits, http=_library(), convert=_convert)
    return _detached(openai.OpenAI(http_client=client, **_settings(endpoint, limits)))


def async_openai_client(endpoint: ServerAddress, limits: Limits) -> openai.AsyncOpenAI:
    """As `openai_client`, for asyncio."""
    client = http.async_client(endpoint, limits, http=_library(), convert=_convert)
    return _detached(openai.AsyncOpenAI(http_client=client, **_settings(endpoint, limits)))


def _settings(endpoint: ServerAddress, limits: Limits) -> dict[str, Any]:
    return {
        "base_url": f"{endpoint.url}/v1",
        # without a key the client reads OPENAI_API_KEY and would send that secret to this server
        "api_key": endpoint.api_key or "none",
        "max_retries": 0,  # `attempts` decides that: OpenAI's own rules also repeat a timeout
    }


def _detached(client: _Client) -> _Client:
    """Remove the OpenAI account that a client read from the environment."""
    # they would be sent as headers, and no server but OpenAI's should learn them
    client.organization = client.project = None
    return client


def _convert(error: errors.ServerError, request: Any) -> Exception:
    if isinstance(error, errors.ServerNotReadyError):
        return OpenAIServerNotReadyError(error, request)
    if isinstance(error, errors.ServerExitedError):
        return OpenAIServerExitedError(error, request)
    return OpenAIServerError(error, request)


def _plain(
    kind: type[errors.ServerError], message: str, hint: str, log_tail: tuple[str, ...]
) -> errors.ServerError:
    return kind(message, hint=hint, log_tail=log_tail)


def _library() -> Any:
    """Return the library below the installed client: httpx before version 3, then httpx2."""
    # not from what is installed: both may be, and the client accepts only its own
    bases = openai.DefaultHttpxClient.__mro__
    return next(
        sys.modules[name] for base in bases if (name := base.__module__) in ("httpx", "httpx2")
    )
