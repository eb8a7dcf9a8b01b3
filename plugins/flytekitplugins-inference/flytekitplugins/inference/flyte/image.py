"""An `ImageSpec` whose image holds this package as it is installed here: no index has it.

flytekit's default builder installs `packages` first, then copies `copy` to `/root` and runs
`commands` (`flytekit/image_spec/default_builder.py`, 1.14.0 and 1.16.31). The package's
requirements are therefore `packages`, whose layer stays while only this package changes; the wheel
is copied, and a command installs it.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import flytekit
from flytekit import FlyteContextManager, ImageSpec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ..distribution import NAME
from ..errors import ConfigError, DestinationError, UnsupportedError
from .wheel import FILE_NAME, build_wheel, installed_distribution

__all__ = ["image_spec"]

LAST_OF_THE_OTHER = "1.16.31"
"""A version of flytekit's own plugin; a requirement that allows it may install that plugin."""
WHEEL_PATH = Path(".inference-image", FILE_NAME)
"""Below the working directory: an `ImageSpec` takes files from nowhere else. The same path, and
with it the same identity of the image, on the laptop and in the pod."""
_INSTALL = f"uv pip install --no-deps --no-index --no-cache /root/{WHEEL_PATH.as_posix()}"


def image_spec(*extras: str, **fields: Any) -> ImageSpec:
    """Return flytekit's `ImageSpec` of an image with this package, as it is installed here.

    Writes the wheel to `.inference-image` in the working directory; in a task's pod, which runs the
    image, nothing.

    Args:
        extras: The extras of this package that the image gets, such as `openai` and `batch`.
        fields: Of `ImageSpec`: `name`, `registry`, `packages`, … Yours are kept; `commands` run
            after this package is installed.

    Raises:
        ConfigError: An extra does not exist, `packages` names this package, or no installation of
            it is recorded.
        DestinationError: The wheel cannot be written.
        UnsupportedError: flytekit is older than 1.14, whose `ImageSpec` takes no files.
    """
    if "copy" not in {field.name for field in dataclasses.fields(ImageSpec)}:
        raise UnsupportedError(
            f"image_spec() needs flytekit 1.14 or newer; this is {flytekit.__version__}.",
            hint="Upgrade flytekit, or build the image with a Dockerfile.",
        )
    distribution = installed_distribution()
    packages = list(fields.pop("packages", None) or ())
    _check_extras(extras, distribution.metadata.get_all("Provides-Extra") or [])
    _check_packages(packages)
    state = FlyteContextManager.current_context().execution_state
    # the condition of flytekit's ImageBuildEngine, which builds nothing in a pod
    if state.mode is None:
        _write(WHEEL_PATH, build_wheel(distribution))
    return ImageSpec(
        packages=[*_requirements(distribution.requires or [], extras), *packages],
        copy=[WHEEL_PATH.as_posix(), *(fields.pop("copy", None) or ())],
        commands=[_INSTALL, *(fields.pop("commands", None) or ())],
        **fields,
    )


def _check_extras(extras: tuple[str, ...], known: list[str]) -> None:
    unknown = [extra for extra in extras if extra not in known]
    if unknown:
        raise ConfigError(
            f"image_spec({', '.join(map(repr, unknown))}): the extras are "
            f"{', '.join(sorted(known))}."
        )


def _check_packages(packages: list[str]) -> None:
    """Refuse requirements that would install this package from the index."""
    for package in _ours(packages):
        raise ConfigError(
            f"packages={str(package)!r} names the package that image_spec() brings itself.",
            hint="Leave it out, and give its extras to image_spec().",
        )


def other_product(image: Any) -> str:
    """Return the requirement by which an `ImageSpec` installs flytekit's own plugin of this name.

    Args:
        image: A task's or a helper's image.

    Returns:
        Empty for any other image, and where the requirement excludes the versions below 2.
    """
    for package in _ours(getattr(image, "packages", None) or ()):
        if not package.url and package.specifier.contains(LAST_OF_THE_OTHER):
            return str(package)
    return ""


def _ours(packages: Iterable[str]) -> Iterator[Requirement]:
    """Yield the requirements that name this package."""
    for package in packages:
        try:
            requirement = Requirement(package)
        except InvalidRequirement:  # a file or an option of pip, which the builder passes on
            continue
        if canonicalize_name(requirement.name) == NAME:
            yield requirement


def _requirements(requires: list[str], extras: tuple[str, ...]) -> list[str]:
    """Return what this package and some extras require, save flytekit: the builder adds its own."""
    requirements = []
    for text in requires:
        requirement = Requirement(text)
        marker = requirement.marker
        requirement.marker = None
        applies = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
        if applies and requirement.name != "flytekit":
            requirements.append(str(requirement))
    return requirements


def _write(path: Path, content: bytes) -> None:
    """Write a file if it differs, in one step, with a note for git beside it."""
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(exist_ok=True)
        (path.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise DestinationError(
            f"The wheel for the image cannot be written to {path.absolute()}: "
            f"{error.strerror or error}.",
            hint="Work in a directory that can be written: flytekit takes an image's files from "
            "there only.",
        ) from error
