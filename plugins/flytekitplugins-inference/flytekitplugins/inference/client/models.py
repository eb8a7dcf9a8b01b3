"""Asks a server which model it has, with a client of httpx2 or httpx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..facts.model_list import model_list_request, only_model

if TYPE_CHECKING:
    from .server_address import ServerAddress

__all__ = ["only_model_of", "request_of"]


def request_of(endpoint: ServerAddress) -> dict[str, Any]:
    """Return the arguments of the client's `request` for a server's list of models.

    Raises:
        ConfigError: Its API cannot list models.
    """
    request = model_list_request(endpoint.protocol)
    if request is None:
        raise ConfigError(
            f"The server at {endpoint.url} has no API that lists models.",
            hint="Give the name: Endpoint(model=…).",
        )
    return {"method": request.method, "url": request.path, "json": request.body}


def only_model_of(endpoint: ServerAddress, response: Any) -> str:
    """Return the name of the only model in a server's list.

    Raises:
        ConfigError: It lists none or several.
        ServerError: The answer is not a list of models.
    """
    return only_model(
        endpoint.protocol, url=endpoint.url, status=response.status_code, body=response.content
    )
