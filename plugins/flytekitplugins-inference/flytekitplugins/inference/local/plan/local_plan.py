"""What a manifest means on this machine: frozen plans of its containers, in order of start.

Pure: no directory is made, no port is tried, no environment is read; all of that comes in as
arguments. All problems of a manifest are reported at once. The order in which a word of a container
is worked on is that of a cluster: what the manifest says is mapped (ports, then paths), Flyte's
variables are filled in, `$(NAME)` is expanded. So nothing that came from this machine is mapped.

A container that runs in its image sees its volumes at their mount paths, so that none of its text
is mapped save for ports. Ignored where a process of this machine stands for it: image, resources
and security context; everywhere: scheduling and lifecycle hooks (the last are noted).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, UnsupportedError
from ...programs.protocol import TERMINATION_LOG_VARIABLE, TMP_DIRECTORY
from .environment import Environment, compile_environment
from .mounts import LocalMount, compile_mounts, locate_volumes, map_mounts
from .probe_plan import Exec, ProbePlan, parse_probe
from .rewrite import (
    expand,
    fill_variables,
    map_paths,
    map_port_variable,
    map_port_words,
    unfilled_variables,
)
from .sandbox import Sandbox, compile_sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

DEFAULT_GRACE_SECONDS = 30.0
"""Kubernetes' default of `spec.terminationGracePeriodSeconds`."""


class Role(Enum):
    """What a container is for, which decides when it starts and what its end means."""

    INIT = "init container"
    SIDECAR = "sidecar"
    BESIDE = "container"
    """A regular container that is not the primary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """One container, ready to be started. What may hold a secret is not in its `repr`."""

    name: str
    role: Role
    image: str
    own_filesystem: bool
    """Whether it runs in its image; otherwise it is a process of this machine."""
    command: tuple[str, ...] = field(repr=False)
    """`command` of the manifest; empty when the image's entry point is meant."""
    args: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    """The variables that come on top of the backend's own."""
    working_dir: str | None
    mounts: tuple[LocalMount, ...]
    ports: tuple[int, ...]
    """Ports on this machine."""
    startup: ProbePlan | None
    liveness: ProbePlan | None
    readiness: ProbePlan | None
    termination_log: Path
    """The file that stands for `/dev/termination-log`."""
    sandbox: Sandbox = field(default_factory=Sandbox)
    """What the runtime is told of a container that runs in its image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPodPlan:
    """A whole pod, ready to be started."""

    name: str
    root: Path
    """The pod's private directory; its base name is the pod's identity."""
    primary: str
    containers: tuple[ContainerPlan, ...]
    """All but the primary: init containers and sidecars in order, then what starts together with
    the primary."""
    grace: float
    """`terminationGracePeriodSeconds`."""
    ports: Mapping[int, int]
    """Port on this machine by container port."""
    primary_mounts: tuple[LocalMount, ...]
    primary_env: Mapping[str, str] = field(repr=False)
    """What the manifest defines for the primary, mapped to this machine."""
    directories: tuple[Path, ...]
    """Private directories that must exist before the first container starts."""
    notes: tuple[tuple[str, str], ...]
    """What differs from the manifest: container and sentence."""


def declared_ports(manifest: Mapping[str, Any]) -> tuple[int, ...]:
    """Return every `containerPort` of a pod, in order, each once."""
    containers = _all_containers(manifest)
    ports = (
        int(port["containerPort"]) for entry in containers for port in entry.get("ports") or ()
    )
    return tuple(dict.fromkeys(ports))


def compile_plan(
    manifest: Mapping[str, Any],
    *,
    root: Path,
    environ: Mapping[str, str],
    variables: Mapping[str, str],
    primary: str,
    volumes: Mapping[str, Path],
    ports: Mapping[int, int],
    runs_image: Callable[[str], bool] = lambda image: False,
    is_here: Callable[[str], bool] = lambda path: False,
    platform: str = sys.platform,
) -> LocalPodPlan:
    """Compile a pod manifest for this machine.

    Args:
        manifest: A `v1/Pod` as plain dictionaries with Kubernetes' own keys; not changed.
        root: The pod's private directory.
        environ: This machine's environment variables.
        variables: Flyte's template variables by name.
        primary: The name of the container that is the caller's own code.
        volumes: Directories for volumes, by name.
        ports: Port on this machine by container port.
        runs_image: Whether a container of an image runs in it, see `Backend.runs_image`.
        is_here: Whether a path names something of this machine, although a volume is mounted above
            it.
        platform: `sys.platform`.

    Raises:
        ConfigError: The manifest has no container named `primary`.
        UnsupportedError: The pod needs what this machine does not have; every problem is listed.
    """
    spec: Mapping[str, Any] = manifest.get("spec") or {}
    names = [str(entry["name"]) for entry in spec.get("containers") or ()]
    if primary not in names:
        raise ConfigError(
            f"The pod has no container {primary!r}, only {', '.join(names) or 'none'}.",
            hint="Give primary= the name of the container that your own code stands for.",
        )
    located, missing = locate_volumes(spec, root=root, given=volumes)
    host_paths = {
        volume["name"] for volume in spec.get("volumes") or () if volume.get("hostPath")
    } - volumes.keys()
    compiler = _Compiler(
        root=root,
        spec=spec,
        metadata=manifest.get("metadata") or {},
        environ=environ,
        variables=variables,
        ports={container: here for container, here in ports.items() if container != here},
        located=located,
        missing=missing,
        host_paths=frozenset(host_paths),
        runs_image=runs_image,
        is_here=is_here,
        platform=platform,
    )
    primary_entry = next(entry for entry in spec["containers"] if entry["name"] == primary)
    primary_mounts, primary_environment = compiler.compile_primary(primary_entry)
    containers = tuple(
        compiler.compile_container(entry, role)
        for entry, role in _roles(spec)
        if entry["name"] != primary
    )
    if compiler.problems:
        raise UnsupportedError("This pod cannot run on this machine.", problems=compiler.problems)
    directories = {mount.directory for plan in containers for mount in plan.mounts}
    directories |= {mount.directory for mount in primary_mounts}
    grace = spec.get("terminationGracePeriodSeconds")
    return LocalPodPlan(
        name=str((manifest.get("metadata") or {}).get("name") or "local"),
        root=root,
        primary=primary,
        containers=containers,
        grace=DEFAULT_GRACE_SECONDS if grace is None else float(grace),
        ports=dict(ports),
        primary_mounts=primary_mounts,
        primary_env=primary_environment.values,
        directories=tuple(sorted(path for path in directories if path.is_relative_to(root))),
        notes=tuple(compiler.notes),
    )


def _all_containers(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    spec = manifest.get("spec") or {}
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _roles(spec: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Role]]:
    for entry in spec.get("initContainers") or ():
        yield entry, Role.SIDECAR if entry.get("restartPolicy") == "Always" else Role.INIT
    for entry in spec.get("containers") or ():
        yield entry, Role.BESIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiler:
    """What all containers of one pod have in common, and what is noted on the way."""

    root: Path
    spec: Mapping[str, Any]
    metadata: Mapping[str, Any]
    environ: Mapping[str, str]
    variables: Mapping[str, str]
    ports: Mapping[int, int]
    located: Mapping[str, Path]
    missing: Mapping[str, str]
    host_paths: frozenset[str]
    runs_image: Callable[[str], bool]
    is_here: Callable[[str], bool]
    platform: str
    problems: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def compile_primary(
        self, entry: Mapping[str, Any]
    ) -> tuple[tuple[LocalMount, ...], Environment]:
        """Compile what the caller's own code can ask for; what it lacks stops no pod."""
        mounts = self._mounts(entry, [])
        mapping = map_mounts(mounts, self.platform)
        return mounts, self._environment(entry, mapping)

    def compile_container(self, entry: Mapping[str, Any], role: Role) -> ContainerPlan:
        name = str(entry["name"])
        mounts = self._mounts(entry, self.problems)
        image = str(entry.get("image") or "")
        own_filesystem = self.runs_image(image)
        mapping = {} if own_filesystem else map_mounts(mounts, self.platform)
        environment = self._environment(entry, mapping)
        self.problems.extend(environment.problems)
        # a container inherits nothing of this machine: what was left out for that reason is given
        # to it
        env = (
            environment.visible
            if own_filesystem
            else self._process_environment(name, environment, mapping)
        )
        words = self._words(entry, mapping, environment)
        count = len(entry.get("command") or ())
        probes = {
            kind: self._probe(entry, f"{kind}Probe", mapping)
            for kind in ("startup", "liveness", "readiness")
        }
        self._note(entry, environment, words)
        working_dir = entry.get("workingDir")
        return ContainerPlan(
            name=name,
            role=role,
            image=image,
            own_filesystem=own_filesystem,
            command=tuple(words[:count]),
            args=tuple(words[count:]),
            env=env,
            working_dir=self._map_paths(str(working_dir), mapping) if working_dir else None,
            mounts=mounts,
            ports=tuple(self._local_port(port) for port in _own_ports(entry)),
            **probes,
            termination_log=self._termination_log(name),
            sandbox=self._sandbox(entry) if own_filesystem else Sandbox(),
        )

    def _sandbox(self, entry: Mapping[str, Any]) -> Sandbox:
        notes: list[str] = []
        sandbox = compile_sandbox(entry, self.spec, problems=self.problems, notes=notes)
        self.notes.extend((str(entry["name"]), note) for note in notes)
        return sandbox

    def _mounts(self, entry: Mapping[str, Any], problems: list[str]) -> tuple[LocalMount, ...]:
        return compile_mounts(
            entry,
            located=self.located,
            missing=self.missing,
            host_paths=self.host_paths,
            problems=problems,
        )

    def _environment(self, entry: Mapping[str, Any], mapping: Mapping[str, str]) -> Environment:
        return compile_environment(
            entry,
            rewrite=lambda name, value: self._map_paths(
                map_port_variable(name, value, self.ports), mapping
            ),
            environ=self.environ,
            metadata=self.metadata,
        )

    def _map_paths(self, text: str, mapping: Mapping[str, str]) -> str:
        # a path may stand behind its option: `--model=/tmp/checkout`
        return text if self.is_here(text.rpartition("=")[2]) else map_paths(text, mapping)

    def _process_environment(
        self, name: str, environment: Environment, mapping: Mapping[str, str]
    ) -> Mapping[str, str]:
        own = {TERMINATION_LOG_VARIABLE: str(self._termination_log(name))}
        if TMP_DIRECTORY in mapping:
            own["TMPDIR"] = mapping[TMP_DIRECTORY]
        return {**own, **environment.values}

    def _words(
        self, entry: Mapping[str, Any], mapping: Mapping[str, str], environment: Environment
    ) -> list[str]:
        words = [str(word) for word in (*(entry.get("command") or ()), *(entry.get("args") or ()))]
        here = map_port_words(words, self.ports)
        filled = [fill_variables(self._map_paths(word, mapping), self.variables) for word in here]
        for variable in dict.fromkeys(name for word in filled for name in unfilled_variables(word)):
            self.problems.append(
                f"{entry['name']} needs {{{{.{variable}}}}}; give variables={{{variable!r}: …}}."
            )
        return [expand(word, environment.visible) for word in filled]

    def _probe(
        self, entry: Mapping[str, Any], key: str, mapping: Mapping[str, str]
    ) -> ProbePlan | None:
        given = entry.get(key)
        if not given:
            return None
        named = {
            str(port["name"]): int(port["containerPort"])
            for port in entry.get("ports") or ()
            if "name" in port
        }
        where = f"{entry['name']}.{key}"
        probe = parse_probe(
            given, ports=named, replaced=self.ports, problems=self.problems, where=where
        )
        if probe is None or not isinstance(probe.action, Exec):
            return probe
        command = tuple(
            map_paths(word, mapping) for word in map_port_words(probe.action.command, self.ports)
        )
        return replace(probe, action=Exec(command=command))

    def _note(self, entry: Mapping[str, Any], environment: Environment, words: list[str]) -> None:
        name = str(entry["name"])
        self.notes.extend((name, note) for note in environment.notes)
        if entry.get("lifecycle"):
            self.notes.append((name, "lifecycle hooks are not run here"))
        texts = [*words, *environment.values.values()]
        for port in _own_ports(entry):
            here = self.ports.get(port)
            if here is None:
                continue
            note = f"port {port} is in use here, so it listens on {here}"
            if not any(str(here) in text for text in texts):
                note += (
                    f"; but nothing in its command or env names {port}: if it cannot be told, "
                    "free that port"
                )
            self.notes.append((name, note))

    def _local_port(self, port: int) -> int:
        return self.ports.get(port, port)

    def _termination_log(self, name: str) -> Path:
        return self.root / "termination" / name


def _own_ports(entry: Mapping[str, Any]) -> list[int]:
    return [int(port["containerPort"]) for port in entry.get("ports") or ()]
