"""What the servers of the Open Inference Protocol (V2) share: Triton and MLServer serve a repository of named models.

Source: github.com/triton-inference-server/server `docs/protocol/extension_model_repository.md`,
2.71.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .check import check_port

__all__ = ["model_name_problems", "port_problems", "update_options"]


def model_name_problems(names: Any) -> Iterator[str]:
    """Yield what is wrong with the names of a repository's models: each is one part of a path and of an address."""
    if not isinstance(names, (list, tuple)):
        given = (
            f"the text {names!r}; write [{names!r}]"
            if isinstance(names, str)
            else f"a {type(names).__name__}"
        )
        yield f"model_names must be a list of names, not {given}"
        return
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip("."):
            yield f"model_names: {name!r} is not the name of a model"
        elif "/" in name or name != name.strip() or not name.isprintable():
            yield f"model_names: {name!r} is not the name of a model; it must be one part of a path"
        elif name in names[:index]:
            yield f"model_names: {name!r} is there twice"


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
    """Return the model loader's arguments that make the server load the models of a newer version again.

    Args:
        kind: How the loader calls this kind of server.
        port: Where it listens.
        names: What it calls its models.
    """
    named = tuple(word for name in names for word in ("--model-name", name))
    return ("--notify", f"{kind}=http://localhost:{port}", *named) if named else ()
