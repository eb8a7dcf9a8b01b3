"""The images of all installed servers, and what mirrors make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from ..flyte.pod_template import default_helper
from ..installed import installed_servers
from ..pod.helpers import PYTHON_IMAGE
from ..pod.images import ServerImage, mirror

__all__ = ["CatalogueEntry", "catalogue"]


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One image."""

    server: str
    """The kind of server, or what the image is for if it is none's."""
    image: str
    """The reference as its publisher names it."""
    tag: str
    hardware: str
    source: str
    """Where its publisher names the tag."""
    date: str
    """The month in which the source was read."""
    mirror: str
    """What is pulled with the rules of this machine; the image itself without one."""

    def to_dict(self) -> dict[str, str]:
        """Return the entry for JSON."""
        return asdict(self)


def catalogue(rules: Mapping[str, str]) -> list[CatalogueEntry]:
    """Return every image that a template starts unless its user names another.

    Args:
        rules: The mirrors, as for `pod.images.mirror`.
    """
    return [
        CatalogueEntry(
            server=server,
            image=image.reference,
            tag=image.reference.rpartition(":")[2],
            hardware=image.hardware,
            source=image.source,
            date=image.date,
            mirror=mirror(image.reference, rules),
        )
        for server, image in _images()
    ]


def _images() -> Iterator[tuple[str, ServerImage]]:
    for kind in installed_servers().values():
        for image in kind.published_images:
            yield kind.__name__, image
    yield (
        "helpers",
        ServerImage(
            reference=default_helper().image,
            hardware="CPUs",
            source="flytekit's default image, with pod_template= and no helper_image=",
            date="",
        ),
    )
    yield (
        "adapters",
        ServerImage(
            reference=PYTHON_IMAGE,
            hardware="CPUs",
            source="the official Python image, for lora_adapters= without helper_image=",
            date="2026-11",
        ),
    )
