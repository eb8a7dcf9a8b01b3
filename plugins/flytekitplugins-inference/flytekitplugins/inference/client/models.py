"""Asking a server which model it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ServerError
from .health import shown

if TYPE_CHECKING:
    from .address import ServerAddress

__all__ = ["only_model", "question"]

MAX_SHOWN_MODELS = 8


def question(endpoint: ServerAddress) -> tuple[str, str, dict[str, Any] | None]:
    """Return method, path and JSON of the request for a server's list of models.

    Raises:
        ConfigError: Its API has none.
    """
    if endpoint.protocol == "openai":
        return "GET", "/v1/models", None
    if endpoint.protocol == "v2":  # an extension of the protocol that Triton and MLServer have
        return "POST", "/v2/repository/index", {}
    raise ConfigError(
        f"The server at {endpoint.url} has no API that lists models.",
        hint="Give the name: Endpoint(model=…).",
    )


def only_model(endpoint: ServerAddress, response: Any) -> str:
    """Return the name of the only model in a server's list.

    Args:
        endpoint: The server.
        response: Its answer to the question.

    Raises:
        ConfigError: It lists none or several.
        ServerError: It is not a list.
    """
    names = _names(endpoint, response)
    if len(names) == 1:
        return names[0]
    listed = ", ".join(repr(name) for name in names[:MAX_SHOWN_MODELS]) or "no model"
    more = f" and {len(names) - MAX_SHOWN_MODELS} more" if len(names) > MAX_SHOWN_MODELS else ""
    raise ConfigError(
        f"The server at {endpoint.url} lists {listed}{more}: which one to ask for is not clear.",
        hint="Name it in the request (model=…) or in the template (its served model name).",
    )


def _names(endpoint: ServerAddress, response: Any) -> list[str]:
    method, path, _ = question(endpoint)
    asked = f"{method} {endpoint.url}{path}"
    if not response.is_success:
        raise ServerError(
            f"{asked} was answered {response.status_code}: {shown(response.content)}."
        )
    try:
        value = response.json()
        if endpoint.protocol == "openai":
            models = [model["id"] for model in value["data"]]
        else:
            models = [model["name"] for model in value if model.get("state") == "READY"]
            models = models or [model["name"] for model in value]  # while they are being loaded
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = shown(response.content)
        raise ServerError(
            f"{asked} was answered with something that is no list of models: {text}."
        ) from error
    return [str(name) for name in dict.fromkeys(models)]  # V2 lists each version of a model
