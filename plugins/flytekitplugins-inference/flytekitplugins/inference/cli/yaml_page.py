"""A pod as YAML, with a comment that says what each container is for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from ..pod.compile import Manifest
from ..pod.parts import (
    INPUT_DOWNLOADER,
    LORA_DOWNLOADER,
    MODEL_GATE,
    MODEL_LOADER,
    MODEL_SERVER,
    PREFLIGHT,
    SERVER_GATE,
    SERVER_SETUP,
)
from ..pod.plan import named
from ..programs.protocol import PROGRAMS_VARIABLE
from ..sidecar_template import PodDescription

__all__ = ["purposes", "without_programs", "yaml_page"]

PURPOSES = {
    PREFLIGHT: "Checks that secrets arrived, and that the model exists and fits the disk.",
    LORA_DOWNLOADER: "Downloads the LoRA adapters, then ends.",
    MODEL_LOADER: "Downloads the model, verifies it and publishes it to the server.",
    MODEL_GATE: "Holds the server back until its model is there, then ends.",
    MODEL_SERVER: "The model server; it runs as long as the task.",
    SERVER_SETUP: "Prepares the started server, then ends.",
    INPUT_DOWNLOADER: "Puts the task's inputs on the shared volumes, then ends.",
    SERVER_GATE: "Waits until the server is ready, and ends the pod if it is not in time.",
}
PRIMARY_PURPOSE = "The task. Flyte writes its image, command and resources."
OTHERS_PURPOSE = "From base=."
ELIDED = "…"


def purposes(description: PodDescription) -> dict[str, str]:
    """Return what each container is for, by its name in the pod."""
    ours = {
        named(container, server): purpose if not server else f"{purpose} Server {server!r}."
        for server in description.servers
        for container, purpose in PURPOSES.items()
    }
    # the task and its inputs exist once, whatever the number of servers
    once = {INPUT_DOWNLOADER: PURPOSES[INPUT_DOWNLOADER]}
    return {**ours, **once, description.primary_container_name: PRIMARY_PURPOSE}


def without_programs(manifest: Manifest) -> Manifest:
    """Return a manifest for a reader: programs that travel in it are named by their size."""
    spec = dict(manifest["spec"])
    for kind in ("initContainers", "containers"):
        spec[kind] = [_readable(container) for container in spec.get(kind, ())]
    return {**manifest, "spec": {key: value for key, value in spec.items() if value}}


def _readable(container: Manifest) -> Manifest:
    if "env" not in container:
        return container
    return {**container, "env": [_readable_variable(variable) for variable in container["env"]]}


def _readable_variable(variable: Manifest) -> Manifest:
    if variable["name"] != PROGRAMS_VARIABLE:
        return variable
    return {**variable, "value": f"{ELIDED} {len(variable['value']):,} bytes of programs"}


def yaml_page(manifest: Manifest, purpose: dict[str, str]) -> str:
    """Return `manifest` as YAML, with a comment before each container.

    Args:
        manifest: A `v1/Pod`.
        purpose: What each container is for, by name; the others are their author's own.
    """
    spec = manifest["spec"]
    head = {key: value for key, value in manifest.items() if key != "spec" and value}
    lines = [_yaml(head).rstrip(), "spec:"]
    for key, value in spec.items():
        if key in ("initContainers", "containers"):
            lines.append(f"  {key}:")
            lines.extend(_containers(value, purpose))
        else:
            lines.append(textwrap.indent(_yaml({key: value}), "  ").rstrip())
    return "\n".join(lines) + "\n"


def _containers(containers: Iterable[Manifest], purpose: dict[str, str]) -> Iterator[str]:
    for container in containers:
        yield f"    # {purpose.get(container['name'], OTHERS_PURPOSE)}"
        yield textwrap.indent(_yaml([container]), "    ").rstrip()


def _yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return text
