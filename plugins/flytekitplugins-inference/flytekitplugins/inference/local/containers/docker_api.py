"""A container runtime of this machine, asked through the Docker API: Docker, or podman's service.

The one module that knows the `docker` SDK (https://docker-py.readthedocs.io, 7.x), which is
imported on use. It answers with plain values and its errors are `OSError`s, with the runtime's own
words as their text.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...dependencies import requires
from ...distribution import install_command
from ...errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ADDRESS_VARIABLES = ("DOCKER_HOST", "CONTAINER_HOST")
"""Environment variables with the runtime's address, docker's and podman's; only the first that is
set is tried."""
POD_LABEL = "flytekitplugins.inference.pod"
"""Label of each container with its pod's private directory, whose base name is the pod's
identity."""
OWNER_LABEL = "flytekitplugins.inference.owner"
"""Label of each container with the process that has started it, see `owners`."""

# what a busy runtime may take for one request; streams and waits have no limit
_ANSWER_SECONDS = 120.0
_REMOVALS = 5  # attempts
# github.com/containers/podman/pull/25171; older ones ignore them silently
_FIRST_PODMAN_WITH_DEVICE_REQUESTS = (5, 4)
# the first whose network is the machine's: docs.docker.com/engine/security/rootless/troubleshoot
_FIRST_ROOTLESS_DOCKER = (29,)
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFacts:
    """What a runtime says of itself."""

    name: str
    """For a person: `podman 4.3.1`, `docker 28.5.1`."""
    is_podman: bool
    cpus: int
    memory_bytes: int
    has_selinux: bool
    may_hide_network: bool
    """Whether the host network that it gives containers may be another than this machine's."""
    ignores_gpu_requests: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image says about how it is run."""

    user: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How a run of a container ended."""

    code: int
    is_out_of_memory: bool


class ContainerRuntime:
    """A container runtime that answers.

    Args:
        address: Where, as in `DOCKER_HOST`.
        api: The SDK's low-level client.
        errors: What the SDK may raise beside `OSError`.
        server: Its own name and version, as its answers' header `Server` has them.
    """

    def __init__(
        self,
        address: str,
        api: Any,
        errors: tuple[type[Exception], ...] = (),
        *,
        server: str = "",
    ) -> None:
        self.address = address
        self._api = api
        self._errors: tuple[type[Exception], ...] = (OSError, *errors)
        self.facts = _facts(api, server)
        """What it says of itself."""

    def image(self, name: str) -> Image | None:
        """Return what an image says, or `None` when the runtime does not have it."""
        with self._own_words(), _unless_gone():
            config = self._api.inspect_image(name).get("Config") or {}
            return Image(
                user=str(config.get("User") or ""),
                entrypoint=tuple(config.get("Entrypoint") or ()),
                command=tuple(config.get("Cmd") or ()),
            )
        return None

    def pull(self, name: str, tell: Callable[[str], None]) -> None:
        """Bring an image from its registry, with the logins of `docker login`.

        Args:
            name: The image.
            tell: Takes how far it is, now and then.

        Raises:
            OSError: It cannot be had.
        """
        progress = _Progress(tell)
        repository, tag = _split(name)
        with self._own_words():
            for message in self._api.pull(repository, tag=tag, stream=True, decode=True):
                if message.get("error"):
                    raise OSError(str(message["error"]))
                progress.add(message)

    def create(self, arguments: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Make a container; return its id, and what the runtime does not do of what was asked.

        Args:
            arguments: Those of `docker run` in the SDK's spelling, the host's under `host`.
        """
        options = dict(arguments)
        with self._own_words():
            host = self._api.create_host_config(**options.pop("host"))
            answer = self._api.create_container(**options, host_config=host)
        return str(answer["Id"]), list(answer.get("Warnings") or ())

    def attach(self, container: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Yield what a container writes, to stdout and to stderr, from when this returns."""
        with self._own_words():
            stream: Iterator[tuple[bytes | None, bytes | None]] = self._api.attach(
                container, stdout=True, stderr=True, stream=True, demux=True
            )
        return stream

    def start(self, container: str) -> None:
        """Start a container."""
        with self._own_words():
            self._api.start(container)

    def wait(self, container: str) -> ExitStatus:
        """Wait for a container's end."""
        with self._own_words():
            code = int(self._api.wait(container, timeout=None)["StatusCode"])
            state = self._api.inspect_container(container).get("State") or {}
        return ExitStatus(code=code, is_out_of_memory=bool(state.get("OOMKilled")))

    def stop_signal(self, container: str) -> str:
        """Return the signal that asks a container to end: the image's `STOPSIGNAL`."""
        with self._own_words():
            config = self._api.inspect_container(container).get("Config") or {}
        return str(config.get("StopSignal") or "SIGTERM")

    def signal(self, container: str, number: str) -> None:
        """Send a signal to a container; nothing happens when it has ended."""
        with self._own_words(), _unless_gone():
            try:
                self._api.kill(container, number)
            except OSError:
                if (self._api.inspect_container(container).get("State") or {}).get("Running"):
                    raise

    def execute(self, container: str, command: Sequence[str]) -> tuple[int, bytes]:
        """Run a command in a container to its end; return its exit code and what it wrote."""
        with self._own_words():
            run = self._api.exec_create(container, list(command))["Id"]
            output = self._api.exec_start(run)
            return int(self._api.exec_inspect(run).get("ExitCode") or 0), output

    def remove(self, container: str) -> None:
        """Remove a container, its anonymous volumes and what runs in it, unless it is gone."""
        for attempt in range(1, _REMOVALS + 1):
            try:
                with self._own_words(), _unless_gone():
                    self._api.remove_container(container, v=True, force=True)
            except OSError:  # podman, when the container ends by itself at this moment
                if attempt == _REMOVALS:
                    raise
                time.sleep(0.2)
            else:
                return

    def find(self, directory: Path | None = None) -> list[tuple[str, Path, str]]:
        """Return id, pod directory and owner of the containers of one pod, or of all pods."""
        label = POD_LABEL if directory is None else f"{POD_LABEL}={directory}"
        with self._own_words():
            entries = self._api.containers(all=True, filters={"label": [label]})
        return [
            (entry["Id"], Path(entry["Labels"][POD_LABEL]), entry["Labels"].get(OWNER_LABEL, ""))
            for entry in entries
        ]

    def end_pod(self, directory: Path, grace: float = 0.0) -> None:
        """Remove the containers of a pod.

        Args:
            directory: Its private directory.
            grace: Seconds between SIGTERM and SIGKILL for all of them.
        """
        containers = [container for container, _, _ in self.find(directory)]
        if grace and containers:
            for container in containers:
                with contextlib.suppress(OSError):
                    self.signal(container, self.stop_signal(container))
            time.sleep(grace)
        for container in containers:
            with contextlib.suppress(OSError):
                self.remove(container)

    def remove_directory(self, directory: Path, images: Sequence[str]) -> None:
        """Remove a pod's directory, also what its containers wrote as users that this one is not.

        Args:
            directory: The directory.
            images: Images that the runtime has; one with `rm` in it does what this user may not.
        """
        shutil.rmtree(directory, ignore_errors=True)
        for image in images:
            if not directory.exists():
                return
            with contextlib.suppress(OSError):
                self._remove_as_root(directory, image)
            shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def _own_words(self) -> Iterator[None]:
        """Turn what the SDK raises into an `OSError` with the runtime's own words."""
        try:
            yield
        except self._errors as error:
            raise OSError(str(getattr(error, "explanation", None) or error)) from error

    def _remove_as_root(self, directory: Path, image: str) -> None:
        inside = "/pod"
        children = [f"{inside}/{child.name}" for child in directory.iterdir()]
        host = {"binds": [f"{directory}:{inside}"], "network_mode": "none"}
        host |= {"security_opt": ["label=disable"]} if self.facts.has_selinux else {}
        container, _ = self.create(
            {
                "image": image,
                "entrypoint": ["rm", "-rf", *children],
                "command": [],
                "user": "0",
                "host": host,
            }
        )
        try:
            self.start(container)
            self.wait(container)
        finally:
            self.remove(container)


def find_runtime(environ: Mapping[str, str]) -> ContainerRuntime:
    """Return the container runtime of this machine.

    Args:
        environ: Environment variables; `DOCKER_HOST` or `CONTAINER_HOST` names the runtime,
            otherwise the usual sockets are tried.

    Raises:
        MissingDependencyError: The `docker` SDK is not installed.
        UnsupportedError: No runtime answers; lists what was tried.
    """
    problems: list[str] = []
    for address in _addresses(environ):
        try:
            return connect(address)
        except OSError as error:
            problems.append(f"{address}: {error}")
    raise UnsupportedError(
        "No container runtime answers on this machine.",
        hint="Start Docker, or `podman system service`, or name its address in DOCKER_HOST.",
        problems=problems,
    )


def connect(address: str) -> ContainerRuntime:
    """Return the runtime at an address, as in `DOCKER_HOST`.

    Raises:
        MissingDependencyError: The `docker` SDK is not installed.
        OSError: It does not answer, or is another machine's.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("unix", "npipe") and parts.hostname not in _THIS_MACHINE:
        raise OSError("it is another machine's, and the pod's volumes are directories of this one")
    with requires(
        "docker",
        "Running containers",
        hint=f"{install_command('containers')}, or pip install 'docker>=7'.",
    ):
        import docker
        import urllib3
    errors = (
        docker.errors.DockerException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
    )
    try:
        # `version="auto"` asks GET /version, for which podman searches Debian's packages (0.3 s)
        first = docker.APIClient(
            base_url=address,
            version=docker.constants.DEFAULT_DOCKER_API_VERSION,
            timeout=_ANSWER_SECONDS,
        )
        ping = first.get(f"{first.base_url}/_ping", timeout=_ANSWER_SECONDS).headers
        first.close()
        api = docker.APIClient(
            base_url=address, version=ping.get("Api-Version", "auto"), timeout=_ANSWER_SECONDS
        )
        return ContainerRuntime(address, api, errors, server=ping.get("Server", ""))
    except (*errors, OSError) as error:
        raise OSError(_reason(error)) from error


def _addresses(environ: Mapping[str, str]) -> list[str]:
    for variable in ADDRESS_VARIABLES:
        if environ.get(variable):
            return [environ[variable]]
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    places = ["/var/run/docker.sock", f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock"]
    if os.getuid() == 0:
        places.append("/run/podman/podman.sock")
    if home := environ.get("HOME"):
        places.append(f"{home}/.docker/run/docker.sock")  # Docker Desktop
    return [f"unix://{place}" for place in places]


def _facts(api: Any, server: str) -> RuntimeFacts:
    is_podman, number = _name(api, server)
    info = api.info()
    is_rootless = any("rootless" in str(option) for option in info.get("SecurityOptions") or ())
    release = tuple(int(part) for part in re.findall(r"\d+", number)[:2])
    return RuntimeFacts(
        name=f"{'podman' if is_podman else 'docker'} {number}".strip(),
        is_podman=is_podman,
        cpus=int(info.get("NCPU") or 0),
        memory_bytes=int(info.get("MemTotal") or 0),
        has_selinux=any("selinux" in str(option) for option in info.get("SecurityOptions") or ()),
        may_hide_network=_is_virtual(info)
        or (is_rootless and not is_podman and release < _FIRST_ROOTLESS_DOCKER),
        ignores_gpu_requests=is_podman and release < _FIRST_PODMAN_WITH_DEVICE_REQUESTS,
    )


def _name(api: Any, server: str) -> tuple[bool, str]:
    """Return whether it is podman, and its version."""
    if header := re.match(r"(Libpod|Docker)/([\w.+-]+)", server):
        return header[1] == "Libpod", header[2]
    version = api.version()
    components = [str(component.get("Name", "")) for component in version.get("Components") or ()]
    return any("podman" in name.lower() for name in components), str(version.get("Version") or "")


def _is_virtual(info: Mapping[str, Any]) -> bool:
    return os.uname().sysname != "Linux" or info.get("OperatingSystem") == "Docker Desktop"


def _split(image: str) -> tuple[str, str]:
    """Return repository and tag (or digest) of an image.

    Without either the tag is `latest`; the SDK would pull every tag that there is.
    """
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    """Take "there is no such thing" for an answer."""
    try:
        yield
    except OSError as error:
        if getattr(getattr(error, "response", None), "status_code", None) != 404:
            raise


def _reason(error: BaseException) -> str:
    """Return why a runtime does not answer, without the layers around it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return str(error)


class _Progress:
    """How far a download is, told every ten seconds.

    Args:
        tell: Takes a sentence.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._layers: dict[str, tuple[int, int]] = {}
        self._due = time.monotonic() + 10.0

    def add(self, message: Mapping[str, Any]) -> None:
        """Take one message of a pull (Docker API 1.41, `POST /images/create`)."""
        detail = message.get("progressDetail") or {}
        if message.get("status") == "Downloading" and detail.get("total"):
            self._layers[str(message.get("id"))] = int(detail["current"]), int(detail["total"])
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 10.0
            done = sum(layer_done for layer_done, _ in self._layers.values())
            total = sum(layer_total for _, layer_total in self._layers.values())
            self._tell(f"{done / 1e9:.1f} of {total / 1e9:.1f} GB" if total else "still pulling")
