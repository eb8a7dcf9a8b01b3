"""Runs a template's pod on this machine, around a task's function or a `with` block.

Only this module knows both sides, so `local` depends neither on templates nor on flytekit. It
writes the inputs as Flyte would, compiles the pod, leases it from `local`, and stores the port of
each template for `base_url`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from flytekit import FlyteContextManager
from flytekit.core.type_engine import TypeEngine

from .. import local, sidecar_template
from ..client.endpoint import from_environment
from ..errors import ConfigError, ServerError
from ..pod.compile import Manifest
from ..pod.parts import CACHE_DIRECTORY, MODEL_SERVER, Helper
from ..pod.plan import named

if TYPE_CHECKING:
    from ..sidecar_template import ModelInferenceTemplate, PodDescription

__all__ = ["LocalServer", "async_server_for_task", "run_locally", "server_for_task", "server_of"]

LOCAL_HELPER = Helper(image=local.THIS_MACHINE, bundled=False)
"""Our programs run with this machine's Python, where this package is installed."""
LOCAL_VOLUMES_VARIABLE = "INFERENCE_LOCAL_VOLUMES"
"""Directories of this machine for volumes that exist on a cluster only, such as claims."""


@dataclass(frozen=True, kw_only=True)
class LocalServer:
    """A model server that runs on this machine."""

    template: ModelInferenceTemplate
    pod: local.LocalPod
    """The whole pod: its events, logs and paths."""
    name: str = ""
    """Its name in a pod with several."""

    @property
    def port(self) -> int:
        """The port it answers on; not the template's where that one was busy."""
        return self.pod.port(self.template.port)

    @property
    def base_url(self) -> str:
        """Where it answers."""
        return f"http://localhost:{self.port}"

    def log_tail(self, lines: int = 20) -> list[str]:
        """Return the last lines it wrote."""
        return list(self.pod.log_tail(named(MODEL_SERVER, self.name), lines))


_context_servers: ContextVar[tuple[LocalServer, ...]] = ContextVar(
    "inference_local_servers", default=()
)
"""The servers that run around the current code; each coroutine sees its own."""
_process_servers: list[LocalServer] = []
"""All servers of this process, for threads of the user's function, which inherit no context."""


def server_of(template: ModelInferenceTemplate) -> LocalServer | None:
    """Return `template`'s server on this machine, or `None` if it does not run here.

    Raises:
        ServerError: The calling thread belongs to none of several servers.
    """
    for server in reversed(_context_servers.get()):
        if _is_same_server(server.template, template):
            return server
    servers = {
        server.port: server
        for server in tuple(_process_servers)
        if _is_same_server(server.template, template)
    }
    if len(servers) > 1:
        raise ServerError(
            f"{type(template).__name__} has {len(servers)} servers here, and this thread belongs "
            "to none of them.",
            hint="Read base_url in the function itself and pass it to the threads that it starts.",
        )
    return next(iter(servers.values()), None)


sidecar_template._LOCAL_SERVER_HOOKS.append(server_of)


def _is_same_server(one: ModelInferenceTemplate, other: ModelInferenceTemplate) -> bool:
    """Whether two descriptions describe the same server."""
    if type(one) is not type(other):
        return False
    # these belong to the pod: a task adds `pod_template=`, and bounds the start
    names = (field.name for field in fields(one) if field.name not in ("base", "startup_timeout"))
    return all(getattr(one, name) == getattr(other, name) for name in names)


@contextlib.contextmanager
def run_locally(
    description: PodDescription, inputs: Mapping[str, Any], volumes: Mapping[str, str]
) -> Iterator[Mapping[str, LocalServer]]:
    """Run a pod as long as the block lasts; see `ModelInferenceTemplate.run_locally`.

    Returns:
        Its servers by name, as the description has them.
    """
    if inputs and not _wants_inputs(description):
        raise ConfigError(
            "inputs= is given, but no server has download_inputs=True.",
            hint="Leave out one of the two.",
        )
    types = {name: _type_of(value) for name, value in inputs.items()}
    literals = _literals(inputs, types) if _wants_inputs(description) else b""
    with (
        local.start(*_pod(description, literals, volumes)) as pod,
        _published(description, pod) as servers,
    ):
        yield servers


@contextlib.contextmanager
def server_for_task(
    description: PodDescription, inputs: Mapping[str, Any], types: Mapping[str, Any]
) -> Iterator[Mapping[str, LocalServer]]:
    """Run the servers of a task around its function.

    No server starts if `INFERENCE_URL` names servers elsewhere. The pod is leased: a running pod
    with the same description and inputs is used again, and an idle one stops after a while.

    Args:
        description: The pod.
        inputs: The function's arguments.
        types: Their types.
    """
    if _is_elsewhere(description):
        yield {}
        return
    with _lease(description, inputs, types) as pod, _published(description, pod) as servers:
        yield servers


@contextlib.asynccontextmanager
async def async_server_for_task(
    description: PodDescription, inputs: Mapping[str, Any], types: Mapping[str, Any]
) -> AsyncIterator[Mapping[str, LocalServer]]:
    """Run the servers of a task around its `async` function.

    Their start does not block the event loop; see `server_for_task`.
    """
    if _is_elsewhere(description):
        yield {}
        return
    async with _lease(description, inputs, types) as pod:
        with _published(description, pod) as servers:
            yield servers


def _is_elsewhere(description: PodDescription) -> bool:
    """Whether the environment names an address for each server, so that none is started here."""
    return all(from_environment(name) for name in description.servers)


def _wants_inputs(description: PodDescription) -> bool:
    return any(server.download_inputs for server in description.servers.values())


def _lease(
    description: PodDescription, inputs: Mapping[str, Any], types: Mapping[str, Any]
) -> local.Lease:
    literals = _literals(inputs, types) if _wants_inputs(description) else b""
    return local.lease(*_pod(description, literals, {}))


@contextlib.contextmanager
def _published(
    description: PodDescription, pod: local.LocalPod
) -> Iterator[Mapping[str, LocalServer]]:
    """Make the pod's servers known to `base_url` while the block runs."""
    servers = {
        name: LocalServer(template=template, pod=pod, name=name)
        for name, template in description.servers.items()
    }
    token = _context_servers.set((*_context_servers.get(), *servers.values()))
    _process_servers.extend(servers.values())
    try:
        yield servers
    finally:
        for server in servers.values():
            _process_servers.remove(server)
        # async fixtures may leave the block in another context, where `reset` raises ValueError
        with contextlib.suppress(ValueError):
            _context_servers.reset(token)


def _pod(
    description: PodDescription, literals: bytes, volumes: Mapping[str, str]
) -> tuple[Manifest, local.LocalSettings]:
    """Return the manifest and settings of `description`, for `local.start` and `local.lease`."""
    _require_keys(description)
    manifest = description.compile(LOCAL_HELPER)
    manifest["metadata"].setdefault("name", type(description).__name__.lower())
    names = {volume["name"] for volume in manifest["spec"]["volumes"]}
    if unknown := set(volumes) - names:
        listed = ", ".join(sorted(names))
        raise ConfigError(
            f"volumes= names {', '.join(sorted(unknown))}, and the pod has only {listed}."
        )
    return manifest, local.LocalSettings(
        files={"input": literals},
        primary=description.primary_container_name,
        volumes={**_caches(description), **_volumes_of_this_machine(), **volumes},
    )


def _require_keys(description: PodDescription) -> None:
    """Require the API keys that gates ask with, before anything starts.

    Raises:
        ConfigError: If this machine lacks one; names the variable.
    """
    for server in description.servers.values():
        key, own = server.api_key, server.server().api_key_variable
        # without a gate, a server without a key asks for none
        if key is None or server.startup_timeout is None:
            continue
        if not any(os.environ.get(name) for name in (key.variable, own)):
            raise ConfigError(
                f"{type(server).__name__} has api_key_secret=, and this machine has no key for it.",
                hint=f"Set {own} here (export {own}=…); server, gate and client read it.",
            )


def _caches(description: PodDescription) -> dict[str, str]:
    """Map a server's `~/.cache` to this machine's, so each model is downloaded only once.

    `CACHE_DIRECTORY` is laid out in the same way.
    """
    names = [
        named(volume.name, name)
        for name, template in description.servers.items()
        for volume in template.server().volumes
        if volume.mount_path == CACHE_DIRECTORY or volume.mount_path.endswith("/.cache")
    ]
    return dict.fromkeys(names, _cache()) if names else {}


def _cache() -> str:
    try:
        return os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError as error:
        raise ConfigError(
            "This user has no home directory in which to keep models.",
            hint="Set XDG_CACHE_HOME to a directory.",
        ) from error


def _volumes_of_this_machine() -> dict[str, str]:
    """Return the volumes in `INFERENCE_LOCAL_VOLUMES`: `name=directory`, separated by commas."""
    text = os.environ.get(LOCAL_VOLUMES_VARIABLE, "")
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(name and equals and directory for name, equals, directory in pairs):
        raise ConfigError(
            f"{LOCAL_VOLUMES_VARIABLE}={text!r} must be like "
            "'models=/data/models,scratch=/tmp/scratch'."
        )
    return {name.strip(): directory.strip() for name, _, directory in pairs}


def _type_of(value: Any) -> Any:
    """Return the annotation that a task's argument of this value would have."""
    if isinstance(value, list):
        return list[_any_of(value)]  # type: ignore[misc]
    if isinstance(value, dict):
        return dict[str, _any_of(value.values())]  # type: ignore[misc]
    return type(value)


def _any_of(values: Iterable[Any]) -> Any:
    types = tuple(dict.fromkeys(_type_of(value) for value in values))
    return Union[types] if types else type(None)  # noqa: UP007 - made from a tuple


def _literals(inputs: Mapping[str, Any], types: Mapping[str, Any]) -> bytes:
    """Return the inputs as the bytes of an `inputs.pb`: what Flyte would write for them."""
    context = FlyteContextManager.current_context()
    literals = TypeEngine.dict_to_literal_map(context, dict(inputs), dict(types))
    return bytes(literals.to_flyte_idl().SerializeToString(deterministic=True))
