"""Directories and small files, written so that visible files are complete."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import uuid
from typing import TYPE_CHECKING, Any

from ..errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def make_root(directory: Path) -> None:
    """Make `directory` and its missing parents, readable by everybody."""
    # `chmod`, because the umask may take the permissions of other users, whom the server may be
    for path in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


def make_directories(root: Path, directory: Path) -> None:
    """Make `directory` below `root`, readable by everybody; replace links and files in its way."""
    for path in [*reversed(directory.relative_to(root).parents), directory.relative_to(root)][1:]:
        place = root / path
        # a link could lead out of `root`; an earlier run with other inputs may have left either
        if place.is_symlink() or place.is_file():
            place.unlink()
        if not place.exists():
            with contextlib.suppress(FileExistsError):  # another thread's
                place.mkdir()
                place.chmod(0o755)


def is_file(path: Path, size: int | None, modified_ns: int) -> bool:
    """Whether `path` is a regular file with this size and modification time."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size == size
        and status.st_mtime_ns == modified_ns
    )


def check_space(directory: Path, needed: int) -> None:
    """Check that the volume of `directory`, which may not exist yet, has `needed` free bytes.

    Raises:
        DestinationError: The volume has less space.
    """
    # the nearest parent that exists is on the same volume: directories made below it cross no mount
    place = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DestinationError(
            f"{needed} bytes are needed in {directory}, but {free} bytes are free.",
            hint="Give the volume a larger size limit, or the pod more ephemeral storage.",
        )


def owner_hint() -> str:
    """Return a hint for a directory that this process may not write."""
    return (
        "The volume belongs to another user: set fsGroup (the template does it for claims; "
        f"hostPath volumes need their owner set to uid {os.getuid()})."
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a DestinationError that names `path`."""
    try:
        yield
    except OSError as error:
        hint = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Give the volume a larger size limit."
        elif error.errno in (errno.EACCES, errno.EPERM):
            hint = owner_hint()
        raise DestinationError(
            f"{path} cannot be written: {error.strerror or error}.", hint=hint
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically, as a file that everybody may read.

    Raises:
        DestinationError: The file cannot be written.
    """
    # a name of its own: two containers may write the same file at the same time
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with writing(path):
        make_root(path.parent)
        try:
            temporary.write_text(json.dumps(value, allow_nan=False) + "\n", encoding="utf-8")
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
