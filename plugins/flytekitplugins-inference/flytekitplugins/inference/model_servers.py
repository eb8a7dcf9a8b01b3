"""`ModelServers`: several model servers in one task's pod, each with a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .keywords import nearest
from .pod.names import label_problem
from .sidecar_template import ModelInferenceTemplate, PodDescription

if TYPE_CHECKING:
    from .flyte.local_run import LocalServer

__all__ = ["ModelServers"]

LONGEST_NAME = 20
"""Kubernetes limits a container's name to 63 characters (a DNS label). The longest of our own names
leaves more than this; the rest keeps names readable."""


@dataclass(frozen=True)
class ModelServers(PodDescription):
    """Several model servers beside one task, for instance an embedding server and a language model.

    The server's name is appended to the names of our containers and volumes: `model-server-llm`,
    `server-gate-llm`, `/shared/cold-start-llm.json`. The task's inputs are downloaded once. Either
    all servers have a `startup_timeout` or none has.

    Raises:
        ConfigError: If the description is wrong; lists every problem of it.
        SpecConflictError: If `base` and the servers, or two servers, set one thing to different
            values.

    Example:
        ```python
        servers = ModelServers(
            {
                "llm": VLLM(model="Qwen/Qwen2.5-0.5B-Instruct", mem="16Gi", startup_timeout="auto"),
                "embeddings": VLLM(model="BAAI/bge-m3", port=8001, startup_timeout="auto"),
            }
        )


        @task(task_config=servers)
        def answer(question: str) -> str:
            print(servers["embeddings"].base_url)
        ```
    """

    members: Mapping[str, ModelInferenceTemplate]
    """The servers by name; a name is part of a DNS label. Each needs its own port."""

    def __post_init__(self) -> None:
        self.settle()
        # `settle` has copied the members, so the user's own templates keep their empty name
        for name, server in self.members.items():
            object.__setattr__(server, "name", name)

    @classmethod
    def _belongs_elsewhere(cls, keyword: str) -> str:
        if keyword in ModelInferenceTemplate.__dataclass_fields__:
            return f"it belongs to a server, such as VLLM({keyword}=…)"
        place = super()._belongs_elsewhere(keyword)
        if place or nearest(keyword, cls.__dataclass_fields__):
            return place
        return f'servers are given as a dict: ModelServers({{"{keyword}": VLLM(…)}})'

    @property
    def servers(self) -> Mapping[str, ModelInferenceTemplate]:
        """The model servers by name."""
        # read-only: the description is frozen, and `settle` has checked these members
        return MappingProxyType(dict(self.members))

    def with_servers(
        self, change: Callable[[ModelInferenceTemplate], ModelInferenceTemplate]
    ) -> ModelServers:
        """Return this pod with each of its servers changed."""
        return replace(
            self, members={name: change(server) for name, server in self.members.items()}
        )

    def __getitem__(self, name: str) -> ModelInferenceTemplate:
        """Return the server of that name.

        Raises:
            KeyError: If there is none; lists the existing names.
        """
        try:
            return self.members[name]
        except KeyError:
            raise KeyError(
                f"no server {name!r}; expected one of {', '.join(self.members)}"
            ) from None

    def run_locally(
        self, inputs: Mapping[str, Any] | None = None, *, volumes: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Mapping[str, LocalServer]]:
        """Run the pod's other containers on this machine for the duration of the `with` block.

        Args:
            inputs: The task's inputs, by name, for `download_inputs`.
            volumes: Directories in place of volumes that exist only on a cluster, such as claims,
                by the volume's name.

        Returns:
            A context manager that yields the running servers by name.

        Raises:
            UnsupportedError: If nothing on this machine can run a server.
            ServerError: If a container ends or a server does not become ready.
        """
        return self._run_locally(inputs, volumes)

    def problems(self) -> Iterator[str]:
        """Yield the problems of the servers; each one is valid on its own."""
        if not isinstance(self.members, Mapping) or not self.members:
            yield f"the servers must be a dict of names and templates, not {self.members!r}"
            return
        for name, server in self.members.items():
            if problem := label_problem(name):
                yield f"server {problem}"
            elif len(name) > LONGEST_NAME:
                yield f"server {name!r}: a name has at most {LONGEST_NAME} characters"
            if not isinstance(server, ModelInferenceTemplate):
                yield (
                    f"server {name!r} must be a template such as VLLM(…), not a "
                    f"{type(server).__name__}"
                )
        yield from super().problems()
        if all(isinstance(server, ModelInferenceTemplate) for server in self.members.values()):
            yield from self._disagreements()

    def _disagreements(self) -> Iterator[str]:
        """Yield what is valid for a single server but not for several in one pod."""
        for name, server in self.members.items():
            for field in ("base", "images"):
                if getattr(server, field) is not None:
                    yield (
                        f"server {name!r} has {field}=; a pod has only one, give it to ModelServers"
                    )
        # the startup probe of a server without a gate would hold back the gate of the others
        # (docs/decisions/0010)
        bounded = [name for name, server in self.members.items() if server.is_bounded]
        if bounded and len(bounded) < len(self.members):
            others = ", ".join(name for name in self.members if name not in bounded)
            yield (
                f"{', '.join(bounded)} has startup_timeout= but {others} has not; give it to "
                "all servers or to none"
            )
        ports = Counter(server.port for server in self.members.values())
        for port, count in ports.items():
            if count > 1:
                names = " and ".join(
                    name for name, server in self.members.items() if server.port == port
                )
                yield (
                    f"{names} listen on port {port}; a pod has one network, give each its own port="
                )
