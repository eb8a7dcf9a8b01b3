"""The official OpenAI client, for a server of one's own. Imported when one is made."""

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
    """What the errors below share.

    Each is one of OpenAI's and one of this package's, so that either may be caught.
    """

    def __init__(self, error: errors.ServerError, request: Any) -> None:
        # neither base's own `__init__`: they do not know each other's arguments
        BaseException.__init__(self, error.message)
        self._plain = type(error)
        self.message = error.message
        self.hint = error.hint
        self.log_tail = error.log_tail
        self.request = request  # an APIError's
        self.body = None
        self.param = None
        self.type = None

    @property
    def code(self) -> str:
        """The stable name, which is that of this package's error."""
        return self._plain.__name__

    def __reduce__(self) -> Any:  # a request cannot be pickled
        return _plain, (self._plain, self.message, self.hint, self.log_tail)


class OpenAIServerError(_UnreachableError, errors.ServerError, openai.APIConnectionError):  # type: ignore[misc]
    """A server that cannot be spoken to."""


class OpenAIServerNotReadyError(  # type: ignore[misc]
    _UnreachableError, errors.ServerNotReadyError, openai.APIConnectionError
):
    """A server that did not answer, or did not come back, in time."""


class OpenAIServerExitedError(  # type: ignore[misc]
    _UnreachableError, errors.ServerExitedError, openai.APIConnectionError
):
    """A server that ended while it was needed."""


def openai_client(endpoint: ServerAddress, limits: Limits) -> openai.OpenAI:
    """Return an `openai.OpenAI` that speaks to an endpoint.

    Its errors are OpenAI's; those of the connection are an `openai.APIConnectionError` and a
    `ServerError` at once.
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
        "api_key": endpoint.api_key
        or "none",  # else the client reads OPENAI_API_KEY, which is none of this server's
        "max_retries": 0,  # the transport knows better what may be sent again
    }


def _detached(client: _Client) -> _Client:
    """Take from a client what it read of the environment about an account at OpenAI."""
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
    bases = openai.DefaultHttpxClient.__mro__
    return next(
        sys.modules[name] for base in bases if (name := base.__module__) in ("httpx", "httpx2")
    )
