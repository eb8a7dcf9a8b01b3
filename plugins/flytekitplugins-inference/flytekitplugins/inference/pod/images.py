"""The images that this package publishes as defaults, and the mirrors that stand for registries.

A cluster without access to public registries pulls from a mirror. The rules say which part of a
reference becomes which, and are applied in one place, to every container of ours in a compiled pod.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..public_dataclass import PublicDataclass
from .check import check_image
from .compile import Manifest

__all__ = [
    "EVERY_REGISTRY",
    "REGISTRY_VARIABLE",
    "ServerImage",
    "mirror",
    "mirror_problems",
    "normal_reference",
    "parse_mirrors",
    "with_mirrors",
]

REGISTRY_VARIABLE = "INFERENCE_IMAGE_REGISTRY"
"""`mirror.example.com/prefix`, or `registry=mirror,…`; read where a pod is compiled."""
EVERY_REGISTRY = "*"
"""The rule for every registry in `PUBLIC_REGISTRIES` that has none of its own."""
HUB = "docker.io"
"""The registry of a reference that names none."""
PUBLIC_REGISTRIES = frozenset(
    {HUB, "cr.flyte.org", "ghcr.io", "nvcr.io", "public.ecr.aws", "quay.io", "registry.k8s.io"}
)
"""What a single mirror stands for. The registry of an image that the user names may be private, and
then needs no mirror."""
_TAIL = re.compile(r"(?::[^/:@]+)?(?:@[^@]+)?\Z")
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerImage(PublicDataclass):
    """An image that a server's class starts unless the user names another."""

    reference: str
    """The image with its tag."""
    hardware: str
    """What it is for, such as `"NVIDIA GPUs"`."""
    source: str
    """Where its publisher names the tag."""
    date: str
    """The month in which that was read, as `YYYY-MM`."""


def normal_reference(reference: str) -> str:
    """Return a reference with its registry: `python:3.12` is `docker.io/library/python:3.12`."""
    host, slash, _ = reference.partition("/")
    # the rule of distribution/reference: without a dot or a port, the first part is no host
    if slash and ("." in host or ":" in host or host == "localhost"):
        return reference
    return f"{HUB}/{reference}" if slash else f"{HUB}/library/{reference}"


def mirror(reference: str, rules: Mapping[str, str]) -> str:
    """Return the reference that `rules` put in place of `reference`.

    A rule for the whole reference comes first, then the longest that names its repository, a part
    of its path or its registry, then the one for every registry.

    Args:
        reference: An image with its tag or digest.
        rules: What to replace → by what. A whole reference becomes another; a registry or a
            repository is a prefix that becomes another, before the rest of the path and the tag.
    """
    whole = normal_reference(reference)
    prefixes = {normal_prefix(name): target for name, target in rules.items()}
    if whole in prefixes:
        return prefixes[whole]
    tail = _TAIL.search(whole)
    repository = whole[: tail.start()] if tail else whole
    parts = repository.split("/")
    for length in range(len(parts), 0, -1):
        target = prefixes.get("/".join(parts[:length]))
        if target is not None:
            return "/".join([target.rstrip("/"), *parts[length:]]) + whole[len(repository) :]
    target = rules.get(EVERY_REGISTRY)
    if target is None or parts[0] not in PUBLIC_REGISTRIES:
        return reference
    return "/".join([target.rstrip("/"), *parts[1:]]) + whole[len(repository) :]


def normal_prefix(name: str) -> str:
    """Return what a rule replaces in the form of `normal_reference`; a registry stays as it is."""
    host = name.partition(":")[0]
    is_registry = "/" not in name and ("." in host or host == "localhost")
    return name if is_registry or name == EVERY_REGISTRY else normal_reference(name)


def parse_mirrors(text: str) -> dict[str, str]:
    """Return the rules that the variable `INFERENCE_IMAGE_REGISTRY` holds.

    Raises:
        ConfigError: If it is neither a mirror nor a list of `registry=mirror`.
    """
    rules: dict[str, str] = {}
    for entry in filter(None, (word.strip() for word in text.split(","))):
        name, equals, target = entry.partition("=")
        rules[name if equals else EVERY_REGISTRY] = target if equals else name
    if problems := list(mirror_problems(REGISTRY_VARIABLE, rules)):
        raise ConfigError(
            f"{REGISTRY_VARIABLE}={text!r} names no mirror.",
            hint="Write mirror.example.com/prefix, or docker.io=mirror.example.com/hub,nvcr.io=….",
            problems=problems,
        )
    return rules


def mirror_problems(field: str, rules: Any) -> Iterator[str]:
    """Yield what is wrong with rules that a user gave as `field`."""
    if not isinstance(rules, Mapping):
        yield (
            f"{field} must be a dict such as {{'docker.io': 'mirror.example.com/hub'}}, not a "
            f"{type(rules).__name__}"
        )
        return
    for name, target in rules.items():
        if not isinstance(name, str) or not name:
            yield f"{field}: {name!r} must be a registry, a repository or an image, as a text"
        elif not isinstance(target, str):
            yield f"{field}[{name!r}] must be a text, not a {type(target).__name__}"
        elif not _TARGET.match(target.rstrip("/")) and not _is_pin(name, target):
            yield (
                f"{field}[{name!r}] is {target!r}, which is no registry or prefix such as "
                "'mirror.example.com/hub'"
            )


def _is_pin(name: str, target: str) -> bool:
    """Whether a whole reference, with its tag or digest, is to replace another."""
    tail = _TAIL.search(normal_prefix(name))
    return bool(tail and tail.group()) and not list(check_image("", target))


def with_mirrors(
    manifest: Manifest, rules: Mapping[str, str], *, keep: Collection[str]
) -> Manifest:
    """Return a manifest whose containers come from the mirrors.

    Args:
        manifest: A `v1/Pod`.
        rules: As for `mirror`.
        keep: Images to leave as they are: the task's own, which flytekit writes for the task too.
    """
    spec = dict(manifest["spec"])
    for kind in ("initContainers", "containers"):
        if kind in spec:
            spec[kind] = [_mirrored(container, rules, keep) for container in spec[kind]]
    return {**manifest, "spec": spec}


def _mirrored(container: Manifest, rules: Mapping[str, str], keep: Collection[str]) -> Manifest:
    image = container.get("image")
    if image is None or image in keep:
        return container
    return {**container, "image": mirror(image, rules)}
