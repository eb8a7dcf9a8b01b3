"""A wheel of this package as it is installed here: from a wheel, from a folder, or editable.

The same installation produces the same bytes on every machine, so an image that is named by its
content is built once. The format is PEP 427's (packaging.python.org, "Binary distribution format").
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

from ..distribution import NAME, __version__
from ..errors import ConfigError

__all__ = ["FILE_NAME", "build_wheel", "installed_distribution"]

_STEM = f"{NAME.replace('-', '_')}-{__version__}"
_DIST_INFO = f"{_STEM}.dist-info"
_PACKAGE = Path(__file__).parents[1]
_TAGS = """\
Wheel-Version: 1.0
Generator: flytekitplugins.inference
Root-Is-Purelib: true
Tag: py3-none-any
"""
FILE_NAME = f"{_STEM}-py3-none-any.whl"
"""The name that a file with the wheel must have."""


def installed_distribution() -> metadata.Distribution:
    """Return the record of this package's installation.

    Raises:
        ConfigError: No record exists, or only one of another version: Python imports this package
            from a folder on the path.
    """
    versions = []
    for distribution in metadata.distributions(name=NAME):
        if distribution.version == __version__:
            return distribution
        versions.append(distribution.version)
    others = f" (only {', '.join(versions)})" if versions else ""
    raise ConfigError(
        f"{NAME} {__version__} is imported from {_PACKAGE.parents[1]}, and no installation of it "
        f"is recorded{others}.",
        hint=f"Install it: pip install -e {_PACKAGE.parents[1]}",
    )


def build_wheel(distribution: metadata.Distribution) -> bytes:
    """Return the wheel: the package's files, and the metadata of its installation.

    Args:
        distribution: The result of `installed_distribution()`.
    """
    files = {
        f"flytekitplugins/inference/{path.relative_to(_PACKAGE).as_posix()}": path
        for path in _sources()
    }
    contents = {name: path.read_bytes() for name, path in files.items()}
    for name in ("METADATA", "entry_points.txt", *_licenses(distribution)):
        contents[f"{_DIST_INFO}/{name}"] = (distribution.read_text(name) or "").encode()
    contents[f"{_DIST_INFO}/WHEEL"] = _TAGS.encode()
    record = [
        f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in contents.items()
    ]
    contents[f"{_DIST_INFO}/RECORD"] = "".join([*record, f"{_DIST_INFO}/RECORD,,\n"]).encode()
    return _archive(contents)


def _sources() -> list[Path]:
    files = (
        path for path in _PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    # `rglob` yields the order of the disk, which differs between machines
    return sorted(files, key=lambda path: path.relative_to(_PACKAGE).as_posix())


def _licenses(distribution: metadata.Distribution) -> list[str]:
    """Return the names of licence files below the folder of the metadata."""
    paths = (PurePosixPath(path) for path in distribution.files or ())
    return sorted(
        str(PurePosixPath(*path.parts[1:])) for path in paths if path.parts[1:2] == ("licenses",)
    )


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def _archive(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    # without compression: zlib's output differs between builds
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name)  # dated 1980-01-01, whatever the file's time is
            entry.create_system = 3  # Unix, on every platform
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
