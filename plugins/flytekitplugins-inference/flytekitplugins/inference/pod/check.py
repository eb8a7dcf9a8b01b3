"""What a user gave → problems, one sentence each: what was given, what was expected, what to do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import QuantityError
from .names import env_name_problem, label_problem, path_problem, port_problem
from .parts import SHARED_VOLUME, TMP_VOLUME, Probe, Probes, Volume
from .quantity import format_quantity, parse_quantity

__all__ = [
    "check_base",
    "check_command",
    "check_environment",
    "check_image",
    "check_path",
    "check_port",
    "check_probes",
    "check_quantity",
    "check_resource_name",
    "check_volumes",
]

OUR_PREFIX = "inference-"
"""Prefix of the volumes that this package adds, apart from the two documented ones."""


def check_image(name: str, image: Any) -> Iterator[str]:
    """Check an image: a reference as text, or anything that names one (flytekit's `ImageSpec`)."""
    if image is None or image == "":
        yield f"{name} is missing: name the container image, for example {name}='registry/model-server:1.0'"
    elif isinstance(image, str):
        if any(character.isspace() for character in image):
            yield f"{name}={image!r} contains white space; an image reference has none"
    elif not callable(getattr(image, "image_name", None)):
        yield f"{name} must be a text or an ImageSpec, not a {type(image).__name__}"


def check_path(name: str, path: Any) -> Iterator[str]:
    """Check an HTTP path, with or without its leading slash."""
    if not isinstance(path, str) or not path:
        yield f"{name} must be an HTTP path such as '/health', or None, not {path!r}"
    elif "://" in path:
        yield f"{name}={path!r} is a whole URL; give only its path, such as '/health'"


def check_port(name: str, port: Any) -> Iterator[str]:
    """Check a TCP port."""
    if problem := port_problem(port):
        yield f"{name}: {problem}"


def check_quantity(name: str, value: Any, *, memory: bool = False) -> Iterator[str]:
    """Check a positive quantity; one of bytes must not be a fraction of a byte."""
    try:
        text = format_quantity(value)
    except QuantityError as error:
        yield f"{name}={value!r}: {error}"
        return
    exact = parse_quantity(text)
    if exact <= 0:
        yield f"{name}={value!r} must be more than zero"
    elif memory and text.endswith("m"):
        yield f"{name}={value!r} is {float(exact):g} bytes ('m' means thousandths); did you mean {text[:-1] + 'Mi'!r}?"


def check_resource_name(name: str, value: Any) -> Iterator[str]:
    """Check the name of an extended resource: `vendor/kind`, or Flyte's neutral `gpu`."""
    vendor, _, kind = value.partition("/") if isinstance(value, str) else ("", "", "")
    if value != "gpu" and not (vendor and kind):
        yield f"{name}={value!r} is not a resource's name; expected one such as 'nvidia.com/gpu', or 'gpu'"


def check_environment(env: Any, reserved: Mapping[str, str]) -> Iterator[str]:
    """Check a container's variables.

    Args:
        env: What the user gave.
        reserved: Names that the template itself sets → what the user should do instead.
    """
    if env is None:
        return
    if not isinstance(env, Mapping):
        yield f"env must be a dict of texts, not a {type(env).__name__}"
        return
    for name, value in env.items():
        if problem := env_name_problem(name):
            yield f"env: {problem}"
        elif name in reserved:
            yield f"env[{name!r}] is set by the template; {reserved[name]}"
        elif not isinstance(value, str):
            yield f"env[{name!r}] is the {type(value).__name__} {value!r}; variables are texts: write {str(value)!r}"


def check_command(name: str, command: Any) -> Iterator[str]:
    """Check a command or arguments: a list of texts, not one text."""
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError:
            words = command.split()
        yield f"{name}={command!r} is one text, and no shell will split it; give {name}={words!r}"
    elif not isinstance(command, (list, tuple)) or not all(isinstance(word, str) for word in command):
        yield f"{name} must be a list of texts, not {command!r}"


def check_probes(probes: Any) -> Iterator[str]:
    """Check the types of the user's probes; their numbers are linted in the pod."""
    if not isinstance(probes, Probes):
        yield f"probes must be Probes(startup=…, readiness=…, liveness=…), not a {type(probes).__name__}"
        return
    for name in ("startup", "readiness", "liveness"):
        probe = getattr(probes, name)
        if probe is not None and not isinstance(probe, Probe):
            yield f"probes.{name} must be a Probe, not a {type(probe).__name__}"
        elif probe is not None and probe.path is not None:
            yield from check_path(f"probes.{name}.path", probe.path)


def check_base(base: Any) -> Iterator[str]:
    """Check the pod that a template starts from: a `v1/Pod` dictionary, or something with a `pod_spec`."""
    if isinstance(base, Mapping):
        if not isinstance(base.get("spec"), Mapping):
            yield f"base has no 'spec': give a v1/Pod dictionary, not one with the keys {sorted(base)}"
    elif not hasattr(base, "pod_spec"):
        yield f"base must be a PodTemplate or a v1/Pod dictionary, not a {type(base).__name__}"


def check_volumes(volumes: Any, containers: frozenset[str]) -> Iterator[str]:
    """Check the user's volumes.

    Args:
        volumes: What the user gave.
        containers: The names that a volume may be mounted in.
    """
    if not isinstance(volumes, (list, tuple)):
        yield f"volumes must be a list of Volume, not a {type(volumes).__name__}"
        return
    for volume in volumes:
        if not isinstance(volume, Volume):
            yield f"volumes must hold Volume objects, not a {type(volume).__name__}"
            continue
        if problem := label_problem(volume.name):
            yield f"volume: {problem}"
        elif volume.name in (SHARED_VOLUME, TMP_VOLUME) or volume.name.startswith(OUR_PREFIX):
            yield f"volume {volume.name!r}: this name is the template's own; choose another"
        if problem := path_problem(volume.mount_path):
            yield f"volume {volume.name!r}: {problem}"
        for container in set(volume.containers) - containers:
            yield f"volume {volume.name!r}: no container {container!r}; there are {', '.join(sorted(containers))}"
