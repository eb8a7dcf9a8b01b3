"""A template → its pod on this machine, around a task's function or a `with` block.

Knows both sides, so that `local` needs to know neither templates nor flytekit: it writes the inputs as Flyte would,
compiles the pod, leases it from `local`, and remembers which port each template got, for `base_url`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from flytekit import FlyteContextManager
from flytekit.core.type_engine import TypeEngine

from .. import local
from ..errors import ConfigError, ServerError
from ..pod.parts import MODEL_SERVER, Helper

if TYPE_CHECKING:
    from ..sidecar_template import ModelInferenceTemplate

__all__ = ["LocalServer", "async_server_for_task", "port_of", "run_locally", "server_for_task"]

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
        return list(self.pod.log_tail(MODEL_SERVER, lines))


_here: ContextVar[tuple[LocalServer, ...]] = ContextVar("inference_local_servers", default=())
"""The servers that run around the current code; what a coroutine sees is its own."""
_everywhere: list[LocalServer] = []
"""The same for threads that the user's function starts, which do not inherit the context."""


def port_of(template: ModelInferenceTemplate) -> int | None:
    """Return the port that `template`'s server has here, or `None` when it does not run here.

    Raises:
        ServerError: Asked from a thread that cannot tell which of several servers is its function's.
    """
    for server in reversed(_here.get()):
        if server.template == template:
            return server.port
    ports = {server.port for server in tuple(_everywhere) if server.template == template}
    if len(ports) > 1:
        raise ServerError(
            f"{type(template).__name__} has {len(ports)} servers here, and this thread belongs to none of them.",
            hint="Read base_url in the function itself and pass it to the threads that it starts.",
        )
    return ports.pop() if ports else None


@contextlib.contextmanager
def run_locally(
    template: ModelInferenceTemplate, inputs: Mapping[str, Any], volumes: Mapping[str, str]
) -> Iterator[LocalServer]:
    """Run the pod of `template` as long as the block lasts; see `ModelInferenceTemplate.run_locally`."""
    types = {name: _type_of(value) for name, value in inputs.items()}
    literals = _literals(inputs, types) if template.download_inputs else b""
    with local.start(**_pod(template, literals, volumes)) as pod:
        server = LocalServer(template=template, pod=pod)
        with _known(server):
            yield server


@contextlib.contextmanager
def server_for_task(
    template: ModelInferenceTemplate, inputs: Mapping[str, Any], types: Mapping[str, Any]
) -> Iterator[LocalServer]:
    """Have the server of a task run around its function.

    It is leased: an equal pod with equal inputs that runs already is used again, and one that nobody uses is stopped
    after a while.

    Args:
        template: The description.
        inputs: The function's arguments.
        types: Their types.
    """
    with (
        _lease(template, inputs, types) as pod,
        _known(LocalServer(template=template, pod=pod)) as server,
    ):
        yield server


@contextlib.asynccontextmanager
async def async_server_for_task(
    template: ModelInferenceTemplate, inputs: Mapping[str, Any], types: Mapping[str, Any]
) -> AsyncIterator[LocalServer]:
    """Have the server of a task run around its `async` function; the event loop goes on while it starts."""
    async with _lease(template, inputs, types) as pod:
        with _known(LocalServer(template=template, pod=pod)) as server:
            yield server


def _lease(template: ModelInferenceTemplate, inputs: Mapping[str, Any], types: Mapping[str, Any]) -> local.Lease:
    literals = _literals(inputs, types) if template.download_inputs else b""
    options = _pod(template, literals, {})
    described = json.dumps([options["manifest"], options["volumes"]], sort_keys=True)
    return local.lease(**options, key=hashlib.sha256(described.encode() + literals).hexdigest())


@contextlib.contextmanager
def _known(server: LocalServer) -> Iterator[LocalServer]:
    """Let `base_url` know of `server`."""
    token = _here.set((*_here.get(), server))
    _everywhere.append(server)
    try:
        yield server
    finally:
        _everywhere.remove(server)
        with contextlib.suppress(ValueError):  # left in another context than entered, as async fixtures are
            _here.reset(token)


def _pod(template: ModelInferenceTemplate, literals: bytes, volumes: Mapping[str, str]) -> dict[str, Any]:
    """Return what `local.start` and `local.lease` need to run the pod of `template`."""
    manifest = template.compile(LOCAL_HELPER)
    manifest["metadata"].setdefault("name", type(template).__name__.lower())
    return {
        "manifest": manifest,
        "files": {"input": literals},
        "primary": template.primary_container_name,
        "volumes": {**_caches(template), **_volumes_of_this_machine(), **volumes},
    }


def _caches(template: ModelInferenceTemplate) -> dict[str, str]:
    """Let a server's `~/.cache` be this machine's, so that a model is downloaded here once and not for each run."""
    names = [volume.name for volume in template.server().volumes if volume.mount_path.endswith("/.cache")]
    return dict.fromkeys(names, _cache()) if names else {}


def _cache() -> str:
    try:
        return os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError as error:
        raise ConfigError(
            "This user has no home directory to keep models in.", hint="Set XDG_CACHE_HOME to a directory."
        ) from error


def _volumes_of_this_machine() -> dict[str, str]:
    """Return what `INFERENCE_LOCAL_VOLUMES` says: `name=directory`, separated by commas."""
    text = os.environ.get(LOCAL_VOLUMES_VARIABLE, "")
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(name and equals and directory for name, equals, directory in pairs):
        raise ConfigError(f"{LOCAL_VOLUMES_VARIABLE}={text!r} must be like 'models=/data/models,scratch=/tmp/scratch'.")
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
