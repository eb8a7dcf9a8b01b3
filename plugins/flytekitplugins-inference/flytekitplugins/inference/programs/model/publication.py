"""The files through which a pod's server sees a model.

They are a link to one complete version, a description of it, and a file that marks both complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InferenceError
from ..disk import make_root, write_json, writing
from ..protocol import ERROR_NAME, METADATA_NAME, MODEL_PATH, READY_NAME, STARTS_NAME, VERSION
from .cache import read_json

if TYPE_CHECKING:
    from .cache import Version
    from .fetcher import FetchResult

CURRENT = Path(MODEL_PATH).name


def loader_version() -> str:
    """Return the version of this package, or `bundled` for the programs in a pod spec."""
    try:
        return metadata.version("flytekitplugins-inference")
    except metadata.PackageNotFoundError:
        return "bundled"


def swap_link(link: Path, target: Path) -> None:
    """Point `link` to `target` atomically.

    The link is relative if both are below one directory, which may then be mounted elsewhere.
    """
    temporary = link.with_name(f".{link.name}.{uuid.uuid4().hex}")
    with writing(link):
        make_root(link.parent)
        inside = target.is_relative_to(link.parent)
        temporary.symlink_to(os.path.relpath(target, link.parent) if inside else target)
        temporary.replace(link)


def remove_link(link: Path) -> None:
    """Remove `link` if it is one."""
    with contextlib.suppress(FileNotFoundError, OSError):
        link.unlink()


def describe(source: str, ref: str, result: FetchResult) -> dict[str, Any]:
    """Return the metadata of one published version."""
    version = result.version
    entries = version.entries()
    return {
        "model_id": source.partition("://")[2] if source.startswith("hf://") else source,
        "source": source,
        "ref": ref,
        "revision": version.revision,
        "path": str(version.files),
        "bytes": sum(entry.size for entry in entries),
        "files": [
            {"path": entry.path, "size": entry.size, "digest": entry.digest} for entry in entries
        ],
        "loaded_at": timestamp(),
        "is_from_cache": result.is_from_cache,
        "seconds": result.seconds,
    }


def timestamp() -> str:
    """Return the time in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Publication:
    """The directory in which a pod's loader publishes.

    Args:
        directory: A directory that is private to the pod.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.current = directory / CURRENT
        self._ready = directory / READY_NAME
        self._starts = directory / STARTS_NAME

    @property
    def is_ready(self) -> bool:
        """Whether a version that an earlier run published still exists."""
        return self._ready.exists() and self.metadata() is not None

    def metadata(self) -> dict[str, Any] | None:
        """Return the last description, or None if it cannot be read."""
        fields = read_json(self.directory / METADATA_NAME)
        is_complete = isinstance(fields, dict) and isinstance(fields.get("updates"), dict)
        return fields if is_complete else None

    def begin(self) -> None:
        """Count this start, and withdraw the readiness of a version that no longer exists."""
        with writing(self.directory):
            make_root(self.directory)
            starts = read_json(self._starts)
            write_json(self._starts, starts + 1 if isinstance(starts, int) else 1)
            # the cache is a volume of its own, from which another pod may have removed the version
            if not self.is_ready or (self.current.is_symlink() and not self.current.exists()):
                self._ready.unlink(missing_ok=True)

    def write(self, fields: dict[str, Any]) -> None:
        """Write the description."""
        head = {"version": VERSION, "program": "load_model", "loader_version": loader_version()}
        write_json(self.directory / METADATA_NAME, {**head, **fields})

    def fail(self, line: str) -> None:
        """Write a failure, as a line of JSON, for the containers that wait for the model.

        It stays until a version is published.
        """
        # a volume that cannot be written must not hide the error itself, which the program reports
        with contextlib.suppress(InferenceError, OSError):
            make_root(self.directory)
            write_json(self.directory / ERROR_NAME, json.loads(line))
        self.advance()

    def advance(self) -> None:
        """Reset the count of starts, because this one made progress or reported an error.

        A process that is killed does neither.
        """
        with contextlib.suppress(OSError):
            self._starts.unlink()

    def ready(self) -> None:
        """Mark the publication complete; called after everything else is written."""
        with writing(self._ready):
            (self.directory / ERROR_NAME).unlink(missing_ok=True)
            self._starts.unlink(missing_ok=True)
            self._ready.touch()
            self._ready.chmod(0o644)


def target_of(link: Path) -> Path | None:
    """Return the target of `link`, or None if it is not a link."""
    try:
        return (link.parent / link.readlink()).absolute()
    except OSError:
        return None


def is_published(version: Version, link: Path) -> bool:
    """Whether `link` leads to `version`."""
    target = target_of(link)
    files = os.path.normpath(version.files.absolute())
    return target is not None and os.path.normpath(target) == files
