"""A server's list of its models: the request, the parser, and the choice of the only model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..errors import ConfigError, ServerError
from .wording import excerpt

__all__ = [
    "MAX_LIST_BYTES",
    "ModelListRequest",
    "listed",
    "model_list_request",
    "model_names",
    "model_ready_path",
    "only_model",
]

MAX_LIST_BYTES = 4 * 1024 * 1024
"""Maximum size of a list; one with thousands of adapters takes a megabyte."""
MAX_SHOWN_MODELS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelListRequest:
    """A protocol's request for the list."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    """Sent as JSON."""


_REQUESTS = {
    "openai": ModelListRequest(method="GET", path="/v1/models"),
    # an extension of the Open Inference Protocol that Triton and MLServer have
    "v2": ModelListRequest(method="POST", path="/v2/repository/index", body={}),
}


def model_list_request(protocol: str) -> ModelListRequest | None:
    """Return the request for the list by `openai` or `v2`, or `None` for any other protocol."""
    return _REQUESTS.get(protocol)


def model_ready_path(name: str) -> str:
    """Return the path at which the Open Inference Protocol reports whether a model is ready."""
    return f"/v2/models/{quote(name, safe='')}/ready"


def model_names(protocol: str, body: bytes | str) -> list[str]:
    """Return the names in a list, each once.

    Raises:
        ValueError: The body is not a list of models of this protocol.
    """
    try:
        value = json.loads(body)
        if protocol == "openai":
            names = [model["id"] for model in value["data"]]
        else:
            # the index lists each version of a model; during a start none may be ready yet
            ready = [model["name"] for model in value if model.get("state") == "READY"]
            names = ready or [model["name"] for model in value]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("not a list of models") from None
    if not all(isinstance(name, str) for name in names):
        raise ValueError("not a list of models")
    return list(dict.fromkeys(names))


def only_model(protocol: str, *, url: str, status: int, body: bytes | str) -> str:
    """Return the name of the only model of a server.

    Args:
        protocol: `openai` or `v2`.
        url: The server's address, for the error.
        status: The status of its answer.
        body: The body of its answer.

    Raises:
        ConfigError: The server lists no model, or several.
        ServerError: The answer is not a list.
    """
    request = _REQUESTS[protocol]
    line = f"{request.method} {url}{request.path}"
    if not 200 <= status < 300:
        raise ServerError(f"{line} was answered {status}: {excerpt(body)}.")
    try:
        names = model_names(protocol, body)
    except ValueError:
        raise ServerError(
            f"{line} was answered with something that is no list of models: {excerpt(body)}."
        ) from None
    if len(names) == 1:
        return names[0]
    raise ConfigError(
        f"The server at {url} lists {listed(names)}: which one to ask for is not clear.",
        hint="Name it in the request (model=…) or in the template (its served model name).",
    )


def listed(names: list[str]) -> str:
    """Return names for a message: the first few and how many more there are."""
    shown = [excerpt(name) for name in names[:MAX_SHOWN_MODELS]]
    if len(names) > MAX_SHOWN_MODELS:
        shown.append(f"{len(names) - MAX_SHOWN_MODELS} more")
    return ", ".join(shown) or "no model"
