"""Checks a user's values. A problem is one sentence: the value, the expectation, the remedy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from ..errors import QuantityError
from .names import env_name_problem, label_problem, path_problem, port_problem, subdomain_problem
from .parts import SHARED_VOLUME, TMP_VOLUME, Probe, Probes, Volume
from .quantity import format_quantity, parse_quantity
from .secrets import masked

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
    "check_seconds",
    "check_switch",
    "check_volume_source",
    "check_volumes",
]

VOLUME_KINDS = frozenset(
    (
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "hostPath", "image", "nfs"),
        *("persistentVolumeClaim", "projected", "secret", "awsElasticBlockStore", "azureDisk"),
        *("azureFile", "cephfs", "cinder", "fc", "flexVolume", "gcePersistentDisk", "glusterfs"),
        *("iscsi", "portworxVolume", "rbd", "vsphereVolume"),
    )
)
"""k8s.io/api `core/v1/types.go` (v0.36), VolumeSource."""
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+:[a-f0-9]{32,})?\Z"
)
"""distribution/reference `reference.go` (v0.6), ReferenceRegexp."""
_KIND = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?\Z")
LEAST_BYTES = 1024
"""A smaller quantity of memory or disk must be a mistake, such as a missing suffix."""
OUR_PREFIX = "inference-"
"""Prefix of the volumes that this package adds, apart from the two documented ones."""


def check_image(name: str, image: Any) -> Iterator[str]:
    """Check an image: a reference as text, or anything that names one (flytekit's `ImageSpec`)."""
    if image is None or image == "":
        yield (
            f"{name} is missing: name the container image, for example "
            f"{name}='registry/model-server:1.0'"
        )
    elif isinstance(image, str):
        if "{{" in image:
            yield (
                f"{name}={image!r}: Flyte does not fill that in for init containers; give a "
                "reference or an ImageSpec"
            )
        elif not _IMAGE.match(image):
            yield (
                f"{name}={image!r} is not an image reference, such as "
                "'registry:5000/path/name:tag' in lower case"
            )
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
        yield (
            f"{name}={value!r} is {float(exact):g} bytes ('m' means thousandths); did you mean "
            f"{text[:-1] + 'Mi'!r}?"
        )
    elif memory and (exact.denominator != 1 or exact < LEAST_BYTES):
        yield f"{name}={value!r} is {float(exact):g} bytes; did you mean {text + 'Gi'!r}?"


def check_resource_name(name: str, value: Any) -> Iterator[str]:
    """Check the name of an extended resource: `vendor/kind`, or Flyte's neutral `gpu`."""
    vendor, _, kind = value.partition("/") if isinstance(value, str) else ("", "", "")
    if value != "gpu" and (
        # Kubernetes keeps the domain kubernetes.io for resources of its own
        subdomain_problem(vendor) or vendor.endswith("kubernetes.io") or not _KIND.match(kind)
    ):
        yield (
            f"{name}={value!r} is not a resource's name; expected one such as 'nvidia.com/gpu', "
            "or 'gpu'"
        )


def check_switch(name: str, value: Any) -> Iterator[str]:
    """Check a boolean."""
    if not isinstance(value, bool):
        yield f"{name} must be True or False, not {value!r}"


def check_seconds(name: str, value: Any, *, least: int = 0) -> Iterator[str]:
    """Check a period: whole seconds or a timedelta."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
        value = int(value) if value == int(value) else value
    # for Python a bool is an `int`, and would count as one second
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        yield (
            f"{name} must be whole seconds or a timedelta of such, at least {least}; not {value!r}"
        )


def check_environment(field: str, env: Any, reserved: Mapping[str, str]) -> Iterator[str]:
    """Check a container's variables.

    Args:
        field: What the user gave them as.
        env: What the user gave.
        reserved: Names that the template itself sets → what the user should do instead.
    """
    if env is None:
        return
    if not isinstance(env, Mapping):
        yield f"{field} must be a dict of texts, not a {type(env).__name__}"
        return
    for name, value in env.items():
        if problem := env_name_problem(name):
            yield f"{field}: {problem}"
        elif name in reserved:
            yield f"{field}[{name!r}] is set by the template; {reserved[name]}"
        elif not isinstance(value, str):
            given = f"{field}[{name!r}] is the {type(value).__name__} {value!r}"
            yield f"{given}; variables are texts: write {str(value)!r}"


def check_command(name: str, command: Any) -> Iterator[str]:
    """Check a command or arguments: a list of texts, not one text.

    What looks like a token is not repeated.
    """
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError:
            words = command.split()
        yield masked(
            f"{name}={command!r} is one text, and no shell will split it; give {name}={words!r}"
        )
    elif not isinstance(command, (list, tuple)):
        yield f"{name} must be a list of texts, not a {type(command).__name__}"
    else:
        for index, word in enumerate(command):
            if not isinstance(word, str):
                yield f"{name}[{index}] is the {type(word).__name__} {word!r}; write {str(word)!r}"


def check_probes(probes: Any) -> Iterator[str]:
    """Check the types of the user's probes; their numbers are linted in the pod."""
    if not isinstance(probes, Probes):
        yield (
            "probes must be Probes(startup=…, readiness=…, liveness=…), not a "
            f"{type(probes).__name__}"
        )
        return
    for name in ("startup", "readiness", "liveness"):
        probe = getattr(probes, name)
        if probe is not None and not isinstance(probe, Probe):
            yield f"probes.{name} must be a Probe, not a {type(probe).__name__}"
        elif probe is not None:
            if probe.path is not None:
                yield from check_path(f"probes.{name}.path", probe.path)
            if probe.port is not None:
                yield from check_port(f"probes.{name}.port", probe.port)


def check_base(base: Any) -> Iterator[str]:
    """Check the pod that a template starts from: a `v1/Pod` dictionary or a `PodTemplate`."""
    if not isinstance(base, Mapping):
        if not hasattr(base, "pod_spec"):
            yield f"base must be a PodTemplate or a v1/Pod dictionary, not a {type(base).__name__}"
        return
    spec = base.get("spec")
    if not isinstance(spec, Mapping):
        yield (
            "base has no 'spec': give a v1/Pod dictionary, not one with the keys "
            f"{sorted(map(str, base))}"
        )
        return
    for field in ("initContainers", "containers", "volumes"):
        items = spec.get(field) or []
        if not isinstance(items, list) or not all(
            isinstance(item, Mapping) and item.get("name") for item in items
        ):
            yield f"base: spec.{field} must be a list of dictionaries with a name each"


def check_volumes(volumes: Any, containers: frozenset[str]) -> Iterator[str]:
    """Check the user's volumes.

    Args:
        volumes: What the user gave.
        containers: The names that a volume may be mounted in.
    """
    if not isinstance(volumes, (list, tuple)):
        yield f"volumes must be a list of Volume, not a {type(volumes).__name__}"
        return
    sources: dict[str, Any] = {}
    for volume in volumes:
        if not isinstance(volume, Volume):
            yield f"volumes must hold Volume objects, not a {type(volume).__name__}"
            continue
        yield from (
            f"volume {volume.name!r}: {problem}" for problem in _volume_problems(volume, containers)
        )
        # one volume may be listed for several containers, each time with its source
        if sources.setdefault(volume.name, volume.source) != volume.source:
            yield (
                f"volume {volume.name!r} has two sources: {sources[volume.name]!r} and "
                f"{volume.source!r}"
            )


def _volume_problems(volume: Volume, containers: frozenset[str]) -> Iterator[str]:
    if problem := label_problem(volume.name):
        yield problem
    elif volume.name in (SHARED_VOLUME, TMP_VOLUME) or volume.name.startswith(OUR_PREFIX):
        yield "this name is the template's own; choose another"
    if problem := path_problem(volume.mount_path):
        yield problem
    if isinstance(volume.containers, str):
        yield f"containers must be names of containers, such as ({volume.containers!r},)"
    else:
        for container in sorted(set(volume.containers) - containers):
            yield f"no container {container!r}; there are {', '.join(sorted(containers))}"
    yield from check_volume_source(volume.source)


def check_volume_source(source: Any) -> Iterator[str]:
    """Check a volume's source, as Kubernetes writes it: one kind with its fields."""
    if not isinstance(source, Mapping) or len(source) != 1:
        yield (
            f"its source must be a dictionary with one kind, such as {{'emptyDir': {{}}}}, not "
            f"{source!r}"
        )
        return
    ((kind, details),) = source.items()
    if kind not in VOLUME_KINDS:
        yield (
            f"Kubernetes has no volume of the kind {kind!r}; there are "
            f"{', '.join(sorted(VOLUME_KINDS))}"
        )
    elif not isinstance(details, Mapping):
        yield f"{kind} must be a dictionary, not {details!r}"
    elif kind == "emptyDir" and "sizeLimit" in details:
        yield from check_quantity("sizeLimit", details["sizeLimit"], memory=True)
