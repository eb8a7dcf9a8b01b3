"""The common parts of Triton and MLServer, which serve repositories of named models by V2.

Source: github.com/triton-inference-server/server `docs/protocol/extension_model_repository.md`,
2.71.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .check import check_port

__all__ = ["model_name_problems", "port_problems", "update_options"]


def model_name_problems(names: Any) -> Iterator[str]:
    """Yield what is wrong with the names of a repository's models.

    Each is one part of a path, and of the address of requests.
    """
    if isinstance(names, str):
        yield f"model_names must be a list of names, not the text {names!r}; write [{names!r}]"
        return
    if not isinstance(names, (list, tuple)):
        yield f"model_names must be a list of names, not a {type(names).__name__}"
        return
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip("."):
            yield f"model_names: {name!r} is not the name of a model"
        elif "/" in name or name != name.strip() or not name.isprintable():
            yield f"model_names: {name!r} is not the name of a model; it must be one part of a path"
        elif name in names[:index]:
            yield f"model_names: {name!r} is listed twice"


def port_problems(ports: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the ports of one server.

    Args:
        ports: Port by the name of the field that gives it.
    """
    owners: dict[Any, str] = {}
    for name, port in ports.items():
        problem = next(check_port(name, port), None)
        if problem and name != "port":  # which every description checks
            yield problem
        elif not problem and port in owners:
            yield f"{owners[port]} and {name} are both {port}; each needs a port of its own"
        else:
            owners[port] = name


def update_options(kind: str, port: int, names: Iterable[str]) -> tuple[str, ...]:
    """Return the model loader's arguments that make the server reload models after an update.

    Args:
        kind: The loader's name for this kind of server.
        port: The port on which the server listens.
        names: The names of the models to reload.
    """
    words = tuple(word for name in names for word in ("--model-name", name))
    return ("--notify", f"{kind}=http://localhost:{port}", *words) if words else ()
