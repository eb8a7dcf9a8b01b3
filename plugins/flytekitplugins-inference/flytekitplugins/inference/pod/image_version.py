"""Which release of a server an image holds, as far as its name says, and for which hardware it is.

A table of options is that of one release. An image of another release may have options that the
table lacks, and lack some that it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .images import ServerImage

__all__ = ["Version", "image_version", "is_release_of", "vendor_problem", "version_text"]

Version = tuple[int, ...]
# `v0.33.0`, `cuda-1.9`, `server-cuda13-b11382`, `26.07-py3`; a part without a dot is a build of
# llama.cpp, since `cu129` and `89` are hardware
_VERSION = re.compile(r"(?:\A|-)(?:v?([0-9]{1,4}(?:\.[0-9]+)+)|b([0-9]{4,6}))(?![0-9])")
_VENDOR_WORDS = {
    "nvidia.com": "NVIDIA",
    "amd.com": "AMD",
    "gpu.intel.com": "Intel GPUs",
    "habana.ai": "Gaudi",
}
"""The vendor of a resource → the word of `ServerImage.hardware`."""


def image_version(image: Any, published: Iterable[ServerImage]) -> Version | None:
    """Return the release that an image holds.

    Args:
        image: What the user gave.
        published: The server's own images. A mirror keeps their repository's last part.

    Returns:
        The parts of the version; `None` if the image is not the server's own, or its tag names no
        release (`latest`, a digest).
    """
    if not isinstance(image, str):
        return None
    repository, tag = _split(image)
    if repository not in {_split(one.reference)[0] for one in published}:
        return None
    match = _VERSION.search(tag)
    return (
        tuple(int(part) for part in match.group(match.lastindex or 0).split(".")) if match else None
    )


def is_release_of(version: Version, table: Version, parts: int) -> bool:
    """Whether a version belongs to the release that a table describes.

    Args:
        version: Of an image; a tag such as `1.9` has fewer parts.
        table: Of the table.
        parts: How many parts name a release; the rest are corrections of it.
    """
    length = min(parts, len(version))
    return version[:length] == table[:length]


def version_text(version: Version) -> str:
    """Return a version as its publisher writes it, without a prefix."""
    return ".".join(map(str, version))


def vendor_problem(image: Any, gpu_resource: str, published: Iterable[ServerImage]) -> str:
    """Return why one of the server's own images cannot use the GPUs asked for; empty if it can."""
    word = _VENDOR_WORDS.get(gpu_resource.partition("/")[0])
    if not isinstance(image, str) or word is None:
        return ""
    kinds = {one.hardware for one in published if _family(one.reference) == _family(image)}
    if not kinds or any(word in kind for kind in kinds):
        return ""
    return f"image={image!r} is for {' and '.join(sorted(kinds))}, not for {gpu_resource}"


def _split(image: str) -> tuple[str, str]:
    """Return the last part of an image's repository, and its tag."""
    name = image.partition("@")[0].rpartition("/")[2]
    repository, _, tag = name.partition(":")
    return repository, tag


def _family(image: str) -> tuple[str, str]:
    """Return what an image's releases have in common: its repository, and its tag without one."""
    repository, tag = _split(image)
    return repository, _VERSION.sub("", tag)
